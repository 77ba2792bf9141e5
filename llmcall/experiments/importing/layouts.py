"""Readers of the layouts in which answers are published: conversations with their locations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ...errors import CacheError
from ...stores.records.spool import Spool
from ...support.display.formatting import counted
from .batches import Batches
from .calls import LocatedConversation
from .tables import conversation, objects, rows
from .vcr import calls_in

CSV, YAML = (".csv",), (".yaml", ".yml")  # the endings of files' names; all others contain JSON


def conversations_in(paths: Sequence[str]) -> Iterator[LocatedConversation]:
    """Yield the conversations in files of the known layouts.

    :raises CacheError: if a file cannot be read, with the location.
    """
    lower_names = {path: path.lower() for path in paths}
    batches = Batches(path for path in paths if not lower_names[path].endswith((*CSV, *YAML)))
    with Spool() as answers:
        batches.read_answers(answers)
        for path in paths:
            if lower_names[path].endswith(CSV):
                yield from rows(path)
            elif lower_names[path].endswith(YAML):
                yield from calls_in(path)
            elif path in batches.inputs:
                yield from batches.calls(path, answers)
            elif path not in batches.outputs:
                for location, entry in objects(path):
                    yield location, conversation(entry, location)
        yield from batches.answers_without_question(answers)


def by_layout(
    layout: Callable[[str], Iterable[Any]], name: str, paths: Sequence[str]
) -> Iterator[LocatedConversation]:
    """Yield the conversations that a user's function reads from files.

    :param name: the function's name, for messages.
    :raises CacheError: if it raises anything.
    """
    for path in paths:
        number = 0
        try:
            for number, conversation in enumerate(layout(path), 1):
                yield f"{path}, conversation {number}", conversation
        except Exception as error:
            raise CacheError(
                f"{path}: the layout {name} failed after {counted(number, 'conversation')}; nothing is written: "
                f"{type(error).__name__}: {error}"
            ) from error
