"""Published answers as responses of a chat, checked like a server's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...apis.decisions import is_decision
from ...apis.message import message_of, message_text
from ...apis.objects import object_in, objects_in
from ...apis.shapes import chat_of, choices_of, read_choices, served_model
from ...clients.api_errors import raise_reported
from ...core.kinds import check_chat
from ...errors import ContentFilterError
from ...keys.plain_data import recordable
from ...stores.days import creation_time
from ...stores.record import Record
from ...stores.records.readable import unreadable
from ...support.display import as_json, shortened

if TYPE_CHECKING:
    from ...keys.request import Data

ASSISTANT = "assistant"
CHAT = "chat.completion"
BATCH = "batch"  # the tier of a batch's answers, which do not name it
MAX_QUOTE_CHARACTERS = 100  # of a text in a message
# The fields with a turn's contents
CONTENTS = ("content", "tool_calls", "function_call", "refusal", "audio")


GEMINIS = frozenset({"usageMetadata", "modelVersion", "responseId"})
# By the field that holds the answer of an API, the fields of which that API's answer has one, too: the first alone may
# stand in JSON that a model wrote.
ANSWERS = {
    "choices": frozenset({"object", "usage", "model", "created"}),
    "output": frozenset({"object", "status"}),
    "content": frozenset({"stop_reason"}),
    "candidates": GEMINIS,
    "promptFeedback": GEMINIS,
    "message": frozenset({"done"}),
    "response": frozenset({"done"}),
}


def is_placeholder(turn: Mapping[str, object]) -> bool:
    """Return whether a turn of the assistant is empty, so that its response fills it."""
    return not any(turn.get(name) for name in CONTENTS)


def turn_response(
    turn: Mapping[str, object], response: object, *, has_responses: bool
) -> tuple[dict[str, Data], Mapping[str, Data]]:
    """Return the response to record for a turn of the assistant, and the answer as its API gave it.

    :param response: the whole answer, of any API, or ``None``.
    :param has_responses: whether the conversation has the API's answers; if not, the turn is the answer.
    :raises APIError: if the answer is an error, empty, filtered or broken off.
    :raises TypeError, ValueError: if it cannot be read, or does not match the turn.
    """
    if not has_responses:
        message = {**turn, "role": ASSISTANT}
        choice = {"index": 0, "message": message, "finish_reason": None}
        response = {"object": CHAT, "choices": [choice]}
    if response is None:
        raise ValueError("it has no response")
    raw: object = recordable(response, "its response", surrogates=True)
    if not isinstance(raw, dict):
        raise TypeError(f"its response is {type(response).__name__}; it must be a dict")
    raise_reported(raw)
    if reason := object_in(raw.get("promptFeedback")).get("blockReason"):
        raise ContentFilterError(f"the provider blocked the prompt (blockReason {reason})")
    recorded = _as_recorded(raw)
    check_chat(recorded)
    if problem := unreadable(Record(None, "chat", None, {"messages": []}, recorded)):
        raise ValueError(problem)
    if has_responses and not is_placeholder(turn):
        _check_match(turn, recorded)
    return recorded, raw


def _as_recorded(raw: dict[str, Data]) -> dict[str, Data]:
    """Return an answer as a chat records it: those of the Messages API, Gemini and Ollama become chat completions."""
    if any("message" not in choice for choice in objects_in(raw.get("choices"))):
        return converted(raw)
    is_recorded = "choices" in raw or isinstance(raw.get("output"), list) or is_decision(raw)
    if is_recorded or not any(read_choices(raw)):
        return raw
    created = creation_time(raw)
    fields = {"model": served_model(raw), "created": created and int(created)}
    return {**{name: fields[name] for name in fields if fields[name]}, **chat_of(raw)}


def is_chat(data: object) -> bool:
    """Return whether data is a list of messages."""
    return isinstance(data, list) and len(data) == sum("role" in item for item in objects_in(data))


def is_message(data: object) -> bool:
    """Return whether data is a message of the assistant."""
    return object_in(data).get("role") == ASSISTANT and not is_raw_answer(data)


def is_raw_answer(value: object) -> bool:
    """Return whether data is the whole answer, or an error, of a known API, and not a model's answer in JSON."""
    data = object_in(value)
    error = data.get("error")
    choices = objects_in(data.get("choices"))
    return (
        any(name in data and not others.isdisjoint(data) for name, others in ANSWERS.items())
        or any("message" in choice for choice in choices)
        or "message" in object_in(error)
        or (isinstance(error, str) and len(data) == 1)
    )


def split_choices(
    response: Mapping[str, object], cost: float | None
) -> list[tuple[dict[str, Data], float | None]]:
    """Return a response for each choice of one, with its cost. The first has the usage and cost of all,
    because no server says what each choice used.
    """
    choices = response.get("choices")
    if not isinstance(choices, list) or len(choices) < 2:
        return [(dict(response), cost)]
    without_usage = {name: value for name, value in response.items() if name != "usage"}
    draws = [{**without_usage, "choices": [{**choice, "index": 0}]} for choice in choices]
    draws[0] = {**response, "choices": draws[0]["choices"]}
    return [
        (draw, cost if number == 0 or cost is None else 0.0) for number, draw in enumerate(draws)
    ]


def message_in(response: Mapping[str, object]) -> dict[str, object]:
    """Return the message of a response's first choice."""
    return message_of(choices_of(response)[0])


def _check_match(turn: Mapping[str, object], response: Mapping[str, object]) -> None:
    """Refuse a response whose text is not its turn's, apart from blanks around it."""
    texts = [message_text(choice["message"]).strip() for choice in choices_of(response)]
    text = message_text(turn).strip()
    if text not in texts:
        raise ValueError(
            f"its response does not match: the turn is {_quoted(text)}, the response {_quoted(texts[0])}"
        )


def _quoted(text: str) -> str:
    return as_json(shortened(text, MAX_QUOTE_CHARACTERS))


def converted(completion: Mapping[str, object]) -> dict[str, Data]:
    """Return a legacy completion as the response of a chat, marked ``"converted": true``."""
    choices = [
        {
            "index": choice.get("index", 0),
            "message": {"role": ASSISTANT, "content": choice.get("text")},
            "finish_reason": choice.get("finish_reason"),
            **_logprobs(choice.get("logprobs")),
        }
        for choice in objects_in(completion.get("choices"))
    ]
    return {**completion, "object": CHAT, "choices": choices, "converted": True}


def _logprobs(logprobs: object) -> dict[str, object]:
    """Return the log probabilities of a legacy completion in the form of a chat's."""
    fields = object_in(logprobs)
    tokens, numbers = fields.get("tokens"), fields.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(numbers, list):
        return {}
    tops = fields.get("top_logprobs")
    if not isinstance(tops, list) or not tops:
        tops = [None] * len(tokens)
    content = [
        {
            "token": token,
            "logprob": number,
            "top_logprobs": [
                {"token": other, "logprob": logprob} for other, logprob in object_in(top).items()
            ],
        }
        for token, number, top in zip(tokens, numbers, tops, strict=False)
    ]
    return {"logprobs": {"content": content}}
