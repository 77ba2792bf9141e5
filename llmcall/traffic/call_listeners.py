"""The listeners that every process has: the outcomes of calls, and warnings of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from ..apis.endings import is_cut
from ..apis.shapes import choices_of
from ..apis.token_usage import TokenUsage
from ..errors import APIError, BudgetExceededError, CacheMissError, ScopeError
from ..keys.request import Data
from ..scopes.repeated import RepeatedAnswers
from ..stores.record import Record
from ..support import failures
from ..support.listeners import CallListener, listen
from ..support.notices import warn_once
from ..support.waits import Progress
from .usage import FAILED, count

if TYPE_CHECKING:
    from ..core.calls import Call
    from .usage import UsageDelta


class Outcomes(CallListener):
    """The listener that notes what becomes of each call: it counts it by model and scope, and keeps a call without a
    record for the warnings at the end of the run or cassette.
    """

    def used(self, call: Call, amounts: UsageDelta) -> None:
        """Count a call's usage or outcome."""
        position, model = call.position, call.request.model or call.name
        count(call.at.meter, model, position.path, amounts, position.arm, call.cassette)

    def failed(self, call: Call, error: BaseException) -> None:
        """Note a call that failed, had no budget or was cancelled; a stream reports by itself that its reader left."""
        progress, words, path = call.progress or Progress(), call.label, call.position.path
        calls_model = call.request.kind != "function"
        has_failed, is_left = failures.is_failure(error), failures.is_abandoned(error)
        if isinstance(error, BudgetExceededError) and calls_model:  # a function's own calls note it
            self.used(call, {"refused": 1})
            call.failures.add(path, words, failures.OVER_BUDGET)
        if (has_failed or is_left) and calls_model and not progress.was_sent:
            self.used(call, {"unsent": 1})
        if is_left and not progress.is_read:
            call.failures.add(path, words, failures.ABANDONED)
        if not has_failed:
            return
        words += f": {type(error).__name__}"
        if isinstance(error, APIError) and call.is_counted:
            words += f". {error.remedy}"
        # What a program's own connection raised reaches the program, whose SDK may try again.
        is_attempt = (
            error.failure.is_retried_by_program
            if isinstance(error, APIError)
            else call.kind.has_own_transport
        )
        attempt = call.request.cache_key if is_attempt else None
        if call.is_counted and not progress.is_counted:
            self.used(call, {"errors": 1} if attempt is None else {FAILED: attempt})
        same = ref(error) if isinstance(error, APIError) else None
        call.failures.add(path, words, key=attempt or same)

    def refused(self, call: Call | None, error: Exception) -> None:
        """Note a refused call: the program may catch the error and continue without an answer."""
        if call is not None:
            self.used(call, {"errors": 1, "refused": 1})
            report_refused(call.position.path, call.label, error)


def report_refused(scope: str, label: str, error: Exception) -> None:
    """Report at the end of the process that a call or a map was refused.

    :param scope: its scope path; empty outside any scope.
    :param label: how messages name it.
    :param error: a ``CacheMissError`` or a ``ScopeError``.
    """
    assert isinstance(error, (CacheMissError, ScopeError))
    reason = failures.UNSCOPED if isinstance(error, ScopeError) else failures.MISSED
    failures.process_failures.add(scope, label, reason)


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
        if (call.request.model, host) in call.at.checked_hosts:
            return
        call.at.checked_hosts.add((call.request.model, host))
        model = call.request.model
        hosts = {host for name in (model, *call.fallbacks) for host in call.site_of(name).hosts}
        if host not in hosts:
            warn_once(
                f"{model}: answers recorded from {host} are used for {', '.join(sorted(hosts))}. Set [Cache] "
                "NAMESPACE to separate them"
            )


def _warn_of_cut_answer(call: Call, response: Data) -> None:
    """Warn if an answer ended at its token limit."""
    model = call.request.model
    parameters = call.request.hashed
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

    encoding = call.site.capabilities.encoding
    counted = count_tokens(messages, model, encoding=encoding)
    if reported * 2 < counted:
        warn_once(
            f"{model}: the server reports {reported} prompt tokens, but llmcall counts {counted!r}. "
            "The server may have cut the prompt without an error, or it counts differently",
            about=("prompt tokens", model),
        )


# Those that every process has, in the order in which they are notified.
for _listener in (Outcomes(), AnswerWarnings(), RepeatedAnswers()):
    listen(_listener)
