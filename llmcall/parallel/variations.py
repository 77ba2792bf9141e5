"""Rows that vary: a table's rows crossed with model parameters, texts of the templates or their
variables.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..models.catalog import parameters_of
from .rows import CellRow
from .tables import ANSWER_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence

TEMPLATES = ("system", "user")
PARAMETER, TEMPLATE, VARIABLE = "parameter", "template", "variable"


class Level(NamedTuple):
    """A value that an axis takes.

    :param label: what the column shows.
    :param value: the model parameter's value, the template's text, or the variable's value.
    """

    label: Any
    value: Any


class Axis(NamedTuple):
    """What varies.

    :param name: the name of a model parameter, a template or a variable.
    :param kind: which of these it is.
    :param levels: the values that it takes.
    """

    name: str
    kind: str
    levels: tuple[Level, ...]


class Cell(NamedTuple):
    """A combination of levels, one of each axis."""

    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]

    def labels(self) -> dict[str, Any]:
        """Return the labels by axis."""
        return {axis.name: level.label for axis, level in zip(self.axes, self.levels, strict=True)}

    def values(self, kind: str) -> dict[str, Any]:
        """Return the values of the axes of a kind, by axis."""
        return {
            axis.name: level.value
            for axis, level in zip(self.axes, self.levels, strict=True)
            if axis.kind == kind
        }


class VariedCall(Protocol):
    """A call that asks about rows, and whose texts and model parameters can vary."""

    def varied(self, texts: Mapping[str, str | None], params: Mapping[str, Any]) -> Any:
        """Return the same call with other texts or model parameters."""


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

    :param cells: the combinations of levels.
    :param calls: for each cell, the call that asks about its rows.
    :param items: the rows of all cells, one cell after the other.
    :param row_count: how many rows a cell has.
    """

    cells: list[Cell]
    calls: list[Any]
    items: list[CellRow]
    row_count: int

    def items_of(self, cell: int) -> list[CellRow]:
        """Return the rows of a cell.

        :param cell: its number.
        """
        return self.items[cell * self.row_count : (cell + 1) * self.row_count]

    def frame(self, rows: Any) -> Any:
        """Return a DataFrame with the rows of all cells, and a column of labels for each axis.

        :param rows: a DataFrame of the rows of one cell.
        """
        import pandas

        frames = [rows.assign(**cell.labels()) for cell in self.cells]
        return pandas.concat(frames, ignore_index=True)


def crossing(
    call: VariedCall, rows: Sequence[Mapping[str, Any]], vary: Any, bound: Collection[str] = ()
) -> Crossing:
    """Return rows crossed with the levels of axes.

    :param call: asks about a row.
    :param vary: the levels by axis; see :func:`axes_of`.
    :param bound: variables that are the same for all rows.
    :raises TypeError, ValueError: if ``vary`` is wrong; see :func:`axes_of`.
    """
    columns = {name for row in rows for name in row}

    def variables(texts: Mapping[str, Any]) -> set[str]:
        names: set[str] = set(call.varied(texts, {}).templates().variables)
        return names.difference(bound)

    cells = cells_of(axes_of(vary, variables, columns))
    calls = [call.varied(cell.values(TEMPLATE), cell.values(PARAMETER)) for cell in cells]
    items = [
        CellRow({**row, **cell.values(VARIABLE)}, number, cell.labels())
        for number, cell in enumerate(cells)
        for row in rows
    ]
    return Crossing(cells, calls, items, len(rows))


def axes_of(
    vary: Any, variables: Callable[[Mapping[str, Any]], Collection[str]], columns: Collection[Any]
) -> tuple[Axis, ...]:
    """Return the axes of a table, checked.

    :param vary: the levels by axis: a list of values, or a dict of values by label.
    :param variables: returns the variables that the templates use once these texts replace some of
        them.
    :param columns: the names of the rows' columns.
    :raises TypeError: if it is not a dict, or an axis has neither a list nor a dict of levels.
    :raises ValueError: for an unknown axis, an axis that has two meanings or is a column, and for levels
        that cannot be told apart.
    """
    if not isinstance(vary, Mapping) or not vary:
        raise TypeError(
            f"vary is {vary!r}; it must be a dict of levels by axis, with at least one axis"
        )
    levels = {name: _levels(name, axis) for name, axis in vary.items()}
    texts = [
        [(name, level.value) for level in levels[name]] for name in TEMPLATES if name in levels
    ]
    variable_names: set[str] = set()
    for combination in itertools.product(*texts):
        variable_names.update(variables(dict(combination)))
    names = {
        PARAMETER: parameters_of("chat") - set(TEMPLATES),
        TEMPLATE: TEMPLATES,
        VARIABLE: variable_names,
    }
    return tuple(
        Axis(name, _kind(name, names, columns), axis_levels) for name, axis_levels in levels.items()
    )


def _kind(name: str, names: Mapping[str, Collection[str]], columns: Collection[Any]) -> str:
    """Return the kind of an axis.

    :param names: the possible names by kind.
    :param columns: the names of the rows' columns.
    :raises ValueError: if the axis is of no kind or of two, or is a column.
    """
    kinds = [kind for kind, kind_names in names.items() if name in kind_names]
    if not kinds:
        raise ValueError(
            f"vary has the unknown axis {name!r}; it must be a model parameter "
            f"({', '.join(sorted(names[PARAMETER]))}), a template ({', '.join(TEMPLATES)}) or a variable of the "
            f"templates ({', '.join(sorted(names[VARIABLE])) or 'they have none'})"
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


def _levels(name: Any, axis: Any) -> tuple[Level, ...]:
    """Return the levels of an axis.

    :param axis: a list of values, or a dict of values by label.
    """
    if isinstance(axis, Mapping):
        levels = tuple(Level(label, value) for label, value in axis.items())
    elif isinstance(axis, (list, tuple)):
        levels = tuple(Level(value, value) for value in axis)
    else:
        raise TypeError(
            f"vary[{name!r}] is {type(axis).__name__}; it must be a list of values, or a dict of values by label"
        )
    if not levels:
        raise ValueError(f"vary[{name!r}] is empty; give at least one level")
    labels = [level.label for level in levels]
    if not all(label is None or isinstance(label, (str, int, float)) for label in labels):
        raise ValueError(
            f"vary[{name!r}] has a level that cannot be the value of a column: give a dict with a label for each level"
        )
    if len(set(labels)) < len(labels):
        raise ValueError(
            f"vary[{name!r}] has two levels with the same label: give each level its own label"
        )
    return levels


def cells_of(axes: tuple[Axis, ...]) -> list[Cell]:
    """Return all combinations of levels; the last axis changes first."""
    return [Cell(axes, levels) for levels in itertools.product(*(axis.levels for axis in axes))]
