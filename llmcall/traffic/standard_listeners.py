"""The listeners that every process has: usage, the report of failures, warnings of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from ..apis.endings import is_cut
from ..apis.shapes import choices_of
from ..apis.usage import TokenUsage
from ..errors import APIError, BudgetExceededError, CacheMissError, ScopeError
from ..scopes.repeated import RepeatedAnswers
from ..support.failures import (
    ABANDONED,
    MISSED,
    OVER_BUDGET,
    UNSCOPED,
    Progress,
    is_abandoned,
    is_failure,
    process_failures,
)
from ..support.listeners import CallListener, listeners
from ..support.notices import warn_once
from .usage import UsageCount, attempt_key

if TYPE_CHECKING:
    from ..core.calls import Call
    from ..keys.request import Data
    from ..stores.record import Record


class FailureReport(CallListener):
    """A listener that reports unrecorded calls at the end of the run or cassette."""

    def failed(self, call: Call, error: BaseException) -> None:
        """Add a call that failed or was cancelled; a stream reports by itself that its
        reader left.
        """
        progress, words = call.progress or Progress(), call.label
        asks_model = call.request.kind != "function"
        if isinstance(error, BudgetExceededError):
            if asks_model:  # a function's own calls report it
                call.note(refused=1)
                call.failures.add(call.position.path, words, OVER_BUDGET)
            return
        if asks_model and not progress.was_sent and (is_failure(error) or is_abandoned(error)):
            call.note(unsent=1)
        if is_failure(error):
            words += f": {type(error).__name__}"
            if isinstance(error, APIError) and call.is_counted:
                words += f". {error.remedy}"
            key: object = attempt_key(call, error)
            if key is None and isinstance(error, APIError):
                key = ref(error)
            call.failures.add(call.position.path, words, key=key)
        elif is_abandoned(error) and not call.is_streamed:
            call.failures.add(call.position.path, words, ABANDONED)

    def refused(self, call: Call | None, error: Exception) -> None:
        """Add a refused call: the program may catch the error and continue without an answer."""
        if call is not None:
            report_refused(call.position.path, call.label, error)


def report_refused(scope: str, label: str, error: Exception) -> None:
    """Report at the end of the process that a call or a map was refused.

    :param scope: its scope path; empty outside any scope.
    :param label: how messages name it.
    :param error: a ``CacheMissError`` or a ``ScopeError``.
    """
    assert isinstance(error, (CacheMissError, ScopeError))
    reason = UNSCOPED if isinstance(error, ScopeError) else MISSED
    process_failures.add(scope, label, reason)


class AnswerWarnings(CallListener):
    """A listener that warns once of an incomplete answer, or of one from another host."""

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
                f"{model}: answers recorded from {host} are used for {', '.join(sorted(hosts))}. Set [Cache] "
                "NAMESPACE to separate them"
            )


def _warn_of_cut_answer(call: Call, response: Data) -> None:
    """Warn if an answer ended at its token limit."""
    model = call.request.model
    parameters = call.request.asked
    if parameters.get("logprobs") and parameters.get("max_tokens") == 1:
        return  # one token was wanted, for its log probabilities
    if any(is_cut(choice.get("finish_reason")) for choice in choices_of(response)):
        warn_once(
            f"{model}: an answer was cut off at max_tokens (finish_reason 'length') and used as is. Raise max_tokens "
            "for longer answers",
            about=("length", model),
        )


def _warn_of_cut_prompt(call: Call, reported: int | None) -> None:
    """Warn if a server reports less than half of the prompt tokens that are counted here."""
    if not reported:
        return
    model = call.request.model
    messages = call.request.body["messages"]
    contents = [message.get("content") for message in messages]
    text = "".join([content for content in contents if isinstance(content, str)])
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


# In the order in which they hear of a call.
listeners += [UsageCount(), FailureReport(), AnswerWarnings(), RepeatedAnswers()]
