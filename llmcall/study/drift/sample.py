"""The sample of recorded requests that a check asks again: drawn evenly over the actors, the same
for a seed.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ...display.formatting import counted
from ...errors import CacheError
from ...keys.keys import key_of
from ...keys.messages import DIGEST
from ...keys.normalizers import NORMALIZERS
from ...records.served import is_given_by_model
from ...scopes import without_repeats

if TYPE_CHECKING:
    from ...review.runs import RecordedRun
    from ...values import Record

SCOPE = "~drift"
NORMALIZED = "with normalized text"
WITH_IMAGE = "with an image or sound of which only a digest is recorded"
OF_ANOTHER_API = "of another API than chat completions"
# What normalizers leave in place of a text; code may have set them, and then no header names them.
MARKER = re.compile("|".join(re.escape(f"<{name}>") for name in (*sorted(NORMALIZERS), "…")))


class Draw(NamedTuple):
    """One call of a check.

    :param actor: the recorded actor: a scope path without repeats; empty outside any scope.
    :param request: the digest of what is asked.
    :param sample: the name of the draw, such as ``"~drift/study/ann#0"``.
    """

    actor: str
    request: str
    sample: str

    def __repr__(self) -> str:
        return self.sample


class RecordedRequests:
    """The chat requests of a run that can be asked again, with their recorded draws.

    :param run: the recording.
    :ivar records: by the digest of a request, the records of its draws, those of all actors.
    :ivar different: how many different requests there are; one that several actors asked counts
        once for each.
    :ivar left_out: how many different requests cannot be asked again, and why, in words.
    :raises CacheError: if none can be asked again.
    """

    def __init__(self, run: RecordedRun) -> None:
        self.name = run.name
        self.records: dict[str, list[Record]] = {}
        self._by_actor: dict[str, dict[str, None]] = {}
        reasons: dict[str, str] = {}
        for record in run.records:
            if record.kind not in ("chat", "http") or not is_given_by_model(record):
                continue
            digest = key_of(record.kind, record.request, None)
            if reason := _reason_to_leave_out(record):
                reasons[digest] = reason
            else:
                self.records.setdefault(digest, []).append(record)
                self._by_actor.setdefault(actor_of(record), {})[digest] = None
        self.different = sum(map(len, self._by_actor.values()))
        self.left_out = ", ".join(
            f"{counted(count, 'request')} {reason}"
            for reason, count in sorted(Counter(reasons.values()).items())
        )
        if not self.records:
            raise CacheError(
                f"no chat request in {run.name} can be asked again: {self.left_out or 'it contains none'}"
            )

    def sample(self, calls: int, seed: int) -> list[Draw]:
        """Return the calls of a check. More calls begin with the same ones.

        Each actor in turn gives one of its requests, in an order that the seed decides; once all
        requests were taken, they are taken again.
        """
        numbers: Counter[tuple[str, str]] = Counter()
        draws = []
        for actor, digest in itertools.islice(self._requests_in_turn(seed), calls):
            path = f"{SCOPE}/{actor}" if actor else SCOPE
            draws.append(Draw(actor, digest, f"{path}#{numbers[actor, digest]}"))
            numbers[actor, digest] += 1
        return draws

    def _requests_in_turn(self, seed: int) -> Iterator[tuple[str, str]]:
        requests_in_order = {
            actor: sorted(digests, key=lambda digest: _rank(seed, actor, digest))
            for actor, digests in sorted(
                self._by_actor.items(), key=lambda entry: _rank(seed, entry[0])
            )
        }
        turns = itertools.zip_longest(*requests_in_order.values())
        return itertools.cycle(
            (actor, digest)
            for turn in turns
            for actor, digest in zip(requests_in_order, turn, strict=True)
            if digest is not None
        )


def actor_of(record: Record) -> str:
    """Return the actor that made a call: its scope path without the repeats of a ``map``."""
    return without_repeats(record.scope)[0]


def _rank(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\n".join(["drift", str(seed), *names]).encode()).digest()


def _reason_to_leave_out(record: Record) -> str:
    """Return why a request cannot be sent as it was; empty if it can."""
    if record.kind == "http":
        return OF_ANOTHER_API
    texts = list(_texts(record.request["messages"]))
    if any(map(DIGEST.match, texts)):
        return WITH_IMAGE
    if any(map(MARKER.search, texts)):
        return NORMALIZED
    return ""


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, (list, dict)):
        for item in data.values() if isinstance(data, dict) else data:
            yield from _texts(item)
