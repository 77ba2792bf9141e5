"""The client: its settings, endpoints, cache and meter, and the calls that users make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload
from weakref import WeakSet

from ..config import resolve as config
from ..config.endpoints import Endpoint
from ..config.settings import DEFAULT_MODEL, checked_layer
from ..core.calls import Options
from ..core.client import ResolvedSettings
from ..core.effects import adrive, adrive_stream, drive_stream
from ..core.membrane import aclose, call_foreign, close
from ..core.prepare import prepare_again, prepare_chat, prepare_embeddings
from ..core.road import NOT_RECORDED, handle_failure, records_of, replay, reply_to
from ..errors import APIError, ConfigError
from ..keys.parameters import EFFORT, configured_parameters, sent_body
from ..models import catalog
from ..stores.cache.cache import shared_cache
from ..support.blocking import run_blocking
from ..support.system import ProcessLock, after_fork_in_child
from ..traffic import standard as standard  # its listeners
from ..traffic.usage import Meter
from .own import as_transport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import ClassVar, Literal

    from typing_extensions import Self

    from ..config.settings import Settings
    from ..core.calls import Call
    from ..core.reply import Reply
    from ..core.seams import Gate, Sends, Transport
    from ..keys.request import Data, Request
    from ..models.catalog import Capabilities
    from ..models.prices import Price
    from ..models.tokens import TokenCount
    from ..stores.cache.cache import ResponseCache
    from ..traffic.limits import Pool
    from ..traffic.usage import Usage
    from .streams import AsyncStream, Stream

    Messages = str | Sequence[Mapping[str, object]]
    Vectors = list[float] | list[list[float]] | APIError | None


class LLMClient:
    """Call a model, or return its recorded answer.

    To write your own client, subclass it and provide a :class:`~llmcall.types.Transport`: pass it as
    ``transport=``, set a ``transport`` attribute, or define a method ``send``.

    :param settings: settings to use instead of the process's.
    :param transport: sends requests to the model.
    :param overrides: settings by name, which override the process's: ``model=``, ``cache_path=``,
        ``on_error=``, ….
    :raises ConfigError: if a setting does not allow its value.
    :raises TypeError: if there is no such setting.

    >>> class Parrot(llmcall.LLMClient):
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    >>> Parrot(model="parrot", cache_mode="off").send_message("Pieces of eight!").content
    'Pieces of eight!'
    """

    api_type: ClassVar[str] = "custom"
    transport: Sends | None = None

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Sends | None = None,
        **overrides: object,
    ) -> None:
        self._base_settings = settings
        self._overrides = checked_layer(overrides, f"{type(self).__name__}()")
        self.meter = Meter()
        self._resolved: ResolvedSettings | None = None
        self._transports: dict[tuple[Endpoint, object], Transport] = {}  # by endpoint and key
        if transport is not None:
            self.transport = transport
        _clients.add(self)
        config.refresh()
        _ = self.resolved  # a wrong setting raises here, not at the first call

    def __getstate__(self) -> dict[str, Any]:
        # In another process it has connections and a meter of its own.
        return {**self.__dict__, "_transports": {}, "_resolved": None, "meter": Meter()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _clients.add(self)

    @property
    def resolved(self) -> ResolvedSettings:
        """Return the current settings as they apply to this client."""
        resolved = self._resolved
        if resolved is None or resolved.current is not config.settings():
            resolved = self._resolved = self._resolve()
        return resolved

    def _resolve(self) -> ResolvedSettings:
        # Read before the settings: if they change meanwhile, the result is out of date at once.
        current = config.settings()
        settings = config.settings_for(self._base_settings, self._overrides)
        cache = shared_cache(settings.cache_path)
        defaults = configured_parameters(settings)
        options = Options.of(settings)
        return ResolvedSettings(current, settings, cache, {}, set(), defaults, options)

    def with_effort(self, model: str, fields: Mapping[str, Data]) -> dict[str, Data]:
        """Return the fields of a chat call; the packaged default model gets the effort ``none`` unless
        they name one.

        Without reasoning, its answers are quick and cheap, and fit into a small ``max_tokens``.
        """
        if model != DEFAULT_MODEL or EFFORT in fields or EFFORT in fields.get("extra_body", ()):
            return {**fields}
        return {**fields, EFFORT: "none"}

    @property
    def settings(self) -> Settings:
        """Return the client's current settings."""
        return self.resolved.settings

    @property
    def cache(self) -> ResponseCache:
        """Return the disk cache that the client reads and writes."""
        return self.resolved.cache

    @property
    def usage(self) -> Usage:
        """Return what this client's calls used."""
        return self.meter.usage()

    def default_embedding_model(self) -> str:
        """Return the model of an embeddings call that names none."""
        return self.settings.embedding_model

    def model_named(self, model: str | None) -> str:
        """Return the name of a call's model, with aliases resolved.

        :param model: the name that the call gives; ``None`` means the default model.
        :raises TypeError: if it is not a string.
        """
        settings = self.resolved.settings
        name = model or settings.model
        if not isinstance(name, str):
            raise TypeError(f"model is {name!r}; it must be a string")
        name = str.__str__(name)  # a member of an enum becomes its value: records hold plain texts
        if not settings.aliases:
            return name
        return catalog.resolve(name, settings.aliases)

    def capabilities(self, model: str) -> Capabilities:
        """Return what is known about a model."""
        return catalog.capabilities(model, self.settings.models)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints that serve a model."""
        return [Endpoint(name=self.api_type, models=(model,), api_type=self.api_type)]

    def hosts(self, model: str) -> set[str]:
        """Return the hosts that serve a model, as records name them."""
        return {self.host(endpoint) for endpoint in self.endpoints(model)}

    def make_transport(self, endpoint: Endpoint) -> LLMClient | Sends:
        """Return the transport for an endpoint; used without ``transport=``.

        :returns: also the client itself, if its class defines ``send``, or another object that does.
        """
        return self

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        return self.api_type

    def namespace(self, model: str) -> str:
        """Return the namespace that keeps a model's records apart from other servers'; ``""`` without one."""
        return self.resolved.settings.cache_namespace

    def pool(self, model: str) -> Pool:
        """Return the endpoints that serve a model, with their limits and prices."""
        pools = self.resolved.pools
        pool = pools.get(model)
        if pool is None:
            from ..traffic.limits import Pool

            new_pool = Pool(model, self.endpoints(model), self.capabilities(model), self.settings)
            pool = pools.setdefault(model, new_pool)
        return pool

    def gate(self, call: Call, request: Request) -> Gate:
        """Return the gate that a send of a call passes: the limits and the open budgets.

        :param request: the request, with the body that is sent.
        """
        from ..traffic.gate import ClientGate

        return ClientGate(call, self.pool(request.model), request)

    def shared_transport(self, endpoint: Endpoint) -> Transport:
        """Return the transport for an endpoint; all calls share it.

        :raises ConfigError: if neither a subclass nor ``transport=`` provides one, or what it provides
            has no ``send``.
        """
        # An environment variable may have changed the endpoint's key.
        endpoint_and_key = endpoint, endpoint.key()
        transport = self._transports.get(endpoint_and_key)
        if transport is None:
            with _lock:
                transport = self._transports.get(endpoint_and_key)
                if transport is None:
                    own: LLMClient | Sends | None = self.transport
                    if own is None:
                        own = call_foreign(self.make_transport, endpoint)
                    transport = self._transports[endpoint_and_key] = as_transport(own, self)
        return transport

    def transport_for(self, call: Call, endpoint: Endpoint) -> Transport:
        """Return the transport that sends a call to an endpoint."""
        return self.shared_transport(endpoint)

    def in_window(
        self, options: Options, fields: dict[str, Data]
    ) -> tuple[Options, dict[str, Data]]:
        """Return the options and the fields of a chat call that is to be answered within a window.

        A client without windows raises its error when the call is sent: a recorded answer needs no window.
        """
        return options, fields

    def request_to_send(self, call: Call, stream: bool) -> Request:
        """Return a call's request with the body to send, and the API (wire) that it goes to; a stream's
        body also asks for the usage.

        :raises ConfigError: if it cannot be sent in its window.
        """
        if call.options.window != "none" and call.request.kind == "chat":
            self.check_window(call, stream)
        capabilities = self.pool(call.request.model).capabilities
        body = sent_body(call.request.body, capabilities)
        if stream:
            body["stream_options"] = {"include_usage": True}
        return call.request._replace(body=body, wire=self.wire(body, capabilities))

    def check_window(self, call: Call, stream: bool) -> None:
        """Raise an error if a call cannot be answered within its window; only OpenAI's API has windows."""
        raise no_window(call.options.window, f"the client {self.api_type!r} has no windows")

    def wire(self, body: Mapping[str, Data], capabilities: Capabilities) -> str:
        """Return the API (wire) that a body goes to; clients of one's own speak chat completions.

        :param capabilities: the model's capabilities.
        """
        return "chat"

    def has_decisions(self, model: str, *, is_known: bool = True) -> bool:
        """Return whether OpenAI's Decisions API may answer for a model; only OpenAI's client speaks it."""
        return False

    def price(self, model: str, service_tier: str | None = None) -> Price | None:
        """Return the highest price that a call may have, or ``None`` if it is unknown.

        :param service_tier: the tier that it asks for; ``None`` is the standard one.
        """
        return self.pool(model).price(service_tier=service_tier)

    def build_request(self, current_messages: Messages, **arguments: object) -> Request:
        """Return the request that :meth:`send_message` would send; send and store nothing.

        :param arguments: the same as :meth:`send_message` takes.
        """
        from copy import deepcopy

        call = prepare_chat(self, current_messages, arguments)
        call.release_draw()
        return deepcopy(call.request)

    @overload
    def send_message(
        self, current_messages: Messages, *, on_error: Literal["raise"], **arguments: Any
    ) -> Reply: ...
    @overload
    def send_message(self, current_messages: Messages, **arguments: Any) -> Reply | None: ...

    def send_message(
        self,
        current_messages: Messages,
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        n: int | None = None,
        response_format: object = None,
        tools: Sequence[object] | None = None,
        tool_choice: object = None,
        reasoning_effort: str | None = None,
        extra_body: Mapping[str, object] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        max_attempts: int | None = None,
        waiting_time: float | None = None,
        exponential_backoff_factor: float | None = None,
        window: str | None = None,
        sample: str | int | None = None,
        cache: bool | None = None,
        on_error: str | None = None,
        dedent_messages: bool = False,
        **params: object,
    ) -> Reply | None:
        """Ask a model, or return its recorded answer.

        :param current_messages: a list of ``{"role", "content"}`` dicts, or a string, which means
            one user message. It is never changed.
        :param model: the model's name; ``None`` means the configured one.
        :param temperature: a parameter of the chat completions API. So are ``max_tokens``,
            ``top_p``, ``frequency_penalty``, ``presence_penalty``, ``stop``, ``seed``, ``n``,
            ``response_format`` (a pydantic class works too), ``tools`` (functions work too),
            ``tool_choice``, ``reasoning_effort`` and ``extra_body``; pass any other in ``params``.
            ``None`` means the configured default; a parameter without a default is not sent.
        :param timeout: seconds for one attempt.
        :param deadline: seconds for the whole call, with its retries, its waits and the time to
            read the answer.
        :param max_attempts: the number of attempts, the first included. ``waiting_time`` is the
            first wait between them, in seconds; each further wait is
            ``exponential_backoff_factor`` times as long.
        :param window: ``"2h"`` or ``"8h"``: the answer may take so long, and costs less; ``"none"``
            takes a configured window back. A program that is stopped and started again waits for the
            same answer.
        :param sample: the draw to take, instead of the next one.
        :param cache: ``False`` bypasses the disk cache.
        :param on_error: what to do if the call fails after all retries: ``"raise"`` the exception,
            ``"return"`` it, or ``"none"`` (log it and return ``None``).
        :param dedent_messages: whether to remove the common indentation of every text.
        :returns: the reply, or ``None`` if the call failed after all retries and ``on_error`` is ``"none"``.
        :raises TypeError, ValueError: if an argument is wrong, before any call.
        :raises ConfigError: if a setting, such as the key, is missing or wrong.
        :raises CacheMissError: if the mode is ``replay`` and the answer is not recorded.
        """
        arguments = {
            "model": model,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "top_p": top_p,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "stop": stop,
            "seed": seed,
            "n": n,
            "response_format": response_format,
            "tools": tools,
            "tool_choice": tool_choice,
            "reasoning_effort": reasoning_effort,
            "extra_body": extra_body,
            "timeout": timeout,
            "deadline": deadline,
            "max_attempts": max_attempts,
            "waiting_time": waiting_time,
            "exponential_backoff_factor": exponential_backoff_factor,
            "window": window,
            "sample": sample,
            "cache": cache,
            "on_error": on_error,
            "dedent_messages": dedent_messages,
            **params,
        }
        call = prepare_chat(self, current_messages, arguments)
        reply = replay(call)
        if reply is NOT_RECORDED:
            reply = run_blocking(reply_to(call, looks_up=False))
        return reply  # type: ignore[no-any-return]

    @overload
    async def asend_message(
        self, current_messages: Messages, *, on_error: Literal["raise"], **arguments: object
    ) -> Reply: ...
    @overload
    async def asend_message(
        self, current_messages: Messages, **arguments: object
    ) -> Reply | None: ...

    async def asend_message(self, current_messages: Messages, **arguments: object) -> Reply | None:
        """Ask a model without blocking the event loop.

        It has the arguments, reply and errors of :meth:`send_message`.
        """
        call = prepare_chat(self, current_messages, arguments)
        # Even a recorded answer may have to wait: for a cache on a server.
        looks_up = call.store.is_on_server
        reply: Any = NOT_RECORDED if looks_up else replay(call)
        if reply is NOT_RECORDED:
            reply = await adrive(reply_to(call, looks_up=looks_up))
        return reply  # type: ignore[no-any-return]

    def ask_again(self, recorded_request: Mapping[str, Data], sample: str) -> Reply:
        """Ask a recorded chat request once more, exactly as it was recorded.

        The disk cache neither answers nor keeps it: only an open cassette does. No other model
        answers if the context is too long.

        :param recorded_request: the recorded request: :attr:`llmcall.types.Record.request`.
        :param sample: the whole name of the draw.
        :raises APIError: if the call failed after all retries.
        :raises CacheMissError: if no call is allowed, and the answer is not recorded.
        """
        call = prepare_again(self, recorded_request, sample)
        return run_blocking(reply_to(call))  # type: ignore[no-any-return]

    def stream_message(self, current_messages: Messages, **arguments: object) -> Stream:
        """Ask a model and yield its answer as it arrives.

        :param arguments: the same as :meth:`send_message` takes.
        :returns: an iterator over pieces of the text, with the reply in ``.reply`` at the end. A
            recorded answer comes word by word. If the call fails and ``on_error`` is ``"none"``,
            the failure is logged, the stream ends, and ``.reply`` is ``None``.
        """
        from .streams import Stream

        call = prepare_chat(self, current_messages, arguments)
        return Stream(call, reply_to(call, stream=True), drive_stream)

    def astream_message(self, current_messages: Messages, **arguments: object) -> AsyncStream:
        """Ask a model and yield its answer as it arrives, without blocking the event loop.

        Arguments and stream are as for :meth:`stream_message`.
        """
        from .streams import AsyncStream

        call = prepare_chat(self, current_messages, arguments)
        return AsyncStream(call, reply_to(call, stream=True), adrive_stream)

    @overload
    def get_embedding(
        self, text: str, model: str | None = None, **arguments: Any
    ) -> list[float] | None: ...
    @overload
    def get_embedding(
        self, text: Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[list[float]] | None: ...

    def get_embedding(
        self, text: str | Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[float] | list[list[float]] | None:
        """Return the embedding of a text, or of each of several texts.

        Only embeddings that are not recorded are asked for.

        :param text: a text, or a sequence of texts.
        :param model: the embedding model; ``None`` means the configured one.
        :param arguments: ``dimensions``, and the arguments of :meth:`send_message` that make sense
            for embeddings, such as ``timeout``.
        :returns: a list of numbers, each rounded to float32, or one such list for each text;
            ``None`` if the call failed after all retries and ``on_error`` is ``"none"``.
        """
        calls = prepare_embeddings(self, text, model, arguments)
        # With on_error="return" it may also be the error, which the type leaves out.
        return run_blocking(self._embedding_flow(calls, is_one=isinstance(text, str)))  # type: ignore[return-value]

    @overload
    async def aget_embedding(
        self, text: str, model: str | None = None, **arguments: Any
    ) -> list[float] | None: ...
    @overload
    async def aget_embedding(
        self, text: Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[list[float]] | None: ...

    async def aget_embedding(
        self, text: str | Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[float] | list[list[float]] | None:
        """Return embeddings without blocking the event loop, as :meth:`get_embedding` does."""
        calls = prepare_embeddings(self, text, model, arguments)
        vectors = await adrive(self._embedding_flow(calls, is_one=isinstance(text, str)))
        return vectors  # type: ignore[return-value]

    async def _embedding_flow(self, calls: Sequence[Call], *, is_one: bool) -> Vectors:
        from ..core.kinds import vector_of

        try:
            records = await records_of(calls)
        except APIError as error:
            return handle_failure(error, calls[0])
        vectors = [vector_of(record) for record in records]
        return vectors[0] if is_one else vectors

    def count_tokens(self, messages_or_text: Messages, model: str | None = None) -> TokenCount:
        """Return the number of tokens in a text, or in messages with their framing.

        :param messages_or_text: a string, or messages as :meth:`send_message` takes them.
        :param model: the model whose tokenizer counts; ``None`` means the configured one.
        :returns: the number; its ``.estimated`` is true if it is not exact.
        """
        from ..models.tokens import count_tokens

        name = self.model_named(model)
        return count_tokens(messages_or_text, name, encoding=self.capabilities(name).encoding)

    def close(self) -> None:
        """Close the connections, and store the answers that could not be stored before.

        Close a client only while it has no call under way. The next call opens new connections.
        """
        for transport in self._take_transports():
            close(transport)

    async def aclose(self) -> None:
        """Close the connections, including the running event loop's.

        ``asyncio.run`` does this by itself when it ends.
        """
        for transport in self._take_transports():
            await aclose(transport)

    def _take_transports(self) -> list[Transport]:
        """Return and forget the transports, once unstored answers are stored."""
        if self._resolved is not None:
            self._resolved.cache.store_unstored()
        transports, self._transports = self._transports, {}
        return [*transports.values()]

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model_named(None)!r})"


def no_window(window: str, reason: str) -> ConfigError:
    """Return the error of a call that cannot be answered within a window."""
    return ConfigError(
        f"WINDOW = {window}: {reason}. window='none' sends the call without a window"
    )


_lock = ProcessLock()
_clients: WeakSet[LLMClient] = WeakSet()
# Connections of the parent process. A forked child keeps them open: closing them could wait forever
# for a lock that another of the parent's threads held at the fork.
_connections_of_parent: list[object] = []


def _leave_connections_of_parent() -> None:
    """Give the clients of a forked process connections and locks of their own."""
    for client in list(_clients):
        _connections_of_parent.append(client._transports)
        client._resolved = None
        client._transports = {}


after_fork_in_child(_leave_connections_of_parent)
