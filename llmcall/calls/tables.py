"""A table of answers: the rows as they are, or crossed with levels of what varies."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..display.data_frames import import_pandas
from ..parallel.map import map as run_map
from ..parallel.rows import is_frame, rows_of
from ..parallel.tables import answer_table
from ..parallel.variations import CrossedJob, crossing
from .rows import TableJob, row_variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .rows import RowJob


def table(job: RowJob, rows: Iterable[Any], map_options: dict[str, Any]) -> Any:
    """Return the table of rows, or its plan; see :meth:`llmcall.LLMCall.table`."""
    if map_options.get("dry_run"):
        return run_map(job, rows, **map_options)
    options = _with_errors_as_cells(map_options)
    return answer_table(
        rows,
        options.get("repeats", 1),
        job.call.columns(),
        functools.partial(run_map, TableJob(job), **options),
    )


def crossed_table(
    job: RowJob, rows: Iterable[Any], vary: Mapping[str, Any], map_options: dict[str, Any]
) -> Any:
    """Return the table of rows that vary, or its plan; see :meth:`llmcall.LLMCall.table`."""
    row_dicts = [row_variables(row) for row in rows_of(rows)]
    crossed = crossing(job.call, row_dicts, vary, job.bound)
    jobs = [job._replace(call=call) for call in crossed.calls]
    row_job = CrossedJob(tuple(jobs))
    if map_options.get("dry_run"):
        return run_map(row_job, crossed.items, **map_options)
    options = _with_errors_as_cells(map_options)
    table_job = CrossedJob(tuple(TableJob(each) for each in jobs))
    frame = rows if is_frame(rows) else import_pandas().DataFrame(row_dicts)
    return answer_table(
        crossed.frame(frame),
        options.get("repeats", 1),
        job.call.columns(),
        lambda _: run_map(table_job, crossed.items, **options),
    )


def _with_errors_as_cells(map_options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the map of a table, whose column ``error`` has the errors that
    ``on_error="none"`` leaves out.
    """
    if map_options.get("on_error") == "none":
        return {**map_options, "on_error": "return"}
    return map_options
