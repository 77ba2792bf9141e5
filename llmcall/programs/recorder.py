"""Recorders: the options with which a program is recorded, and the state of the recording."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from .. import scopes
from ..config.settings import checked_layer
from ..errors import BudgetExceededError, CacheMissError, LLMCallError, ScopeError
from ..keys.normalizers import normalizer
from ..stores.cassettes.current import current_cassette
from ..support.listeners import Listener, listeners
from . import connections
from .actors import Actor, Actors
from .fronts import Front, note_refusal, recorders

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from ..config.settings import Settings
    from ..core.calls import Call
    from ..scopes import ActiveScope
    from ..stores.record import Record
    from .client import ProgramClient
    from .requests import RequestToRecord

MOST_CONNECTIONS = 5  # that are kept
# Refusals that are counted where they are raised, in calls by llmcall's own client too.
COUNTED_ERRORS = (BudgetExceededError, CacheMissError, ScopeError)


class Recorder(Front):
    """The options and the state of one recording of a program: of an ``http_client``, ``patched``, a
    cassette or a run. ``calls.response_to`` answers the requests themselves.

    A missing actor, overrides or hosts are taken from the innermost recorder in front of the process's
    clients that has some.

    :param actor: names who is asking; see :func:`llmcall.http_client`.
    :param overrides: settings by name.
    :param hosts: further hosts whose JSON requests are recorded as kind "http".
    :param caller: the public function that took these arguments, for messages.
    :param sends_nothing: whether it only replays, even without a cassette that does.
    :param default: the scope of calls outside any scope, if no cassette is open.
    :raises ConfigError, TypeError: if a setting is wrong, as for a client.
    :ivar first_error: the first error of llmcall's own that the program got, or ``None``.
    :ivar refused: how many of the program's calls were refused for another reason than a miss, a
        scope or a budget, such as a credential in the request.
    :ivar unrecorded: the models' hosts to which other clients connected.
    :ivar passed: the requests to models that are not recorded, by method, host and path.
    :ivar other_requests: the first requests that passed to other hosts, by method, host and path.
    :ivar connected: the first addresses to which other clients connected, besides known models'.
    :ivar report_first: is called with ``first_error`` when it comes.
    :ivar models: the addresses of models that the settings name or that were asked.
    :ivar has_ended: whether the program's process is ending, so that nothing more can be recorded.
    :ivar made_in: the scope in which it was made.
    """

    def __init__(
        self,
        actor: Actor | None,
        overrides: Mapping[str, Any],
        hosts: Collection[str] = (),
        *,
        caller: str,
        sends_nothing: bool = False,
        default: ActiveScope | None = None,
    ) -> None:
        self._actors = None if actor is None else Actors(actor)
        # a wrong setting fails here, not in the program's first request
        checked = checked_layer(overrides, caller)
        paths = {
            name: setting.value
            for name, setting in checked.items()
            if isinstance(setting.value, str)
        }
        self._overrides = {**overrides, **paths}
        self._client_at = functools.cache(functools.partial(_client_at, self._overrides))
        self._hosts = {
            _checked_host(host) for host in ((hosts,) if isinstance(hosts, str) else hosts)
        }
        self.first_error: Exception | None = None
        self.refused = 0
        self.unrecorded: dict[str, None] = {}
        self.passed: dict[str, None] = {}
        self.connected: dict[str, None] = {}
        self.other_requests: dict[str, None] = {}
        self.report_first: Callable[[Exception], object] = bool
        self.models = connections.configured_models()
        self.has_ended = False
        self._sends_nothing = self.refuses = sends_nothing
        self._default = default
        self.made_in = scopes.here()

    async def response_to(self, library: ModuleType, http: Any, send: Callable[[Any], Any]) -> Any:
        """Return the response to a request of the program, or ``None`` for a request that passes."""
        from .calls import response_to  # not for a block in which only llmcall asks

        return await response_to(self, library, http, send)

    @property
    def sends_nothing(self) -> bool:
        """Return whether a request that is not recorded is refused."""
        cassette = current_cassette()
        return self._sends_nothing or (cassette is not None and not cassette.may_record)

    def known_models(self) -> set[tuple[str, int]]:
        """Return the addresses of models that this recorder and those around it know."""
        return set().union(*(recorder.models for recorder in self._chain()))

    def _chain(self) -> Iterator[Recorder]:
        """Yield this recorder, and those in front of the process's clients, the innermost first."""
        yield self
        yield from (front for front in reversed(tuple(recorders)) if isinstance(front, Recorder))

    @property
    def hosts(self) -> set[str]:
        """Return the further hosts whose JSON requests are recorded."""
        return next((recorder._hosts for recorder in self._chain() if recorder._hosts), set())

    @property
    def actors(self) -> Actors | None:
        """Return what names the program's actors, or ``None``."""
        return next((recorder._actors for recorder in self._chain() if recorder._actors), None)

    def client_at(self, address: str) -> ProgramClient:
        """Return the client that makes the calls to an address, with the overrides."""
        with_overrides = (recorder for recorder in self._chain() if recorder._overrides)
        return next(with_overrides, self)._client_at(address)

    @property
    def default_scope(self) -> ActiveScope | None:
        """Return the scope of a program's call outside any scope, such as the current cassette's."""
        cassette = current_cassette()
        if cassette is not None:
            return cassette.program_scope  # type: ignore[no-any-return]
        return next((recorder._default for recorder in self._chain() if recorder._default), None)

    def scope_of(
        self, to_record: RequestToRecord, settings: Settings
    ) -> AbstractContextManager[Any]:
        """Return the scope of the actor who makes a request; without one, the scope stays.

        :param settings: the call's settings.
        """
        actors = self.actors
        if actors is None:
            return nullcontext()
        return actors.scope_of(to_record.for_actor(), normalizer(settings.cache_normalize))

    def note_refusal(self, error: Exception) -> None:
        """Count an error of llmcall's own, and keep the first.

        An error that a daemon thread gets after the program's end is not counted.
        """
        if not self.has_ended:
            if self.first_error is None:
                self.first_error = error
                self.report_first(error)
            self.refused += not isinstance(error, COUNTED_ERRORS)

    def raise_first_error(self) -> None:
        """Raise the first error of llmcall's own that a call got, if there is one."""
        if self.first_error is not None:
            raise self.first_error

    def note_connection(self, host: str) -> None:
        """Note a connection to a model that no recorded client makes.

        :raises ConnectionRefusedError: if nothing may be sent.
        """
        for recorder in dict.fromkeys(self._chain()):
            recorder.unrecorded[host] = None
        if self.sends_nothing:
            raise connections.refused_connection(host)

    def note_other_connection(self, address: str) -> None:
        """Note a connection of another client, to report it if no call of the program is recorded."""
        if address and len(self.connected) < MOST_CONNECTIONS:
            self.connected[address] = None

    def note_other_request(self, address: str) -> None:
        """Note a request that passes to a host that is not a model's, to report it if no call of the
        program is recorded.

        :param address: its method, host and path.
        """
        for recorder in dict.fromkeys(self._chain()):
            if len(recorder.other_requests) < MOST_CONNECTIONS:
                recorder.other_requests[address] = None

    def note_unrecorded(self, address: str) -> None:
        """Note a request to a model that is not recorded, such as for speech, a file or a list.

        :param address: its method, host and path.
        :raises LLMCallError: if nothing may be sent.
        """
        for recorder in dict.fromkeys(self._chain()):
            recorder.passed[address] = None
        if self.sends_nothing:
            raise LLMCallError(
                f"{address} is not recorded, so a replay does not send it: llmcall records JSON that is posted "
                "to a model and answered in JSON"
            )


def _checked_host(host: Any) -> str:
    """Return the name of a host that is to be recorded.

    :raises ValueError: if it is an address, or has a port.
    """
    if not isinstance(host, str) or "/" in host or host.count(":") == 1:
        raise ValueError(f"hosts has {host!r}; name hosts alone, such as 'api.example.com'")
    return host.lower()


def _client_at(settings: dict[str, Any], address: str) -> ProgramClient:
    from .client import ProgramClient

    return ProgramClient(**{**settings, "base_url": address})


class ProgramCalls(Listener):
    """Counts the calls that were refused, for the recorders in front of the program, and forgets a failure
    after which the program's SDK tried again.
    """

    def answered(self, call: Call, record: Record) -> None:
        """Forget an earlier attempt that failed."""
        if call.transport is not None:
            call.failures.recover(call.request.cache_key)

    def refused(self, call: object, error: Exception) -> None:
        """Count the error."""
        note_refusal(error)


listeners.append(ProgramCalls())
