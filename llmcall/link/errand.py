"""The errand of a call in a recorded process: it does what is sent, as the recording process tells it, under whatever
drives the call. Everything else is done in that process.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..apis.chunks import Assembler
from ..config.endpoints import Endpoint
from ..core.callbacks import Reading
from ..core.calls import Call
from ..core.deadlines import Deadline
from ..core.effects import Chunks, Emit, Next, Open, Piece, Send
from ..core.kinds import OfClient, OwnTransport, check_chat
from ..core.seams import NO_ENDPOINT, Gate, Response, ServerCopy, Transport
from ..errors import APIError
from ..keys.plain_data import recordable
from ..keys.request import Data, Request
from ..recorded_functions import OwnFunction
from ..scopes.active import ActiveScope
from ..scopes.draws import DrawsElsewhere
from ..scopes.position import Position, held, hold_ticket, holding
from ..support.secrets import used_credentials
from ..support.waits import Progress
from ..traffic import usage as metering
from ..traffic.budgets import open_budgets
from ..traffic.gate import ClientGate
from ..traffic.limits import Slot
from . import messages
from .plain_values import chunk_data, error_data

if TYPE_CHECKING:
    from .child import Way
    from .wire import Line, LoopLine


class _FreeSlot(Slot):
    """A slot at no endpoint: the recording process has the limits."""

    async def take(self, tokens: int | None, deadline: Deadline) -> Endpoint:
        return NO_ENDPOINT


def _gate(call: Call, request: Request) -> Gate:
    """Return the gate of a send here: the budgets that this process opened itself, beside those of the other one.

    :param request: with the body that is sent.
    """
    if call.account is None or not open_budgets:
        return Gate()
    pool = call.site_of(request.model).pool
    return ClientGate(call, pool, request, _FreeSlot(pool))


def _inside(gate: Gate) -> Progress | None:
    """Return the call inside which the transport and a stream's reader run; ``None`` if no budget is open."""
    return gate.progress if isinstance(gate, ClientGate) else None


def _settle(gate: Gate, answer: Any) -> None:
    """Count an answer's usage. The answer has the form that its API gives without streaming."""
    used = gate.reckon(answer, NO_ENDPOINT, is_part=False)
    gate.settle(used.tokens, used.cost, calls=1)


class Errand:
    """The errand of a call: it follows the recording process until the call ends there.

    :ivar errors: what this process raised, in order.
    """

    def __init__(self, line: Line | LoopLine, way: Way, call: Call) -> None:
        self._line = line
        self._way = way
        self._call = call
        self.errors: list[BaseException] = []
        self._transport: Transport | None = None
        self._copy: ServerCopy | None = None  # that the server keeps of the last response
        self._reading: contextlib.AsyncExitStack | None = None  # while a stream is read
        self._gate = Gate()  # of that stream
        self._chunks: Chunks
        self._assembler: Assembler | None = None

    async def run(self, calls: messages.Calls) -> messages.End:
        """Ask for the calls' answers, do what has to be done here, and return how the calls ended."""
        before = held().ticket
        message: messages.Message = calls
        try:
            while isinstance(told := await self._follow(message), messages.Emit):
                self._way.is_taped = told.is_taped
                message = await self._emit(Piece(told.text, told.chunk))
            return told
        finally:
            hold_ticket(before)
            await self._leave()

    async def _follow(self, message: messages.Message) -> messages.Emit | messages.End:
        """Send a message, do what the recording process tells, and return the next piece or the end of the call."""
        while True:
            for secret in used_credentials():  # before what holds them is recorded there
                await self._line.tell(secret)
            told = await self._line.ask(message)
            if isinstance(told, messages.Emit | messages.End):
                return told
            try:
                message = await self._execute(told)
            except Exception as error:  # noqa: BLE001 - the recording process decides what becomes of it
                message = self._failure(error)

    async def _execute(self, told: messages.Message) -> messages.Message:
        """Do what the recording process tells, and return the answer."""
        match told:
            case messages.Send():
                return await self._send(told)
            case messages.Next(timeout):
                return await self._next(timeout)
            case messages.Leave():
                await self._leave()
            case messages.Release(is_stored):
                assert self._copy is not None
                await self._copy.release(is_stored=is_stored)
        return messages.Done()

    async def _emit(self, piece: Piece) -> messages.Message:
        try:
            await Emit(piece, _inside(self._gate))
        except BaseException as error:
            # The reader has left: the recording process ends the stream, and with it the transport's stream here. A
            # procedure that is being closed cannot wait for that.
            if not isinstance(error, GeneratorExit):
                told = await self._follow(messages.Left())
                if not isinstance(told, messages.Emit | messages.Over):
                    count(self._call, told.used)
            raise
        return messages.Done()

    def _failure(self, error: Exception) -> messages.Failed:
        self.errors.append(error)
        transport, number = self._transport, len(self.errors) - 1
        if transport is None:
            return messages.Failed(error_data(error), number, False, "")
        return messages.Failed(error_data(error), number, transport.renewable, transport.class_name)

    async def _send(self, told: messages.Send) -> messages.Message:
        """Send the request, and return the response, or begin to read it chunk by chunk."""
        call, request = self._to_send(told)
        kind = call.kind
        endpoint = call.site.endpoints[told.endpoint] if _is_clients(call) else NO_ENDPOINT
        self._transport = transport = kind.transport(call, endpoint)
        async with contextlib.AsyncExitStack() as stack:
            with _standing(told.inside):
                if isinstance(kind, OwnFunction):
                    value = recordable(await kind.result(None), f"{kind.name}: the result")
                    return messages.Sent({"value": value})
                assert transport is not None
                gate = await stack.enter_async_context(_gate(call, request))
                if (inside := _inside(gate)) is not None:
                    stack.callback(setattr, inside, "has_ended", True)
                await gate.acquire()
                if not told.is_read:
                    response = await Send(transport, request, told.timeout, inside)
                    _settle(gate, kind.usage_in(response))
                    return self._sent(call, response)
                if (chunks := await Open(transport, request, told.timeout, inside)) is None:
                    return messages.Opened(None)
            hold_ticket(told.inside.ticket)  # what the loop over the stream runs is inside the call
            await stack.enter_async_context(Reading(chunks))
            self._reading = stack.pop_all()
        self._chunks, self._gate = chunks, gate
        if call.request.expected is not None or isinstance(gate, ClientGate):
            self._assembler = Assembler()
        return messages.Opened(transport.class_name)

    def _to_send(self, told: messages.Send) -> tuple[Call, Request]:
        """Return the call and the request as they are sent now."""
        call, kind = self._call, self._call.kind
        request = call.request._replace(
            model=told.model, sample=told.sample, cache_key=told.key, body=told.body
        )
        if not _is_clients(call):
            return call, request
        call = call._replace(request=request._replace(body=call.request.body))
        assert isinstance(kind, OfClient)
        return call, kind.once(request._replace(wire=kind.wire(call, told.body)))

    def _sent(self, call: Call, response: Response) -> messages.Sent:
        of_copy, data = None, dict(response)
        if (copy := response.server_copy) is not None:
            self._copy = copy
            of_copy = call.site.endpoints.index(copy.endpoint), copy.tier
        if call.request.kind == "embedding":
            data["data"] = [_plain_vector(item) for item in data.get("data") or ()]
        return messages.Sent(
            data,
            response.request_id,
            response.status_code,
            response.source,
            of_copy,
            self._misfit(response),
        )

    def _misfit(self, response: Response) -> str | None:
        """Return where a chat's whole answer departs from its required form, or ``None``."""
        expected = self._call.request.expected
        if expected is None:
            return None
        try:
            check_chat(response)
        except APIError:  # the recording process will find it, too
            return None
        misfit: str | None = expected.misfit_in(response)
        return misfit

    async def _next(self, timeout: float | None) -> messages.Message:
        """Return the next chunk."""
        chunk = await Next(self._chunks, timeout)
        if chunk is not None:
            if self._assembler is not None and not isinstance(chunk, (bytes, Response)):
                if chunk:
                    self._assembler.add(chunk)
                else:
                    self._assembler.is_done = True
            return chunk_data(chunk)
        misfit = None
        if self._assembler is not None:
            with contextlib.suppress(APIError):  # the recording process will find it, too
                response = Response(self._assembler.response())
                misfit = self._misfit(response)
                _settle(self._gate, response)
        await self._leave()
        return messages.Ended(misfit)

    async def _leave(self) -> None:
        """Close the transport's stream."""
        reading, self._reading = self._reading, None
        if reading is not None and not isinstance(sys.exc_info()[1], GeneratorExit):
            await reading.aclose()


def _is_clients(call: Call) -> bool:
    """Return whether a client's transport for an endpoint sends a call."""
    return isinstance(call.kind, OfClient) and not isinstance(call.kind, OwnTransport)


def count(call: Call, used: Sequence[messages.UsedAmounts]) -> None:
    """Count a call's usage in this process, as the recording process counted it."""
    meter = None if call.account is None else call.account.meter
    for model, scope, amounts, arm in used:
        metering.count(meter, model, scope, amounts, arm)


def _plain_vector(item: Data) -> Data:
    """Return an embedding whose vector is plain data, not an array."""
    vector: Any = item.get("embedding") if isinstance(item, dict) else None
    return {**item, "embedding": vector.tolist()} if hasattr(vector, "tolist") else item


@contextlib.contextmanager
def _standing(inside: messages.Base) -> Iterator[None]:
    """Enter a call for a block: calls made there have a ticket of their own."""
    scope = contextlib.nullcontext() if inside.opened_by == "default" else standing_at(inside)
    with holding(ticket=inside.ticket), scope:
        yield


def standing_at(base: messages.Base) -> ActiveScope:
    """Return the scope in which a part of this process was started, ready to be entered. The recording process counts
    its draws.
    """
    draws = DrawsElsewhere(base.path, base.branches, base.ticket)
    position = Position(base.path, (), base.branches)
    return ActiveScope(position, draws, opened_by=base.opened_by)
