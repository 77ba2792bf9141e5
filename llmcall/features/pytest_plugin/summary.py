"""The summary of a test run: the use of its cassettes."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from ...support.display import counted

MAX_NAMES = 3  # of a cassette's unused records


class CassetteUse(NamedTuple):
    """The use of a cassette by a test.

    :ivar name: the file's name in the summary.
    :ivar asked: the number of records that it gained from servers; of ``supplied``, from the disk cache.
    :ivar recorded: the number of records that it gained, also from recorded functions.
    :ivar unwritten: the number of records that it gained and that are not in its file: the test failed.
    :ivar unused: the names of its unused records by key; empty if this run cannot know them.
    """

    name: str
    is_shared: bool
    replayed: int
    asked: int
    supplied: int
    recorded: int
    unwritten: int
    unused: dict[str, str]


class Summary:
    """The uses of cassettes by the tests of a process, and of its workers, for the lines at the end.

    :ivar uses: of the cassettes, by the tests that have run.
    :ivar notices: the warnings, each with the cassette's name.
    :ivar is_complete: ``True`` if all tests with a cassette ran and passed, so that the unused records of
        shared cassettes are known.
    :ivar dropped: by cassette, the number of records that ``update`` moved.
    """

    def __init__(self) -> None:
        self.uses: list[CassetteUse] = []
        self.notices: list[tuple[str, str]] = []
        self.is_complete = True
        self.dropped: dict[str, int] = {}

    def results(self) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]], bool]:
        """Return a worker's results as plain data."""
        return [tuple(use) for use in self.uses], self.notices, self.is_complete

    def add(
        self, uses: list[tuple[Any, ...]], notices: list[tuple[str, str]], is_complete: bool
    ) -> None:
        """Add the results of a worker."""
        self.uses += [CassetteUse(*values) for values in uses]
        self.notices += notices
        self.is_complete = self.is_complete and is_complete

    def unused(self) -> dict[str, dict[str, str]]:
        """Return the unused records of each cassette, where this run can know them."""
        unused: dict[str, dict[str, str]] = {}
        for use in self.uses:
            others = unused.get(use.name, use.unused)
            labels = {key: label for key, label in use.unused.items() if key in others}
            unused[use.name] = labels
            if (use.is_shared and not self.is_complete) or use.name in self.dropped:
                unused[use.name] = {}
        return {name: labels for name, labels in sorted(unused.items()) if labels}

    def lines(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        replayed = sum(use.replayed for use in self.uses)
        asked = sum(use.asked for use in self.uses)
        supplied = sum(use.supplied for use in self.uses)
        recorded = sum(use.recorded for use in self.uses)
        if replayed or recorded:
            sources = f" ({asked:,} asked, {supplied:,} from the cache)" if supplied else ""
            yield f"{counted(replayed, 'call')} replayed, {recorded:,} recorded{sources}"
        # By cassette: of a test that was run again, the last time counts.
        last_uses = {use.name: use for use in self.uses}
        for use in self.uses:
            if use.unwritten and (use.is_shared or use is last_uses[use.name]):
                yield (
                    f"{counted(use.unwritten, 'new answer')} of {use.name} not written, since its test "
                    "did not pass: the disk cache keeps them, unless its mode is off"
                )
        names_by_message: dict[str, list[str]] = {}
        for message, name in sorted(set(self.notices), key=itemgetter(1)):
            names_by_message.setdefault(message, []).append(name)
        for message, (first, *others) in names_by_message.items():
            yield f"{first}{f' and {len(others)} more' if others else ''}: {message}"
        for name, count in self.dropped.items():
            yield f"{counted(count, 'unused record')} of {name} moved to the disk cache"
        unused = self.unused()
        for name, labels in unused.items():
            names = ", ".join(list(labels.values())[:MAX_NAMES])
            more = f", and {len(labels) - MAX_NAMES} more" if len(labels) > MAX_NAMES else ""
            yield f"{counted(len(labels), 'record')} of {name} not used: {names}{more}"
        if unused:
            yield "--llm-record=update moves them to the disk cache, and requests only missing ones"
