"""Compiled templates of any language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..support.arguments import nearest
from ..support.display import shortened

Render = Callable[[Mapping[str, Any]], str]
# By the name of a variable that a template uses, the fields used of it, or None for all of it
Variables = Mapping[str, "frozenset[str] | None"]
# Returns the path and text of an included template, by its name
Load = Callable[[str], tuple[str, str]]


class MissingCell:
    """The value of a variable whose cell in a frame holds nothing; templates see an undefined one.

    :ivar problem: the column and the row, in words.
    """

    __slots__ = ()
    problem: str


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
    """

    name: str
    text: str
    variables: Variables
    render: Render


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


def missing_variable(name: str, variables: Mapping[str, object]) -> str:
    """Return a message about a missing variable: the cell that it is, or the names of the others and the
    nearest one.
    """
    if isinstance(cell := variables.get(name), MissingCell):
        return cell.problem
    sorted_names = sorted(variables)
    # a table may have hundreds of columns
    name_list = shortened(", ".join(sorted_names) or "none", 300)
    return f"the variable {name!r} is missing; given: {name_list}{nearest(name, sorted_names)}"
