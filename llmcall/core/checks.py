"""Checks of an answer: complete, neither filtered nor empty, and fit for its request.

Any other answer raises an :class:`llmcall.APIError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from ..apis.decisions import is_decision
from ..apis.endings import ending_problem, is_cut
from ..apis.message import content_text, is_content
from ..apis.shapes import choices_of
from ..apis.usage import TokenUsage
from ..errors import APIError, EmptyAnswerError, ServiceError
from ..support.display.formatting import shortened
from .seams import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..keys.request import Request


# Fields of a message that hold an answer beside its text (openai 3.51, ChatCompletionMessage).
ANSWER_FIELDS = ("tool_calls", "refusal", "function_call", "audio")


LONGEST_QUOTE = 200  # characters of an answer in a message


def check_chat(response: Any) -> None:
    """Refuse a chat response that holds no complete answer.

    :raises ServiceError: if it is malformed, or broke off, as its ending says.
    :raises ContentFilterError: if the provider filtered the answer.
    :raises EmptyAnswerError: if there is neither text nor a tool call.
    """
    is_output = isinstance(response, dict) and isinstance(response.get("output"), list)
    has_choices = is_output or (isinstance(response, dict) and is_decision(response))
    choices = choices_of(response) if has_choices else list_in(response, "choices")
    for choice in choices:
        problem = _problem_of(choice)
        if problem is not None:
            reject(ServiceError, problem, response)
    for choice in choices:
        if ending := ending_problem(choice.get("finish_reason"), "finish_reason"):
            reject(*ending, response)
    messages = [choice["message"] for choice in choices]
    if not any(
        content_text(message.get("content")) or any(map(message.get, ANSWER_FIELDS))
        for message in messages
    ):
        reject(EmptyAnswerError, _why_empty(choices[0], response), response)


def _problem_of(choice: Any) -> str | None:
    """Return the problem with a choice, or ``None`` for a complete message."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return f"a malformed answer: a choice without a message ({brief(choice)})"
    if not is_content(message.get("content")):
        return f"a malformed answer: its content is not text ({brief(message)})"
    # OpenRouter reports a provider that failed halfway like this, with the half that came.
    if choice.get("finish_reason") == "error" or choice.get("error"):
        return f"the answer broke off: {brief(choice.get('error') or choice)}"
    return None


def _why_empty(choice: Mapping[str, Any], response: Mapping[str, Any]) -> str:
    reason = choice.get("finish_reason")
    reasoning_tokens = TokenUsage.of(response).reasoning_tokens
    if is_cut(reason):
        note = f" ({reasoning_tokens} of them on reasoning)" if reasoning_tokens else ""
        return f"the answer is empty: the token limit was used up{note} before any text"
    return f"the answer is empty: neither text nor a tool call (finish_reason {reason})"


def check_fits(request: Request, response: Mapping[str, Any]) -> None:
    """Refuse an answer that does not fit its ``response_format``, so that it is asked for again and
    not stored.

    :param response: a response that :func:`check_chat` accepted. Fallbacks decide about answers that
        the context window cut.
    :raises ServiceError: saying where it does not fit. Another attempt may help.
    """
    if request.expected is None:
        return
    for choice in choices_of(response):
        message = choice["message"]
        text = None if message.get("refusal") else content_text(message.get("content"))
        problem = request.expected.misfit(text) if text else None  # a refusal, or a tool call
        if problem is not None:
            remedy = (
                "; it was cut at the token limit: raise max_tokens"
                if is_cut(choice.get("finish_reason"))
                else ""
            )
            reject(
                ServiceError,
                f"the answer does not fit its response_format: {problem}{remedy}",
                response,
            )


def fits(request: Request, response: Mapping[str, Any]) -> bool:
    """Return whether a recorded answer fits the request's ``response_format``; a record without an
    answer does.
    """
    try:
        check_fits(request, response)
    except ServiceError:
        return False
    except (LookupError, TypeError, AttributeError):
        pass
    return True


def is_cut_by_context_window(response: Mapping[str, Any], request: Request) -> bool:
    """Return whether an answer ended at a token limit that the request did not set, which is where
    the context window ends.
    """
    if not any(is_cut(choice.get("finish_reason")) for choice in choices_of(response)):
        return False
    max_tokens = request.asked.get("max_tokens")
    output_tokens = TokenUsage.of(response).output_tokens
    return max_tokens is None or (output_tokens is not None and output_tokens < max_tokens)


def list_in(response: Any, name: str) -> list[Any]:
    """Return the list of that name in a response; refuse a response without one."""
    if not isinstance(response, dict):
        reject(ServiceError, f"a malformed answer: {brief(response)}", response)
    items = response.get(name)
    if not isinstance(items, list) or not items:
        message = f"a malformed answer without {name}: {brief(response.get('error') or response)}"
        reject(ServiceError, message, response)
    return items


def reject(error_class: type[APIError], message: str, response: Any) -> NoReturn:
    is_ours = isinstance(response, Response)
    raise error_class(
        message,
        status_code=response.status_code if is_ours else None,
        request_id=response.request_id if is_ours else None,
    )


def brief(value: object) -> str:
    return shortened(value if isinstance(value, str) else repr(value), LONGEST_QUOTE)
