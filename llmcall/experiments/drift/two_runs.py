"""Two recordings, compared as if the second had been asked to check the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import CacheError
from ...keys.keys import key_of
from ...stores.differences.fields import differences
from ...support.display.formatting import counted
from ...support.display.printable import printable
from .sample import DriftCall, DriftCheck, actor_name, with_model

if TYPE_CHECKING:
    from ...review.runs import RecordedRun
    from ...stores.record import Record
    from .sample import Requests


MAX_COMPARED = 200  # requests of the other recording, in search of the nearest one


def compared_run(
    requests: Requests, other: RecordedRun, model: str | None
) -> tuple[DriftCheck, list[Record]]:
    """Return the check that another recording amounts to, and its answers.

    :param requests: those of the first recording.
    :param other: the other recording.
    :param model: the other recording's model, instead of the first one's; or ``None``.
    :raises CacheError: if no request is in both.
    """
    digests = {
        _digest(with_model(records[0], model)): name for name, records in requests.records.items()
    }
    selected = {digest for asked in requests.by_actor.values() for digest in asked}
    chats = [record for record in other.records if record.kind == "chat" and record.model]
    calls = []
    records = []
    for record in chats:
        digest = digests.get(_digest(record.request))
        if digest in selected:
            calls.append(DriftCall(actor_name(record), str(digest), record.sample or ""))
            records.append(record)
    if not calls:
        raise CacheError(_nothing_in_common(requests, other, chats, model))
    common = len({call.digest for call in calls})
    origin = (
        f"{counted(len(calls), 'answer')} in {printable(other.name)} to {common:,} of "
        f"{counted(len(selected), 'different request')} in {requests.name}"
    )
    notes = [f"The answers now are {printable(other.origin)}."] if other.origin else []
    if len(calls) < len(chats):
        rest = counted(len(chats) - len(calls), "answer")
        notes.append(f"Not compared: {rest} in {printable(other.name)} to other requests.")
    return DriftCheck(requests, calls, model, origin, notes, is_sample=False), records


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
