"""What counts as an answer: complete, neither filtered nor empty. Anything else is an error of the tree."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from array import array
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import APIError, ContentFilterError, EmptyAnswerError, OutputError, ServiceError
from ..types import Response, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..types import Request

__all__ = ["check_chat", "check_embeddings", "check_fits", "cut_by_context", "fits", "is_content", "looks_cut"]

# Fields of a message that hold an answer beside its text (openai 3.51, ChatCompletionMessage).
ANSWERS = ("tool_calls", "refusal", "function_call", "audio")
REMEMBERED = 10_000  # recorded answers that are known to fit
OK = 200  # the SDK raises for any status from 300 on


# By the key, the class, and the answers; the class is held, so that no other one gets its number.
_fitting: dict[tuple[str, int | None, tuple[str, ...]], Any] = {}


def check_chat(response: Any) -> None:
    """Refuse a chat response that holds no complete answer.

    :raises ServiceError: where it is malformed, or broke off.
    :raises ContentFilterError: where the provider filtered the answer.
    :raises EmptyAnswerError: where there is neither text nor a tool call.
    """
    choices = _list_in(response, "choices")
    _check_usage(response)
    for choice in choices:
        _check_choice(choice, response)
    if any(choice.get("finish_reason") == "content_filter" for choice in choices):
        _refuse(ContentFilterError, "the provider filtered the answer (finish_reason content_filter)", response)
    if not any(_is_answer(choice["message"]) for choice in choices):
        _refuse(EmptyAnswerError, _why_empty(choices[0], response), response)


def _is_answer(message: Mapping[str, Any]) -> bool:
    return bool(text_of(message.get("content"))) or any(message.get(name) for name in ANSWERS)


def _check_choice(choice: Any, response: Any) -> None:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        _refuse(ServiceError, f"a malformed answer: a choice without a message ({_brief(choice)})", response)
    if not is_content(message.get("content")):
        _refuse(ServiceError, f"a malformed answer: a content that is no text ({_brief(message)})", response)
    # OpenRouter reports a provider that failed halfway like this, with the half that came.
    if choice.get("finish_reason") == "error" or choice.get("error"):
        _refuse(ServiceError, f"the answer broke off: {_brief(choice.get('error') or choice)}", response)


def is_content(content: Any) -> bool:
    """Return whether something can be the content of a message: a text, a list of parts, or nothing."""
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    return all(
        isinstance(part, dict) and isinstance(part.get("text") if part.get("type") == "text" else part.get("type"), str)
        for part in content
    )


def _check_usage(response: Mapping[str, Any]) -> None:
    usage = response.get("usage") or {}
    details = ("prompt_tokens_details", "completion_tokens_details")
    if not isinstance(usage, dict) or not all(isinstance(usage.get(name) or {}, dict) for name in details):
        _refuse(ServiceError, f"a malformed answer: its usage is {_brief(usage)}", response)
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    if not all(isinstance(count, (int, float, type(None))) for count in counts):
        _refuse(ServiceError, f"a malformed answer: its usage is {_brief(usage)}", response)


def _why_empty(choice: Mapping[str, Any], response: Mapping[str, Any]) -> str:
    reason = choice.get("finish_reason")
    spent = ((response.get("usage") or {}).get("completion_tokens_details") or {}).get("reasoning_tokens")
    if reason == "length":
        thought = f" ({spent} of them on reasoning)" if spent else ""
        return f"the answer is empty: the token limit was used up{thought} before any text; raise max_tokens"
    return f"the answer is empty: neither text nor a tool call (finish_reason {reason})"


def check_fits(request: Request, response: Mapping[str, Any]) -> None:
    """Refuse an answer that does not fit its own ``response_format``, so that it is asked for again and not stored.

    :param response: what :func:`check_chat` passed. What the context window cut is for the fallbacks to judge first.
    :raises ServiceError: saying where it does not fit. It is worth another attempt.
    """
    if request.expected is None:
        return
    for choice in response["choices"]:
        text = text_of(choice["message"].get("content"))
        if not text:  # a refusal, or a tool call
            continue
        problem = _misfit(text, request.expected)
        if problem is not None:
            cut = "; it was cut at the token limit: raise max_tokens" if choice.get("finish_reason") == "length" else ""
            _refuse(ServiceError, f"the answer does not fit its response_format: {problem}{cut}", response)


def fits(request: Request, response: Mapping[str, Any]) -> bool:
    """Return whether a recorded answer fits the request's ``response_format``; so does what is no answer at all."""
    try:
        answers = tuple(str(choice["message"].get("content")) for choice in response["choices"])
        # The key tells one schema from another, but not one class from another of the same schema.
        asked = request.cache_key, None if isinstance(request.expected, dict) else id(request.expected), answers
        if asked not in _fitting:
            check_fits(request, response)
            if len(_fitting) >= REMEMBERED:
                _fitting.clear()
            _fitting[asked] = request.expected
    except ServiceError:
        return False
    except (LookupError, TypeError, AttributeError):
        pass
    return True


def _misfit(text: str, expected: Any) -> str | None:
    """Return where an answer does not fit a class, which reads it, or a JSON schema, whose user does."""
    if not isinstance(expected, dict):
        from ..outputs.parse import read

        try:
            read(text, expected, structured=True)
        except OutputError as error:
            return str(error)
        return None
    try:
        return _schema_misfit(json.loads(text), expected)
    except ValueError as error:
        return f"it is no JSON ({error})"
    except RecursionError:
        return "it is nested too deeply"


def _schema_misfit(value: Any, schema: dict[str, Any]) -> str | None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import UnknownType, best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # With a registry of its own, nothing that a schema refers to is fetched from the network.
    validator = Draft202012Validator(schema, registry=Registry())
    try:
        error = best_match(validator.iter_errors(value))
    except (UnknownType, Unresolvable, re.error):  # a schema that says what no validator here knows
        return None
    return None if error is None else f"{error.json_path}: {_brief(error.message)}"


def check_embeddings(response: Any, count: int) -> None:
    """Refuse an embeddings response that does not hold one vector of finite numbers a text.

    :param count: how many texts were sent.
    :raises ServiceError: where it is malformed.
    """
    data = _list_in(response, "data")
    _check_usage(response)
    if len(data) != count:
        _refuse(ServiceError, f"a malformed answer: {len(data)} embeddings for {count} texts", response)
    for item in data:
        if not isinstance(item, dict) or not _is_vector(item.get("embedding")):
            _refuse(ServiceError, f"a malformed answer: an embedding that is no vector ({_brief(item)})", response)


def _is_vector(embedding: Any) -> bool:
    """Return whether something is a list of numbers, or float32 in base64, without NaN and infinity as float32."""
    try:
        if isinstance(embedding, str):
            numbers = array("f", base64.b64decode(embedding, validate=True))
            if sys.byteorder == "big":
                numbers.byteswap()
        else:
            numbers = array("f", embedding if isinstance(embedding, list) else ())
    except (TypeError, ValueError, OverflowError):
        return False
    return bool(numbers) and math.isfinite(sum(numbers))


def cut_by_context(response: Mapping[str, Any], max_tokens: int | None) -> bool:
    """Return whether an answer ended at a limit that is not the caller's own.

    :param max_tokens: the caller's own limit, or ``None``.
    """
    if all(choice.get("finish_reason") != "length" for choice in response["choices"]):
        return False
    written = (response.get("usage") or {}).get("completion_tokens")
    return max_tokens is None or (isinstance(written, int) and written < max_tokens)


def _list_in(response: Any, name: str) -> list[Any]:
    if not isinstance(response, dict):
        _refuse(ServiceError, f"a malformed answer: {_brief(response)}", response)
    found = response.get(name)
    if not isinstance(found, list) or not found:
        message = f"a malformed answer without {name}: {_brief(response.get('error') or response)}"
        _refuse(ServiceError, message, response)
    return found


def _refuse(kind: type[APIError], message: str, response: Any) -> NoReturn:
    sent = isinstance(response, Response)
    raise kind(message, status_code=OK if sent else None, request_id=response.request_id if sent else None)


def _brief(value: object, limit: int = 200) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def looks_cut(messages: list[Any], reported: int) -> bool:
    """Return whether a prompt has so many bytes for each reported token that it is worth counting."""
    texts = [message["content"] for message in messages if isinstance(message.get("content"), str)]
    size = sum(len(text.encode()) for text in texts)
    # An English token has about 4.5 bytes, one of other scripts 2 to 3: twice that is suspicious.
    return size > reported * (6 if all(map(str.isascii, texts)) else 3)
