"""Listeners: all objects that are notified of a process's calls.

The pipeline of a call names no feature: usage, the report of failures, warnings, a test's guard and a packing's
log are listeners. An answer is stored before any of them is notified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..additions import additions
from .request_origin import callback_errors, llmcall_sends
from .system import lock

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..core.calls import Call
    from ..stores.cassettes.cassette import Cassette
    from ..stores.record import Record


class CallInfo(NamedTuple):
    """A call, as a listener sees it.

    :param kind: ``"chat"``, ``"embedding"``, ``"function"`` or ``"http"``.
    :param name: the model, the function, or the method and path of an HTTP request.
    :param scope: the scope path; empty outside any scope.
    :param sample: the draw (``"trial-3/lisa#0"``), or ``None``.
    :param arm: the arm's name; empty outside any arm.
    :param cache_key: the key of its record.
    :param is_program: ``True`` if a program's client makes it, as in a cassette's block.
    """

    kind: str
    name: str
    scope: str
    sample: str | None
    arm: str
    cache_key: str
    is_program: bool


class Listener:
    """An object notified of this process's calls and cassettes, while its block is open or from :meth:`start` to
    :meth:`stop`. A subclass overrides what it needs.

    An answer is stored before a listener is notified. What it raises reaches the caller as a
    :class:`llmcall.LLMCallError` that names its class and method. Requests that a listener or another callback
    sends are not recorded, and no listener is notified of them.

    >>> class Printer(llmcall.types.Listener):
    ...     def answered(self, call, record):
    ...         print(call.scope, call.kind, "from the record" if record.is_hit else "asked")
    >>> with Printer(), llmcall.scope("Ann"):
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    Ann chat asked
    'Good morning!'
    """

    def asks(self, call: CallInfo) -> None:
        """Handle a call without a recorded answer, before it is sent; recorded functions are left out.

        :raises CacheMissError: to refuse it.
        """

    def answered(self, call: CallInfo, record: Record) -> None:
        """Handle the record that answers a call: a new one, or a recorded one (``record.is_hit``).

        Of a new one, ``record.received`` is a :class:`~llmcall.types.Received`, with latency, endpoint and cost.
        """

    def used(self, call: CallInfo, amounts: Mapping[str, object]) -> None:
        """Count what a sent call used, by column of :class:`~llmcall.types.Usage`; ``None`` is unknown. Errors
        go to :meth:`failed`.
        """

    def failed(self, call: CallInfo, error: BaseException) -> None:
        """Handle a call that ended without an answer: it failed, was refused, or its caller left."""

    def opened(self, path: str) -> None:
        """Handle a cassette that opens, before it reads its file."""

    def closed(self, path: str) -> None:
        """Handle a closed cassette, before it is written."""

    def start(self) -> None:
        """Start listening."""
        listen(self)

    def stop(self) -> None:
        """Stop listening, also in blocks that are open."""
        stop_listening(self)

    def __enter__(self) -> Self:
        listen(self)
        return self

    def __exit__(self, *_: object) -> None:
        with lock:
            entries = (number for number, other in enumerate(_entries) if other is self)
            if (first := next(entries, None)) is not None:  # else it was stopped
                _set_entries([*_entries[:first], *_entries[first + 1 :]])


# What became of a call: it was answered by a record, sent for the first time, recorded, succeeded after an attempt
# that had counted as a failure, or got an answer that no model gave.
OUTCOMES = frozenset(
    {"cached_calls", "asked", "recorded", "recovered", *additions("given").values()}
)


class CallListener:
    """A listener to calls and cassettes, for llmcall's own; a subclass overrides what it needs.

    A :class:`~llmcall.CacheMissError` that ``asks`` raises refuses the call, and what ``opened`` raises refuses
    the cassette.
    """

    def opened(self, cassette: Cassette) -> None:
        """Handle a cassette that opens, before it reads its file."""

    def closed(self, cassette: Cassette) -> None:
        """Handle a closed cassette, before it is written."""

    def asks(self, call: Call) -> None:
        """Handle a call without a recorded answer, before it is sent; recorded functions are left out."""

    def stored(self, call: Call, record: Record) -> None:
        """Handle an answered call whose answer is stored. This may run in an event loop."""

    def used(self, call: Call, amounts: dict[str, Any]) -> None:
        """Count a call's usage, by column of :class:`~llmcall.types.Usage`, or its outcome, by a name in
        :data:`OUTCOMES`; ``None`` is unknown.
        """

    def answered(self, call: Call, record: Record) -> None:
        """Handle the record that answers a call: a new one, or a recorded one (``record.is_hit``)."""

    def failed(self, call: Call, error: BaseException) -> None:
        """Handle a call that ended without an answer: it failed, or its caller left."""

    def refused(self, call: Call | None, error: Exception) -> None:
        """Handle a call that may not be sent, or may not get what is recorded.

        :param call: ``None`` for a call of a map's worker process, which has reported it there.
        """

    def unrecorded(self, scope: str, words: str, reason: str) -> None:
        """Handle a call that left no record, so that a replay will differ from this run."""


EVENTS = [name for name in vars(CallListener) if not name.startswith("_")]
_entries: Sequence[CallListener | Listener] = ()  # a user's: one for each start and open block
# By event, the methods that hear of it: each is looked up when its listener begins, not at each call. Tuples, so that
# a listener that stops meanwhile, here or in another thread, skips no other.
methods_by_event: dict[str, tuple[Callable[..., None], ...]] = dict.fromkeys(EVENTS, ())


def notify(event: str, subject: Any, *details: Any) -> None:
    """Notify all listeners of an event.

    :param event: the name of their method.
    :param subject: the call or the cassette.
    :raises LLMCallError: if a user's listener fails.
    """
    for method in methods_by_event[event]:
        method(subject, *details)


def _notify_users(listener: Listener, event: str, subject: Any, *details: Any) -> None:
    """Notify a user's listener with plain facts and copies, so its changes affect nothing else."""
    if event == "asks" and llmcall_sends():
        return  # a callback's call, perhaps its own: it would be asked without end
    if event == "used":
        (amounts,) = details
        if not OUTCOMES.isdisjoint(amounts):
            return
        details = (dict(amounts),)
    elif event == "answered":
        (record,) = details
        details = (record.copy(record.received),)
    shown = getattr(subject, "info", None) or str(subject.path)  # a call's, or a cassette's
    with callback_errors(f"the listener {type(listener).__name__}.{event} raised"):
        getattr(listener, event)(shown, *details)


def listen(listener: CallListener | Listener) -> None:
    """Notify a listener of all calls from now on, after the others."""
    with lock:
        _set_entries([*_entries, listener])


def stop_listening(listener: CallListener | Listener) -> None:
    """Notify a listener no more."""
    with lock:
        _set_entries([other for other in _entries if other is not listener])


def _set_entries(entries: Sequence[CallListener | Listener]) -> None:
    global _entries
    _entries = entries
    listeners = {id(entry): entry for entry in entries}.values()  # each once
    for event in EVENTS:
        hearing = (_method_of(listener, event) for listener in listeners)
        methods_by_event[event] = tuple(filter(None, hearing))


def _method_of(listener: CallListener | Listener, event: str) -> Callable[..., None] | None:
    """Return the method by which a listener hears of an event, or ``None`` if it does not."""
    if isinstance(listener, Listener):
        return partial(_notify_users, listener, event) if event in vars(Listener) else None
    hears = getattr(type(listener), event) is not getattr(CallListener, event)
    return getattr(listener, event) if hears else None
