"""LLMCall: templates in, a typed value out; and ``@llm``, which makes a function of it."""

from __future__ import annotations

import typing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from .errors import OutputError
from .functions import LLMFunction, call_arguments
from .outputs.values import correction, describe, read, read_structured
from .parallel.rows import Mapped
from .prompts.templates import Template
from .registry import client as shared_client
from .requests.schemas import response_format

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .clients.base import LLMClient
    from .types import Reply

__all__ = ["Answer", "LLMCall", "llm"]

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class Answer(NamedTuple):
    """Hold what a call gave.

    :param value: the answer, read as the output type.
    :param reply: the reply that it was read from.
    :param messages: all that was sent and answered, the answer included.
    """

    value: Any
    reply: Reply | None
    messages: list[dict[str, Any]]


class _Asking(NamedTuple):
    """Ask the driver for the reply to some messages."""

    messages: list[dict[str, Any]]
    params: dict[str, Any]


# What each LLMCall gave last in a context; a new mapping at each change, since tasks share what they inherit.
_last: ContextVar[WeakKeyDictionary[LLMCall, Answer] | None] = ContextVar("llmcall last answers", default=None)


class LLMCall(Mapped):
    """Render templates, ask a model, and read its answer as a type.

    :param system_template_name: a file under ``[Templates] PATH`` with the system message.
    :param user_template_name: likewise with the user message.
    :param system: the system message's template itself, instead of a file.
    :param user: likewise the user message's.
    :param output_type: ``str``, ``bool``, ``int``, ``float``, ``Literal[…]``, an ``Enum``, ``list[…]``, ``dict``, a
        pydantic model, a dataclass or a ``TypedDict``.
    :param output_retries: how often an answer that does not fit is asked again, saying why.
    :param client: whom to ask; ``None`` means the configured one.
    :param template_path: the folder of the templates, instead of the configured one.
    :param model_params: arguments of :meth:`LLMClient.send_message`; ``on_error`` is ``"raise"`` unless given.
    :raises TypeError: where a template is given twice, or none is given.
    :raises ValueError: where ``output_retries`` is no whole number from 0 on.
    """

    def __init__(
        self,
        system_template_name: str | None = None,
        user_template_name: str | None = None,
        *,
        system: str | None = None,
        user: str | None = None,
        output_type: Any = str,
        output_retries: int = 2,
        client: LLMClient | None = None,
        template_path: Any = None,
        **model_params: Any,
    ) -> None:
        self._sources = {"system": (system_template_name, system), "user": (user_template_name, user)}
        for role, (name, text) in self._sources.items():
            if name is not None and text is not None:
                raise TypeError(f"the {role} template is given twice: as the file {name!r} and as a text")
        if all(source == (None, None) for source in self._sources.values()):
            raise TypeError("LLMCall needs a template: a file's name, or system= or user= as text")
        if type(output_retries) is not int or output_retries < 0:
            raise ValueError(f"output_retries is {output_retries!r}; it must be a whole number from 0 on")
        self.output_type = output_type
        self.output_retries = output_retries
        self.template_path = template_path
        self.model_params = {**model_params, "on_error": model_params.get("on_error") or "raise"}
        self._client = client
        self._templates: dict[tuple[str, str], Template] = {}
        self._structured: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_templates": {}}  # they are compiled anew in another process

    @property
    def client(self) -> LLMClient:
        """Return whom the call asks."""
        return shared_client() if self._client is None else self._client

    def __call__(self, /, **variables: Any) -> Any:
        """Ask, and return the answer as the output type; as :meth:`call`."""
        return self.run(**variables).value

    def call(self, /, **variables: Any) -> Any:
        """Ask, and return the answer as the output type.

        :param variables: the templates' variables.
        :raises TemplateError: where a template or a variable is missing.
        :raises OutputError: where no answer fitted the output type.
        :raises APIError: where the call failed for good. With ``on_error="none"`` both give ``None``.
        """
        return self.run(**variables).value

    def run(self, /, **variables: Any) -> Answer:
        """Ask, and return the value, the reply and the messages; arguments and errors as of :meth:`call`."""
        client = self.client
        asking = self.asking(client, variables)
        try:
            wanted = next(asking)
            while True:
                wanted = asking.send(client.send_message(wanted.messages, **wanted.params))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    async def arun(self, /, **variables: Any) -> Answer:
        """Ask without blocking the event loop; as :meth:`run`."""
        client = self.client
        asking = self.asking(client, variables)
        try:
            wanted = next(asking)
            while True:
                wanted = asking.send(await client.asend_message(wanted.messages, **wanted.params))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    async def acall(self, /, **variables: Any) -> Any:
        """Ask without blocking the event loop; as :meth:`call`."""
        return (await self.arun(**variables)).value

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """Return all messages of the last call in this context, its answer included; ``None`` before any."""
        answer = self._last_answer()
        return answer.messages if answer else None

    @property
    def model_output(self) -> Reply | None:
        """Return the reply of the last call in this context; ``None`` before any."""
        answer = self._last_answer()
        return answer.reply if answer else None

    def render(self, /, **variables: Any) -> list[dict[str, Any]]:
        """Return the messages that the templates give, before anything is said of the output type.

        :raises TemplateError: where a template or a variable is missing.
        """
        return [
            {"role": role, "content": self._template(role).render(**variables)}
            for role, source in self._sources.items()
            if source != (None, None)
        ]

    def variables(self) -> frozenset[str]:
        """Return the names that the templates use."""
        given = [role for role, source in self._sources.items() if source != (None, None)]
        return frozenset().union(*(self._template(role).variables for role in given))

    def _template(self, role: str) -> Template:
        name, text = self._sources[role]
        folder = "" if name is None else str(self.template_path or self.client.settings.templates_path)
        found = self._templates.get((role, folder))
        if found is None:
            made = (
                Template.from_text(text or "", name=f"<{role}>") if name is None else Template.from_file(name, folder)
            )
            found = self._templates.setdefault((role, folder), made)
        return found

    def asking(self, client: LLMClient, variables: dict[str, Any]) -> Generator[_Asking, Any, Answer]:
        """Ask until an answer fits; the same for every driver."""
        messages = self.render(**variables)
        params, structured = self._params(client)
        if not structured:
            messages[-1]["content"] = _joined(messages[-1]["content"], describe(self.output_type))
        left = self.output_retries
        while True:
            self._remember(Answer(None, None, messages))
            reply = yield _Asking(messages, params)
            if reply is None or isinstance(reply, Exception):
                return self._remember(Answer(reply, None, messages))
            messages = [*messages, reply]
            try:
                return self._remember(Answer(self._value(reply, structured), reply, messages))
            except OutputError as error:
                if not left:
                    return self._remember(Answer(self._failed(error, reply, messages), reply, messages))
                left, messages = left - 1, [*messages, {"role": "user", "content": correction(error)}]

    def _params(self, client: LLMClient) -> tuple[dict[str, Any], bool]:
        """Return the arguments of the calls, and whether the API holds the answers to a schema of ours."""
        if "response_format" in self.model_params:
            return self.model_params, False
        model = client.model_named(self.model_params.get("model"))
        if not client.capabilities(model).structured_output:
            return self.model_params, False
        if self._structured is None:
            wanted = response_format(self.output_type)
            self._structured = {**self.model_params, **({"response_format": wanted} if wanted else {})}
        return self._structured, "response_format" in self._structured

    def _value(self, reply: Reply, structured: bool) -> Any:
        if reply.content is None and reply.refusal is not None:
            raise OutputError("the model refused to answer", text=reply.refusal, expected=describe(self.output_type))
        text = reply.content or ""
        return read_structured(text, self.output_type) if structured else read(text, self.output_type)

    def _failed(self, error: OutputError, reply: Reply, messages: list[dict[str, Any]]) -> OutputError | None:
        """Raise, log or return an error, as ``on_error`` says."""
        wanted = self.model_params["on_error"]
        if wanted == "raise":
            self._remember(Answer(None, reply, messages))
            raise error
        if wanted == "none":
            import logging

            logging.getLogger("llmcall").error("the answer cannot be used: %s", error)
        return None if wanted == "none" else error

    def _remember(self, answer: Answer) -> Answer:
        known = WeakKeyDictionary(_last.get() or {})
        known[self] = answer
        _last.set(known)
        return answer

    def _last_answer(self) -> Answer | None:
        known = _last.get()
        return None if known is None else known.get(self)


def _joined(text: str, instruction: str) -> str:
    return f"{text}\n\n{instruction}" if instruction else text


@typing.overload
def llm(function: Callable[Arguments, Value], /) -> LLMFunction[Arguments, Value]: ...
@typing.overload
def llm(**params: Any) -> Callable[[Callable[Arguments, Value]], LLMFunction[Arguments, Value]]: ...


def llm(function: Any = None, /, **params: Any) -> Any:
    """Make a function of a model: its docstring is the user template, its return annotation the output type.

    :param params: the arguments of :class:`LLMCall`, such as ``system=`` and ``temperature=``.
    :returns: a decorator, or, used without parentheses, the function.
    :raises TypeError: where the function has no docstring, is async, or its template takes ``self``.
    """

    def made(decorated: Any) -> Any:
        """Make a function that asks of the decorated one."""
        return LLMFunction(decorated, LLMCall(**call_arguments(decorated, params)))

    return made if function is None else made(function)
