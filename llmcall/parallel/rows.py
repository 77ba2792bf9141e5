"""``LLMCall.map`` and ``LLMCall.table``: many rows asked about at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .jobs import Asker, CallJob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..functions import LLMFunction

__all__ = ["Mapped"]


class Mapped(Asker):
    """Ask about many rows; an ``LLMCall`` is one that asks about each."""

    def map(self, rows: Iterable[Any], **map_options: Any) -> Any:
        """Ask about each row, and return the values in the order of the rows.

        :param rows: dicts of the templates' variables, or a pandas DataFrame; more columns than the templates use are
            no error.
        :param map_options: those of :func:`llmcall.map`.
        :returns: a list; with ``repeats``, a list of lists; with ``dry_run=True`` a :class:`Plan`.
        """
        from .map import map as mapped

        return mapped(self, rows, **map_options)

    def map_function(self, function: LLMFunction[Any, Any], rows: Iterable[Any], map_options: dict[str, Any]) -> Any:
        """Ask about each row with the arguments and defaults of an ``@llm`` function; as :meth:`map`."""
        from .map import map as mapped

        return mapped(function, rows, **map_options)

    def table(self, rows: Iterable[Any], *, repeats: int = 1, dry_run: bool = False, **map_options: Any) -> Any:
        """Ask about each row, and return a DataFrame with a row for each row and repeat.

        Its columns are those of the rows, then ``repeat`` (from 0 on), ``value``, ``error`` (the exception of a row
        that failed, unless it was raised), ``cached`` (whether no call was made for it), ``cost`` (USD when it was
        made, corrections included; missing where unknown) and ``cache_key`` (of the answer).

        :param rows: as of :meth:`map`; none of their columns may have one of those names.
        :param map_options: those of :func:`llmcall.map`; the exception that leaves has the answers in ``.results``.
        :raises ConfigError: where pandas is not installed.
        :raises ValueError: where a column has one of those names.
        """
        from .frames import answer_table
        from .map import map as mapped

        job = CallJob(self, whole=True)
        if dry_run:
            return mapped(job, rows, repeats=repeats, dry_run=True, **map_options)

        if map_options.get("on_error") == "none":
            map_options["on_error"] = "return"  # the column error has it

        def ask(items: Iterable[Any]) -> list[list[Any]]:
            """Return the answers of each item in a list."""
            answers = mapped(job, items, repeats=repeats, **map_options)
            return [[answer] for answer in answers] if repeats == 1 else answers

        return answer_table(rows, repeats, ask)
