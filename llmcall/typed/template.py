"""A compiled template, whatever its language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..config.values import nearest
from ..support.display.formatting import shortened

Render = Callable[[Mapping[str, Any]], str]
# The names that a template takes. Each has the fields that are used of it; None if all of it is.
Variables = Mapping[str, "frozenset[str] | None"]
# From the name of an included template to its path and text.
Load = Callable[[str], tuple[str, str]]


class Template(NamedTuple):
    """A compiled prompt.

    :param name: the file's path below its folder, or the name given to a text.
    :param text: the template itself.
    :param variables: the names that the template and its includes take, except for includes with a
        computed name. Each has the fields that are used of it, or ``None`` if all of it is used.
    :param render: returns the prompt for the values of variables; it accepts more variables than
        the template takes. It raises a ``TemplateError`` for a missing variable and for any error in
        the template, naming template and line (counted from the first that is not blank). The cause
        is the template engine's own error.
    :param fixed: the longest text that every rendering has.
    """

    name: str
    text: str
    variables: Variables
    render: Render
    fixed: str = ""


def all_variables(templates: Iterable[Variables]) -> Variables:
    """Return the variables of several templates together."""
    union: dict[str, frozenset[str] | None] = {}
    for variables in templates:
        for name, fields in variables.items():
            earlier_fields = union.get(name, frozenset())
            if earlier_fields is None or fields is None:
                union[name] = None
            else:
                union[name] = earlier_fields | fields
    return union


def missing_variable(name: str, names: Iterable[str]) -> str:
    """Return a message about a missing variable, with the given ones and the nearest of them."""
    sorted_names = sorted(names)
    # a table may have hundreds of columns
    name_list = shortened(", ".join(sorted_names) or "none", 300)
    return f"the variable {name!r} is missing; given: {name_list}{nearest(name, sorted_names)}"
