"""Published answers as responses of a chat, checked like a server's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...apis.message import message_of, message_text
from ...apis.objects import object_in, objects_in
from ...apis.shapes import choices_of
from ...core.kinds import check_chat
from ...errors import ServiceError
from ...keys.plain_data import recordable
from ...stores.record import Record
from ...stores.records.readable import unreadable
from ...support.display.formatting import as_json, shortened

if TYPE_CHECKING:
    from ...keys.request import Data

ASSISTANT = "assistant"
CHAT = "chat.completion"
BATCH = "batch"  # the tier of a batch's answers, which do not name it
MAX_QUOTE_CHARACTERS = 100  # of a text in a message
# The fields with a turn's contents
CONTENTS = ("content", "tool_calls", "function_call", "refusal", "audio")


def is_placeholder(turn: Mapping[str, object]) -> bool:
    """Return whether a turn of the assistant is empty, so that its response fills it."""
    return not any(turn.get(name) for name in CONTENTS)


def turn_response(
    turn: Mapping[str, object], response: object, *, has_responses: bool
) -> dict[str, object]:
    """Return the response to record for a turn of the assistant.

    :param response: the API's whole answer, or ``None``.
    :param has_responses: whether the conversation has the API's answers; if not, the turn is the answer.
    :raises APIError: if the answer is empty, filtered or broken off.
    :raises TypeError, ValueError: if it cannot be read, or does not match the turn.
    """
    if not has_responses:
        message = {**turn, "role": ASSISTANT}
        choice = {"index": 0, "message": message, "finish_reason": None}
        response = {"object": CHAT, "choices": [choice]}
    if response is None:
        raise ValueError("it has no response")
    recorded: object = recordable(response, "its response", surrogates=True)
    if not isinstance(recorded, dict):
        raise TypeError(f"its response is {type(response).__name__}; it must be a dict")
    if error := recorded.get("error"):
        details = object_in(error).get("message") or error
        raise ServiceError(f"no answer: {details}")
    if any("message" not in choice for choice in objects_in(recorded.get("choices"))):
        recorded = converted(recorded)
    check_chat(recorded)
    if problem := unreadable(Record(None, "chat", None, {"messages": []}, recorded)):
        raise ValueError(problem)
    if has_responses and not is_placeholder(turn):
        _check_match(turn, recorded)
    return dict(recorded)


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
