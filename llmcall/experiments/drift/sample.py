"""The calls of a check: recorded requests, drawn evenly over the actors by a seed, or those that two runs share."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...apis.message import message_text
from ...errors import CacheError
from ...keys.keys import key_of
from ...keys.messages import DIGEST
from ...keys.normalizers import NORMALIZERS
from ...keys.request import Data, strings_in
from ...scopes.position import without_repeats
from ...stores.differences import canonical_text
from ...stores.record import Record
from ...stores.records.answers import answer_parts
from ...stores.records.served import model_of
from ...support.display import as_json, counted, printable

if TYPE_CHECKING:
    from ...review.runs import RecordedRun

SCOPE = "~drift"
# Normalizers replace texts by these markers; a header names no normalizers that code has set.
MARKER = re.compile("|".join(re.escape(f"<{name}>") for name in (*sorted(NORMALIZERS), "…")))


class DriftCall(NamedTuple):
    """One call of a check.

    :param actor: the recorded actor: a scope path without repeats; empty outside any scope.
    :param digest: the request's digest.
    :param sample: the name of the draw, such as ``"~drift/study/ann#0"``.
    """

    actor: str
    digest: str
    sample: str

    def __repr__(self) -> str:
        return self.sample


class Requests:
    """The different chat requests of a recording that can be compared.

    :param run: the recording.
    :param where: gets a record and returns whether its request may be compared; ``None`` means all.
    :param are_resent: whether they are resent, so that those that cannot be sent as recorded are
        left out.
    :param model: the model instead of the recorded ones, or ``None``. Requests that differ in
        their model alone are then one request, which has all their draws.
    :ivar records: by digest, the recorded draws of a request by all actors.
    :ivar by_actor: for each actor, the digests of its requests that may be compared.
    :ivar different: the number of these; a request of several actors counts once for each.
    :ivar left_out: in words, how many different requests are left out, and why.
    :raises CacheError: if there is none.
    """

    def __init__(
        self,
        run: RecordedRun,
        where: Callable[[Record], bool] | None,
        *,
        are_resent: bool,
        model: str | None = None,
    ) -> None:
        self.name = printable(run.name)
        self.origin = printable(run.origin)
        self.records: dict[str, list[Record]] = {}
        self.by_actor: dict[str, dict[str, None]] = {}
        reasons: dict[str, str] = {}
        recorded_digests: dict[str, str] = {}
        for record in run.records:
            if record.kind not in ("chat", "http") or not model_of(record):
                continue
            digest, actor = key_of(record.kind, record.request, None), actor_name(record)
            if model is not None:
                sent_digest = key_of(record.kind, with_model(record, model), None)
                digest = recorded_digests.setdefault(sent_digest, digest)
            is_selected = where is None or where(record)
            if reason := _reason_to_leave_out(record, are_resent=are_resent):
                if is_selected:
                    reasons[digest] = reason
                continue
            self.records.setdefault(digest, []).append(record)
            if is_selected:
                self.by_actor.setdefault(actor, {})[digest] = None
        self.different = sum(map(len, self.by_actor.values()))
        self.is_selected = where is not None
        self.left_out = ", ".join(
            f"{counted(count, 'request')} {reason}"
            for reason, count in sorted(Counter(reasons.values()).items())
        )
        if not self.by_actor:
            reason = self.left_out or (
                "where= selects none" if self.records else "it contains none"
            )
            what = "resent" if are_resent else "compared"
            raise CacheError(f"no chat request in {run.name} can be {what}: {reason}")

    def calls(self, seed: int) -> Iterator[DriftCall]:
        """Yield the calls that resend them, endlessly, evenly over the actors.

        :param seed: decides their order.
        """
        numbers: Counter[tuple[str, str]] = Counter()
        for actor, digest in _round_robin(self.by_actor, seed):
            path = f"{SCOPE}/{actor}" if actor else SCOPE
            yield DriftCall(actor, digest, f"{path}#{numbers[actor, digest]}")
            numbers[actor, digest] += 1


class DriftCheck:
    """The calls of one check.

    :param requests: those recorded.
    :param calls: made in it.
    :param model: the model instead of the recorded ones, or ``None``.
    :param origin: in words, where the calls come from.
    :param notes: further sentences about the answers.
    :param is_sample: whether they are drawn from the recording's requests.
    :ivar records: for each sent request, by digest, its recorded draws by all actors.
    :ivar is_sample: whether further requests could be sent.
    """

    def __init__(
        self,
        requests: Requests,
        calls: Iterable[DriftCall],
        model: str | None,
        origin: str,
        notes: Sequence[str] = (),
        *,
        is_sample: bool = True,
    ) -> None:
        self.calls = tuple(calls)
        self.origin = origin
        self._requests = requests
        self._notes = tuple(notes)
        self.records = {
            digest: requests.records[digest]
            for digest in sorted({call.digest for call in self.calls})
        }
        selected = {(call.actor, call.digest) for call in self.calls}
        self.is_sample = is_sample and len(selected) < requests.different
        self.recorded_models = sorted({str(record.request["model"]) for record in self.recorded})
        self.model = None if self.recorded_models == [model] else model

    @property
    def recorded(self) -> Iterator[Record]:
        """Iterate over the recorded draws of all sent requests."""
        return itertools.chain.from_iterable(self.records.values())

    def request(self, call: DriftCall) -> dict[str, Data]:
        """Return the request of a call: the recorded one, or the same with another model."""
        return with_model(self.records[call.digest][0], self.model)

    def key(self, call: DriftCall) -> str:
        """Return the key of a call."""
        return key_of("chat", self.request(call), call.sample)

    def notes(self) -> list[str]:
        """Return the sentences that are in both plan and result."""
        origin = self._requests.origin
        notes = [f"The recorded answers are {origin}."] if origin else []
        if self.model is not None:
            recorded = ", ".join(map(printable, self.recorded_models))
            notes.append(
                f"ANOTHER MODEL: {printable(self.model)} answers instead of {recorded}. A shift is a "
                "difference between two models, not a change in one."
            )
        if self._requests.is_selected:
            notes.append("The sample is drawn from the requests that where= (--last) selects.")
        if self._requests.left_out:
            notes.append(f"Left out: {self._requests.left_out}.")
        return [*self._notes, *notes]


def with_model(record: Record, model: str | None) -> dict[str, Data]:
    """Return a recorded request, to another model unless that is ``None``."""
    return record.request if model is None else {**record.request, "model": model}


def last_calls(run: RecordedRun) -> Callable[[Record], bool]:
    """Return a filter for the last call of each conversation: no other call in its scope continues
    its messages. Of draws of one request, those that are continued have the answers that the other calls
    repeat; if one repeats none of them, all are continued.
    """
    histories: dict[tuple[str, int, str], int] = {}  # numbers, by scope, history and next message
    ends: dict[str, int] = {}  # by the key of a chat's record, the history of its request
    answers: defaultdict[int, set[str]] = defaultdict(set)  # by history
    continuations: defaultdict[int, set[str]] = defaultdict(set)  # the next messages, by history
    for record in run.records:
        if record.kind != "chat":
            continue
        history = 0
        for message in record.request["messages"]:
            continuations[history].add(message_text(message))
            step = record.scope, history, canonical_text(message)
            history = histories.setdefault(step, len(histories) + 1)
        ends[record.cache_key] = history
        answers[history].add(record.answer)

    def is_last(record: Record) -> bool:
        history = ends.get(record.cache_key, -1)
        repeated = continuations[history]
        return not repeated or (repeated <= answers[history] and record.answer not in repeated)

    return is_last


def actor_name(record: Record) -> str:
    """Return the actor that made a call: its scope path without the repeats of a ``map``."""
    return without_repeats(record.scope)[0]


def _round_robin(
    by_actor: Mapping[str, Mapping[str, None]], seed: int
) -> Iterator[tuple[str, str]]:
    """Yield requests with their actors, endlessly: one of each actor in turn, in an order by the seed."""

    def rank(*names: str) -> bytes:
        return hashlib.sha256("\n".join(["drift", str(seed), *names]).encode()).digest()

    actors = sorted(by_actor, key=rank)
    digests = [sorted(by_actor[actor], key=lambda digest: rank(actor, digest)) for actor in actors]
    turns = itertools.zip_longest(*digests)
    pairs = (zip(actors, turn, strict=True) for turn in turns)
    return itertools.cycle(pair for turn in pairs for pair in turn if pair[1] is not None)


def _reason_to_leave_out(record: Record, *, are_resent: bool) -> str:
    """Return why a request cannot be compared, or not sent as it was recorded; empty if it can."""
    if record.kind == "http":
        return "of another API than chat completions"
    if record.model is None:
        return "without the name of a model"
    if not are_resent:
        return ""
    if record.is_converted:
        return "converted from a legacy completion"
    texts = list(strings_in(record.request["messages"]))
    if any(map(DIGEST.match, texts)):
        return "with an image or sound recorded only as a digest"
    if any(map(MARKER.search, texts)):
        return "with normalized text"
    return ""


OWN_SCOPE = "Record the second run in a scope of its own"


def compared_run(
    requests: Requests, other: RecordedRun, model: str | None
) -> tuple[DriftCheck, list[Record]]:
    """Return the check that another recording amounts to, and its answers.

    :param requests: those of the first recording.
    :param other: the other recording.
    :param model: the other recording's model, instead of the first one's; or ``None``.
    :raises CacheError: if no request is in both, or if both have the same answers.
    """
    digests = {
        _digest(with_model(records[0], model)): name for name, records in requests.records.items()
    }
    known = {_answer(record): record for draws in requests.records.values() for record in draws}
    selected = {
        digest for digests_of_actor in requests.by_actor.values() for digest in digests_of_actor
    }
    chats = [record for record in other.records if record.kind == "chat" and record.model]
    calls = []
    records = []
    shared = 0
    for record in chats:
        digest = digests.get(_digest(record.request))
        if digest not in selected:
            continue
        recorded = known.get(_answer(record))
        if recorded is not None and _may_be_of_one_day(recorded, record):
            shared += 1
        else:
            calls.append(DriftCall(actor_name(record), str(digest), record.sample or ""))
            records.append(record)
    if not calls and shared:
        raise CacheError(
            f"all {counted(shared, 'answer')} of {printable(other.name)} are in {requests.name}, too (key, sample and "
            f"answer), so none is new. {OWN_SCOPE}"
        )
    if not calls:
        raise CacheError(
            f"{requests.name} and {printable(other.name)} have no chat request in common; 'llmcall diff' shows what "
            "differs. To compare two models, give model= (--model), the second one's"
        )
    common = len({call.digest for call in calls})
    origin = (
        f"{counted(len(calls), 'answer')} in {printable(other.name)} to {common:,} of "
        f"{counted(len(selected), 'different request')} in {requests.name}"
    )
    notes = []
    if shared:
        notes.append(
            f"LEFT OUT: {counted(shared, 'answer')} that both runs share (key, sample, answer; the days may be the "
            f"same). If the second run made new calls, they did not change, and the shift looks too large. {OWN_SCOPE}"
        )
    if other.origin:
        notes.append(f"The answers now are {printable(other.origin)}.")
    if others := len(chats) - len(calls) - shared:
        rest = counted(others, "answer")
        notes.append(f"Not compared: {rest} in {printable(other.name)} to other requests.")
    return DriftCheck(requests, calls, model, origin, notes, is_sample=False), records


def _answer(record: Record) -> tuple[str, str]:
    return record.cache_key, as_json(answer_parts(record))


def _may_be_of_one_day(one: Record, other: Record) -> bool:
    """Return whether two answers may have been made on the same day, as a shared one was."""
    if one.days is None or other.days is None:
        return True
    return one.days.first <= other.days.last and other.days.first <= one.days.last


def _digest(request: dict[str, object]) -> str:
    return key_of("chat", request, None)
