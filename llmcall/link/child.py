"""The recorded process's end of the link: it queries the recording process, and sends what it is told to send."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..apis.chunks import Assembler
from ..core import threads
from ..core.answer import refuse_misfit
from ..core.callbacks import Reading
from ..core.calls import Call
from ..core.effects import Blocks, Chunks, Do, Emit, Next, Open, Piece, Send
from ..core.kinds import OfClient, OwnTransport, check_chat
from ..core.seams import NO_ENDPOINT, Response, Transport
from ..errors import APIError, LLMCallError
from ..keys.plain_data import recordable
from ..keys.request import Data, Request
from ..recorded_functions import OwnFunction
from ..scopes.active import ActiveScope, ScopedRecord, here, next_order
from ..scopes.callers import Caller, current_caller
from ..scopes.draws import DrawList, DrawsElsewhere
from ..scopes.position import Branch, CallOrder, Position, held, hold_ticket, holding
from ..stores.record import Record
from ..support.request_origin import llmcall_sends
from ..support.secrets import used_credentials
from ..support.system import this_process
from ..support.tracebacks import hide_own_frames
from ..traffic import usage as metering
from .client_facts import facts_of
from .link_messages import (
    TASK_OF_RAY,
    ForwardedCalls,
    Where,
    chunk_data,
    error_data,
    error_in,
    record_in,
)
from .own_budgets import OwnBudgets, own_budgets
from .tickets import Base
from .wire import Address, Connection, Message

DIGITS_OF_TASK = 16
MOST_IDLE = 2  # connections kept for further calls: the recording process has a file open for each


class Parent:
    """The recording process, as a recorded process reaches it.

    :param address: the address of its link.
    :param ticket: the ticket of what this process was started for.
    :param over: the class of the error for a call that it can no longer answer.
    :param outlives: whether the recorded process goes on alone then.
    """

    def __init__(
        self,
        address: Address,
        ticket: str,
        over: type[BaseException] = LLMCallError,
        *,
        outlives: bool = False,
    ) -> None:
        self.address = address
        self.ticket = ticket
        self.outlives = outlives
        self._over = over
        self._process = this_process()
        self._idle: list[Connection] = []
        self._watched: Connection | None = None
        with contextlib.suppress(OSError):
            self._watched = Connection(address)

    def is_alive(self) -> bool:
        """Return whether the recording process can be reached."""
        return self._watched is not None and self._watched.is_open()

    def admit(self, caller: str) -> Base:
        """Return a ticket for a process or task that is started here, and the scope in which it starts.

        :param caller: its name as a caller.
        """
        active = here()
        where = _where(active, next_order(active))._replace(caller=caller)
        message = "admit", self._ticket_in(active), tuple(where)
        try:
            # In this thread, even if an event loop has to wait: the answer comes at once.
            return Base(*threads.run(self._tell(message))[1])
        except OSError:
            return Base(self.ticket)  # no process will answer to it

    def _ticket_in(self, active: ActiveScope) -> str:
        caller, draws = current_caller(), active.draws
        of_scope = draws.ticket if isinstance(draws, DrawsElsewhere) else ""
        origin = "" if caller is None else caller.origin
        return held().ticket or of_scope or origin or self.ticket

    def way(self, active: ActiveScope, order: CallOrder) -> Way | None:
        """Return the way of a call that is made here; ``None`` if this process goes on alone.

        :param active: its scope.
        """
        if self.outlives and not self.is_alive():
            return None
        return Way(self, self._ticket_in(active), _where(active, order), active.item.draws)

    @contextlib.contextmanager
    def connected(self, *, blocks: bool = True) -> Iterator[Connection]:
        """Provide an unused connection for a block.

        :param blocks: whether it blocks the thread.
        """
        if self._process != this_process():  # a forked process cannot share its parent's
            self._process, self._idle = this_process(), []
        idle = self._idle if blocks else []
        try:
            connection = idle.pop()
        except IndexError:
            connection = Connection(self.address, blocks=blocks)
        try:
            yield connection
        except BaseException:  # interrupted, cancelled, or a fault: the other end cancels the call
            connection.close()
            raise
        if blocks and len(self._idle) < MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def note(self, what: str, *details: Any, is_awaited: bool = False) -> bool:
        """Tell the recording process something that needs no answer; return whether that could be sent.

        :param is_awaited: whether to wait until it has taken the note, which must come before what follows here.
        """
        messages = [("note", what, *details), *([("flush",)] if is_awaited else [])]
        try:
            threads.run(self._tell(*messages))
        except OSError:
            return False
        return True

    def log(self, warning: str) -> bool:
        """Have the recording process log a warning, once; return whether that could be sent."""
        has_ended = self._watched is not None and not self._watched.is_open()
        return not has_ended and self.note("warning", warning, is_awaited=True)  # its map may end

    async def _tell(self, *messages: Message) -> Message:
        """Send messages, and return the answer to the last one; a note has none."""
        with self.connected() as connection:
            for message in messages:
                await connection.send(message)
            return () if messages[-1][0] == "note" else await connection.receive()

    def over(self) -> BaseException:
        """Return the error for a call that the recording process can no longer answer."""
        return self._over("the process that records this one has ended, so this call was not made")

    def close(self) -> None:
        """Close the connections: nothing more is asked."""
        watched, self._watched = self._watched, None
        if watched is not None:
            watched.close()
        while self._idle:
            self._idle.pop().close()


def _where(active: ActiveScope, order: CallOrder) -> Where:
    """Return the position of a call, as seen from where this process was started."""
    caller, position = current_caller(), active.position
    draws, names = active.draws, tuple(filter(None, position.path.split("/")))
    outermost, is_apart, branches = "", False, position.branches
    if isinstance(draws, DrawsElsewhere):
        names = names[len(draws.names) :]
        branches = branches[len(draws.branches) :]
    elif names:
        outermost = draws.identity
    else:
        is_apart = active.opened_by == "program"
    return Where(
        names,
        outermost,
        is_apart,
        branches,
        order,
        None if caller is None else task_of_ray(caller) or caller.name,
        held().is_programs,
        active.item.draws is not None,
        active.opened_in,
    )


def task_of_ray(caller: Caller) -> str:
    """Return the name of the task that Ray runs here, or an empty string. Ray names tasks as the program starts them,
    whichever worker runs them; in a task's own threads, the names are random.
    """
    ray = sys.modules.get("ray")
    if ray is None or caller.name != caller.main.name or not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return ""
    return f"{TASK_OF_RAY}{context.get_task_id()[:DIGITS_OF_TASK]}"  # its actor's digits follow, and are random


class Way:
    """The way of a call to the recording process.

    :param ticket: the ticket of the code that makes the call.
    :param where: the call's position.
    :param draws: gets the call's draw, or ``None``.
    """

    def __init__(self, parent: Parent, ticket: str, where: Where, draws: DrawList | None) -> None:
        self._parent = parent
        self._ticket = ticket
        self._where = where
        self._draws = draws
        self.is_taped = False

    async def answer(self, calls: Sequence[Call]) -> list[Record]:
        """Return the records that answer calls.

        :raises BaseException: what the recording process raises, or the recorded process while it sends.
        """
        blocks = await Blocks()
        calls[0].note_keys()
        try:
            with self._parent.connected(blocks=blocks) as connection:
                exchange = _Exchange(connection, self, calls)
                message = ("calls", self._ticket, tuple(self._where), tuple(_forwarded(calls)))
                answer = await exchange.run(message)
        except OSError as error:
            raise self._parent.over() from error
        return self._records(calls, answer, exchange.errors)

    def _records(
        self, calls: Sequence[Call], answer: Message, errors: Sequence[BaseException]
    ) -> list[Record]:
        if answer[0] == "over":
            raise self._parent.over()
        verb, *details, noted, draw = answer
        _count(calls[0], noted)
        if verb == "failed":
            data, number = details
            error = error_in(data, is_any=False)
            if number is not None:  # this process raised it, with its cause and its traceback
                own = errors[number]
                if isinstance(own, APIError):
                    vars(own).update(vars(error))
                error = own
            hide_own_frames(error)
            raise error
        found, paths, self.is_taped = details
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
        self.parent.note("retract", self.ticket, self.number, is_awaited=True)


def _count(call: Call, noted: Sequence[tuple[Any, ...]]) -> None:
    """Count here what a call used, as the recording process counted it."""
    meter = None if call.account is None else call.account.meter
    for usage in noted:
        metering.count(meter, *usage)


def _forwarded(calls: Sequence[Call]) -> ForwardedCalls:
    call = calls[0]
    request = call.request
    return ForwardedCalls(
        request.kind,
        request.model,
        [(call.request.hashed, call.request.body) for call in calls],
        request.sample,
        tuple(call.options),
        call.kind.name,
        call.fallbacks,
        facts_of(call),
        request.expected is not None,
        not call.kind.has_own_transport,
        call.kind.calls_model,
        call.kind.prefers_calling,
        call.is_streamed,
        llmcall_sends(),
        call.position.notes,
        {**call.taken()},
    )


class _Exchange:
    """A call over its connection: it follows the recording process's commands until the answer is there.

    :ivar errors: what this process raised, in order.
    """

    def __init__(self, connection: Connection, way: Way, calls: Sequence[Call]) -> None:
        self._connection = connection
        self._way = way
        self._call = calls[0]
        self.errors: list[BaseException] = []
        self._transport: Transport | None = None
        self._server_copy: Any = None  # the server's copy of the last response, if it keeps one
        self._reading: contextlib.AsyncExitStack | None = None
        self._chunks: Chunks | None = None
        self._assembler: Assembler | None = None
        self._budgets = OwnBudgets(None)

    async def run(self, message: Message) -> Message:
        """Ask, and return the answer."""
        before = held().ticket
        try:
            while (told := await self._follow(message))[0] == "piece":
                _, text, chunk, self._way.is_taped = told
                message = await self._emit(Piece(text, chunk))
            return told
        finally:
            hold_ticket(before)
            await self._leave()

    async def _follow(self, message: Message) -> Message:
        """Send a message, do what the recording process tells, and return the next piece or the end of the call."""
        while True:
            await self._tell_credentials()
            await self._connection.send(message)
            verb, *details = told = await self._connection.receive()
            if verb in ("answered", "failed", "left", "over", "piece"):
                return told
            try:
                message = await getattr(self, f"_{verb}")(*details)
            except Exception as error:  # noqa: BLE001 - the recording process decides what becomes of it
                message = self._failure(error)

    async def _tell_credentials(self) -> None:
        """Tell the recording process, which writes what it records, what it must seek there. What it then gets on
        this connection comes later.
        """
        for secret in used_credentials():
            if secret not in self._connection.told:
                self._connection.told.add(secret)
                await self._connection.send(("note", "credential", secret))

    async def _emit(self, piece: Piece) -> Message:
        try:
            await Emit(piece, self._budgets.inside)
        except BaseException as error:
            # The reader has left: the recording process ends the stream, and with it the transport's stream here. A
            # procedure that is being closed cannot wait for that.
            if not isinstance(error, GeneratorExit):
                *_, noted, _ = await self._follow(("left",))
                _count(self._call, noted)
            raise
        return ("next",)

    def _failure(self, error: Exception) -> Message:
        self.errors.append(error)
        transport = self._transport
        return (
            "failed",
            error_data(error),
            len(self.errors) - 1,
            transport is not None and transport.renewable,
            type(self).__name__ if transport is None else transport.class_name,
        )

    # The commands of the recording process

    async def _send(self, inside: tuple[Any, ...], *what: Any) -> Message:
        """Send the request, and return the response."""
        call, request, transport, timeout = self._to_send(*what)
        self._transport = transport
        with _standing(inside):
            if request.kind == "function":
                assert isinstance(call.kind, OwnFunction)
                value = await Do(call.kind.run, call.kind.run)
                recordable(value, f"{call.name}: the result")
                return ("answered", {"value": value}, None, None, None, None, "")
            response = await self._send_within_budgets(call, request, transport, timeout)
        return self._response(call, response)

    async def _send_within_budgets(
        self, call: Call, request: Request, transport: Transport | None, timeout: float | None
    ) -> Response:
        assert transport is not None
        async with own_budgets(call, request) as budgets:
            response = await Send(transport, request, timeout, budgets.inside)
            budgets.settle(call.kind.usage_in(response))
        return response

    def _response(self, call: Call, response: Response) -> Message:
        of_copy, data = None, dict(response)
        if (copy := response.server_copy) is not None:
            self._server_copy = copy
            endpoints = call.site.endpoints
            of_copy = endpoints.index(copy.endpoint), copy.tier
        if call.request.kind == "embedding":
            data["data"] = [_plain_vector(item) for item in data.get("data") or ()]
        misfit = self._misfit(response)
        request_id, source = response.request_id, response.source
        return ("answered", data, request_id, response.status_code, of_copy, misfit, source)

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

    def _to_send(
        self,
        model: str,
        sample: str | None,
        key: str,
        endpoint: int,
        body: dict[str, Data],
        timeout: float | None,
    ) -> tuple[Call, Request, Transport | None, float | None]:
        """Return the call and the request as they are sent now, and what sends them."""
        call = self._call
        request = call.request._replace(model=model, sample=sample, cache_key=key, body=body)
        kind = call.kind
        if not isinstance(kind, OfClient) or isinstance(kind, OwnTransport):
            return call, request, kind.transport(call, NO_ENDPOINT), timeout
        call = call._replace(request=request._replace(body=call.request.body))
        request = kind.once(request._replace(wire=kind.wire(call, body)))
        return call, request, kind.transport(call, call.site.endpoints[endpoint]), timeout

    async def _open(self, inside: tuple[Any, ...], *what: Any) -> Message:
        """Begin sending the request; its answer is read piece by piece."""
        call, request, transport, timeout = self._to_send(*what)
        self._transport = transport
        assert transport is not None
        with _standing(inside):
            chunks = await Open(transport, request, timeout)
        if chunks is None:
            if not call.kind.has_own_transport:
                request.body.pop("stream_options", None)  # type: ignore[attr-defined]
            with _standing(inside):
                response = await self._send_within_budgets(call, request, transport, timeout)
            return self._response(call, response)
        hold_ticket(inside[0])  # the code in the loop over the stream runs inside the call
        async with contextlib.AsyncExitStack() as stack:
            self._budgets = await stack.enter_async_context(own_budgets(call, request))
            await stack.enter_async_context(Reading(chunks))
            self._reading = stack.pop_all()
        self._chunks = chunks
        if call.request.expected is not None or self._budgets.gate is not None:
            self._assembler = Assembler()
        return "opened", transport.class_name

    async def _read(self, seconds: float | None) -> Message:
        """Return the next chunk."""
        assert self._chunks is not None
        chunk = await Next(self._chunks, seconds)
        if chunk is None:
            misfit = None
            if self._assembler is not None:
                with contextlib.suppress(APIError):  # the recording process will find it, too
                    response = Response(self._assembler.response())
                    misfit = self._misfit(response)
                    self._budgets.settle(response)
            await self._leave()
            return "ended", misfit
        if self._assembler is not None and not isinstance(chunk, (bytes, Response)):
            if chunk:
                self._assembler.add(chunk)
            else:
                self._assembler.is_done = True
        return chunk_data(chunk)

    async def _leave(self) -> Message:
        """Close the transport's stream."""
        reading, self._reading = self._reading, None
        if reading is not None and not isinstance(sys.exc_info()[1], GeneratorExit):
            await reading.aclose()
        return ("left",)

    async def _release(self, is_stored: bool) -> Message:
        """Let the server delete its copy of the response."""
        await self._server_copy.release(is_stored=is_stored)
        return ("released",)


def _plain_vector(item: Data) -> Data:
    """Return an embedding whose vector is plain data, not an array."""
    vector: Any = item.get("embedding") if isinstance(item, dict) else None
    return {**item, "embedding": vector.tolist()} if hasattr(vector, "tolist") else item


@contextlib.contextmanager
def _standing(inside: tuple[Any, ...]) -> Iterator[None]:
    """Enter a call for a block: calls made there have a ticket of their own."""
    name, *_, opened_by = inside
    scope = contextlib.nullcontext() if opened_by == "default" else standing_at(inside)
    with holding(ticket=name), scope:
        yield


def standing_at(base: Sequence[Any]) -> ActiveScope:
    """Return the scope in which a part of this process was started, ready to be entered. The recording process counts
    its draws.

    :param base: a :class:`.tickets.Base`, or its plain data.
    """
    ticket, path, branches, opened_by = base
    branches = tuple(Branch(*branch) for branch in branches)
    draws = DrawsElsewhere(path, branches, ticket)
    return ActiveScope(Position(path, (), branches), draws, opened_by=opened_by)
