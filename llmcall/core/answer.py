"""The pipeline of a call, from top to bottom: answer, share, send, attempts, attempt, send once.

Each step adds one thing to the one below it. A recorded answer needs only the first. Identical calls share before one
of them retries, so its attempts serve all of them. The answer is stored before the sharing ends, so that waiting calls
find it.

Steps that have to wait are procedures, written once for threads and event loops (``effects.py``). Chats, embeddings,
recorded functions and requests recorded verbatim all use this pipeline. They differ in how they are sent, checked and
recorded (``kinds.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..apis.chunks import Assembler
from ..apis.masking import mask
from ..apis.token_usage import total_cost
from ..config.endpoints import Endpoint
from ..errors import APIError, ContextLengthError, LLMCallError, RequestTimeoutError
from ..stores.record import Record
from ..support import clock
from ..support.failures import note_inside
from ..support.notices import logger
from ..support.waits import Progress, check_stops, stops
from .calls import Call, answers_held_back
from .effects import Emit, Look, Open, Piece, Wait
from .failover import Failover, announce, pause_after
from .lookup import found, refuse_misfit
from .reply import handle_failure, note_failure, reply_in
from .seams import NO_ENDPOINT, Gate, Response, Transport
from .sending import Exchange, naming_source, note_sent

if TYPE_CHECKING:
    from .flights import CallsInFlight, Records
    from .reply import Reply


async def reply_to(call: Call, *, looks_up: bool = True) -> Reply | Any:
    """Answer a chat call from its record, or by calling its model.

    :param looks_up: ``True`` to look for a recorded answer first; the caller may have looked.
    :returns: the reply, or what ``response_format`` parses. If the call failed after all retries and its
        caller does not want the error raised: the error or ``None``, as ``on_error`` says.
    :raises APIError: if the call failed after all retries, and its caller wants the error raised.
    """
    try:
        [record] = await answer_calls([call], looks_up=looks_up)
    except APIError as error:
        return handle_failure(error, call)
    return reply_in(record, call)


async def answer_calls(calls: Sequence[Call], *, looks_up: bool = True) -> list[Record]:
    """Answer calls from their records or by sending them: the whole pipeline, for each kind of call.

    :param calls: one call, or one for each text of embeddings.
    :param looks_up: ``True`` to look for recorded answers first.
    :returns: their records, in order.
    """
    if not calls:  # the embeddings of no text
        return []
    first = calls[0]  # the others have the same options
    if first.errand is not None:
        try:
            return await first.errand.answer(calls)
        except LLMCallError as error:
            note_inside(error)
            raise
    records: dict[str, Record] = {}
    missing: dict[str, Call] = {}
    progress = None
    try:
        for call in calls:
            key = call.request.cache_key
            if key in records or key in missing:
                continue  # of identical texts, the first is looked up, and gives the record its position
            record = found(call, await Look(call)) if looks_up else None
            if record is None:
                progress = progress or Progress()
                missing[key] = call.begun(progress)
            else:
                records[key] = record
        for hold in answers_held_back:
            await Wait(None, hold(calls))
        if progress is not None:
            if first.is_streamed:
                first.begin_stream(progress)
            for batch in first.kind.batches([*missing.values()]):
                records |= await share(batch)
        for call in missing.values():  # an identical call with another format may have got it
            if call.request.expected is not None:
                refuse_misfit(call, records[call.request.cache_key])
        if first.is_streamed:
            await emit_recorded(records[first.request.cache_key])
        hits = [record for record in records.values() if record.is_hit]
        if hits:
            saved = total_cost(record.cost for record in hits)
            if len(hits) < len(records):  # the call counts as answered by a model
                first.note(saved=saved)
            else:
                first.note_hit(hits[0], saved)
        answers = [records[call.request.cache_key] for call in calls]
        for call, record in zip(calls, answers, strict=True):
            call.note_answer(record)
        if progress is not None:
            first.end_stream(progress)
        return answers
    except BaseException as error:
        note_failure(error, first._replace(progress=progress))
        if progress is not None:
            first.end_stream(progress, error)
        raise
    finally:
        if progress is not None:
            progress.has_ended = True


async def emit_recorded(record: Record) -> None:
    """Emit a chat's recorded answer to the reader of a stream; a new one was emitted as it came, and other kinds come
    whole.
    """
    from ..apis.chunks import chunk_text, chunks_of

    if record.is_hit and record.kind == "chat":
        for chunk in chunks_of(record.response):
            await Emit(Piece(chunk_text(chunk), chunk))


async def share(calls: Sequence[Call]) -> Records:
    """Answer calls that are not recorded: lead the flight of each request, or follow another call's.

    A leader does not share errors from its own deadline, budget or cancellation, or from a stream: then a follower
    takes over.

    :param calls: all with the same options and store.
    """
    # The order of these steps is a decision.
    #
    # A call looks its record up before it comes here, so between that look and its flight another leader
    # may have stored the answer and ended. To look under the lock would close this gap. It was rejected:
    # a look may wait for a disk or a server, and the lock must be free meanwhile. Instead the leader
    # looks again, if the process has used its key.
    #
    # A batch sends what it leads before it follows other flights. Following first was rejected: its
    # own request, and all who follow that one, would wait for another request's server for nothing.
    #
    # A flight ends only once its answer is stored, and a follower reads the store: that notes the use of
    # the record in the follower's scope and arm, as for any recorded answer. Handing over the leader's
    # record was rejected, since all this would need a second way.
    #
    # An error is shared, which saves as many rounds of retries as there are followers. An error that only
    # the leader has, such as the end of its deadline, is not: then a follower leads the next flight, and
    # hence the loop.
    shared_by = calls[0].shared_by
    if shared_by is None:
        return await send(calls)
    from .flights import follow, lead  # not needed for a recorded answer

    records: Records = {}
    while missing := [call for call in calls if call.request.cache_key not in records]:
        followed: CallsInFlight = []
        records |= await lead(missing, followed, shared_by, send)
        for call, flight in followed:
            records |= await follow(call, flight, send)
    return records


async def send(calls: Sequence[Call]) -> Records:
    """Send calls or, if the context is too long, try the fallbacks; store the answer."""
    call = calls[0].kind.joined(calls)
    models = [*call.fallbacks]
    while True:
        exchange = Exchange(
            call,
            calls,
            # The reader of a stream has read one model's text: no other can replace it.
            must_fit_window=bool(models) and not call.is_streamed,
        )
        try:
            records = await attempts(exchange)
            break
        except ContextLengthError as error:
            if not models:
                raise
            model = models.pop(0)
            logger().warning(
                "%s: the context is too long (%s); calling %s instead",
                call.request.model,
                error,
                model,
            )
            call = call.to_model(model)
            calls = [call]
    await exchange.emit_rest()
    return {record.cache_key: record for record in records}


async def attempts(exchange: Exchange) -> list[Record]:
    """Make attempts until one succeeds or the rule or the deadline forbids another, and return its result.

    :raises APIError: the last attempt's, with ``attempts`` set.
    """
    number = 0
    while True:
        number += 1
        try:
            return await attempt(exchange)
        except APIError as error:
            error.attempts = number
            seconds = pause_after(error, exchange.call)
            if seconds is None:
                raise
            check_stops(stops())  # in an interrupted map, no retry is announced
            announce(exchange.call, error, seconds)
        await Wait(None, seconds)


async def attempt(exchange: Exchange) -> list[Record]:
    """Send the request to one endpoint after another until one answers or the attempt fails; return the answer's
    stored records.
    """
    call = exchange.call
    failover = Failover(call, exchange.body)
    while True:
        gate = call.kind.gate(call, exchange.request)
        async with gate:
            endpoint = await gate.acquire()
            host = "" if endpoint is NO_ENDPOINT else call.site.host(endpoint)
            sent_at, transport = clock.monotonic(), None
            try:
                transport = call.kind.transport(call, endpoint)
                response = await send_once(exchange, gate, endpoint, transport)
            except APIError as error:
                failover.bound_wait(error, endpoint)
                if isinstance(error, RequestTimeoutError):
                    exchange.bound_timeouts(error, clock.monotonic() - sent_at)
                if endpoint is NO_ENDPOINT:
                    raise
                error.endpoint = endpoint.name
                mask(error, [endpoint.key()])
                if failover.prepare_another_send(error, endpoint, gate, transport):
                    continue
                raise
            seconds = clock.monotonic() - sent_at
            return await exchange.store_and_count(response, gate, endpoint, host, seconds)


async def send_once(
    exchange: Exchange, gate: Gate, endpoint: Endpoint, transport: Transport | None
) -> Response:
    """Send the request once, and check the answer; count the send if it fails.

    :param gate: is told when a streamed answer begins, and what a failed send used.
    """
    call, request = exchange.call, exchange.call.kind.for_one_send(exchange.request)
    assembler, response = Assembler(), None
    exchange.held_back = ()
    try:
        timeout = call.deadline.time_for(call.options.timeout)
        note_sent(call)
        chunks = None
        if call.is_streamed:
            assert transport is not None  # of a function, which is never streamed
            chunks = await Open(transport, request, timeout, call.progress)
            if chunks is None:  # the transport does not stream
                own_body: Any = request.body
                own_body.pop("stream_options", None)
        if chunks is None:
            response = await call.kind.send(call, transport, request, timeout)
            source = response.source
        else:
            response, source = await exchange.read_stream(chunks, gate, assembler), chunks.name
        try:
            with naming_source(call, source, response):
                call.kind.check(
                    exchange.request, response, must_fit_window=exchange.must_fit_window
                )
        except APIError as error:
            error.note(is_read=exchange.is_read)
            await exchange.emit_rest()
            raise
        if call.is_streamed and not (exchange.is_read or exchange.held_back):  # it came whole
            exchange.held_back = call.kind.pieces(response)
        return response
    except BaseException as error:
        exchange.count_failure(error, response, assembler, gate, endpoint)
        raise
