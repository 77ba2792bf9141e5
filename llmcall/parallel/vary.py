"""``vary``: a table's rows crossed with model parameters, texts of the templates or their variables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..models.catalog import parameters_of
from .rows import CellRow
from .tables import ANSWER_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

TEMPLATES = ("system", "user")
PARAMETER, TEMPLATE, VARIABLE = "parameter", "template", "variable"


class CrossedJob(NamedTuple):
    """Ask about each row of each cell.

    :param jobs: for each cell, the job that asks about its rows.
    """

    jobs: tuple[Any, ...]

    def __map_job__(self) -> CrossedJob:
        return self

    @property
    def wants_names(self) -> bool:
        """Return whether its items have names outside any scope, too."""
        return self.jobs[0].wants_names  # type: ignore[no-any-return]

    @property
    def client(self) -> Any:
        """Return the client that it asks."""
        return self.jobs[0].client

    def run(self, item: CellRow) -> Any:
        """Ask about a row."""
        return self.jobs[item.cell].run(item)

    def identity(self, item: CellRow) -> Any:
        """Return what identifies a row in its cell."""
        return self.jobs[item.cell].identity(item)

    def conversation(self, item: CellRow) -> Generator[Any, Any, Any]:
        """Ask until an answer fits."""
        return self.jobs[item.cell].conversation(item)  # type: ignore[no-any-return]


class Crossing(NamedTuple):
    """Rows crossed with the levels of axes.

    :param cells: for each combination of levels, the labels by axis; the last axis changes first.
    :param calls: for each cell, the call that asks about its rows.
    :param items: the rows of all cells, one cell after the other.
    """

    cells: list[dict[str, Any]]
    calls: list[Any]
    items: list[CellRow]

    def frame(self, rows: Any) -> Any:
        """Return a DataFrame with the rows of all cells, and a column of labels for each axis.

        :param rows: a DataFrame of the rows of one cell.
        """
        import pandas

        return pandas.concat([rows.assign(**cell) for cell in self.cells], ignore_index=True)


def crossing(
    call: Any, rows: Sequence[Mapping[str, Any]], vary: Any, bound: Collection[str] = ()
) -> Crossing:
    """Return rows crossed with the levels of axes.

    :param call: asks about a row; its method ``varied`` returns the same call with other texts and
        model parameters.
    :param vary: the levels by axis: a list of values, or a dict of values by label.
    :param bound: variables that are the same for all rows.
    :raises TypeError: if ``vary`` is not a dict, or an axis has neither a list nor a dict of levels.
    :raises ValueError: for an unknown axis, an axis that has two meanings or is a column, and for levels
        that cannot be told apart.
    """
    if not isinstance(vary, Mapping) or not vary:
        raise TypeError(
            f"vary is {vary!r}; it must be a dict of levels by axis, with at least one axis"
        )
    axes = {name: _levels(name, axis) for name, axis in vary.items()}
    cells = [dict(zip(axes, labels, strict=True)) for labels in itertools.product(*axes.values())]

    def values(cell: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
        return {name: axes[name][label] for name, label in cell.items() if name in names}

    variables: set[str] = set()
    for cell in cells:
        variables.update(call.varied(values(cell, TEMPLATES), {}).templates().variables)
    columns = {name for row in rows for name in row}
    kinds = {name: _kind(name, variables.difference(bound), columns) for name in axes}
    parameters, texts, varied = (
        [name for name in axes if kinds[name] == kind] for kind in (PARAMETER, TEMPLATE, VARIABLE)
    )
    calls = [call.varied(values(cell, texts), values(cell, parameters)) for cell in cells]
    items = [
        CellRow({**row, **values(cell, varied)}, number, cell)
        for number, cell in enumerate(cells)
        for row in rows
    ]
    return Crossing(cells, calls, items)


def _kind(name: str, variables: Collection[str], columns: Collection[Any]) -> str:
    """Return the kind of an axis.

    :param variables: the names of the templates' variables.
    :param columns: the names of the rows' columns.
    :raises ValueError: if the axis is of no kind or of two, or is a column.
    """
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
            f"the axis {name!r} of vary is both a {kinds[0]} and a variable of the templates: give the variable "
            "another name"
        )
    if name in columns:
        raise ValueError(
            f"the axis {name!r} of vary is also a column of the rows: leave out one of them"
        )
    if name in ANSWER_COLUMNS:
        raise ValueError(
            f"the axis {name!r} of vary has the name of a column that the table needs for the answers: rename it"
        )
    return kinds[0]


def _levels(name: Any, axis: Any) -> dict[Any, Any]:
    """Return the levels of an axis by label.

    :param axis: a list of values, or a dict of values by label.
    """
    if not isinstance(axis, (Mapping, list, tuple)):
        raise TypeError(
            f"vary[{name!r}] is {type(axis).__name__}; it must be a list of values, or a dict of values by label"
        )
    labels = list(axis)
    if not labels:
        raise ValueError(f"vary[{name!r}] is empty; give at least one level")
    if not all(label is None or isinstance(label, (str, int, float)) for label in labels):
        raise ValueError(
            f"vary[{name!r}] has a level that cannot be the value of a column: give a dict with a label for each level"
        )
    levels = dict(axis) if isinstance(axis, Mapping) else dict(zip(labels, labels, strict=True))
    if len(levels) < len(labels):
        raise ValueError(
            f"vary[{name!r}] has two levels with the same label: give each level its own label"
        )
    return levels
