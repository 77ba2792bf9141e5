"""The client that all clients are: what a user calls, whoever speaks to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from ..errors import APIError
from .road import ClientRoad

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence
    from typing import Literal, TypeVar

    from ..models.tokens import TokenCount
    from ..types import Answer, Reply, Request
    from .asked import Asked
    from .streams import AsyncStream, Stream

    T = TypeVar("T")

__all__ = ["LLMClient"]

# The arguments of send_message in the order in which it hands them on; after them come the others, in a dict.
ARGUMENTS = (
    "model", "temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed", "n",
    "response_format", "tools", "tool_choice", "reasoning_effort", "extra_body", "timeout", "deadline", "max_attempts",
    "waiting_time", "exponential_backoff_factor", "sample", "cache", "on_error", "dedent_messages",
)  # fmt: skip


class LLMClient(ClientRoad):
    """Call a model, or give back what it answered before.

    A client of one's own subclasses it and gives a :class:`~llmcall.Transport`: by the argument
    ``transport``, by a ``transport`` attribute, or by being one itself, with a method ``send``.

    :param settings: what the client stands on instead of the process's settings.
    :param transport: what speaks to the model.
    :param overrides: settings by name, above the process's: ``model=``, ``cache_path=``, ``on_error=``, ….
    :raises ConfigError: for a value that a setting does not allow.
    :raises TypeError: for a setting that does not exist.
    """

    def build_request(self, current_messages: Any, **arguments: Any) -> Request:
        """Return the request that :meth:`send_message` would make of the same arguments; sends and stores nothing."""
        asked = self._prepared(current_messages, arguments)
        asked.give_back()
        return asked.request

    @overload
    def send_message(self, current_messages: Any, *, on_error: Literal["raise"], **arguments: Any) -> Reply: ...
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

        :param current_messages: a list of ``{"role", "content"}`` dicts, or one string, which means one user message;
            never changed.
        :param model: the model's name; this and every parameter of the chat completions API (``temperature`` …
            ``extra_body``, and ``params``): ``None`` means the configured default, and where there is none it is not
            sent.
        :param timeout: seconds for one attempt.
        :param deadline: seconds for the whole call with its retries, waits and the reading of the answer.
        :param max_attempts: attempts in all; ``waiting_time`` (seconds) is the first wait between them, and
            ``exponential_backoff_factor`` what each further one is multiplied by.
        :param sample: which draw this is, instead of the next one.
        :param cache: ``False`` goes past the disk cache.
        :param on_error: ``"raise"``, ``"none"`` (log and return ``None``) or ``"return"`` (return the exception).
        :param dedent_messages: remove the common indentation of every text.
        :returns: the reply, or ``None`` where the call failed for good and ``on_error`` is ``"none"``.
        :raises TypeError, ValueError: for a wrong argument, before any call.
        :raises ConfigError: where a setting, such as the key, is missing or wrong.
        :raises CacheMissError: in the mode ``replay``, where nothing is recorded.
        """
        values = (
            model, temperature, max_tokens, top_p, frequency_penalty, presence_penalty, stop, seed, n, response_format,
            tools, tool_choice, reasoning_effort, extra_body, timeout, deadline, max_attempts, waiting_time,
            exponential_backoff_factor, sample, cache, on_error, dedent_messages or None, params,
        )  # fmt: skip
        at_once = self._at_once(current_messages, ARGUMENTS, values)
        if at_once is not None:
            return at_once
        asked = self._prepared(current_messages, {**dict(zip(ARGUMENTS, values, strict=False)), **params})
        try:
            recalled = self._recalled(asked)
            if recalled is not None:
                return recalled
            found = self._recorded(asked)
            if found is None:
                from ..engine.drivers import drive

                found = drive(self._answer(asked))
            return self._reply(found, asked)
        except BaseException as error:
            return self._failed(error, asked)  # type: ignore[no-any-return]

    @overload
    async def asend_message(self, current_messages: Any, *, on_error: Literal["raise"], **arguments: Any) -> Reply: ...
    @overload
    async def asend_message(self, current_messages: Any, **arguments: Any) -> Reply | None: ...

    async def asend_message(self, current_messages: Any, **arguments: Any) -> Reply | None:
        """Ask a model without blocking the event loop; arguments, reply and errors as of :meth:`send_message`."""
        at_once = await self._looked_up(self._at_once, current_messages, (), (arguments,))
        if at_once is not None:
            return at_once
        asked = self._prepared(current_messages, arguments)
        try:
            recalled = await self._looked_up(self._recalled, asked)
            if recalled is not None:
                return recalled
            found = await self._looked_up(self._recorded, asked)
            if found is None:
                from ..engine.drivers import adrive

                found = await adrive(self._answer(asked))
            return self._reply(found, asked)
        except BaseException as error:
            return self._failed(error, asked)  # type: ignore[no-any-return]

    async def _looked_up(self, look: Callable[..., T], *arguments: Any) -> T:
        """Call what looks into the cache: in line where that takes microseconds, else in a thread."""
        if self.cache.storage.is_near:
            return look(*arguments)
        import asyncio

        return await asyncio.to_thread(look, *arguments)

    def stream_message(self, current_messages: Any, **arguments: Any) -> Stream:
        """Ask a model and hand on its answer as it comes; arguments as of :meth:`send_message`.

        :returns: an iterator of the text's pieces; its ``.reply`` is there at the end. A recorded answer comes
            word by word. With ``on_error="none"`` a failure is logged, the stream ends, and ``.reply`` is ``None``.
        """
        from .streams import Stream

        asked = self._prepared(current_messages, arguments)
        return Stream(lambda stream: self._pieces(asked, stream), asked.give_back)

    def astream_message(self, current_messages: Any, **arguments: Any) -> AsyncStream:
        """Ask a model and hand on its answer as it comes, without blocking the event loop: :meth:`stream_message`."""
        from .streams import AsyncStream

        asked = self._prepared(current_messages, arguments)
        return AsyncStream(lambda stream: self._apieces(asked, stream), asked.give_back)

    def _pieces(self, asked: Asked, stream: Stream) -> Generator[str, None, None]:
        from ..engine.drivers import drive_stream
        from ..responses.streaming import text_pieces

        try:
            found = self._recorded(asked)
            if found is None:
                yield from drive_stream(self._answer(asked, stream=True), self._finish(asked, stream))
            else:
                yield from text_pieces(found.record.response)
                stream.reply = self._reply(found, asked)
        except BaseException as error:
            self._failed(error, asked, returning=False)

    async def _apieces(self, asked: Asked, stream: AsyncStream) -> AsyncGenerator[str, None]:
        from contextlib import aclosing

        from ..engine.drivers import adrive_stream
        from ..responses.streaming import text_pieces

        try:
            found = await self._looked_up(self._recorded, asked)
            if found is None:
                pieces = adrive_stream(self._answer(asked, stream=True), self._finish(asked, stream))
                async with aclosing(pieces):
                    async for piece in pieces:
                        yield piece
            else:
                for piece in text_pieces(found.record.response):
                    yield piece
                stream.reply = self._reply(found, asked)
        except BaseException as error:
            self._failed(error, asked, returning=False)

    def _finish(self, asked: Asked, stream: Stream | AsyncStream) -> Callable[[Answer], None]:
        def finish(found: Answer) -> None:
            """Give the stream its reply."""
            stream.reply = self._reply(found, asked)

        return finish

    @overload
    def get_embedding(self, text: str, model: str | None = None, **arguments: Any) -> list[float] | None: ...
    @overload
    def get_embedding(
        self, text: Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[list[float]] | None: ...

    def get_embedding(
        self, text: str | Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[float] | list[list[float]] | None:
        """Return the embedding of a text, or of each of several; only those that are not recorded are asked for.

        :param text: one text, or a sequence of texts.
        :param model: the embedding model; ``None`` means the configured one.
        :param arguments: ``dimensions`` and the other arguments of :meth:`send_message` that embeddings have.
        :returns: one list of numbers, each rounded to float32, or one list for each text; ``None`` where the call
            failed for good and ``on_error`` is ``"none"``.
        """
        from ..engine.drivers import drive
        from .asked import embeddings_prepared
        from .asking import embedded

        asked = embeddings_prepared(self, text, model, arguments)
        try:
            vectors = drive(embedded(self, asked))
        except APIError as error:
            return self._failed(error, asked[0])  # type: ignore[no-any-return]
        return vectors[0] if isinstance(text, str) else vectors

    @overload
    async def aget_embedding(self, text: str, model: str | None = None, **arguments: Any) -> list[float] | None: ...
    @overload
    async def aget_embedding(
        self, text: Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[list[float]] | None: ...

    async def aget_embedding(
        self, text: str | Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[float] | list[list[float]] | None:
        """Return embeddings without blocking the event loop; as :meth:`get_embedding`."""
        from ..engine.drivers import adrive
        from .asked import embeddings_prepared
        from .asking import embedded

        asked = embeddings_prepared(self, text, model, arguments)
        try:
            vectors = await adrive(embedded(self, asked))
        except APIError as error:
            return self._failed(error, asked[0])  # type: ignore[no-any-return]
        return vectors[0] if isinstance(text, str) else vectors

    def count_tokens(self, messages_or_text: Any, model: str | None = None) -> TokenCount:
        """Return the tokens of a text or of messages with their framing; ``.estimated`` where it is not exact.

        :param messages_or_text: a string, or messages as :meth:`send_message` takes them.
        :param model: whose tokenizer counts; ``None`` means the configured model.
        """
        from ..models.tokens import count_tokens

        name = self.model_named(model)
        return count_tokens(messages_or_text, name, encoding=self.capabilities(name).encoding)
