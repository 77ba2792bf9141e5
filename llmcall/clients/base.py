"""The client as users call it: chats, streams and embeddings, from the record or by a model."""

from __future__ import annotations

from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, overload

from ..config import resolve as config
from ..config.settings import checked_layer
from ..core.lookup import answer_from_record, waits_for_record
from ..core.prepare import prepare_chat, prepare_embeddings
from ..core.reply import handle_failure, reply_in
from ..errors import APIError
from ..support.tracebacks import door
from .configured import ConfiguredClient

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from ..core.calls import Call
    from ..core.reply import Reply
    from ..keys.request import Request
    from ..models.tokens import TokenCount
    from .streams import AsyncStream, Stream

    Messages = str | Sequence[Mapping[str, object]]
    Vectors = list[float] | list[list[float]] | APIError | None


# A method itself takes what it is given: Python would fill in thirty names at each call, most with ``None``.
def _send_message(
    self: LLMClient,
    current_messages: str | Sequence[Mapping[str, object]],
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
    sample: str | int | None = None,
    cache: bool | None = None,
    on_error: str | None = None,
    dedent_messages: bool = False,
    **params: object,
) -> Reply | None:
    """Call a model, or return its recorded answer.

    :param current_messages: a list of ``{"role", "content"}`` dicts, or a string, which means
        one user message. It is never changed.
    :param model: the model's name; ``None`` means the configured one.
    :param temperature: a parameter of the chat completions API. So are ``max_tokens``,
        ``top_p``, ``frequency_penalty``, ``presence_penalty``, ``stop``, ``seed``, ``n``,
        ``response_format`` (a pydantic class works too), ``tools`` (functions work too),
        ``tool_choice``, ``reasoning_effort`` and ``extra_body``; pass any other in ``params``.
        ``None`` means the configured default; a parameter without a default is not sent. An answer
        that does not fit its ``response_format`` (a class, a strict schema, or JSON mode) counts as
        a failed attempt, unless the token limit cut it or it calls a tool.
    :param timeout: seconds for one attempt.
    :param deadline: seconds for the whole call, with its retries, its waits and the time to
        read the answer.
    :param max_attempts: the number of attempts, the first included. ``waiting_time`` is the
        first wait between them, in seconds; each further wait is
        ``exponential_backoff_factor`` times as long.
    :param sample: the draw to take, instead of the next one.
    :param cache: ``False`` bypasses the disk cache.
    :param on_error: the outcome of a call that fails after all retries: ``"raise"`` raises the exception,
        ``"return"`` returns it, and ``"none"`` logs it and returns ``None``.
    :param dedent_messages: ``True`` removes the common indentation of every text.
    :returns: the reply, or ``None`` if the call failed after all retries and ``on_error`` is ``"none"``.
    :raises TypeError, ValueError: if an argument is wrong, before any call.
    :raises ConfigError: if a setting, such as the key, is missing or wrong.
    :raises CacheMissError: if the mode is ``replay`` and the answer is not recorded.
    """


class LLMClient(ConfiguredClient):
    """A client that calls a model, or returns its recorded answer.

    To write your own client, subclass it and provide a :class:`~llmcall.types.Transport`: pass it as
    ``transport=``, set a ``transport`` attribute, or define a method ``send``.

    :param settings: settings to use instead of the process's.
    :param transport: sends requests to the model.
    :param overrides: settings by name, which override the process's: ``model=``, ``cache_path=``,
        ``on_error=``, ….
    :raises ConfigError: if a setting does not allow its value.
    :raises TypeError: for an unknown setting.

    >>> class Parrot(llmcall.LLMClient):
    ...     def send(self, request, timeout):
    ...         return {"choices": [{"message": {"content": request.messages[-1]["content"]}, "finish_reason": "stop"}]}
    >>> Parrot(model="parrot", cache_mode="off").send_message("Pieces of eight!").content
    'Pieces of eight!'
    """

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

    # ``help()`` and notebooks show the arguments by name.
    @partial(update_wrapper, wrapped=_send_message, assigned=("__doc__",))
    @door
    def send_message(self, current_messages: Messages, **arguments: Any) -> Reply | None:
        """Call a model, or return its recorded answer."""
        call = prepare_chat(self, current_messages, arguments)
        looks_up = waits_for_record(call)
        record = None if looks_up else answer_from_record(call)
        if record is None:
            from ..core import threads  # not needed for a recorded answer
            from ..core.answer import reply_to

            return threads.run(reply_to(call, looks_up=looks_up))
        return reply_in(record, call)

    @overload
    async def asend_message(
        self, current_messages: Messages, *, on_error: Literal["raise"], **arguments: object
    ) -> Reply: ...
    @overload
    async def asend_message(
        self, current_messages: Messages, **arguments: object
    ) -> Reply | None: ...

    @door
    async def asend_message(self, current_messages: Messages, **arguments: object) -> Reply | None:
        """Call a model without blocking the event loop.

        It has the arguments, reply and errors of :meth:`send_message`.
        """
        call = prepare_chat(self, current_messages, arguments)
        # Even a recorded answer may have to wait: for a thread, or because it is held back.
        looks_up = call.needs_thread or waits_for_record(call)
        record = None if looks_up else answer_from_record(call)
        if record is None:
            from ..core import loops
            from ..core.answer import reply_to

            return await loops.run(reply_to(call, looks_up=looks_up))
        return reply_in(record, call)

    @door
    def stream_message(self, current_messages: Messages, **arguments: object) -> Stream:
        """Call a model and yield its answer as it arrives.

        :param arguments: the same as :meth:`send_message` takes; ``timeout`` bounds the wait for each piece.
        :returns: an iterator over pieces of the text, with the reply in ``.reply`` at the end. A
            recorded answer comes word by word. If the call fails and ``on_error`` is ``"none"``,
            the failure is logged, the stream ends, and ``.reply`` is ``None``.
        """
        from ..core import threads
        from ..core.answer import reply_to
        from .streams import Stream

        call = prepare_chat(self, current_messages, arguments)._replace(is_streamed=True)
        return Stream(call, reply_to(call), threads.Pieces)

    @door
    def astream_message(self, current_messages: Messages, **arguments: object) -> AsyncStream:
        """Call a model and yield its answer as it arrives, without blocking the event loop.

        Arguments and stream are as for :meth:`stream_message`.
        """
        from ..core import loops
        from ..core.answer import reply_to
        from .streams import AsyncStream

        call = prepare_chat(self, current_messages, arguments)._replace(is_streamed=True)
        return AsyncStream(call, reply_to(call), loops.pieces)

    @overload
    def get_embedding(
        self, text: str, model: str | None = None, **arguments: Any
    ) -> list[float] | None: ...
    @overload
    def get_embedding(
        self, text: Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[list[float]] | None: ...

    @door
    def get_embedding(
        self,
        text: str | Sequence[str],
        model: str | None = None,
        *,
        dimensions: int | None = None,
        **arguments: Any,
    ) -> list[float] | list[list[float]] | None:
        """Return the embedding of a text, or of each of several texts.

        Only unrecorded embeddings are requested.

        :param text: a text, or a sequence of texts.
        :param model: the embedding model; ``None`` means the configured one.
        :param dimensions: the length of an embedding; ``None`` means the model's.
        :param arguments: those of :meth:`send_message` that make sense for embeddings, such as ``timeout``.
        :returns: a list of numbers, each rounded to float32, or one such list for each text;
            ``None`` if the call failed after all retries and ``on_error`` is ``"none"``.
        """
        from ..core import threads

        calls = prepare_embeddings(self, text, model, {"dimensions": dimensions, **arguments})
        # With on_error="return" it may also be the error, which the type leaves out.
        return threads.run(self._embeddings_of(calls, is_one=isinstance(text, str)))  # type: ignore[return-value]

    @overload
    async def aget_embedding(
        self, text: str, model: str | None = None, **arguments: Any
    ) -> list[float] | None: ...
    @overload
    async def aget_embedding(
        self, text: Sequence[str], model: str | None = None, **arguments: Any
    ) -> list[list[float]] | None: ...

    @door
    async def aget_embedding(
        self,
        text: str | Sequence[str],
        model: str | None = None,
        *,
        dimensions: int | None = None,
        **arguments: Any,
    ) -> list[float] | list[list[float]] | None:
        """Return embeddings without blocking the event loop, as :meth:`get_embedding` does."""
        from ..core import loops

        calls = prepare_embeddings(self, text, model, {"dimensions": dimensions, **arguments})
        vectors = await loops.run(self._embeddings_of(calls, is_one=isinstance(text, str)))
        return vectors  # type: ignore[return-value]

    async def _embeddings_of(self, calls: Sequence[Call], *, is_one: bool) -> Vectors:
        from ..core.answer import answer_calls
        from ..core.kinds import unpacked_vector

        try:
            records = await answer_calls(calls)
        except APIError as error:
            return handle_failure(error, calls[0])
        vectors = [unpacked_vector(record) for record in records]
        return vectors[0] if is_one else vectors

    def set_api_cache(
        self, cache_api_calls: bool | None, cache_file_name: str | os.PathLike[str] | None = None
    ) -> None:
        """Turn this client's cache on or off, as :func:`force_api_cache` does for all; TinyTroupe's registry
        calls it.
        """
        settings = config.api_cache("set_api_cache()", cache_api_calls, cache_file_name)
        if settings["cache_mode"] == "auto" and self.settings.cache_mode != "off":
            del settings["cache_mode"]  # it is on, as the mode "replay" says
        self._overrides = {**self._overrides, **checked_layer(settings, "set_api_cache()")}
        self._resolved = None

    def get_cost_stats(self) -> dict[str, int]:
        """Return the counts of :attr:`usage` by TinyTroupe's names."""
        usage = self.usage
        tokens = usage.input_tokens or 0, usage.output_tokens or 0
        return {
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "total_tokens": sum(tokens),
            "model_calls": usage.calls,
            "cached_calls": usage.cached_calls,
        }

    def pretty_print_cost_stats(self) -> None:
        """Print :attr:`usage`; TinyTroupe's name for it."""
        print(self.usage)

    def count_tokens(self, messages_or_text: Messages, model: str | None = None) -> TokenCount:
        """Return the number of tokens in a text, or in messages with their framing.

        :param messages_or_text: a string, or messages as :meth:`send_message` takes them.
        :param model: the model whose tokenizer counts; ``None`` means the configured one.
        :returns: the number; its ``.estimated`` is true if it is not exact.
        """
        from ..models.tokens import count_tokens

        name = self.model_named(model)
        return count_tokens(messages_or_text, name, encoding=self.capabilities(name).encoding)
