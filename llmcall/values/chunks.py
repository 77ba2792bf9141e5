"""The chunks in which a replayed stream gives a recorded response."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .message import text_of
from .shapes import as_chat, choices_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


WORDS = re.compile(r"\s*\S+|\s+")  # each with the blanks before it; together they are the text


# the fields that every chunk repeats
EACH_CHUNK = ("id", "object", "created", "model", "service_tier", "system_fingerprint")


CHUNK = {"object": "chat.completion.chunk"}


# the fields that the first chunk of a choice lacks
NOT_IN_FIRST_CHUNK = ("choices", "usage")


WHOLE_CHOICE = ("index", "message", "finish_reason", "logprobs")


# texts that a model writes before its answer (DeepSeek and vLLM; OpenRouter)
REASONING_FIELDS = ("reasoning_content", "reasoning")


def chunks_of(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the chunks in which a replayed stream gives a recorded response; put together, by
    :class:`Assembler` or by the SDK, they are the response again.

    Texts come word by word, the model's reasoning first; a text with log probabilities comes token
    by token, each with its own.
    """
    response = as_chat(response)
    first_fields = {
        **{name: response[name] for name in response if name not in NOT_IN_FIRST_CHUNK},
        **CHUNK,
    }
    chunk_fields = {name: first_fields[name] for name in EACH_CHUNK if name in first_fields}
    usage = {name: response[name] for name in ("usage",) if response.get(name) is not None}
    for number, choice in enumerate(response["choices"]):
        # the SDK keeps what the first chunk has, even a null
        no_logprobs = {"logprobs": None} if "logprobs" in choice else {}
        position = {"index": choice.get("index", number), **no_logprobs}
        rest = {name: choice[name] for name in choice if name not in WHOLE_CHOICE}
        tokens = _tokens_of_content(choice)
        first_delta, further_deltas = _deltas(choice["message"], [each["token"] for each in tokens])
        own_logprobs = iter(tokens)
        yield {
            **first_fields,
            "choices": [{**position, **rest, "delta": first_delta, "finish_reason": None}],
        }
        for delta in further_deltas:
            piece = {**position, "delta": delta, "finish_reason": None}
            if tokens and "content" in delta:
                without = dict.fromkeys(choice["logprobs"])
                piece["logprobs"] = {**without, "content": [next(own_logprobs)]}
            yield {**chunk_fields, "choices": [piece]}
        if choice.get("logprobs") is not None and not tokens:
            with_logprobs = {"delta": {}, "logprobs": choice["logprobs"], "finish_reason": None}
            yield {**chunk_fields, "choices": [{**position, **with_logprobs}]}
        # As the API does: programs stop reading where they see the reason, and look no further
        # into that chunk.
        last = {**position, **rest, "delta": {}, "finish_reason": choice.get("finish_reason")}
        ending = usage if number == len(response["choices"]) - 1 else {}
        yield {**chunk_fields, "choices": [last], **ending}


def _tokens_of_content(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tokens of a choice's text with their log probabilities; empty if these are not those
    of the whole text, or if there are others.
    """
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return []
    tokens = logprobs.get("content")
    others = [value for name, value in logprobs.items() if name != "content" and value]
    if not isinstance(tokens, list) or others:
        return []
    texts = [each.get("token") if isinstance(each, dict) else None for each in tokens]
    if not all(isinstance(text, str) and text for text in texts):
        return []
    return tokens if "".join(map(str, texts)) == choice["message"].get("content") else []


def _deltas(
    message: Mapping[str, Any], tokens: Sequence[str]
) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the first delta of a message, and those that follow.

    :param tokens: the pieces in which its text comes; if empty, it comes word by word.
    """
    content = message.get("content")
    first: dict[str, Any] = {name: value for name, value in message.items() if value is None}
    first["role"] = message.get("role") or "assistant"
    if isinstance(content, str):
        first["content"] = ""
    rest = {name: value for name, value in message.items() if name not in first}
    rest.pop("content", None)
    return first, _further_deltas(message, rest, tokens)


def _further_deltas(
    message: Mapping[str, Any], rest: dict[str, Any], tokens: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for name in (*REASONING_FIELDS, "content"):
        value = message.get(name)
        if isinstance(value, str):
            rest.pop(name, None)
            pieces = tokens if tokens and name == "content" else WORDS.findall(value)
            yield from ({name: piece} for piece in pieces)
        elif value is not None and name == "content":
            yield {name: value}
    calls = rest.pop("tool_calls") if isinstance(rest.get("tool_calls"), list) else []
    # As the API once named the only call.
    function = rest.pop("function_call") if isinstance(rest.get("function_call"), dict) else None
    if rest:
        yield rest
    if function is not None:
        yield from ({"function_call": piece} for piece in _pieces_of_function(function))
    for number, call in enumerate(calls):
        yield from _tool_call_deltas({**call, "index": number})


def _tool_call_deltas(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the deltas of one tool call, as the API does: programs read only the first call of a
    delta, and take its name from one and its arguments from the next ones.
    """
    function = call.get("function")
    if not isinstance(function, dict):
        yield {"tool_calls": [call]}
        return
    first, *others = _pieces_of_function(function)
    yield {"tool_calls": [{**call, "function": first}]}
    for piece in others:
        yield {"tool_calls": [{"index": call["index"], "function": piece}]}


def _pieces_of_function(function: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a called function in the pieces in which the API gives it: its name, its arguments."""
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return [function]
    return [{**function, "arguments": ""}, {"arguments": arguments}]


def text_in(chunk: Mapping[str, Any]) -> str:
    """Return the text of the first choice in a chunk."""
    deltas = [each["delta"] for each in chunk["choices"] if each["index"] == 0]
    return "".join(text_of(delta.get("content")) or "" for delta in deltas)


def says_something(chunk: Mapping[str, Any]) -> bool:
    """Return whether a chunk holds a part of an answer, more than its role."""
    deltas = [choice["delta"] for choice in chunk["choices"]]
    return any(value for delta in deltas for name, value in delta.items() if name != "role")


def text_pieces(response: Mapping[str, Any]) -> list[str]:
    """Return the text of a recorded response in the pieces in which a replayed stream yields it:
    word by word.

    The record does not keep how the network cut the text.
    """
    return WORDS.findall(text_of(choices_of(response)[0]["message"].get("content")) or "")
