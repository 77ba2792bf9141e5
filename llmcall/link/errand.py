"""The errand of a call in a recorded process: it does what is sent, as the recording process tells it, under whatever
drives the call. Everything else is done in that process.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..apis.chunks import Assembler
from ..config.endpoints import Endpoint
from ..core.callbacks import Reading
from ..core.calls import Call
from ..core.effects import Blocks, Chunks, Emit, Next, Open, Piece, Send
from ..core.kinds import OfClient, check_chat
from ..core.lookup import refuse_misfit
from ..core.options import Deadline
from ..core.seams import NO_ENDPOINT, Gate, Response, Transport
from ..errors import APIError
from ..keys.plain_data import recordable
from ..keys.request import Request
from ..recorded_functions import OwnFunction
from ..scopes.active import ActiveScope, ScopedRecord
from ..scopes.draws import DrawList, DrawsElsewhere
from ..scopes.position import Position, held, hold, holding
from ..stores.record import Record
from ..support.request_origin import llmcall_sends
from ..support.secrets import used_credentials
from ..support.tracebacks import hide_own_frames
from ..support.waits import Progress
from ..traffic import usage as metering
from ..traffic.budgets import open_budgets
from ..traffic.gate import ClientGate
from ..traffic.limits import Slot
from . import messages
from .client_facts import facts_of
from .plain_values import chunk_data, error_data, error_in, record_in

if TYPE_CHECKING:
    from .child import Parent
    from .wire import Connection


class _FreeSlot(Slot):
    """A slot at no endpoint: the recording process has the limits."""

    async def take(self, tokens: int | None, deadline: Deadline) -> Endpoint:
        return NO_ENDPOINT


def _gate(call: Call, request: Request) -> Gate:
    """Return the gate of a send here: the budgets that this process opened itself, beside those of the other one.

    :param request: with the body that is sent.
    """
    if not (call.is_counted and open_budgets):
        return Gate()
    pool = call.site_of(request.model).pool
    return ClientGate(call, pool, request, _FreeSlot(pool))


def _inside(gate: Gate) -> Progress | None:
    """Return the call inside which the transport and a stream's reader run; ``None`` if no budget is open."""
    return gate.progress if isinstance(gate, ClientGate) else None


def _settle(gate: Gate, answer: Any) -> None:
    """Count an answer's usage. The answer has the form that its API gives without streaming."""
    used = gate.usage_of(answer, NO_ENDPOINT, is_part=False)
    gate.settle(used.tokens, used.cost, calls=1)


class Errand:
    """The errand of a call: it asks the recording process, and does what that tells until the call ends there.

    :param ticket: the ticket of the code that makes the call.
    :param where: the call's position.
    :param draws: gets the call's draw, or ``None``.
    """

    def __init__(
        self, parent: Parent, ticket: str, where: messages.Where, draws: DrawList | None
    ) -> None:
        self._parent = parent
        self._ticket = ticket
        self._where = where
        self._draws = draws
        self._blocks = False
        self._connection: Connection
        self._number: int  # of the call on it
        self._has_ended = False
        self._call: Call
        self._errors: list[BaseException] = []  # that this process raised, in order
        self._transport: Transport | None = None
        self._reading: contextlib.AsyncExitStack | None = None  # while a stream is read
        self._gate = Gate()  # of that stream
        self._chunks: Chunks
        self._assembler: Assembler | None = None

    async def answer(self, calls: Sequence[Call]) -> list[Record]:
        """Return the records that answer calls.

        :raises BaseException: what the recording process raises, or this one while it sends.
        """
        self._blocks, self._call = await Blocks(), calls[0]
        self._call.note_keys()
        before, message = held().ticket, self._question(calls)
        try:
            self._connection = self._parent.connection_here(blocks=self._blocks)
            self._number = next(self._connection.numbers)
            try:
                while isinstance(told := await self._follow(message), messages.Emit):
                    message = await self._emit(Piece(told.text, told.chunk))
            finally:
                if not self._has_ended:
                    self._connection.cancel(self._number)
                self._parent.leave(self._connection)
                hold(ticket=before)
                await self._leave()
        except OSError as error:
            raise self._parent.over() from error
        return self._records(calls, told)

    async def _follow(self, message: messages.Message) -> messages.Emit | messages.End:
        """Send a message, do what the recording process tells, and return the next piece or the end of the call."""
        while True:
            self._parent.tell(used_credentials())
            told = await self._connection.answer(message, self._number, blocks=self._blocks)
            self._has_ended = isinstance(told, messages.End)
            if isinstance(told, messages.Emit | messages.End):
                return told
            try:
                message = await self._execute(told)
            except Exception as error:  # noqa: BLE001 - the recording process decides what becomes of it
                message = self._failure(error)

    async def _execute(self, told: messages.Message) -> messages.Message:
        """Do what the recording process tells, and return the answer."""
        match told:
            case messages.Transmit():
                return await self._send(told)
            case messages.Next(timeout):
                return await self._next(timeout)
            case messages.Leave():
                await self._leave()
        return messages.Done()

    async def _emit(self, piece: Piece) -> messages.Message:
        try:
            await Emit(piece, _inside(self._gate))
        except BaseException as error:
            # The reader has left: the recording process ends the stream, and with it the transport's stream here. A
            # procedure that is being closed cannot wait for that.
            if not isinstance(error, GeneratorExit):
                told = await self._follow(messages.Leave())
                if not isinstance(told, messages.Emit):
                    count(self._call, told.used)
            raise
        return messages.Done()

    def _failure(self, error: Exception) -> messages.Failed:
        self._errors.append(error)
        renewable = self._transport is not None and self._transport.renewable
        return messages.Failed(error_data(error), len(self._errors) - 1, renewable)

    async def _send(self, told: messages.Transmit) -> messages.Message:
        """Send the request, and return the response, or begin to read it chunk by chunk."""
        call, request = self._to_send(told)
        kind = call.kind
        endpoint = NO_ENDPOINT if kind.has_own_transport else call.site.endpoints[told.endpoint]
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
                    return self._sent(response)
                chunks = await Open(transport, request, told.timeout, inside)
                if chunks is None:
                    return messages.Opened(None)
            hold(ticket=told.inside.ticket)  # what the loop over the stream runs is inside the call
            await stack.enter_async_context(Reading(chunks))
            self._reading = stack.pop_all()
        self._chunks, self._gate = chunks, gate
        if call.request.expected is not None or isinstance(gate, ClientGate):
            self._assembler = Assembler()
        return messages.Opened(transport.class_name)

    def _to_send(self, told: messages.Transmit) -> tuple[Call, Request]:
        """Return the call and the request as they are sent now."""
        call, kind = self._call, self._call.kind
        own = call.request
        request = told.request._replace(
            hashed=own.hashed, headers=own.headers, expected=own.expected
        )
        if kind.has_own_transport:
            return call, request
        call = call._replace(request=request._replace(body=own.body))
        assert isinstance(kind, OfClient)
        return call, kind.for_one_send(request._replace(wire=kind.wire(call, request.body)))

    def _sent(self, response: Response) -> messages.Sent:
        return messages.Sent(
            dict(response),
            response.request_id,
            response.status_code,
            response.source,
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

    def _question(self, calls: Sequence[Call]) -> messages.Message:
        call, kind = calls[0], calls[0].kind
        return messages.Calls(
            self._ticket,
            self._where,
            [each.request._replace(headers={}, expected=None) for each in calls],
            call.options,
            kind.name,
            call.fallbacks,
            facts_of(call),
            not kind.has_own_transport,
            kind.calls_model,
            kind.prefers_calling,
            call.is_streamed,
            llmcall_sends(),
            call.position.notes,
        )

    def _records(self, calls: Sequence[Call], told: messages.End) -> list[Record]:
        match told:
            case messages.Unanswered(failure, number, used):
                count(calls[0], used)
                error = error_in(failure, is_any=False)
                if number is not None:  # this process raised it, with its cause and its traceback
                    own = self._errors[number]
                    if isinstance(own, APIError):
                        vars(own).update(vars(error))
                    error = own
                hide_own_frames(error)
                raise error
            case messages.Answered(found, paths, used, draw):
                count(calls[0], used)
            case _:
                raise self._parent.over()
        records = []
        for call, data, path in zip(calls, found, paths, strict=True):
            record = record_in(data, call.request.hashed)
            if call.request.expected is not None and record.is_hit:
                refuse_misfit(call, record)
            if call.used_records is not None:
                call.used_records.append(ScopedRecord(path, record))
            records.append(record)
        if draw is not None and self._draws is not None:
            self._draws.add(_Retractable(self._parent, self._ticket, draw))
        return records


class _Retractable(NamedTuple):
    """A draw in the recording process that a map in the recorded process retracts if it ends early."""

    parent: Parent
    ticket: str
    number: int

    def retract(self) -> None:
        """Free its number, even though its call has an answer: the same call will be made again."""
        self.parent.note(messages.Retract(self.ticket, self.number), is_awaited=True)


def count(call: Call, used: Sequence[messages.UsedAmounts]) -> None:
    """Count a call's usage in this process, as the recording process counted it."""
    for model, scope, amounts, arm in used:
        metering.count(call.at.meter, model, scope, amounts, arm)


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
