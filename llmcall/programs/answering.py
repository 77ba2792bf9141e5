"""The pipeline of a program's request: the call that it becomes, its answer, and the response to the
program.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - the first getaddrinfo imports it: a process forked meanwhile would wait for ever
import re
from contextlib import nullcontext
from types import ModuleType, NoneType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..additions import additions, load

# With flights, database and packaged_prices, all is imported that a request needs; patches.py says why.
from ..core import flights  # noqa: F401
from ..core.answer import answer_calls, reply_to
from ..core.kinds import Http
from ..core.prepare import prepare_chat, prepare_embeddings
from ..errors import LLMCallError
from ..keys.http_identity import NOT_COUNTED, http_identity
from ..keys.messages import messages_to_send
from ..keys.parameters import checked_parameters, parameters_in
from ..keys.plain_data import plain
from ..models import packaged_prices  # noqa: F401
from ..recorded_functions import normalized, prepare_recorded, recorded_result
from ..scopes.active import position_here
from ..scopes.callers import counted_apart
from ..stores.cache import database  # noqa: F401
from ..stores.cassettes.current import open_current_cassette
from ..stores.record import requested_model
from ..support import secrets
from ..support.failures import UnrecordedAnswer
from ..support.request_origin import llmcall_sends
from . import connections
from .http_responses import connection_failure, refusal_response, respond
from .interceptors import SendRequest, Sight
from .requests import (
    CHATS,
    RequestToRecord,
    has_model_path,
    is_of_model_sdk,
    is_of_sdk,
    request_to_record,
    unsent_response,
)
from .transport import ProgramTransport

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    import httpx

    from ..core.calls import Call
    from ..keys.request import Data
    from .recorder import ProgramClient, Recorder

CALL_ERRORS = (LLMCallError, TypeError, ValueError)  # of a call; the latter two are wrong arguments
HAS_ENDED = (
    "the program has ended, so this request was not sent: its answer could not be recorded. Join the "
    "thread that sends it before the program ends, and send nothing from __del__"
)
LONGEST_NAME = 200  # characters of a request's in messages
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")


def passes(recorder: Recorder, method: str, url: str, headers: Mapping[str, str]) -> bool:
    """Return whether a request passes, judging by its method, address and headers: it reaches no model and is not
    recorded, only noted. This comes before anything makes a request of httpx of it: that library has rules and errors
    of its own.

    :param url: as its library has it.
    :param headers: names in any case.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # such an address names no model's host
        return True
    path = unquote(parts.path)
    address = connections.address_of(parts.scheme, host, port)
    lowered = {name.lower(): value for name, value in headers.items()}
    if (
        host in recorder.recording.hosts
        or has_model_path(method, path.rstrip("/"))
        or is_of_sdk(lowered)
        or is_of_model_sdk(lowered)
        or connections.is_models(address, recorder.known_models())
    ):
        return False
    if not llmcall_sends() and unsent_response(path) is None:
        recorder.note(Sight.OTHER_REQUEST, _named(method, host, path))
    return True


async def response_to(
    recorder: Recorder, library: ModuleType, http: httpx.Request, send: SendRequest
) -> httpx.Response | None:
    """Return the response to a request of a program, or ``None`` for a request that passes unrecorded.

    :param recorder: the recorder of the program's client.
    :param library: the request's module, ``httpx`` or ``httpx2``.
    :param http: the request.
    :param send: sends a request and returns its response, or a coroutine that does.
    :raises library.RequestError: if the connection fails or times out.
    """
    if llmcall_sends() and not recorder.sends_nothing:
        return None
    transport = None
    url = http.url
    address = connections.address_of(url.scheme, url.host, url.port)
    is_models_host = is_of_model_sdk(http.headers) or connections.is_models(
        address, recorder.known_models()
    )
    if is_models_host:
        recorder.models.add(address)
    try:
        to_record = await request_to_record(
            http, recorder.recording.hosts, is_models_host=is_models_host
        )
        if llmcall_sends():
            # by user code, where nothing may be sent
            if is_models_host or (to_record is not None and to_record.calls_model):
                raise LLMCallError(
                    f"{_address(http)} is not sent: a replay sends nothing, and llmcall never records requests "
                    "from functions that it calls, such as an actor function"
                )
            return None
        if (is_models_host or to_record is not None) and recorder.is_left(library, url.host):
            return None
        if to_record is None:
            return _let_pass(recorder, library, http, is_models_host=is_models_host)
        if recorder.has_ended:
            raise LLMCallError(HAS_ENDED)
        if to_record.calls_model:
            recorder.models.add(address)
        # This opens the cassette of the settings, and attaches its recorder.
        cassette = open_current_cassette()
        recording = recorder.recording
        # A cassette may be open and yet not count here, as in a fixture with a wider scope than the test's.
        is_hidden = cassette is None and recording.is_of_cassette
        client = recording.client_at(to_record.base_url)
        is_retried = client.settings.retry_max_attempts > 1
        if (place := additions("program_senders").get(client.settings.api_type)) is not None:
            send = load(place)(library, to_record, client.settings)
        transport = ProgramTransport(library, to_record, send, is_retried=is_retried)
        default = None if is_hidden else recording.default
        with (
            position_here(default, recorder.made_in) or nullcontext(),
            recording.scope_of(to_record, client.settings),
            counted_apart(),
        ):
            calls = calls_of(transport, client)
        return await respond(transport, calls[0], _answering(calls))
    except CALL_ERRORS as error:
        failed = error
    # Outside the block above: the exception keeps the causes that the program's client gave it.
    if (broken := connection_failure(library, failed)) is not None:
        raise broken
    if isinstance(failed, UnrecordedAnswer):
        recorder.note(Sight.MODEL_REQUEST, _address(http))
    return refusal_response(library, failed, transport)


def _let_pass(
    recorder: Recorder, library: ModuleType, http: httpx.Request, *, is_models_host: bool
) -> httpx.Response | None:
    """Pass an unrecorded request through by returning ``None``. Where nothing is sent, return the response
    for a kind of request that is never recorded.
    """
    path = str(http.url.path)
    is_chat = http.method == "POST" and path.rstrip("/").endswith(CHATS)
    if (unsent := unsent_response(path)) is not None:
        is_named = http.url.host in recorder.recording.hosts
        if not (recorder.sends_nothing and (is_models_host or is_named)):
            return None
        status, data = unsent
        response: httpx.Response = library.Response(status, json=data)
        return response
    sight = Sight.MODEL_REQUEST if is_models_host or is_chat else Sight.OTHER_REQUEST
    recorder.note(sight, _address(http))
    return None


def _address(http: httpx.Request) -> str:
    """Return what names a request in messages."""
    return _named(http.method, http.url.host, http.url.path)


def _named(method: str, host: str, path: str) -> str:
    """Return the method, host and path of a request, masked where the path looks like a credential, and cut."""
    text = secrets.masked(f"{method} {host}{path}")
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def calls_of(transport: ProgramTransport, client: ProgramClient) -> list[Call]:
    """Return the calls that a request becomes: one for each text of embeddings, else one."""
    to_record, kind = transport.to_record, transport.to_record.kind
    arguments = _arguments(to_record, kind)
    if arguments is None:
        return [prepare_http(transport, client)]
    if kind == "chat":
        calls = [prepare_chat(client, to_record.body["messages"], arguments)]
    else:
        model = arguments.pop("model")
        calls = prepare_embeddings(client, to_record.body["input"], model, arguments)
    return [client.with_own_body(call, transport) for call in calls]


def _answering(calls: Sequence[Call]) -> Coroutine[Any, Any, object]:
    """Return the procedure that answers the calls of a request."""
    kind = calls[0].request.kind
    if kind == "http":
        return recorded_result(calls[0])
    return reply_to(calls[0]) if kind == "chat" else answer_calls(calls)


def _arguments(to_record: RequestToRecord, kind: str) -> dict[str, Data] | None:
    """Return the arguments of a chat or embeddings: the body's parameters, with the model that the address names.
    ``None`` if llmcall's own client cannot send the body: it is recorded as it is, since the server may accept it.

    This is decided before the call is prepared, so an error raised there is a fault of the call.
    """
    if kind == "http":
        return None
    body = to_record.body
    parameters = parameters_in(body, kind)
    try:
        if kind == "chat":
            messages_to_send(body["messages"])
        checked_parameters(parameters, kind)
    except (TypeError, ValueError):
        return None
    if not isinstance(body.get("model", ""), (str, NoneType)):
        return None
    deployment = DEPLOYMENT.search(to_record.path)
    return {"model": deployment[1] if deployment else None, **parameters}


def prepare_http(transport: ProgramTransport, client: ProgramClient) -> Call:
    """Return the call of a request that is recorded unchanged. A request to something other than a model is
    sent whenever sending is allowed.

    Fields of the query and the body that are credentials by their names are neither recorded nor
    part of the key.

    :raises CacheError: for a body with a field that may hold a credential by its name.
    """
    to_record, settings = transport.to_record, client.settings
    http, body, calls_model = to_record.http, to_record.body, to_record.calls_model
    host = http.url.host if http.url.port is None else f"{http.url.host}:{http.url.port}"
    path = http.url.raw_path.decode().partition("?")[0]
    address = f"{http.method} {host}{path}"
    recorded_body = secrets.without_credentials(plain(body, "the body"))
    secrets.refuse_named_credentials(recorded_body, settings.cassette_allow, address)
    query = http.url.params.multi_items()
    if to_record.api_path is not None or not to_record.counts_host:
        query = [(name, value) for name, value in query if name not in NOT_COUNTED]
    recorded_query: dict[str, list[str]] = {}
    for name, value in secrets.without_query_credentials(query, address):
        recorded_query.setdefault(name, []).append(value)
    model = requested_model("http", {"path": to_record.path, "body": body}) if calls_model else None
    counted_host = host if to_record.counts_host else None
    identity = http_identity(http.method, counted_host, path, recorded_query, recorded_body)
    call = prepare_recorded(
        "http",
        {**identity, "body": normalized(identity["body"], settings)},
        settings,
        Http(
            transport,
            f"{http.method} {path}",
            calls_model=calls_model,
            # what a server keeps, such as a conversation, may have changed since a cache got the answer
            prefers_calling=body is None or (to_record.is_at_model and not calls_model),
        ),
        model=(model or host) if body is not None else "",
        body=body if isinstance(body, dict) else None,
        client=None if body is None else client,
    )
    return call._replace(is_streamed=to_record.requests_stream)
