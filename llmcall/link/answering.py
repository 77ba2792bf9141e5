"""The calls of recorded processes: the recording process answers them, and tells their processes what to send."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..core import effects, kinds, loops
from ..core.answer import answer_calls
from ..core.calls import Call, InnerCall
from ..core.parents import parents
from ..core.prepare import place_as, place_in, place_without_draw, unplaced_call
from ..core.seams import Chunk, Response, Transport
from ..scopes.position import Position, function_scope
from ..scopes.scope import in_function
from ..stores.cassettes.current import open_current_cassette
from ..stores.record import Record
from ..support.waits import HeldBySend, check_stops, enter_call, stops
from ..traffic import call_listeners as call_listeners  # its listeners join
from ..traffic.usage import Meter, UsageDelta
from . import messages
from .client_facts import resolved_in
from .plain_values import chunk_in, error_data, error_in, record_data
from .tickets import Ticket

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from ..keys.request import Data, Request
    from .link_server import ProcessConnection


class NotedMeter(Meter):
    """A meter that notes a call's use, for its process to count it, too.

    :param below: counts it, too, or ``None``.
    :ivar noted: each addition.
    """

    def __init__(self, below: Meter | None) -> None:
        super().__init__()
        self._below = below
        self.noted: list[messages.UsedAmounts] = []

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Add amounts; the caller holds the lock."""
        self.noted.append(messages.UsedAmounts(model, scope, dict(amounts), arm))
        if self._below is not None:
            self._below.add(model, scope, amounts, arm)


class ForwardedForm:
    """The form that an answer must have, in the process that made the call.

    :ivar misfit: where the last answer departs from it, as that process found; ``None`` if it fits.
    """

    misfit: str | None = None

    def misfit_in(self, response: object) -> str | None:
        """Return the misfit that the process found."""
        return self.misfit


class Sender(Transport):
    """Another process's transport.

    :ivar endpoint: the number of the endpoint that the process sends to, among the model's.
    """

    class_name = ""
    endpoint = 0

    def send(self, request: Request, timeout: float | None) -> Response:
        """Refuse: no thread drives it."""
        raise NotImplementedError


class _OfClientThere(kinds.OfClient):
    """A call that another process's client sends.

    :param sender: its transports.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def wire(self, call: Call, body: Mapping[str, Data]) -> str:
        """Leave the choice of the API to the process."""
        return "chat"

    def transport(self, call: Call, endpoint: Endpoint) -> Sender:
        """Return its transport for an endpoint."""
        self._sender.endpoint = call.site.endpoints.index(endpoint)
        return self._sender


class ForwardedChat(_OfClientThere, kinds.Chat):
    """A chat of another process's client."""


class ForwardedEmbeddings(_OfClientThere, kinds.Embeddings):
    """Embeddings of another process's client."""


class ForwardedFunction(kinds.Function):
    """Another process's recorded function.

    :param sender: has the process run it.
    """

    def __init__(self, sender: Sender, name: str) -> None:
        super().__init__(name)
        self._sender = sender

    async def send(
        self, call: Call, transport: Transport | None, request: Request, timeout: float | None
    ) -> Response:
        """Have the process run the function, in the scope of its call."""
        scope = function_scope(request.hashed, request.sample)
        with in_function(scope, draws=request.sample is not None):
            return await effects.Send(self._sender, request, timeout)


def kind_of(forwarded: messages.Calls, sender: Sender) -> kinds.Kind:
    """Return the kind of another process's call."""
    kind = forwarded.requests[0].kind
    if kind == "function":
        return ForwardedFunction(sender, forwarded.name)
    if kind == "http":
        return kinds.Http(
            sender,
            forwarded.name,
            calls_model=forwarded.calls_model,
            prefers_calling=forwarded.prefers_calling,
        )
    if forwarded.is_clients:
        return ForwardedChat(sender) if kind == "chat" else ForwardedEmbeddings(sender)
    return kinds.ProgramChat(sender) if kind == "chat" else kinds.ProgramEmbeddings(sender)


class CallOfProcess:
    """A call, or the calls for the texts of embeddings, that a recorded process makes. It drives them: their process
    does what is sent, this one everything else.

    :ivar gate: of the send that the process makes, or ``None``.
    """

    def __init__(
        self, connection: ProcessConnection, number: int, ticket: Ticket, forwarded: messages.Calls
    ) -> None:
        self.gate: HeldBySend | None = None
        self._connection = connection
        self._number = number
        self._ticket = ticket
        self._where = forwarded.where
        self._forwarded = forwarded
        self._meter = NotedMeter(ticket.meter)
        self._sender = Sender()
        self._form = ForwardedForm()
        self._is_open = False  # the chunks of its answer
        self._is_cancelled = False
        # The process's answer that is awaited
        self._told: asyncio.Future[messages.Message] | None = None
        self._inner: list[str] = []  # the names of tickets for what is made inside the call
        # Not by create_task, which would name it as a task of the program.
        self._task = ticket.context.copy().run(asyncio.Task, self._run())

    def cancel(self) -> None:
        """Cancel the call: its process has ended, or no longer waits for it."""
        self._is_cancelled = True
        if self._told is not None and not self._told.done():
            self._told.set_exception(ConnectionResetError("the process of a call has ended"))
        self._task.cancel()

    def take(self, message: messages.Message) -> None:
        """Receive the process's answer to an instruction."""
        if self._told is not None and not self._told.done():
            self._told.set_result(message)

    async def query(self, message: messages.Message) -> messages.Message:
        """Tell the process to do something, and return its answer.

        :raises BaseException: what that process raised.
        """
        if self._is_cancelled:
            raise ConnectionResetError("the process of a call has ended")
        self._told = asyncio.get_running_loop().create_future()
        self._connection.send(message, self._number)
        told = await self._told
        if isinstance(told, messages.Failed):
            self._is_open = False
            self._sender.renewable = told.renewable
            error: Any = error_in(told.error, is_any=True)
            error.raised_there = self, told.number
            raise error
        return told

    async def _run(self) -> None:
        end: messages.End = messages.Over([])  # after a fault of llmcall's
        try:
            end = await self._answer()
        finally:
            for name in self._inner:
                self._connection.link.tickets.pop(name, None)
            if not self._is_cancelled:
                self._connection.send(end, self._number)
            self._connection.ended(self._number)

    async def _answer(self) -> messages.End:
        """Answer the calls."""
        draw = None
        try:
            calls = self._calls()
            records: list[Record] = await self._drive(answer_calls(calls))
            if self._where.keeps_draw and calls[0].draw is not None:
                draw = self._ticket.keep_draw(calls[0].draw)
            data = [record_data(record) for record in records]
            paths = [call.position.path for call in calls]
            return messages.Answered(data, paths, self._meter.noted, draw)
        except effects.AbandonedError:
            return messages.Over(self._meter.noted)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - its process raises it
            raiser, number = getattr(error, "raised_there", (None, None))
            own = number if raiser is self else None
            return messages.Unanswered(error_data(error), own, self._meter.noted)

    async def _drive(self, procedure: effects.Procedure[Any]) -> Any:
        """Drive a procedure to its end, and return its result.

        :raises AbandonedError: if the reader of the stream leaves.
        """
        error: BaseException | None = None
        try:
            while isinstance(
                outcome := await loops.run(procedure, error, is_read=True, execute=self._execute),
                effects.Emit,
            ):
                text, chunk = outcome.piece
                told = await self.query(messages.Emit(text, chunk))
                error = effects.AbandonedError() if isinstance(told, messages.Leave) else None
            return outcome.result
        finally:
            error = None  # its traceback holds this frame
            procedure.close()

    async def _execute(self, effect: effects.Effect[Any]) -> Any:
        """Return the result of an effect."""
        match effect:
            case effects.Send():
                return self._response(await self._begin(effect))
            case effects.Open():
                return self._opened(await self._begin(effect))
            case effects.Next():
                return await self._next(effect)
            case effects.Leave():
                if self._is_open:
                    await self.query(messages.Leave())
                return None
        return await loops.perform(effect)

    async def _begin(self, effect: effects.Send | effects.Open) -> Any:
        """Have the process send a request, and return its answer."""
        check_stops(stops())
        request, context = effect.request, copy_context()
        if effect.inside is not None:
            context.run(enter_call, effect.inside)
            self.gate = effect.inside.held
        try:
            return await self.query(
                messages.Transmit(
                    context.run(self._inside, runs_function=request.kind == "function"),
                    request._replace(hashed={}, headers={}, expected=None),
                    self._sender.endpoint,
                    effect.timeout,
                    isinstance(effect, effects.Open),
                )
            )
        finally:
            self.gate = None

    def _response(self, told: messages.Sent) -> Response:
        """Return the response that the process received."""
        self._form.misfit = told.misfit
        response = Response(told.data, told.request_id, told.status_code)
        response.source = told.source
        return response

    def _opened(self, told: messages.Opened) -> effects.Chunks | None:
        if told.class_name is None:
            return None
        self._sender.class_name, self._is_open = told.class_name, True
        return effects.Chunks(None, self._sender)

    async def _next(self, effect: effects.Next) -> Chunk | None:
        told = await self.query(messages.Next(effect.timeout))
        if not isinstance(told, messages.Ended):
            return chunk_in(told)
        self._form.misfit, self._is_open = told.misfit, False
        return None

    def _inside(self, *, runs_function: bool) -> messages.Base:
        """Return a ticket for the calls that the recorded process makes inside this call.

        :param runs_function: ``True`` if these calls are those of a recorded function, in the scope that is open here.
        """
        ticket = self._ticket.inside(at_base=not runs_function)
        self._connection.link.tickets[ticket.name] = ticket
        self._inner.append(ticket.name)
        return ticket.base() if runs_function else messages.Base(ticket.name)

    def _calls(self) -> list[Call]:
        """Return the calls, each in its position."""
        forwarded, where = self._forwarded, self._where
        active = self._ticket.enter(where, is_inner=forwarded.is_inner)
        order = (*self._ticket.order, *where.order)
        cassette = open_current_cassette()
        at = resolved_in(forwarded.facts, self._meter)
        kind = kind_of(forwarded, self._sender)
        calls = []
        for request in forwarded.requests:
            unplaced = unplaced_call(
                None,
                at,
                cassette,
                request._replace(sample=None, expected=self._form),
                forwarded.options,
                kind,
                position=Position(notes=forwarded.notes),
                fallbacks=forwarded.fallbacks,
                is_streamed=forwarded.is_streamed,
            )
            if request.sample is not None:
                call = place_as(unplaced, request.sample, order)
                calls.append(InnerCall._make(call) if forwarded.is_inner else call)
            # If this process is itself recorded, its recording process draws.
            elif (
                forwarded.is_inner or request.kind == "embedding" or (parents and cassette is None)
            ):
                calls.append(place_without_draw(unplaced, active, order))
            else:
                calls.append(place_in(unplaced, active, order))
        return calls
