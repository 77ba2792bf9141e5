"""Listeners: all objects that are notified of a process's calls.

The pipeline of a call names no feature: usage, the report of failures, warnings, a test's guard and a packing's
log are listeners. An answer is stored before any of them is notified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .request_origin import callback_errors
from .system import lock

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..core.calls import Call
    from ..stores.cassettes.cassette import Cassette
    from ..stores.record import Record

T = TypeVar("T")


class CallInfo(NamedTuple):
    """A call, as a listener sees it.

    :param kind: ``"chat"``, ``"embedding"``, ``"function"`` or ``"http"``.
    :param name: what is called: a model, a function, or the method and path of an HTTP request.
    :param scope: the scope path; empty outside any scope.
    :param sample: the draw (``"trial-3/lisa#0"``), or ``None``.
    :param arm: the arm's name; empty outside any arm.
    :param cache_key: the key of its record.
    :param is_program: whether a program's client makes it, as in a cassette's block.
    """

    kind: str
    name: str
    scope: str
    sample: str | None
    arm: str
    cache_key: str
    is_program: bool


class Listener:
    """A listener to calls and cassettes of this process while its block is open, or from :meth:`start` to
    :meth:`stop`; a subclass overrides what it needs.

    An answer is stored before a listener is notified. What a listener sends is unrecorded. What it raises
    reaches the caller as a :class:`llmcall.LLMCallError` that names its class and method.

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
        _hearing(self).is_started = True

    def stop(self) -> None:
        """Stop listening, also in blocks that are open."""
        with lock:
            stop_listening(_hearing(self))

    def __enter__(self) -> Self:
        with lock:
            _hearing(self).blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        with lock:
            hearing = _hearing(self)
            hearing.blocks -= 1
            if hearing.blocks <= 0 and not hearing.is_started:
                stop_listening(hearing)


# What became of a call: it was answered by a record, sent for the first time, recorded, or succeeded after an attempt
# that had counted as a failure.
OUTCOMES = frozenset({"cached_calls", "asked", "recorded", "recovered"})


class CallListener:
    """A listener to calls and cassettes, for llmcall's own; a subclass overrides what it needs.

    A :class:`~llmcall.CacheMissError` that ``asks`` raises refuses the call, and what ``opens`` raises refuses
    the cassette.
    """

    def opens(self, cassette: Cassette) -> None:
        """Handle a cassette that opens, before it reads its file."""

    def closed(self, cassette: Cassette) -> None:
        """Handle a closed cassette, before it is written."""

    def asks(self, call: Call) -> None:
        """Handle a call without a recorded answer, before it is sent; recorded functions are left out."""

    def stored(self, call: Call, record: Record) -> None:
        """Handle an answered call whose answer is stored. This may run in an event loop."""

    def used(self, call: Call, amounts: dict[str, Any]) -> None:
        """Count what a call used, by column of :class:`~llmcall.types.Usage`, or what became of it, by a name of
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


class _OwnListener(CallListener):
    """A user's listener, which gets :class:`CallInfo` only.

    :ivar blocks: how many of its blocks are open.
    :ivar is_started: whether it listens until it is stopped.
    """

    def __init__(self, own: Listener) -> None:
        self.own = own
        self.blocks = 0
        self.is_started = False

    def opens(self, cassette: Cassette) -> None:
        """Pass on the cassette's path."""
        self._call("opened", self.own.opened, str(cassette.path))

    def closed(self, cassette: Cassette) -> None:
        """Pass on the cassette's path."""
        self._call("closed", self.own.closed, str(cassette.path))

    def asks(self, call: Call) -> None:
        """Pass on the call."""
        self._call("asks", self.own.asks, call.info)

    def used(self, call: Call, amounts: dict[str, Any]) -> None:
        """Pass on the call and a copy of what it used of a model."""
        if amounts.keys().isdisjoint(OUTCOMES):
            self._call("used", self.own.used, call.info, dict(amounts))

    def answered(self, call: Call, record: Record) -> None:
        """Pass on the call and a copy of its record."""
        self._call("answered", self.own.answered, call.info, record)

    def failed(self, call: Call, error: BaseException) -> None:
        """Pass on the call and its error."""
        self._call("failed", self.own.failed, call.info, error)

    def _call(self, name: str, method: Callable[..., None], *args: object) -> None:
        """Call a method of the user's, whose errors get its name."""
        with callback_errors(f"the listener {type(self.own).__name__}.{name} raised"):
            method(*args)


_listeners: tuple[CallListener, ...] = ()


def current_listeners() -> tuple[CallListener, ...]:
    """Return the listeners to notify now: one that stops meanwhile, here or in another thread, skips no other."""
    return _listeners


def listen(listener: CallListener) -> None:
    """Notify a listener of all calls from now on, after the others."""
    global _listeners
    with lock:
        _listeners = (*_listeners, listener)


def stop_listening(listener: CallListener) -> None:
    """Notify a listener no more."""
    global _listeners
    with lock:
        _listeners = tuple(other for other in _listeners if other is not listener)


def _hearing(own: Listener) -> _OwnListener:
    """Return the substitute for a user's listener, once in the list however many blocks are open."""
    with lock:
        for listener in _listeners:
            if isinstance(listener, _OwnListener) and listener.own is own:
                return listener
        hearing = _OwnListener(own)
        listen(hearing)
        return hearing
