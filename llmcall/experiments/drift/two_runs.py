"""Two recordings, compared as if the second had been asked to check the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import CacheError
from ...keys.keys import key_of
from ...stores.differences import differences
from ...stores.records.answers import answer_parts
from ...support.display import as_json, counted, printable
from .sample import DriftCall, DriftCheck, actor_name, with_model

if TYPE_CHECKING:
    from ...review.runs import RecordedRun
    from ...stores.record import Record
    from .sample import Requests


OWN_SCOPE = "Record the second run in a scope of its own"
MAX_COMPARED = 200  # requests of the other recording, in search of the nearest one


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
    selected = {digest for asked in requests.by_actor.values() for digest in asked}
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
        raise CacheError(_nothing_in_common(requests, other, chats, model))
    common = len({call.digest for call in calls})
    origin = (
        f"{counted(len(calls), 'answer')} in {printable(other.name)} to {common:,} of "
        f"{counted(len(selected), 'different request')} in {requests.name}"
    )
    notes = []
    if shared:
        notes.append(
            f"LEFT OUT: {counted(shared, 'answer')} that both runs share (key, sample, answer; the days may be the "
            f"same). If the second run was asked anew, they did not change, and the shift looks too large. {OWN_SCOPE}"
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


def _nothing_in_common(
    requests: Requests, other: RecordedRun, chats: list[Record], model: str | None
) -> str:
    """Return an error's text, with how the nearest request differs."""
    text = f"{requests.name} and {printable(other.name)} have no chat request in common"
    if not chats:
        return f"{text}: the second contains none"
    first = next(iter(requests.by_actor.values()))
    asked = with_model(requests.records[next(iter(first))][0], model)
    found = min(
        (differences(asked, record.request) for record in chats[:MAX_COMPARED]),
        key=lambda fields: (len(fields), len(str(fields))),
    )
    text += ". The nearest request differs in " + "; ".join(map(str, found))
    if model is None and any(difference.field == "model" for difference in found):
        text += ". To compare two models, give model= (--model), the second one's"
    return text
