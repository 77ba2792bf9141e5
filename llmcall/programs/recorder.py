"""The requests of a program: each is looked up, sent, tried again and recorded like other calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from .. import askers, scopes
from ..blocking import value
from ..cassettes.current import current_cassette
from ..config.settings import checked_layer
from ..errors import (
    BudgetExceededError,
    CacheMissError,
    LLMCallError,
    ScopeError,
)
from ..failures import on_refusal
from ..keys.normalizers import normalizer
from ..notices import warn_once
from ..system import after_fork_in_child
from . import connections
from .actors import Actor, Actors
from .requests import (
    ProgramRequest,
    UnreadableBodyError,
    client_call_of,
    is_of_model,
    may_be_recorded,
)

if TYPE_CHECKING:
    from types import ModuleType

    from .calls import ProgramCall, ProgramClient

HAS_ENDED = (
    "the program has ended, so this request was not sent: its answer could not be recorded. Join the "
    "thread that sends it before the program ends, and send nothing from __del__"
)
CALL_ERRORS = (LLMCallError, TypeError, ValueError)  # of a call; the latter two are wrong arguments
# Refusals that are counted where they are raised, in calls by llmcall's own client too.
COUNTED_ERRORS = (BudgetExceededError, CacheMissError, ScopeError)

recorders: list[Recorder] = []  # in front of the clients of the process, the innermost last


def innermost() -> Recorder | None:
    """Return the recorder that was put in front last."""
    in_front = tuple(recorders)
    return in_front[-1] if in_front else None


after_fork_in_child(recorders.clear)  # the requests of child processes are not recorded


def _note_refusal(error: Exception) -> None:
    """Count an error of llmcall's own, and keep the first, in all that is open around the call.

    An error that a daemon thread gets after the program's end is not counted.
    """
    for recorder in tuple(recorders):
        if not recorder.has_ended:
            recorder.first_error = recorder.first_error or error
            recorder.refused += not isinstance(error, COUNTED_ERRORS)


on_refusal.append(_note_refusal)


def _host(host: Any) -> str:
    """Return the name of a host that is to be recorded.

    :raises ValueError: if it is an address, or has a port.
    """
    if not isinstance(host, str) or "/" in host or host.count(":") == 1:
        raise ValueError(f"hosts has {host!r}; name hosts alone, such as 'api.example.com'")
    return host.lower()


class Recorder:
    """Answers the requests of a program from the record, or lets them be sent and records the answers.

    :param actor: names who is asking; see :func:`llmcall.http_client`. Without one, the innermost
        recorder in front that has one names it; so it is with the others.
    :param overrides: settings by name.
    :param hosts: further hosts whose JSON requests are recorded as kind "http".
    :param caller: the public function that took these arguments, for messages.
    :param sends_nothing: whether it only replays, even without a cassette that does.
    :raises ConfigError, TypeError: if a setting is wrong, as for a client.
    :ivar first_error: the first error of llmcall's own that the program got, or ``None``.
    :ivar refused: how many of the program's calls were refused for another reason than a miss, a
        scope or a budget, such as a credential in the request.
    :ivar unrecorded: the models' hosts to which other clients connected.
    :ivar models: the addresses of models that the settings name or that were asked.
    """

    passes_requests = False  # whether it lets all requests pass, and sees connections only

    def __init__(
        self,
        actor: Actor | None,
        overrides: Mapping[str, Any],
        hosts: Collection[str] = (),
        *,
        caller: str,
        sends_nothing: bool = False,
    ) -> None:
        self.actors = None if actor is None else Actors(actor)
        # a wrong one fails here, and not in the program's first request
        checked = checked_layer(overrides, caller)
        paths = {name: each.value for name, each in checked.items() if isinstance(each.value, str)}
        self.client_at = functools.cache(functools.partial(_client_at, {**overrides, **paths}))
        self.has_overrides = bool(overrides)
        self.hosts = {_host(host) for host in ((hosts,) if isinstance(hosts, str) else hosts)}
        self.first_error: Exception | None = None
        self.refused = 0
        self.unrecorded: dict[str, None] = {}
        self.models = connections.configured_models()
        self.has_ended = False
        self._sends_nothing = sends_nothing
        self._outer_scope = scopes.scope_around()

    @property
    def sends_nothing(self) -> bool:
        """Return whether a request that is not recorded is refused."""
        cassette = current_cassette()
        return self._sends_nothing or (cassette is not None and not cassette.may_record)

    async def handle(
        self,
        http: ModuleType,
        send: Callable[[Any], Any],
        request: Any,
        send_unrecorded: Callable[[Any], Any] | None = None,
        *,
        is_async: bool = False,
    ) -> Any:
        """Return the response to a request of the program.

        :param http: the request's module, ``httpx`` or ``httpx2``.
        :param send: sends a request whose answer will be recorded.
        :param send_unrecorded: sends a request that is not recorded; by default ``send`` does.
        :param is_async: whether these are asynchronous.
        """
        call: ProgramCall | None = None
        port = connections.port_of(request.url)
        is_models = connections.is_models_host(request.url.host, port, self.known_models())
        hosts = next((each.hosts for each in self._chain() if each.hosts), self.hosts)
        try:
            client_call = None
            if may_be_recorded(request, hosts, is_models_host=is_models):
                content = await value(request.aread() if is_async else request.read())
                try:
                    client_call = client_call_of(request, content, hosts, is_models_host=is_models)
                except UnreadableBodyError:
                    label = f"{request.method} {request.url.path}"
                    reason = "its body is not JSON"
                    if self.sends_nothing:
                        raise LLMCallError(
                            f"{label} was not recorded, so a replay does not send it: {reason}"
                        ) from None
                    warn_once(f"{label} is sent but not recorded: {reason}. A replay refuses it")
            if client_call is None:
                if is_models and self.sends_nothing:  # such as openai-agents' traces
                    return http.Response(204)
                return await value((send_unrecorded or send)(request))
            if self.has_ended:
                raise LLMCallError(HAS_ENDED)
            if client_call.body is not None and is_of_model(request):
                self.models.add(connections.address_of(request.url))
            from . import answers, calls  # not for a block in which only llmcall asks

            with_overrides = next((each for each in self._chain() if each.has_overrides), self)
            call = calls.ProgramCall(
                http, request, send, is_async, with_overrides.client_at, client_call
            )
            with (
                scopes.inherited(self._outer_scope),
                self._scope_of(call),
                askers.counted_apart(),
            ):
                return answers.response_to(call, await call.ask())
        except CALL_ERRORS as error:
            from . import answers

            return answers.refusal(http, error, call)

    def known_models(self) -> set[tuple[str, int]]:
        """Return the addresses of models that this recorder and those around it know."""
        return set().union(*(each.models for each in self._chain()))

    def _chain(self) -> Iterator[Recorder]:
        """Yield this recorder, and those in front of the process's clients, the innermost first."""
        yield self
        yield from reversed(tuple(recorders))

    def _scope_of(self, call: ProgramCall) -> AbstractContextManager[Any]:
        """Return the scope of the actor who makes a call; without one, the scope stays."""
        actors = next((each.actors for each in self._chain() if each.actors), None)
        if actors is None:
            return nullcontext()
        request = call.request
        headers = dict(request.headers.items())
        body = call.client_call.body
        program_request = ProgramRequest(request.method, str(request.url), headers, body)
        return actors.scope_of(program_request, normalizer(call.client.settings.cache_normalize))

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
            raise connections.refusal(host)


def _client_at(settings: dict[str, Any], address: str) -> ProgramClient:
    from .calls import ProgramClient

    return ProgramClient(**{**settings, "base_url": address})
