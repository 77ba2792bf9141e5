"""Warnings of answers: cut ones, prompts that a server cut, and records of another host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..apis.endings import is_cut
from ..apis.shapes import choices_of
from ..apis.usage import TokenUsage
from ..support.listeners import Listener
from ..support.notices import warn_once

if TYPE_CHECKING:
    from ..core.calls import Call
    from ..stores.record import Record


class AnswerWarnings(Listener):
    """Warns once of what an answer lacks, and of where it comes from."""

    def stored(self, call: Call, record: Record) -> None:
        """Warn of a chat's answer that was cut, or whose prompt was."""
        if record.kind == "chat":
            _warn_of_cut_answer(call, record.response)
            _warn_of_cut_prompt(call, TokenUsage.of(record.response).input_tokens)

    def answered(self, call: Call, record: Record) -> None:
        """Warn if a model's record comes from a host that does not serve the model now."""
        host = record.host
        if host is None or not record.is_hit or record.kind == "http":
            return
        checked_hosts = call.client.resolved.checked_hosts
        if (call.request.model, host) in checked_hosts:
            return
        checked_hosts.add((call.request.model, host))
        model = record.request.get("model", "")
        hosts = set().union(*map(call.client.hosts, (model, *call.fallbacks)))
        if host not in hosts:
            warn_once(
                f"answers of {model} recorded from {host} are used for "
                f"{', '.join(sorted(hosts))}; [Cache] NAMESPACE keeps the records of different "
                "servers apart"
            )


def _warn_of_cut_answer(call: Call, response: Any) -> None:
    """Warn if an answer ended at its token limit."""
    model = call.request.model
    parameters = call.request.asked
    if parameters.get("logprobs") and parameters.get("max_tokens") == 1:
        return  # one token was wanted, for its log probabilities
    if any(is_cut(choice.get("finish_reason")) for choice in choices_of(response)):
        warn_once(
            f"{model}: an answer ended at its token limit (finish_reason 'length') and is "
            "recorded as it is; if answers should be longer, set max_tokens higher",
            about=("length", model),
        )


def _warn_of_cut_prompt(call: Call, reported: int | None) -> None:
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
    from ..models.tokens import count_tokens

    encoding = call.client.pool(model).capabilities.encoding
    counted = count_tokens(messages, model, encoding=encoding)
    if reported * 2 < counted:
        warn_once(
            f"{model}: the server reports {reported} prompt tokens, but llmcall counts {counted!r}. "
            "The server may have cut the prompt without an error, or it counts differently",
            about=("prompt tokens", model),
        )
