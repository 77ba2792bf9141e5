"""The requests of a program: each is looked up, sent, tried again and recorded like other calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from .. import askers, scopes
from ..blocking import value
from ..cassettes.current import current_cassette
from ..config import resolve as config
from ..config.settings import with_absolute_paths
from ..errors import (
    APIError,
    BudgetExceededError,
    CacheMissError,
    LLMCallError,
    RequestTimeoutError,
    ScopeError,
)
from ..failures import note_refusal, on_refusal
from ..keys.normalizers import normalizer
from ..notices import warn_once
from ..system import after_fork_in_child, running_loop
from . import connections
from .actors import Actor, Actors
from .requests import ProgramRequest, client_call_of, is_of_model, is_unreadable, may_be_recorded

if TYPE_CHECKING:
    from types import ModuleType

    from .calls import ProgramCall, ProgramClient

ERROR_STATUS = 409  # for llmcall's own errors: the openai SDK raises an APIStatusError for it
# Statuses of failures that are no response of the API.
NO_CONNECTION = 503
NO_ANSWER_IN_TIME = 504
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
        config.settings_for(None, overrides, caller)
        absolute = with_absolute_paths(overrides, caller)
        self.client_at = functools.cache(functools.partial(_client_at, absolute))
        self.has_overrides = bool(overrides)
        self.hosts = {host.lower() for host in hosts}
        self.first_error: Exception | None = None
        self.refused = 0
        self.unrecorded: dict[str, None] = {}
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
        try:
            if self._may_be_recorded(request):
                content = await value(request.aread() if is_async else request.read())
                call = self._call(http, send, request, content, is_async)
            if call is None:
                return self._unsent(http, request) or await value(
                    (send_unrecorded or send)(request)
                )
            if is_async and running_loop() is None:
                raise LLMCallError(
                    f"{request.method} {request.url.path} was not sent: llmcall can record asynchronous "
                    "requests on asyncio only. Run the program on asyncio (with anyio: "
                    'backend="asyncio")'
                )
            with self._in_scope(call):
                return self._response(call, await call.ask())
        except CALL_ERRORS as error:
            return self._refusal(http, error, call)

    def _may_be_recorded(self, request: Any) -> bool:
        return may_be_recorded(request, self._all_hosts(), is_models_host=_is_models_host(request))

    def _all_hosts(self) -> Collection[str]:
        return next((each.hosts for each in self._chain() if each.hosts), self.hosts)

    def _chain(self) -> Iterator[Recorder]:
        """Yield this recorder, and those in front of the process's clients, the innermost first."""
        yield self
        yield from reversed(tuple(recorders))

    def _call(
        self,
        http: ModuleType,
        send: Callable[[Any], Any],
        request: Any,
        content: bytes,
        is_async: bool,
    ) -> ProgramCall | None:
        """Return the call that a request becomes, or ``None`` if it passes.

        :raises LLMCallError: if it may not be sent.
        """
        client_call = client_call_of(request, content, self._all_hosts())
        if client_call is None:
            if is_unreadable(request, content, is_models_host=_is_models_host(request)):
                self._check_unrecordable(request)
            return None
        if self.has_ended:
            raise LLMCallError(HAS_ENDED)
        if client_call.body is not None and is_of_model(request):
            connections.add_model(request.url)
        from .calls import ProgramCall  # not for a block in which only llmcall asks

        settled = next((each for each in self._chain() if each.has_overrides), self)
        return ProgramCall(http, request, send, is_async, settled.client_at, client_call)

    def _check_unrecordable(self, request: Any) -> None:
        """Warn of a request that cannot be recorded.

        :raises LLMCallError: if nothing may be sent.
        """
        label = f"{request.method} {request.url.path}"
        reason = "its body is not JSON"
        if self.sends_nothing:
            raise LLMCallError(f"{label} was not recorded, so a replay does not send it: {reason}")
        warn_once(f"{label} is sent but not recorded: {reason}. A replay refuses it")

    def _unsent(self, http: ModuleType, request: Any) -> Any:
        """Return an empty response in a replay's place of a model's host, at a path that is no
        model's, such as that of openai-agents' traces; else ``None``.
        """
        if _is_models_host(request) and self.sends_nothing:
            return http.Response(204)
        return None

    @contextmanager
    def _in_scope(self, call: ProgramCall) -> Iterator[None]:
        """Open the scope of the actor who makes a call, for a block."""
        with (
            scopes.inherited(self._outer_scope),
            self._scope_of(call),
            askers.counted_apart(),
        ):
            yield

    def _scope_of(self, call: ProgramCall) -> AbstractContextManager[Any]:
        actors = next((each.actors for each in self._chain() if each.actors), None)
        request = call.request
        headers = dict(request.headers.items())
        body = call.client_call.body
        program_request = ProgramRequest(request.method, str(request.url), headers, body)
        normalize = normalizer(call.client.settings.cache_normalize)
        return (actors or Actors(None)).scope_of(program_request, normalize)

    def _response(self, call: ProgramCall, answer: Any) -> Any:
        from .answers import (
            chat_events,
            embeddings_response,
            headers_of,
            new_response,
            passing,
            whole_response,
        )
        from .calls import EVENTS, BegunStream

        method, body, _ = call.client_call
        if isinstance(answer, BegunStream) and answer.stream is None:
            headers = headers_of(call.stream_type)
            return call.http.Response(200, headers=headers, stream=passing(call, answer))
        if method == "http_call":
            return new_response(call.http, 200, answer["body"], answer["content_type"])
        if method == "get_embedding":
            return new_response(call.http, 200, embeddings_response(call.client, body, answer))
        on_cassette = current_cassette() is not None
        if not isinstance(answer, BegunStream):
            response = whole_response(answer, on_cassette=on_cassette)
            return new_response(call.http, 200, response)
        events = chat_events(call, answer, on_cassette=on_cassette)
        return call.http.Response(200, headers=headers_of(EVENTS), stream=events)

    def _refusal(self, http: ModuleType, error: Exception, call: ProgramCall | None) -> Any:
        """Return the response that the program gets instead of an answer.

        A failure of the API is returned as it came. From the response for one of llmcall's own
        errors, the SDK makes an error of its own.
        """
        from .answers import NOT_REPEATED, error_body, new_response
        from .calls import headers_to_copy

        note_refusal(error)
        if not isinstance(error, APIError):
            return new_response(http, ERROR_STATUS, error_body(error))
        last_response = None if call is None else call.last_response
        response = getattr(error, "http_response", last_response)
        if response is not None:
            headers = [*headers_to_copy(response.headers), *NOT_REPEATED]
            return http.Response(response.status_code, headers=headers, content=response.content)
        status = NO_ANSWER_IN_TIME if isinstance(error, RequestTimeoutError) else NO_CONNECTION
        return new_response(http, status, error_body(error))

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


def _is_models_host(request: Any) -> bool:
    return connections.is_models_host(request.url.host, connections.port_of(request.url))
