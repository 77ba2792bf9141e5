"""Readers of the layouts in which answers are published: conversations with their locations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ...core.membrane import each_foreign
from ...errors import CacheError
from ...stores.records.spool import Spool
from ...support.display.formatting import counted
from .call_files import Batches, calls_in
from .tables import Columns, LocatedConversation, conversations, rows

# The endings of files' names; all others contain JSON.
CSV, YAML = (".csv", ".tsv"), (".yaml", ".yml")


def conversations_in(paths: Sequence[str], columns: Columns) -> Iterator[LocatedConversation]:
    """Yield the conversations in files of the known layouts.

    :param columns: the meaning of the columns of rows.
    :raises CacheError: if a file cannot be read, with the location.
    """
    lower_names = {path: path.lower() for path in paths}
    batches = Batches(path for path in paths if not lower_names[path].endswith((*CSV, *YAML)))
    with Spool() as answers:
        batches.read_answers(answers)
        for path in paths:
            if lower_names[path].endswith(CSV):
                yield from rows(path, columns)
            elif lower_names[path].endswith(YAML):
                yield from calls_in(path)
            elif path in batches.inputs:
                yield from batches.calls(path, answers)
            elif path not in batches.outputs:
                yield from conversations(path, columns)
        yield from batches.answers_without_question(answers)
    if columns.missing:
        listed = ", ".join(map(repr, columns.missing))
        raise CacheError(
            f"no row of {', '.join(paths)} has the column {listed} that --column names"
        )


def by_layout(
    layout: Callable[[str], Iterable[object]], name: str, paths: Sequence[str], columns: Columns
) -> Iterator[LocatedConversation]:
    """Yield the conversations that a user's function reads from files.

    :param name: the function's name, for messages.
    :raises CacheError: if it raises anything.
    """
    for path in paths:
        number = 0
        try:
            for number, entry in enumerate(each_foreign(layout, path), 1):
                conversation = columns.conversation(entry, has_paths=False)
                yield f"{path}, conversation {number}", conversation
        except Exception as error:
            raise CacheError(
                f"{path}: the layout {name} failed after {counted(number, 'conversation')}; nothing is written: "
                f"{type(error).__name__}: {error}"
            ) from error
