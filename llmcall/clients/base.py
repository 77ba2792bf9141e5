"""The client that all clients are: its settings, endpoints, cache and meter, what a user calls, and
its streams.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakSet, proxy

from ..cache.cache import shared_cache
from ..config import resolve as config
from ..config.settings import Endpoint
from ..config.values import without_password
from ..engine.caller import Resolved
from ..engine.lookup import lookup
from ..engine.prepare import prepare_chat, prepare_embeddings
from ..engine.usage import Meter
from ..errors import (
    APIError,
    BudgetExceededError,
    CacheCorruptError,
    ConfigError,
    short_traceback,
    shorten,
)
from ..failures import FAILED, LEFT, is_left, process_failures
from ..notices import how_often, logger
from ..requests.parameters import configured_parameters, sent_body
from ..scopes import note_served
from ..system import after_fork_in_child, at_exit
from ..types import Outcome, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from typing import ClassVar, Literal

    from typing_extensions import Self

    from ..cache.cache import ResponseCache
    from ..config.settings import Settings
    from ..engine.effects import Flow
    from ..engine.limits import Pool
    from ..engine.prepared_call import ModelCall
    from ..engine.usage import Usage
    from ..models.catalog import Capabilities
    from ..models.prices import Price
    from ..models.tokens import TokenCount
    from ..types import Record, Request, Sent, Transport


class LLMClient:
    """Call a model, or give back what it answered before.

    A client of one's own subclasses it and gives a :class:`~llmcall.Transport`: by the argument
    ``transport``, by a ``transport`` attribute, or by being one itself, with a method ``send``.

    :param settings: settings to use in place of the process's.
    :param transport: what speaks to the model.
    :param overrides: settings by name, above the process's: ``model=``, ``cache_path=``,
        ``on_error=``, ….
    :raises ConfigError: for a value that a setting does not allow.
    :raises TypeError: for a setting that does not exist.

    >>> class Parrot(llmcall.LLMClient):
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    >>> Parrot(model="parrot", cache_mode="off").send_message("Pieces of eight!").content
    'Pieces of eight!'
    """

    api_type: ClassVar[str] = "custom"
    # whether embeddings of many texts are asked for in several requests
    splits_batches: ClassVar[bool] = True
    # whether the readers of its streams see the chunks, and not the text alone
    streams_chunks: ClassVar[bool] = False
    # the seconds that a program's SDK sets if the program sets none
    sdk_timeout: ClassVar[float | None] = None
    transport: Any = None

    @short_traceback
    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Transport | None = None,
        **overrides: Any,
    ) -> None:
        self.base_settings = settings
        self._overrides = overrides
        self.meter = Meter()
        self._resolved: Resolved | None = None
        self._transports: dict[tuple[Endpoint, Any], Any] = {}  # by endpoint and key
        if transport is not None:
            self.transport = transport
        _clients.add(self)
        config.refresh()
        _ = self.resolved

    def __getstate__(self) -> dict[str, Any]:
        # In another process it has its own connections, and begins to count anew.
        return {**self.__dict__, "_transports": {}, "_resolved": None, "meter": Meter()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _clients.add(self)

    @property
    def resolved(self) -> Resolved:
        """Return what the client comes to under the present settings."""
        resolved = self._resolved
        if resolved is None or resolved.generation != config.layers.generation:
            resolved = self._resolved = self._resolve()
        return resolved

    def _resolve(self) -> Resolved:
        # before the settings: where they change meanwhile, it is old at once
        generation = config.layers.generation
        settings = config.settings_for(
            self.base_settings, self._overrides, caller=f"{type(self).__name__}()"
        )
        cache = shared_cache(settings.cache_path)
        return Resolved(generation, settings, cache, {}, set(), configured_parameters(settings))

    @property
    def settings(self) -> Settings:
        """Return the settings that hold for this client now."""
        return self.resolved.settings

    @property
    def cache(self) -> ResponseCache:
        """Return the cache that the client reads and stores in."""
        return self.resolved.cache

    @property
    def usage(self) -> Usage:
        """Return what the calls of this client used."""
        return self.meter.usage()

    def default_model(self) -> str:
        """Return the model of a call that names none."""
        return self.settings.model

    def default_embedding_model(self) -> str:
        """Return the model of an embeddings call that names none."""
        return self.settings.embedding_model

    def model_named(self, model: str | None) -> str:
        """Return the name, after aliases, of the model that a call means by a name, or by none.

        :raises TypeError: where it is no string.
        """
        settings = self.settings
        name = model or self.default_model()
        if not isinstance(name, str):
            raise TypeError(f"model is {name!r}; it must be a string")
        if not settings.aliases:
            return name
        from ..models.catalog import resolve

        return resolve(name, settings.aliases)

    def capabilities(self, model: str) -> Capabilities:
        """Return what is known of a model."""
        from ..models.catalog import capabilities

        return capabilities(model, self.settings.models)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints that serve a model."""
        return [Endpoint(name=self.api_type, models=(model,), api_type=self.api_type)]

    def hosts(self, model: str) -> set[str]:
        """Return the hosts of the endpoints that serve a model, as they are recorded."""
        return {self.host(endpoint) for endpoint in self.endpoints(model)}

    def make_transport(self, endpoint: Endpoint) -> Any:
        """Return what speaks to an endpoint, where ``transport=`` gives none."""
        return self

    def host(self, endpoint: Endpoint) -> str:
        """Return the host of an endpoint, as it is recorded."""
        return self.api_type

    def namespace(self, model: str) -> str:
        """Return what keeps a model's records apart from those of other servers; empty where
        nothing does.
        """
        return self._namespace_of_endpoints(model) or self.settings.cache_namespace

    def _namespace_of_endpoints(self, model: str) -> str:
        return ""

    def pool(self, model: str) -> Pool:
        """Return the endpoints that serve a model, as one takes its turn among them."""
        pools = self.resolved.pools
        found = pools.get(model)
        if found is None:
            from ..engine.limits import Pool

            made = Pool(model, self.endpoints(model), self.capabilities(model), self.settings)
            found = pools.setdefault(model, made)
        return found

    def transport_of(self, endpoint: Endpoint) -> Any:
        """Return what speaks to an endpoint, one for all calls.

        :raises ConfigError: where neither a subclass nor ``transport=`` gives it.
        """
        place = endpoint, endpoint.key()  # which a variable may have changed
        found = self._transports.get(place)
        if found is None:
            made = self.make_transport(endpoint) if self.transport is None else self.transport
            if not hasattr(made, "send"):
                raise ConfigError(
                    f"{type(self).__name__} gives no transport: define send(request, timeout), or pass transport="
                )
            found = self._transports.setdefault(place, made)
        return found

    def sent_body(self, request: Request, known: Capabilities, stream: bool) -> dict[str, Any]:
        """Return the body that is sent for a request; of a stream, it asks for the usage too.

        :param known: what is known of the model.
        """
        body = sent_body(request.body, known)
        return {**body, "stream_options": {"include_usage": True}} if stream else body

    def price(
        self, model: str, input_tokens: int = 0, service_tier: str | None = None
    ) -> Price | None:
        """Return the highest price that a prompt of so many tokens may have, or ``None`` if it is
        unknown.

        :param service_tier: the tier that is asked for; ``None`` is the standard one.
        """
        return self.pool(model).price(input_tokens, service_tier=service_tier)

    @short_traceback
    def build_request(self, current_messages: Any, **arguments: Any) -> Request:
        """Return the request that :meth:`send_message` would make of the same arguments; sends and
        stores nothing.
        """
        from copy import deepcopy

        call = prepare_chat(self, current_messages, arguments)
        call.give_back()
        return deepcopy(call.request)

    @overload
    def send_message(
        self, current_messages: Any, *, on_error: Literal["raise"], **arguments: Any
    ) -> Reply: ...
    @overload
    def send_message(self, current_messages: Any, **arguments: Any) -> Reply | None: ...

    def send_message(
        self,
        current_messages: Any,
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
        response_format: Any = None,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = None,
        reasoning_effort: str | None = None,
        extra_body: Any = None,
        timeout: float | None = None,
        deadline: float | None = None,
        max_attempts: int | None = None,
        waiting_time: float | None = None,
        exponential_backoff_factor: float | None = None,
        sample: str | int | None = None,
        cache: bool | None = None,
        on_error: str | None = None,
        dedent_messages: bool = False,
        **params: Any,
    ) -> Reply | None:
        """Ask a model, or give back what it answered before.

        :param current_messages: a list of ``{"role", "content"}`` dicts, or one string, which means
            one user message; never changed.
        :param model: the model's name; ``None`` means the configured one.
        :param temperature: this, ``max_tokens``, ``top_p``, ``frequency_penalty``,
            ``presence_penalty``, ``stop``, ``seed``, ``n``, ``response_format`` (also a pydantic
            class), ``tools`` (also functions), ``tool_choice``, ``reasoning_effort`` and
            ``extra_body`` are parameters of the chat completions API; ``params`` are its others.
            ``None`` means the configured default; what has none is not sent.
        :param timeout: seconds for one attempt.
        :param deadline: seconds for the whole call with its retries, waits and the reading of the
            answer.
        :param max_attempts: attempts in all; ``waiting_time`` (seconds) is the first wait between
            them, and ``exponential_backoff_factor`` what each further one is multiplied by.
        :param sample: which draw this is, instead of the next one.
        :param cache: ``False`` goes past the disk cache.
        :param on_error: ``"raise"``, ``"none"`` (log and return ``None``) or ``"return"`` (return
            the exception).
        :param dedent_messages: remove the common indentation of every text.
        :returns: the reply, or ``None`` where the call failed for good and ``on_error`` is
            ``"none"``.
        :raises TypeError, ValueError: for a wrong argument, before any call.
        :raises ConfigError: where a setting, such as the key, is missing or wrong.
        :raises CacheMissError: in the mode ``replay``, where nothing is recorded.
        """
        arguments = dict(
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            top_p=top_p,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            stop=stop,
            seed=seed,
            n=n,
            response_format=response_format,
            tools=tools,
            tool_choice=tool_choice,
            reasoning_effort=reasoning_effort,
            extra_body=extra_body,
            timeout=timeout,
            deadline=deadline,
            max_attempts=max_attempts,
            waiting_time=waiting_time,
            exponential_backoff_factor=exponential_backoff_factor,
            sample=sample,
            cache=cache,
            on_error=on_error,
            dedent_messages=dedent_messages,
            **params,
        )
        __tracebackhide__ = True
        call = None
        try:
            call = prepare_chat(self, current_messages, arguments)
            call, record = lookup(call)
            if record is not None:
                return self._reply(call, record, replayed=True)  # type: ignore[no-any-return]
            from ..engine.answer import answer
            from ..engine.drivers import drive

            outcome = drive(answer(call))
            return self._reply(call, outcome.record, outcome.sent)  # type: ignore[no-any-return]
        except BaseException as error:  # noqa: BLE001 - _failed raises all but an APIError again
            return self._failed(error, call)  # type: ignore[no-any-return]

    @overload
    async def asend_message(
        self, current_messages: Any, *, on_error: Literal["raise"], **arguments: Any
    ) -> Reply: ...
    @overload
    async def asend_message(self, current_messages: Any, **arguments: Any) -> Reply | None: ...

    async def asend_message(self, current_messages: Any, **arguments: Any) -> Reply | None:
        """Ask a model without blocking the event loop; arguments, reply and errors as of
        :meth:`send_message`.
        """
        __tracebackhide__ = True
        from ..engine.drivers import adrive
        from ..engine.effects import with_cache

        call: ModelCall | None = None
        try:
            call = prepare_chat(self, current_messages, arguments)
            found: tuple[ModelCall, Record | None]
            found = await adrive(with_cache(call.cache, lookup, call))
            call, record = found
            if record is not None:
                return self._reply(call, record, replayed=True)  # type: ignore[no-any-return]
            from ..engine.answer import answer

            outcome = await adrive(answer(call))
            return self._reply(call, outcome.record, outcome.sent)  # type: ignore[no-any-return]
        except BaseException as error:  # noqa: BLE001 - _failed raises all but an APIError again
            return self._failed(error, call)  # type: ignore[no-any-return]

    @short_traceback
    def stream_message(self, current_messages: Any, **arguments: Any) -> Stream:
        """Ask a model and hand on its answer as it comes; arguments as of :meth:`send_message`.

        :returns: an iterator of the text's pieces; its ``.reply`` is there at the end. A recorded
            answer comes word by word. With ``on_error="none"`` a failure is logged, the stream
            ends, and ``.reply`` is ``None``.
        """
        from ..engine.drivers import drive_stream

        return Stream(self, drive_stream, prepare_chat(self, current_messages, arguments))

    @short_traceback
    def astream_message(self, current_messages: Any, **arguments: Any) -> AsyncStream:
        """Ask a model and hand on its answer as it comes, without blocking the event loop:
        :meth:`stream_message`.
        """
        from ..engine.drivers import adrive_stream

        return AsyncStream(self, adrive_stream, prepare_chat(self, current_messages, arguments))

    def _streamed(self, call: ModelCall) -> Flow[Any]:
        """Emit the pieces of an answer, and return the reply."""
        from ..engine.effects import with_cache

        failures = call.failures
        begun = failures.begin(call.scope, call.label)
        try:
            call, record = yield from with_cache(self.cache, lookup, call)
            if record is None:
                from ..engine.answer import answer

                outcome = yield from answer(call, stream=True)
                return self._reply(call, outcome.record, outcome.sent)
            from ..engine.answer import told

            yield from told(record)
            return self._reply(call, record, replayed=True)
        except BaseException as error:  # noqa: BLE001 - _failed raises all but an APIError again
            failures.end(begun, left=is_left(error))
            return self._failed(error, call, stream=True)
        finally:
            failures.end(begun)

    def _reply(
        self,
        call: ModelCall,
        record: Record,
        sent: Sent | None = None,
        *,
        replayed: bool = False,
    ) -> Any:
        """Return what the caller wants of an answer: a reply, or what its ``response_format`` reads
        it as.

        :param sent: what was sent for it.
        :param replayed: whether it was recorded, and is still to be counted.
        """
        if replayed:
            call.count_hit(record.cost, record.served)
        if sent is None:
            note_served(call.request, (call.cassette or call.cache).path)
        if call.draw is not None:
            call.draw.end(record)
        call.note_used(record)
        try:
            reply = Reply.of(record, sent, parse=call.parse)
        except (LookupError, TypeError, AttributeError) as error:
            key = record.cache_key[:12]
            remedy = f"'llmcall cache delete {key}', or without its line in the cassette, it is asked anew"
            raise CacheCorruptError(
                f"the record {key}… holds no answer of a model; after {remedy}"
            ) from error
        return (
            reply.parsed
            if call.options.enable_pydantic_model_return and call.parse is not None
            else reply
        )

    def _failed(self, error: BaseException, call: ModelCall | None, *, stream: bool = False) -> Any:
        """Raise, log or return an API failure, as the caller wants; raise any other; its draw is
        free again.
        """
        __tracebackhide__ = True
        shorten(error)
        if call is None:
            raise error
        self._note_failure(error, call, stream=stream)
        call.give_back()
        wanted = call.options.on_error or self.settings.on_error
        if not isinstance(error, APIError):
            raise error
        model = call.request.model
        address = self._address_of(error, model)
        if wanted == "raise" or (wanted == "return" and stream):
            note = f"model {model} at {address}. {error.remedy}"
            if hasattr(error, "add_note") and note not in getattr(
                error, "__notes__", ()
            ):  # not on Python 3.10
                error.add_note(note)
            raise error
        if wanted == "return":
            return error
        self._log_failure(call.label, error, address)
        return None

    @staticmethod
    def _log_failure(name: str, error: APIError, address: str) -> None:
        """Tell of the first failure of its kind at an address in a minute in full, of the 2nd, 4th,
        8th … shortly.
        """
        stop = "" if str(error).endswith((".", "?", "!")) else "."
        told = f'{error}{stop} {error.remedy}; on_error="raise" raises this error'
        reason = re.sub(r"[\w.,]*\d[\w.,]*", "…", str(error))  # numbers and ids differ each time
        number = how_often(("failed", address, type(error), reason))
        if number == 1:
            logger().error("%s at %s failed: %s", name, address, told)
        elif number & (number - 1):
            logger().debug("%s at %s failed: %s", name, address, told)
        else:
            logger().error(
                "%s failed as before (%s at %s): %d such failures within a minute; the next line comes after %d",
                name, type(error).__name__, address, number, 2 * number,
            )  # fmt: skip

    def _address_of(self, error: APIError, model: str) -> str:
        """Return the address of the endpoint that failed, or of all that might have."""
        endpoints = self.pool(model).endpoints
        failed = [each for each in endpoints if each.name == error.endpoint] or endpoints
        addresses = {without_password(each.address) or self.host(each) for each in failed}
        return ", ".join(sorted(address.partition("?")[0] for address in addresses))

    @staticmethod
    def _note_failure(error: BaseException, call: ModelCall, *, stream: bool = False) -> None:
        """Note what a replay will not find: a call that failed for good, or was cancelled; a stream
        notes its end.
        """
        if isinstance(error, APIError):
            call.add_usage(errors=1)
            call.failures.add(
                call.scope, f"{call.label}: {type(error).__name__}. {error.remedy}", FAILED
            )
        elif isinstance(error, BudgetExceededError):
            process_failures.count_refused()
        elif is_left(error) and not stream:
            call.failures.add(call.scope, call.label, LEFT)

    def respond(
        self, messages: Any, fallback: bool, arguments: dict[str, Any], *, fresh: bool
    ) -> Flow[Outcome]:
        """Answer a chat call; an answer that the context window cut is an error unless another
        model gives more.

        :param fallback: whether another model may be asked.
        :param arguments: as of :meth:`send_message`.
        :param fresh: whether records take no part.
        :raises ContextLengthError: where the context is too long and no model is left to ask.
        """
        from ..engine.answer import answer
        from ..engine.effects import with_cache
        from ..responses.checks import is_cut

        call = prepare_chat(self, messages, {**arguments, "cache": False} if fresh else arguments)
        call = replace(call, cassette=None) if fresh else call
        try:
            record = None
            if not fresh:
                call, record = yield from with_cache(self.cache, lookup, call)
            if record is None or is_cut(record.response, call.request):
                outcome = yield from answer(call, fallback=fallback, whole=True, cut=record)
            else:
                call.count_hit(record.cost, record.served)
                outcome = Outcome(record)
        except BaseException as error:
            self._note_failure(error, call)
            call.give_back()
            raise
        call.end()
        call.note_used(outcome.record)
        return outcome

    @overload
    def get_embedding(
        self, text: str, model: str | None = None, **arguments: Any
    ) -> list[float] | None: ...
    @overload
    def get_embedding(
        self, text: Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[list[float]] | None: ...

    @short_traceback
    def get_embedding(
        self, text: str | Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[float] | list[list[float]] | None:
        """Return the embedding of a text, or of each of several; only those that are not recorded
        are asked for.

        :param text: one text, or a sequence of texts.
        :param model: the embedding model; ``None`` means the configured one.
        :param arguments: ``dimensions`` and the other arguments of :meth:`send_message` that
            embeddings have.
        :returns: one list of numbers, each rounded to float32, or one list for each text; ``None``
            where the call failed for good and ``on_error`` is ``"none"``.
        """
        from ..engine.drivers import drive

        return drive(self._embedded(text, model, arguments))  # type: ignore[no-any-return]

    @overload
    async def aget_embedding(
        self, text: str, model: str | None = None, **arguments: Any
    ) -> list[float] | None: ...
    @overload
    async def aget_embedding(
        self, text: Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[list[float]] | None: ...

    @short_traceback
    async def aget_embedding(
        self, text: str | Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[float] | list[list[float]] | None:
        """Return embeddings without blocking the event loop; as :meth:`get_embedding`."""
        from ..engine.drivers import adrive

        return await adrive(self._embedded(text, model, arguments))

    def _embedded(self, text: Any, model: str | None, arguments: dict[str, Any]) -> Flow[Any]:
        from ..engine.embeddings import embed

        calls = prepare_embeddings(self, text, model, arguments)
        try:
            records = yield from embed(calls)
        except BaseException as error:  # noqa: BLE001 - _failed raises all but an APIError again
            return self._failed(error, calls[0])
        for call, record in zip(calls, records, strict=True):
            call.note_used(record)
        return self._embeddings(records, is_one=isinstance(text, str))

    def _embeddings(self, records: Sequence[Record], *, is_one: bool) -> Any:
        """Return what the caller gets of recorded embeddings.

        :param is_one: whether a text was given, not a list of texts.
        """
        from ..engine.embeddings import vector_of

        vectors = [vector_of(record) for record in records]
        return vectors[0] if is_one else vectors

    def count_tokens(self, messages_or_text: Any, model: str | None = None) -> TokenCount:
        """Return the tokens of a text or of messages with their framing; ``.estimated`` where it is
        not exact.

        :param messages_or_text: a string, or messages as :meth:`send_message` takes them.
        :param model: whose tokenizer counts; ``None`` means the configured model.
        """
        from ..models.tokens import count_tokens

        name = self.model_named(model)
        return count_tokens(messages_or_text, name, encoding=self.capabilities(name).encoding)

    def close(self) -> None:
        """Close the connections, and store what the disk did not take before; the next call opens
        them again.
        """
        for transport in self._given_back():
            if transport is not self and hasattr(transport, "close"):
                transport.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop too. ``asyncio.run`` does so by itself
        when it ends.
        """
        for transport in self._given_back():
            if hasattr(transport, "aclose"):
                await transport.aclose()
            elif transport is not self and hasattr(transport, "close"):
                transport.close()

    def _given_back(self) -> list[Any]:
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
        return f"{type(self).__name__}(model={self.default_model()!r})"


class _Streamed:
    """Hold what both kinds of streams know of their answer.

    :param drive: performs the flow of the client's call, and yields its pieces of text.
    :param call: whose draw is given back where the stream is left before its end.
    :ivar request: what is asked.
    """

    def __init__(self, client: LLMClient, drive: Callable[..., Any], call: ModelCall) -> None:
        self.reply: Reply | None = None
        self._is_closing = False
        self._call = call
        self.request = call.request
        self._flow = client._streamed(call)
        # weakly: a stream that is dropped half-way is then closed at once, and not when garbage is
        # collected
        self._pieces = drive(self._flow, partial(setattr, proxy(self), "reply"))
        _end_streams_at_exit()
        _streams.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'open' if self.reply is None else 'ended'})"

    def __del__(self) -> None:
        # Left by ``break``, or never read: an event loop closes a generator when another call may
        # have drawn.
        self._call.give_back()

    def end_at_exit(self) -> None:
        """Count what came, as of a stream that its reader leaves."""
        self._flow.close()


class Stream(_Streamed):
    """Yield a streamed answer: ``for text in stream: …``, then ``stream.reply``; a context manager.

    Leaving it early closes its connection, and nothing is stored. Once a first chunk has come it
    counts as a call, not as an error, in usage and budgets alike, for a model answered: with the
    tokens that the server reported until then, else with those of the prompt and of what came, as
    they are counted here.

    :ivar reply: the :class:`Reply`, or ``None`` before the end and after a failure.

    >>> with llmcall.client().stream_message("Good morning!", max_tokens=16) as stream:
    ...     print("".join(stream))
    Good morning!
    >>> stream.reply.finish_reason
    'stop'
    """

    def __iter__(self) -> Stream:
        return self

    @short_traceback
    def __next__(self) -> str:
        while not (text := next(self._pieces).text):
            pass
        return text  # type: ignore[no-any-return]

    def chunks(self) -> Iterator[Mapping[str, Any]]:
        """Yield the answer in the API's chunks, in place of the text."""
        for piece in self._pieces:
            yield piece.chunk

    def close(self) -> None:
        """Close the connection, if the answer has not ended."""
        self._call.give_back()
        if self._is_closing:  # the garbage collector ends what holds it, in the middle of its end
            return
        self._is_closing = True
        try:
            self._pieces.close()
        finally:
            self._is_closing = False

    def end_at_exit(self) -> None:
        """Close the connection, as a reader does who leaves."""
        self.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_Streamed):
    """Yield a streamed answer: ``async for text in stream: …``, as :class:`Stream`; an asynchronous
    context manager.

    :ivar reply: the :class:`Reply`, or ``None`` before the end and after a failure.

    >>> async def greet():
    ...     async with llmcall.client().astream_message("Good morning!", max_tokens=16) as stream:
    ...         return "".join([text async for text in stream])
    >>> import asyncio
    >>> asyncio.run(greet())
    'Good morning!'
    """

    def __aiter__(self) -> AsyncStream:
        return self

    @short_traceback
    async def __anext__(self) -> str:
        while not (text := (await anext(self._pieces)).text):
            pass
        return text  # type: ignore[no-any-return]

    async def chunks(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the answer in the API's chunks, in place of the text."""
        async for piece in self._pieces:
            yield piece.chunk

    async def aclose(self) -> None:
        """Close the connection, if the answer has not ended."""
        self._call.give_back()
        await self._pieces.aclose()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


_streams: WeakSet[_Streamed] = WeakSet()


@cache
def _end_streams_at_exit() -> None:
    """Let the streams that are left open end with the process, while it can still count and import."""
    # counting needs it, and at exit it cannot be imported any more
    import concurrent.futures.thread  # noqa: F401

    at_exit(_end_streams)


def _end_streams() -> None:
    for stream in list(_streams):
        with suppress(ValueError):  # "generator already executing": another thread reads it
            stream.end_at_exit()


_clients: WeakSet[LLMClient] = WeakSet()
_of_the_parent: list[
    object
] = []  # closing them could wait for ever for a lock that another thread held at the fork


def _leave_parent() -> None:
    """Leave, in a forked process, the connections to the parent, and the locks that its threads may
    have held.
    """
    for client in list(_clients):
        _of_the_parent.append(client._transports)
        client._resolved, client._transports = None, {}
    _streams.clear()


after_fork_in_child(_leave_parent)
