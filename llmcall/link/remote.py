"""The transport of a call whose process sends it: the recording process tells it what to send, step by step."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.effects import Timed
from ..core.kinds import Chat, Embeddings, Function, Http, Kind, ProgramChat, ProgramEmbeddings
from ..core.seams import AsyncTransport, Chunk, Response, ServerCopy, Transport
from ..scopes.scope import in_function
from ..stores.cassettes.replay_log import function_scope
from ..traffic.gate import innermost_gate
from ..traffic.usage import Meter, UsageDelta
from .link_messages import ForwardedCalls, chunk_in, error_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.endpoints import Endpoint
    from ..core.calls import Call
    from ..keys.request import Data, Request
    from .link_server import CallOfProcess
    from .wire import Message


class NotedMeter(Meter):
    """A meter that notes a call's use, for its process to count it, too.

    :param below: counts it, too, or ``None``.
    :ivar noted: model, scope, amounts and arm of each addition.
    """

    def __init__(self, below: Meter | None) -> None:
        super().__init__()
        self._below = below
        self.noted: list[tuple[Any, ...]] = []

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Add amounts; the caller holds the lock."""
        self.noted.append((model, scope, dict(amounts), arm))
        if self._below is not None:
            self._below.add(model, scope, amounts, arm)


class FormElsewhere:
    """The form that the answers of a call must have, which its process checks.

    :ivar misfit: of the last answer, or ``None``.
    """

    form = "checked elsewhere"
    is_class = False

    def __init__(self) -> None:
        self.misfit: str | None = None

    def misfit_in(self, response: Mapping[str, Data]) -> str | None:
        """Return where the last answer departs from the form; a recorded one is checked in its process."""
        misfit, self.misfit = self.misfit, None
        return misfit


class _ServerCopy:
    """A response that its server keeps, as its process knows it."""

    def __init__(self, call: CallOfProcess, endpoint: Endpoint, tier: str) -> None:
        self.call = call
        self.endpoint = endpoint
        self.tier = tier

    async def release(self, *, is_stored: bool) -> None:
        """Let the process delete it at the server."""
        await self.call.connection.query("release", is_stored)


class Account(NamedTuple):
    """What counts a call of another process.

    :param meter: notes what it uses.
    :param sends_nothing: whether the call's client answers without sending anything.
    """

    meter: Meter
    sends_nothing: bool


class RemoteTransport(AsyncTransport):
    """A transport that lets the process that made a call send it; the link's event loop runs it.

    :param call: the call, as that process makes it.
    :param form: of its answers, or ``None``.
    :ivar endpoints: the model's endpoints.
    """

    keeps_time = True  # the process does

    def __init__(self, call: CallOfProcess, form: FormElsewhere | None) -> None:
        self._call = call
        self._form = form
        self._class_name = type(self).__name__
        self.endpoint = 0  # the number of the next one
        self.endpoints: tuple[Endpoint, ...] = ()

    @property
    def class_name(self) -> str:
        """The class of the transport that sends, once it did."""
        return self._class_name

    def send(self, request: Request, timeout: float | None) -> Response:
        """Refuse: no thread uses it."""
        raise NotImplementedError

    async def asend(self, request: Request, timeout: float | None) -> Response:
        """Return the response that the process got."""
        return self._response(await self._begin("send", request, timeout))

    async def _begin(self, verb: str, request: Request, timeout: float | None) -> Message:
        """Have the process begin to send a request; return its answer."""
        connection = self._call.connection
        connection.gate = innermost_gate()
        inside = self._call.inside(runs_function=request.kind == "function")
        try:
            return await connection.query(
                verb,
                inside,
                request.model,
                request.sample,
                request.cache_key,
                self.endpoint,
                dict(request.body),
                timeout,
            )
        finally:
            connection.gate = None

    def _response(self, answer: Message) -> Response:
        """Return the response in a process's answer, or raise its error."""
        self._raise_failure(answer)
        _, data, request_id, status_code, of_copy, misfit, source = answer
        if self._form is not None:
            self._form.misfit = misfit
        copy: ServerCopy | None = None
        if of_copy is not None:
            number, tier = of_copy
            copy = _ServerCopy(self._call, self.endpoints[number], tier)
        response = Response(data, request_id, copy, status_code)
        response.source = source
        return response

    def _raise_failure(self, answer: Message) -> None:
        if answer[0] == "failed":
            _, data, number, self.renewable, self._class_name = answer
            error: Any = error_in(data, is_any=True)
            error.raised_there = self._call, number
            raise error

    def astream(self, request: Request, timeout: float | None) -> AsyncIterator[Chunk]:
        """Yield the chunks that the process gets; of one that does not stream, the whole response."""
        timed = Timed()
        return _RemoteChunks(self._chunks(request, timeout, timed), timed)

    async def _chunks(
        self, request: Request, timeout: float | None, timed: Timed
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks that the process gets; of one that does not stream, the whole response."""
        answer = await self._begin("open", request, timeout)
        if answer[0] != "opened":
            yield self._response(answer)
            return
        self._class_name = answer[1]
        is_open = True
        try:
            while True:
                seconds_left = timed.deadline.time_left()
                seconds = None if seconds_left is None else max(0.0, seconds_left)
                answer = await self._call.connection.query("read", seconds)
                if answer[0] == "ended":
                    is_open = False
                    if self._form is not None:
                        self._form.misfit = answer[1]
                    return
                if answer[0] == "failed":
                    is_open = False
                self._raise_failure(answer)
                yield chunk_in(answer)
        finally:
            if is_open:
                await self._call.connection.query("leave")


class _RemoteChunks(AsyncIterator[Chunk]):
    def __init__(self, chunks: AsyncGenerator[Chunk, None], timed: Timed) -> None:
        self._chunks = chunks
        self.timed = timed

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Leave the stream."""
        await self._chunks.aclose()


class _Forwarded:
    """A call of a client of another process, which checks its window, chooses the API, and sends it.

    :param sender: has the process send it.
    """

    def __init__(self, sender: RemoteTransport) -> None:
        self._sender = sender

    def wire(self, call: Call, body: Mapping[str, Data]) -> str:
        """Leave the choice to the process that sends the call."""
        return "chat"

    def transport(self, call: Call, endpoint: Endpoint) -> Transport:
        """Return what has the call's process send it."""
        self._sender.endpoint = call.site.endpoints.index(endpoint)
        return self._sender


class ForwardedChat(_Forwarded, Chat):
    """A chat of another process."""


class ForwardedEmbeddings(_Forwarded, Embeddings):
    """Embeddings of another process."""


class ForwardedFunction(Function):
    """A recorded function of another process.

    :param sender: has the process run it.
    """

    def __init__(self, sender: RemoteTransport, name: str) -> None:
        super().__init__(name)
        self._sender = sender

    async def send(
        self, call: Call, transport: Transport | None, request: Request, timeout: float | None
    ) -> Response:
        """Have the process run the function, in the scope of its call."""
        scope = function_scope(request.hashed, request.sample)
        with in_function(scope, draws=request.sample is not None):
            return await self._sender.asend(request, timeout)


def kind_of(forwarded: ForwardedCalls, sender: RemoteTransport) -> Kind:
    """Return the kind of a call of another process."""
    if forwarded.kind == "function":
        return ForwardedFunction(sender, forwarded.name)
    if forwarded.kind == "http":
        return Http(
            sender,
            forwarded.name,
            calls_model=forwarded.calls_model,
            prefers_calling=forwarded.prefers_calling,
        )
    if forwarded.is_clients:
        return ForwardedChat(sender) if forwarded.kind == "chat" else ForwardedEmbeddings(sender)
    return ProgramChat(sender) if forwarded.kind == "chat" else ProgramEmbeddings(sender)
