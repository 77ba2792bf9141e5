"""A check of a recording: whether its keys fit the header's settings, and its draws are whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...config import resolve as config
from ...keys.http_identity import under_settings
from ...keys.plain_data import is_same
from ...support.display import printable
from ..record import NumberedDraw, draw_of
from ..records.reader import RecordFile

INCOMPLETE = (
    "the recording is incomplete: its run was interrupted, or it was left open, so it lacks the calls that "
    "would have followed. Run the program again in the mode 'once', which continues it"
)


class Finding(NamedTuple):
    """A problem of a record in a file, or of the file.

    :param about: ``"key"`` or ``"draws"``; ``"complete"`` of the file.
    :param record: the record's number in the file, from 1; 0 for the file.
    :param sample: its scope path and draw; empty outside any scope.
    :param words: the problem.
    """

    about: str
    record: int
    sample: str
    words: str

    def __str__(self) -> str:
        if not self.record:
            return self.words
        sample = f" ({printable(self.sample)})" if self.sample else ""
        return f"record {self.record}{sample}: {self.words}"


def findings(file: RecordFile) -> Iterator[Finding]:
    """Yield that a recording is incomplete, the records whose key does not match the header, then those that follow
    a missing draw.
    """
    if not file.header.is_complete:
        yield Finding("complete", 0, "", INCOMPLETE)
    header = file.header.settings
    normalizers = tuple(header.get("cache_normalize") or ())
    with config.configured(cache_normalize=normalizers, aliases=header.get("aliases", {})):
        settings = config.settings()
    later: list[tuple[int, str, NumberedDraw]] = []  # draws, each with the one before it
    for number, record in enumerate(file, 1):
        sample = record.sample or ""
        request = under_settings(record.request, settings)
        request.pop("namespace", None)
        if "namespace" in record.request:
            request["namespace"] = record.request["namespace"]
        if not is_same(request, record.request):
            words = "under the header's settings its request has another key, so no call finds it"
            yield Finding("key", number, sample, words)
        draw = None if sample.endswith("#0") else draw_of(record)
        if draw is not None and draw.number:
            later.append((number, sample, draw._replace(number=draw.number - 1)))
    # A second time, so that a file whose draws are all the first is not held in memory.
    missing = {before for *_, before in later}
    missing.difference_update(map(draw_of, file if missing else ()))
    for number, sample, before in later:
        if before in missing:
            words = f"the draw before it, #{before.number}, is missing"
            yield Finding("draws", number, sample, words)
