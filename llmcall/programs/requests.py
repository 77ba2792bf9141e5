"""A program's HTTP requests: which are recorded, and as what."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Container, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..core.effects import Blocks
from ..keys.http_identity import MODEL_PATH, OBJECT, api_path
from ..keys.plain_data import is_too_deep
from ..support.waits import resolved
from .placeholders import PLACEHOLDER

if TYPE_CHECKING:
    import httpx

    from ..keys.request import Data


CALL_PATH = re.compile(
    r"/(chat/completions|completions|embeddings|responses|decisions|messages)/?$"
)
CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
# The ends of the paths of requests that are never recorded, and the response that they get where nothing is sent.
NEVER_RECORDED: Mapping[str, tuple[int, Data]] = {
    "/v1/traces/ingest": (204, None),  # telemetry of openai-agents
    # an access token for the identity of a workload (openai 3.57, anthropic 2.14): RFC 6749, section 5.1
    "/oauth/token": (
        200,
        {"access_token": PLACEHOLDER, "token_type": "Bearer", "expires_in": 3600},
    ),
}
CHATS = ("/completions", EMBEDDINGS)  # the ends of the paths of chats, completions and embeddings
GEMINI_STREAM = ":streamGenerateContent"  # the end of a path of Gemini's API
# Headers of generated SDKs, those of models among them: Stainless (openai 3.57, anthropic 2.14), Fern (cohere)
# and Google. A body that names a model then goes to a model, whatever its path.
SDK_HEADERS = ("x-stainless-lang", "x-fern-language", "x-goog-api-client")
# The names that SDKs of models give themselves: they call a model's host.
SDK_NAME = re.compile(
    r"(Async)?(Azure)?(OpenAI|Anthropic)\w*/Python |google-genai-sdk/|mistral-client-python/"
    r"|ollama-python/|litellm/"
)
# The types that a program accepts if it can read JSON. The SDK requests speech and files by other types.
ACCEPTS_JSON = re.compile(r"json|event-stream|\*/\*|application/\*")
# Paths that are not answered in JSON, or by credentials for WebSockets.
SPEECH_OR_REALTIME = re.compile(r"/audio/speech$|/realtime/")
# Requests to models that cost nothing.
FREE_PATHS = ("/moderations", "/count_tokens", "/input_tokens", ":countTokens")


class ProgramRequest(NamedTuple):
    """A program's request, as the function in ``actor=`` gets it.

    :param method: ``"POST"``, ``"GET"`` ….
    :param url: the whole address.
    :param headers: names in lower case.
    :param body: the parsed JSON body; ``None`` if the body is not JSON.

    >>> def who(request: llmcall.types.ProgramRequest) -> str | None:
    ...     return request.headers.get("x-actor") or request.body["messages"][0]["content"]
    >>> http_client = llmcall.http_client(actor=who)
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: Data

    def __repr__(self) -> str:
        # Headers and query may hold keys.
        return f"ProgramRequest({self.method!r}, {self.url.partition('?')[0]!r})"


class RequestToRecord(NamedTuple):
    """A program's request that is to be recorded, or answered from its record.

    :param http: the request of httpx or httpx2.
    :param path: the path of its address, without a slash at its end.
    :param body: its parsed JSON body, or ``None``.
    :param is_at_model: ``True`` if it goes to a model's host that ``hosts`` does not name.
    """

    http: httpx.Request
    path: str
    body: Data
    is_at_model: bool

    @property
    def kind(self) -> str:
        """Return the kind of answer that it seems to request: ``"chat"``, ``"embedding"``, or ``"http"`` for
        anything else."""
        fields = self.body if isinstance(self.body, dict) else {}
        is_deferred = bool(fields.get("deferred"))  # xAI's: answered by a request's id
        if (
            self.path.endswith(CHAT)
            and isinstance(fields.get("messages"), list)
            and not is_deferred
        ):
            return "chat"
        if self.path.endswith(EMBEDDINGS) and _is_text(fields.get("input")):
            return "embedding"
        return "http"

    @property
    def api_path(self) -> str | None:
        """Return the part of the path that counts if one of the three APIs gets it, else ``None``."""
        return api_path(self.path, self.body)

    @property
    def calls_model(self) -> bool:
        """Return whether a model answers it, at some price."""
        if not isinstance(self.body, dict):
            return False
        if self.path.endswith(CHATS) or self.api_path is not None:
            return True
        is_free = self.path.endswith(FREE_PATHS)
        return self.is_at_model and _names_model(self.body) and not is_free

    @property
    def counts_host(self) -> bool:
        """Return whether the host is a part of its key."""
        return self.path.endswith(CHATS) or not self.is_at_model

    @property
    def requests_stream(self) -> bool:
        """Return whether the answer is to come in pieces."""
        fields = self.body if isinstance(self.body, dict) else {}
        in_query = self.http.url.params.get("stream") == "true"
        return self.path.endswith(GEMINI_STREAM) or bool(fields.get("stream")) or in_query

    @property
    def address(self) -> str:
        """Return the address without its query, which may hold keys."""
        url = self.http.url
        return f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode().partition('?')[0]}"

    @property
    def base_url(self) -> str:
        """Return the address of the API, or of the host if the path is another API's."""
        address = self.address
        if (call_path := CALL_PATH.search(address)) is not None:
            return address[: call_path.start()]
        return f"{self.http.url.scheme}://{self.http.url.netloc.decode()}"

    def for_actor(self) -> ProgramRequest:
        """Return the request as the function in ``actor=`` gets it."""
        http = self.http
        return ProgramRequest(http.method, str(http.url), dict(http.headers.items()), self.body)


def unsent_response(path: str) -> tuple[int, Data] | None:
    """Return the status and JSON that a request gets where nothing is sent, if such requests are never recorded."""
    path = path.rstrip("/")
    return next((NEVER_RECORDED[end] for end in NEVER_RECORDED if path.endswith(end)), None)


def is_of_model_sdk(headers: Mapping[str, str]) -> bool:
    """Return whether an SDK of models sends a request."""
    return SDK_NAME.match(headers.get("user-agent", "")) is not None


def has_model_path(method: str, path: str) -> bool:
    """Return whether a request goes to a path at which models answer.

    :param path: without a slash at its end.
    """
    return method == "POST" and (path.endswith(CHATS) or MODEL_PATH.search(path) is not None)


def is_of_sdk(headers: Container[str]) -> bool:
    """Return whether a generated SDK sends a request."""
    return any(name in headers for name in SDK_HEADERS)


async def request_to_record(
    http: httpx.Request, hosts: Collection[str], *, is_models_host: bool
) -> RequestToRecord | None:
    """Return a program's request if it is to be recorded, else ``None``.

    At a model's host, any JSON and any request without a body is recorded, but not JSON that is nested too deeply
    for a file.

    :param http: a request of httpx or httpx2.
    :param hosts: hosts whose requests are recorded besides those to models.
    :param is_models_host: ``True`` if the host is known to be a model's.
    """
    path = str(http.url.path).rstrip("/")
    if unsent_response(path) is not None:
        return None
    is_post, is_named = http.method == "POST", http.url.host in hosts
    is_at_model_path, by_sdk = has_model_path(http.method, path), is_of_sdk(http.headers)
    is_of_model = is_at_model_path or (OBJECT.search(path) is not None and by_sdk)
    if not (is_of_model or is_named or is_models_host or (is_post and by_sdk)):
        return None
    accepted = http.headers.get("accept", "*/*")
    media_type = http.headers.get("content-type")
    is_json = ACCEPTS_JSON.search(accepted) is not None and not SPEECH_OR_REALTIME.search(path)
    if "json" not in (media_type or "json") or not (is_of_model or is_named or is_json):
        return None
    content = await resolved(http.read() if await Blocks() else http.aread())
    body: Data = None
    if is_post and media_type:
        with contextlib.suppress(ValueError, RecursionError):
            body = json.loads(content)
    if (body is None and (content or is_at_model_path)) or is_too_deep(body, content):
        return None
    # an endpoint of an SDK that is not known yet
    is_models_host = is_models_host or (by_sdk and _names_model(body))
    request = RequestToRecord(http, path, body, is_models_host and not is_named)
    is_recorded = is_named or is_models_host or body is None or request.calls_model
    return request if is_recorded else None


def _names_model(body: Data) -> bool:
    return isinstance(body, dict) and isinstance(body.get("model"), str)


def _is_text(value: Data) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(element, str) for element in value)
    return isinstance(value, str)
