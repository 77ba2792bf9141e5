"""The requests of a program: each is looked up, sent, tried again and recorded like other calls."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import askers, scopes
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
from ..notices import warn_once
from ..requests.normalizers import normalizer
from ..system import running_loop
from .actors import Actor, Actors
from .answers import (
    NOT_REPEATED,
    ChatEvents,
    derived,
    embeddings_response,
    error_body,
    new_response,
    whole_response,
)
from .calls import EVENTS, BegunStream, ProgramCall, ProgramClient, current_call, headers_to_copy
from .connections import Watch
from .requests import ProgramRequest, client_call_of, concerns_model

if TYPE_CHECKING:
    from types import ModuleType

ERROR_STATUS = 409  # for llmcall's own errors: the openai SDK raises an APIStatusError for it
# Statuses of failures that are no response of the API.
NO_CONNECTION = 503
NO_ANSWER_IN_TIME = 504
HAS_ENDED = (
    "the program has ended, so this request was not sent: its answer could not be recorded. Join the "
    "thread that sends it before the program ends, and send nothing from __del__"
)
PORTS = {"http": 80, "https": 443}
CALL_ERRORS = (LLMCallError, TypeError, ValueError)  # of a call; the latter two are wrong arguments
# Refusals that are counted where they are raised, in calls by llmcall's own client too.
COUNTED_ERRORS = (BudgetExceededError, CacheMissError, ScopeError)


class ProgramCalls:
    """Answer the requests of a program from the record, or let them be sent and record the answers.

    :param actor: names who is asking; see :func:`llmcall.http_client`.
    :param overrides: settings by name.
    :param hosts: further hosts whose JSON requests are recorded as kind "http", besides the requests
        of the SDKs; ``None`` means all hosts.
    :param caller: the public function that took these arguments, for messages.
    :raises ConfigError, TypeError: if a setting is wrong, as for a client.
    :ivar first_error: the first error of llmcall's own that the program got, or ``None``.
    :ivar refused: how many of the program's calls were refused for another reason than a miss, a
        scope or a budget, such as a credential in the request.
    """

    def __init__(
        self,
        actor: Actor | None,
        overrides: Mapping[str, Any],
        hosts: Collection[str] | None = None,
        *,
        caller: str,
    ) -> None:
        self._actors = Actors(actor)
        # a wrong one fails here, and not in the program's first request
        config.settings_for(None, overrides, caller)
        absolute = with_absolute_paths(overrides, caller)
        self._client_at = functools.cache(
            lambda address: ProgramClient(**{**absolute, "base_url": address})
        )
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._outer_scope = scopes.scope_around()
        self.first_error: Exception | None = None
        self.refused = 0
        self._under_way: dict[int, str] = {}
        self._is_closed = False
        self._process = os.getpid()  # a forked one is not recorded
        self._watch: Watch | None = None
        self._sends_nothing = False

    def watch(self, watch: Watch, *, sends_nothing: bool) -> None:
        """Tell the watch which hosts are models'.

        :param sends_nothing: whether a request that cannot be recorded is refused.
        """
        self._watch = watch
        self._sends_nothing = sends_nothing

    def handle(
        self,
        http: ModuleType,
        send: Callable[[Any], Any],
        request: Any,
        send_unrecorded: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Return the response to a request of the program.

        :param http: the request's module, ``httpx`` or ``httpx2``.
        :param send: sends a request whose answer will be recorded.
        :param send_unrecorded: sends a request that is not recorded; by default ``send`` does.
        """
        try:
            call = self._call(http, send, request, request.read())
        except LLMCallError as error:
            return self._refusal(http, error)
        if call is None:
            return (send_unrecorded or send)(request)
        try:
            with self._as_current(call):
                return self._response(call, call.ask())
        except CALL_ERRORS as error:
            return self._refusal(http, error, call.last_response)

    async def ahandle(self, http: ModuleType, send: Callable[[Any], Any], request: Any) -> Any:
        """Return the response to a request of the program; see :meth:`handle`."""
        try:
            call = self._call(http, send, request, await request.aread())
        except LLMCallError as error:
            return self._refusal(http, error)
        if call is None:
            return await send(request)
        try:
            _check_event_loop(request)
            with self._as_current(call):
                return self._response(call, await call.aask())
        except CALL_ERRORS as error:
            return self._refusal(http, error, call.last_response)

    def _call(
        self, http: ModuleType, send: Callable[[Any], Any], request: Any, content: bytes
    ) -> ProgramCall | None:
        """Return the call that a request becomes, or ``None`` if it is sent without a record.

        :raises LLMCallError: if it may not be sent.
        """
        if os.getpid() != self._process or not concerns_model(request, self._hosts):
            return None
        client_call = client_call_of(request, content)
        if client_call is None:
            self._check_unrecordable(request)
            return None
        self._add_address(request.url)
        return ProgramCall(http, request, send, self._client_at, client_call)

    def _check_unrecordable(self, request: Any) -> None:
        """Warn of a request that cannot be recorded.

        :raises LLMCallError: if nothing may be sent.
        """
        label = f"{request.method} {request.url.path}"
        reason = "llmcall records only GET requests and POST requests with JSON"
        if self._sends_nothing:
            raise LLMCallError(
                f"{label} was not recorded, so --mode none does not send it: {reason}"
            )
        warn_once(f"{label} is sent but not recorded: {reason}. A replay sends it again")

    def _add_address(self, url: Any) -> None:
        """Treat connections to an address as a model's."""
        if self._watch is not None:
            self._watch.add(url.host, url.port or PORTS.get(url.scheme, 0))

    @contextlib.contextmanager
    def _as_current(self, call: ProgramCall) -> Iterator[None]:
        """Make a request the current one, in its actor's scope, for a block.

        :raises LLMCallError: if the program has ended.
        """
        if self._is_closed:
            raise LLMCallError(HAS_ENDED)
        token = current_call.set(call)
        is_stream = call.client_call.method == "stream_message"
        if not is_stream:  # a stream notes by itself that nobody read it
            self._under_way[id(call)] = f"{call.request.method} {call.request.url.path}"
        try:
            with scopes.inherited(self._outer_scope), self._scope_of(call), askers.counted_apart():
                yield
        finally:
            self._under_way.pop(id(call), None)
            current_call.reset(token)

    def close(self) -> list[str]:
        """Refuse all further requests; return the requests that are still under way, in words."""
        self._is_closed = True
        return list(self._under_way.values())

    def _response(self, call: ProgramCall, answer: Any) -> Any:
        method, body, _ = call.client_call
        if method == "http_call":
            return new_response(call.http, 200, answer["body"], answer["content_type"])
        if method == "get_embedding":
            return new_response(call.http, 200, embeddings_response(call.client, body, answer))
        on_cassette = current_cassette() is not None
        if not isinstance(answer, BegunStream):
            response = whole_response(answer, on_cassette=on_cassette)
            return new_response(call.http, 200, response)
        headers = [(b"content-type", EVENTS.encode()), *NOT_REPEATED]
        events = derived(call.http, ChatEvents)(self.note, body, answer, on_cassette=on_cassette)
        return call.http.Response(200, headers=headers, stream=events)

    def _refusal(self, http: ModuleType, error: Exception, last_response: Any = None) -> Any:
        """Return the response that the program gets instead of an answer.

        A failure of the API is returned as it came. From the response for one of llmcall's own
        errors, the SDK makes an error of its own.

        :param last_response: the last response of the API, if there is one.
        """
        self.note(error)
        if sys.is_finalizing():  # some Pythons (3.13.0) crash if a response is closed so late
            raise error
        if not isinstance(error, APIError):
            return new_response(http, ERROR_STATUS, error_body(error))
        response = getattr(error, "http_response", last_response)
        if response is not None:
            headers = [*headers_to_copy(response.headers), *NOT_REPEATED]
            return http.Response(response.status_code, headers=headers, content=response.content)
        status = NO_ANSWER_IN_TIME if isinstance(error, RequestTimeoutError) else NO_CONNECTION
        return new_response(http, status, error_body(error))

    def note(self, error: Exception) -> None:
        """Count an error of llmcall's own that the program gets, and keep the first.

        An error that a daemon thread gets after the program's end is not counted.
        """
        if isinstance(error, APIError) or self._is_closed:
            return
        self.first_error = self.first_error or error
        if not isinstance(error, COUNTED_ERRORS):
            self.refused += 1

    def _scope_of(self, call: ProgramCall) -> contextlib.AbstractContextManager[Any]:
        """Return the scope of the actor who makes a call."""
        request = call.request
        headers = dict(request.headers.items())
        body = call.client_call.body
        program_request = ProgramRequest(request.method, str(request.url), headers, body)
        return self._actors.scope_of(
            program_request, normalizer(call.client.settings.cache_normalize)
        )


def _check_event_loop(request: Any) -> None:
    """Check that asyncio runs an asynchronous request.

    :raises LLMCallError: if another library does, such as trio.
    """
    if running_loop() is None:
        raise LLMCallError(
            f"{request.method} {request.url.path} was not sent: llmcall can record asynchronous requests "
            'on asyncio only. Run the program on asyncio (with anyio: backend="asyncio")'
        )
