"""The records of a run as conversations: by scope, without the history that each request repeats."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from ..display.formatting import as_json
from ..records.served import model_of
from ..requests.contents import title_of
from ..types import CONTENT_FIELDS, Record, choices_of, messages_asked, transcript_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .runs import RecordedRun

# in the words of chat completions, of the Responses API and of the Messages API
ORDINARY_ENDS = (
    "stop",
    "tool_calls",
    "function_call",
    "completed",
    "end_turn",
    "STOP",
    "stop_sequence",
    "tool_use",
    None,
)
# the fields of a request that are no parameters
NOT_PARAMETERS = (
    "model",
    "messages",
    "input",
    "function",
    "arguments",
    "method",
    "path",
    "body",
)
# The fields of a body that contain what was said.
TEXT_TYPES = ("text", "input_text", "output_text")  # the types of parts that are texts
ANSWERING_ROLE = "assistant"  # the role


class Utterance(NamedTuple):
    """One message, or one answer.

    :param role: who says it; with the name, or the tool call that it answers, in parentheses.
    :param texts: its parts as they are shown: texts, calls of tools, a refusal; anything else as
        JSON.
    """

    role: str
    texts: tuple[str, ...]


@dataclass
class History:
    """The messages with which some calls of a scope begin, by the last of them.

    :ivar message: the last message.
    :ivar first: the first call that asked or answered it.
    :ivar last: the last such call.
    :ivar continuations: the histories with one more message.
    """

    message: Utterance
    first: Call | None = None
    last: Call | None = None
    continuations: dict[Utterance, History] = field(default_factory=dict)

    def with_message(self, message: Utterance) -> History:
        """Return the history with one more message."""
        return self.continuations.get(message) or self.continuations.setdefault(
            message, History(message)
        )


class Call(NamedTuple):
    """One recorded call.

    :param draw: which draw it is: what stands after ``#`` in its sample, or empty.
    :param title: the model's or the function's name.
    :param parameters: what else was asked for, as name and JSON.
    :param messages: all that were asked.
    :param repeated: how many of them, from the first, an earlier call contained.
    :param repeated_from: the first call that contained them, if the one right before it in its
        scope did not; else ``None``.
    :param answers: the answers; several if ``n`` is above 1.
    """

    record: Record
    draw: str
    title: str
    parameters: tuple[tuple[str, str], ...]
    messages: tuple[Utterance, ...]
    repeated: int
    repeated_from: Call | None
    answers: tuple[Utterance, ...]

    @property
    def model(self) -> str:
        """Return the model that was asked for, or the title if none was."""
        return self.record.model or self.title


def conversations(run: RecordedRun) -> dict[str, list[Call]]:
    """Return the calls of a run by actor (empty outside any scope), both in their order."""
    return {actor: _calls(records) for actor, records in run.by_actor().items()}


def _calls(records: Iterable[Record]) -> list[Call]:
    beginning = History(Utterance("", ()))
    calls: list[Call] = []
    for record in records:
        calls.append(_call(record, beginning, calls[-1] if calls else None))
    return calls


def by_round(run: RecordedRun) -> dict[str, list[Call]]:
    """Return the n-th calls of all actors together."""
    numbered = zip_longest(*conversations(run).values())
    return {
        f"call {number}": [call for call in calls if call]
        for number, calls in enumerate(numbered, 1)
    }


def _call(record: Record, beginning: History, previous: Call | None) -> Call:
    histories = [beginning]
    for message in _messages_of(record):
        histories.append(histories[-1].with_message(_utterance(message)))
    repeated = sum(each.last is not None for each in histories[1:-1])
    call = Call(
        record,
        (record.sample or "").partition("#")[2],
        title_of(record.kind, record.request),
        tuple((name, as_json(value)) for name, value in sorted(_parameters_of(record).items())),
        tuple(each.message for each in histories[1:]),
        repeated,
        None if histories[repeated].last is previous else histories[repeated].first,
        tuple(_answers(record)),
    )
    choices = choices_of(record.response)
    answer_histories = [
        histories[-1].with_message(_utterance(choice["message"])) for choice in choices
    ]
    if _asks_model(record):
        answer_histories = [
            histories[-1].with_message(answer._replace(role=ANSWERING_ROLE))
            for answer in call.answers
        ]
    for each in (*histories[1:], *answer_histories):
        each.first, each.last = each.first or call, call
    return call


def _messages_of(record: Record) -> Sequence[Mapping[str, Any]]:
    """Return the messages of a chat; what was asked of anything else as one message."""
    request = record.request
    if record.kind == "chat":
        return request["messages"]  # type: ignore[no-any-return]
    if _asks_model(record):
        return list(messages_asked(request["body"]))
    role, name = {"embedding": ("text", "input"), "http": ("body", "body")}.get(
        record.kind, ("arguments", "arguments")
    )
    return [{"role": role, "content": request.get(name)}]


def _asks_model(record: Record) -> bool:
    """Return whether a request that is recorded as it is asks a model something."""
    if record.kind != "http" or model_of(record.kind, record.request, record.response) is None:
        return False
    body = record.request.get("body")
    return isinstance(body, dict) and not set(CONTENT_FIELDS).isdisjoint(body)


def _parameters_of(record: Record) -> dict[str, Any]:
    """Return what else was asked for; of a body, its further fields."""
    parameters = {
        name: value for name, value in record.request.items() if name not in NOT_PARAMETERS
    }
    if _asks_model(record):
        body = record.request["body"]
        parameters |= {name: value for name, value in body.items() if name not in CONTENT_FIELDS}
    return parameters


def _utterance(message: Mapping[str, Any]) -> Utterance:
    """Return a message as it is shown."""
    role = str(message.get("role") or "assistant")
    label = message.get("name") or message.get("tool_call_id")
    content, calls = message.get("content"), message.get("tool_calls") or ()
    if not isinstance(content, list):
        content = [] if content is None else [content]
    texts = [*map(_part_text, content), *(f"calls {_tool_call(call)}" for call in calls)]
    if message.get("function_call"):  # of an older API
        texts.append(f"calls {_tool_call({'function': message['function_call']})}")
    transcript = transcript_of(message)
    if transcript is not None:
        texts.append(f"says: {transcript}")
    if message.get("refusal"):
        texts.append(f"refuses: {message['refusal']}")
    return Utterance(f"{role} ({label})" if label else role, tuple(texts))


def _part_text(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") in TEXT_TYPES:
        part = part.get("text")
    return part if isinstance(part, str) else as_json(part)


def _tool_call(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not function:
        return as_json(call)
    identifier = f"  [{call['id']}]" if call.get("id") else ""
    return f"{function.get('name')}({function.get('arguments', '')}){identifier}"


def _answers(record: Record) -> list[Utterance]:
    """Return the answers of a call; several if ``n`` is above 1."""
    choices = choices_of(record.response)
    if choices:
        return [_choice(choice, len(choices)) for choice in choices]
    if _asks_model(record):
        return [_http_answer(record)]
    role = next((name for name in ("embedding", "fallback") if name in record.response), "result")
    return [Utterance(role, (record.answer,))]


def _http_answer(record: Record) -> Utterance:
    """Return a model's answer that is recorded as it came."""
    texts = (f"refuses: {record.refusal}",) if record.refusal else (record.answer,)
    end = record.finish_reason
    return Utterance(
        ANSWERING_ROLE if end in ORDINARY_ENDS else f"{ANSWERING_ROLE}, ended by {end}", texts
    )


def _choice(choice: Mapping[str, Any], count: int) -> Utterance:
    utterance = _utterance(choice["message"])
    role = (
        utterance.role
        if count == 1
        else f"{utterance.role}, choice {choice.get('index', 0) + 1} of {count}"
    )
    end = choice.get("finish_reason")
    return utterance._replace(role=role if end in ORDINARY_ENDS else f"{role}, ended by {end}")
