"""``vary``: a table's rows crossed with model parameters, texts of the templates or their variables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from ..keys.plain_data import is_numpy_bool
from ..many.names import IncompleteRow
from ..models.catalog import parameters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from .rows import RowJob

TEMPLATES = ("system", "user", "history")
PARAMETER, TEMPLATE, VARIABLE = "parameter", "template", "variable"


def cross_rows(
    job: RowJob, rows: Sequence[Mapping[str, object]], vary: object
) -> tuple[list[dict[str, Any]], RowJob, list[dict[str, Any]]]:
    """Return the cells, each as labels by axis; the job that asks about all cells; and the rows of one
    cell after the other, with the labels. The last axis changes first.

    :param job: the job that asks about a row; its call's method ``varied`` returns the same call with
        other texts and model parameters.
    :param vary: the levels by axis: a list of values, or a dict of values by label.
    :raises TypeError: if ``vary`` is not a dict, or an axis has neither a list nor a dict of levels.
    :raises ValueError: for an unknown axis, an axis that has two meanings or is a column, and for levels
        that cannot be distinguished.
    """
    if not isinstance(vary, Mapping) or not vary:
        raise TypeError(
            f"vary is {vary!r}; it must be a dict of levels by axis, with at least one axis"
        )
    axes = {name: _levels(name, axis) for name, axis in vary.items()}
    cells = [dict(zip(axes, labels, strict=True)) for labels in itertools.product(*axes.values())]

    def values(cell: Mapping[str, object], names: Collection[str]) -> dict[str, Any]:
        return {name: axes[name][label] for name, label in cell.items() if name in names}

    variables: set[str] = set()
    for cell in cells:
        variables.update(job.call.varied(values(cell, TEMPLATES), {}).templates().variables)
    columns = {name for row in rows for name in row}
    kinds = {name: _kind(name, variables.difference(job.bound), columns) for name in axes}
    parameters, texts = (
        [name for name in axes if kinds[name] == kind] for kind in (PARAMETER, TEMPLATE)
    )
    levels = {name: axes[name] if kinds[name] == VARIABLE else None for name in axes}
    varied = replace(
        job,
        row_variables=partial(_variables, job.row_variables, levels),
        axes=tuple(axes),
        calls={
            tuple(cell.values()): job.call.varied(values(cell, texts), values(cell, parameters))
            for cell in cells
        },
    )
    return cells, varied, [_labelled(row, cell) for cell in cells for row in rows]


def _labelled(row: Mapping[str, object], cell: dict[str, Any]) -> dict[str, Any]:
    return row.with_columns(cell) if isinstance(row, IncompleteRow) else {**cell, **row}


def _variables(
    variables: Callable[[Any], dict[str, object]],
    levels: Mapping[str, Mapping[Any, object] | None],
    row: Mapping[str, object],
) -> dict[str, object]:
    """Return the variables of a row with labels.

    :param variables: returns the variables of a row without labels.
    :param levels: by axis, the variable's values by label, or ``None`` if it is not a variable.
    """
    columns = {name: value for name, value in row.items() if name not in levels}
    varied = {name: values[row[name]] for name, values in levels.items() if values is not None}
    return variables({**columns, **varied})


def _kind(name: str, variables: Collection[str], columns: Collection[object]) -> str:
    """Return the kind of an axis, which is neither a column nor, by its name, of two kinds."""
    parameters = parameters_of("chat") - set(TEMPLATES)
    names = {PARAMETER: parameters, TEMPLATE: TEMPLATES, VARIABLE: variables}
    kinds = [kind for kind, kind_names in names.items() if name in kind_names]
    if not kinds:
        raise ValueError(
            f"vary has the unknown axis {name!r}; it must be a model parameter ({', '.join(sorted(parameters))}), a "
            f"template ({', '.join(TEMPLATES)}) or a variable of the templates "
            f"({', '.join(sorted(variables)) or 'they have none'})"
        )
    if len(kinds) > 1:
        raise ValueError(
            f"the axis {name!r} of vary is both a {kinds[0]} and a variable of the templates: rename the variable"
        )
    if name in columns:
        raise ValueError(
            f"the axis {name!r} of vary is also a column of the rows: leave out one of them"
        )
    return kinds[0]


def _levels(name: object, axis: object) -> dict[Any, object]:
    """Return the levels of an axis by label; values in a list are their own labels."""
    if not isinstance(axis, (Mapping, list, tuple)):
        raise TypeError(
            f"vary[{name!r}] is {type(axis).__name__}; it must be a list of values, or a dict of values by label"
        )
    labels = list(axis)
    if not all(
        label is None or isinstance(label, (str, Real)) or is_numpy_bool(label) for label in labels
    ):
        raise ValueError(
            f"vary[{name!r}] has a level that cannot be the value of a column: give a dict with a label for each level"
        )
    levels = dict(axis) if isinstance(axis, Mapping) else dict(zip(labels, labels, strict=True))
    if not levels or len(levels) < len(labels):
        raise ValueError(
            f"vary[{name!r}] is {labels}; it must have levels, each with its own label"
        )
    return levels
