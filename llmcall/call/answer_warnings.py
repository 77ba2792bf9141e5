"""Warnings about an answer that is complete, but may not be what was wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..models.tokens import count_tokens
from ..notices import warn_once
from ..types import choices_of

if TYPE_CHECKING:
    from .model_call import ModelCall


def warn_of_missing_answers(call: ModelCall, response: Any) -> None:
    """Warn if a server gave fewer answers than ``n`` asks for."""
    model = call.request.model
    requested = call.request.asked.get("n", 1)
    returned = len(choices_of(response))
    if returned != requested:
        warn_once(
            f"{model} returned {returned} of the {requested} answers that n={requested} asks for: "
            "its server ignores n",
            about=("n", model),
        )


def warn_of_cut_answers(call: ModelCall, response: Any) -> None:
    """Warn if an answer ended at its token limit."""
    model = call.request.model
    parameters = call.request.asked
    if parameters.get("logprobs") and parameters.get("max_tokens") == 1:
        return  # one token was wanted, for its log probabilities
    if any(choice.get("finish_reason") == "length" for choice in choices_of(response)):
        warn_once(
            f"{model}: an answer ended at its token limit (finish_reason 'length') and is kept as "
            "it is; if answers should be longer, set max_tokens higher",
            about=("length", model),
        )


def warn_of_cut_prompt(call: ModelCall, reported: int | None) -> None:
    """Warn if a server reports less than half of the prompt tokens that are counted here.

    :param reported: the prompt tokens that the server counted, if it says so.
    """
    if not reported:
        return
    model = call.request.model
    messages = call.request.body["messages"]
    contents = [message.get("content") for message in messages]
    text = "".join(content for content in contents if isinstance(content, str))
    # A token of English has about 4.5 bytes, one of other scripts 2 to 3. A shorter text cannot
    # have twice as many tokens, and need not be counted.
    bytes_per_token = 6 if text.isascii() else 3
    if len(text.encode()) <= reported * bytes_per_token:
        return
    encoding = call.client.pool(model).capabilities.encoding
    counted = count_tokens(messages, model, encoding=encoding)
    if reported * 2 < counted:
        warn_once(
            f"{model}: the server reports {reported} prompt tokens, but llmcall counts {counted!r}. "
            "The server may have cut the prompt without an error, or it counts differently",
            about=("prompt tokens", model),
        )
