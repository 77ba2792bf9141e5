"""Compiled templates of any language."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ..support.arguments import nearest
from ..support.display.formatting import shortened

Render = Callable[[Mapping[str, Any]], str]
# Takes the values of variables, and the names of those that hold nothing; see Template.printed
Printed = Callable[[Mapping[str, Any], "Collection[str]"], "Mapping[str, str]"]
# By the name of a variable that a template uses, the fields used of it, or None for all of it
Variables = Mapping[str, "frozenset[str] | None"]
# Returns the path and text of an included template, by its name
Load = Callable[[str], tuple[str, str]]


class Template(NamedTuple):
    """A compiled prompt.

    :param name: the file's path below its folder, or the name given to a text.
    :param text: the template itself.
    :param variables: the variables that the template and its includes use, except for includes with a
        computed name.
    :param render: returns the prompt for the values of variables; it accepts more variables than the
        template uses. It raises a ``TemplateError`` with the template and the line (counted from the
        first that is not blank) for a missing variable and for any error in the template. The cause
        is the template engine's own error.
    :param printed: takes values, and the names of those that hold nothing (None, NaN), and returns the
        texts, such as "nan", as which the prompt shows some of them, by name. Only Jinja2 knows.
    """

    name: str
    text: str
    variables: Variables
    render: Render
    printed: Printed = lambda values, names: {}


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
    """Return a message about a missing variable, with the names of the others and the nearest one."""
    sorted_names = sorted(names)
    # a table may have hundreds of columns
    name_list = shortened(", ".join(sorted_names) or "none", 300)
    return f"the variable {name!r} is missing; given: {name_list}{nearest(name, sorted_names)}"
