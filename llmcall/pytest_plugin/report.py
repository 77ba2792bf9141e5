"""What a test run replayed, recorded and left unused, counted in each process and added up in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cassettes.cassette import Cassette

__all__ = ["RunReport", "unused_in"]

SHOWN = 3  # unused records that the summary names for each cassette
WORDS = 40


class RunReport:
    """Count calls, and know which left no record and which records answered none.

    :ivar replayed: calls that a cassette answered.
    :ivar recorded: records that were written.
    """

    def __init__(self) -> None:
        self.replayed = 0
        self.recorded = 0
        self.unrecorded: dict[str, dict[str, int]] = {}
        self.complete = True  # no test was left out, skipped or failed
        self.unused_records: dict[str, dict[str, str]] = {}
        self.unjudged: set[str] = set()
        self.shared: set[str] = set()

    def miss(self, name: str, unrecorded: dict[str, int]) -> None:
        """Take in how many calls of a passed test left no record, by the reason.

        :param name: the cassette's file, as the summary calls it.
        """
        counts = self.unrecorded.setdefault(name, {})
        for why, count in unrecorded.items():
            counts[why] = counts.get(why, 0) + count

    def forget(self, name: str) -> None:
        """Forget what was judged of a cassette: its test runs again."""
        self.unused_records.pop(name, None)
        self.unrecorded.pop(name, None)
        self.unjudged.discard(name)

    def judge(self, name: str, unused: dict[str, str] | None, *, shared: bool) -> None:
        """Take in which records a test did not use.

        :param name: the cassette's file, as the summary calls it.
        :param unused: what each is called, by its key; ``None`` where the test did not come to its end.
        :param shared: whether other tests may use the cassette: it is judged where all of them ran and passed.
        """
        if shared:
            self.shared.add(name)
        if unused is None:
            self.unjudged.add(name)
            return
        before = self.unused_records.get(name)
        self.unused_records[name] = unused if before is None else {key: unused[key] for key in before if key in unused}

    def unused(self) -> dict[str, list[str]]:
        """Return what the unused records of each cassette are called, of those that can be judged."""
        return {
            name: list(unused.values())
            for name, unused in sorted(self.unused_records.items())
            if unused and name not in self.unjudged and (self.complete or name not in self.shared)
        }

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what another process counted: the attributes of its report, which are plain data."""
        self.replayed += other["replayed"]
        self.recorded += other["recorded"]
        self.complete = self.complete and other["complete"]
        self.unjudged |= other["unjudged"]
        self.shared |= other["shared"]
        for name, unrecorded in other["unrecorded"].items():
            self.miss(name, unrecorded)
        for name, unused in other["unused_records"].items():
            self.judge(name, unused, shared=False)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        if self.replayed or self.recorded:
            yield f"llmcall: {counted(self.replayed, 'call')} replayed, {self.recorded:,} recorded"
        for name, counts in sorted(self.unrecorded.items()):
            for why, count in sorted(counts.items(), reverse=True):
                them = "is not recorded: a replay misses it" if count == 1 else "are not recorded: a replay misses them"
                yield f"llmcall: {counted(count, 'call')} of {name} {why} and {them}"
        unused = self.unused()
        for name, labels in unused.items():
            which = ", ".join(labels[:SHOWN]) + (f", and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")
            verb = "was" if len(labels) == 1 else "were"
            yield f"llmcall: {counted(len(labels), 'record')} of {name} {verb} not used: {which}"
        if unused:
            yield "llmcall: --llm-record=rewrite records these tests anew, without what they do not use"


def unused_in(cassette: Cassette) -> dict[str, str]:
    """Return what the records of a cassette that answered no call are called, by their keys."""
    from ..review.conversations import first_words, grouped
    from ..text import visible

    calls = [call for group in grouped(cassette.unused()) for call in group.calls]
    return {
        call.record.cache_key: visible(f'{call.record.sample or call.title} "{first_words(call, WORDS)}"')
        for call in calls
    }
