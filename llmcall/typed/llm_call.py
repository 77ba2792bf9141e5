"""``LLMCall``: templates in, a typed value out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import date
from functools import partial
from typing import Any
from weakref import ref

from ..answers.instructions import correction, describe
from ..answers.reading import read
from ..apis.message import as_text, message_text
from ..clients.base import LLMClient
from ..clients.registry import client as shared_client
from ..core import loops, threads
from ..core.options import OPTIONS
from ..core.reply import Reply
from ..errors import OutputError, TemplateError
from ..keys.messages import messages_to_send
from ..keys.parameters import refuse_unknown
from ..keys.plain_data import plain, recordable
from ..keys.request import Data, UncheckedFormat
from ..keys.schemas import read_type, unchecked_format
from ..models.catalog import parameters_of
from ..support.arguments import OBJECTS, checked, nearest
from ..support.display import one_line
from ..support.frames import holds_nothing
from ..support.normalizers import normalizer
from ..support.notices import logger
from ..support.tracebacks import door, mistake
from .corrections import (
    Answer,
    Conversation,
    GetReply,
    SendMessage,
    converse,
    final_error,
    shortened_repr,
)
from .notes import FORM, UNREAD
from .rows import RowJob, row_variables, used_fields, with_undefined
from .tables import RowMethods, field_names
from .template import ANY
from .templates import Templates, TemplateSource, checked_history, checked_sources

# The last answer of each call, for ``messages`` and ``model_output``; each thread and task sees its own.
# Contexts share the dict that they inherit, so each change makes a copy.
_last_answers: ContextVar[dict[ref[LLMCall], Answer]] = ContextVar("llmcall last answers")
NAME_CHARACTERS, VARIABLE_CHARACTERS = 120, 60  # of a form, in a record


class LLMCall(RowMethods):
    """A prompt template whose answer is parsed into a type.

    :param system_template_name: a file under ``[Templates] PATH`` with the system message.
    :param user_template_name: the same for the user message.
    :param system: the system message's template itself, instead of a file.
    :param user: the same for the user message.
    :param history: messages between the system message and the question: worked examples, in which
        texts are templates; or the name of the variable that holds a conversation so far, which is
        sent as it is (without its system message if the call has one).
    :param output_type: ``str``, ``bool``, ``int``, ``float``, ``Literal[…]``, an ``Enum``,
        ``list[…]``, ``dict``, a pydantic model, a dataclass or a ``TypedDict``.
    :param output_retries: how often a misfit is asked again, with the reason. A refusal is an answer, and
        is not asked again.
    :param client: the client; ``None`` means the configured one.
    :param template_path: the folder of the templates, instead of the configured one.
    :param model_params: arguments of :meth:`LLMClient.send_message`; ``on_error`` is ``"raise"``
        unless given.
    :raises TypeError: if a template is given twice, or no template is given, or a history without a
        user message's template; if the history is not a list of messages, or the client is not one.
    :raises ValueError: if ``output_retries`` is not a whole number of at least 0.

    >>> from typing import Literal
    >>> mood = llmcall.LLMCall(
    ...     user="Review: I loved it. Mood: good. Review: It was boring. Mood: bad. Review: {{ text }} Mood:",
    ...     output_type=Literal["good", "bad"],
    ...     temperature=0,
    ... )
    >>> mood(text="Terrible food, rude staff, never again.")
    'bad'
    """

    @door
    @checked
    def __init__(
        self,
        system_template_name: str | None = None,
        user_template_name: str | None = None,
        *,
        system: str | None = None,
        user: str | None = None,
        history: Sequence[Mapping[str, object]] | str | None = None,
        output_type: object = str,
        output_retries: int = 2,
        client: LLMClient | None = None,
        template_path: object = None,
        **model_params: Any,
    ) -> None:
        self._sources = checked_sources(
            {
                "system": TemplateSource(system_template_name, system),
                "user": TemplateSource(user_template_name, user),
            }
        )
        self._history = checked_history(history, self._sources)
        if output_retries < 0:
            raise ValueError(
                f"output_retries is {output_retries!r}; it must be a whole number of at least 0"
            )
        if not (client is None or isinstance(client, LLMClient)):
            raise TypeError(
                f"client is {client!r:.60}; it must be an LLMClient, such as llmcall.client('openai')"
            )
        self.output_type = read_type(output_type)
        self.output_retries = output_retries
        self.template_path = template_path
        known = parameters_of("chat") | OPTIONS
        refuse_unknown(model_params.keys() - known, known | LLMCall.__init__.__annotations__.keys())
        self.model_params = {**model_params, "on_error": model_params.get("on_error") or "raise"}
        self.parameters: frozenset[str] = frozenset()  # those of an @llm function
        self.name = ""  # of an @llm function
        self._texts: dict[str, str] = {}  # templates that a subclass adds to the question, by name
        self._client = client
        self._compiled: dict[str, Templates] = {}  # by their folder

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_compiled": {}}  # compiled templates cannot be pickled

    def __repr__(self) -> str:
        templates = [
            f"{role}={shortened_repr(source.file_name or source.text)}"
            for role, source in self._sources.items()
        ]
        type_name = getattr(self.output_type, "__name__", None)
        type_name = type_name or str(self.output_type).replace("typing.", "")
        return f"LLMCall({', '.join(templates)}, output_type={type_name})"

    @property
    def client(self) -> LLMClient:
        """Return the client."""
        return shared_client() if self._client is None else self._client

    # One answer

    @door
    def call(self, /, **variables: object) -> Any:
        """Call the model, and return the answer as the output type.

        :param variables: the templates' variables. One that holds nothing (NaN, NaT, NA, None) is undefined.
        :raises TemplateError: if a template or a variable is missing.
        :raises TypeError: for a variable that no template uses.
        :raises OutputError: if no answer fitted the output type, or the model refused.
        :raises APIError: if the call failed after all retries. With ``on_error="none"`` both give ``None``.
        """
        return self.run(**variables).value

    __call__ = call

    @door
    def run(self, /, **variables: Any) -> Answer:
        """Call the model, and return the value, the reply and the messages; see :meth:`call`."""
        return threads.run(self.answer(self._given(variables)))

    @door
    async def arun(self, /, **variables: object) -> Answer:
        """Call the model without blocking the event loop; see :meth:`run`."""
        return await loops.run(self.answer(self._given(variables)))

    @door
    async def acall(self, /, **variables: Any) -> Any:
        """Call the model without blocking the event loop; see :meth:`call`."""
        return (await self.arun(**variables)).value

    @property
    def messages(self) -> list[dict[str, Data]] | None:
        """Return all messages of the last call in this context, its answer included, or ``None``
        before the first.
        """
        answer = self._last_answer
        return None if answer is None else answer.messages

    @property
    def model_output(self) -> Reply | None:
        """Return the reply of the last call in this context, or ``None`` before the first."""
        answer = self._last_answer
        return None if answer is None else answer.reply

    @property
    def _last_answer(self) -> Answer | None:
        return _last_answers.get({}).get(ref(self))

    def _given(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return a call's variables, with empty ones as undefined variables."""
        missing = [name for name, value in variables.items() if holds_nothing(value)]
        given = with_undefined(variables, missing)
        self.refuse_unused(given)
        return given

    async def answer(self, variables: dict[str, Any]) -> Answer:
        """Call until an answer fits, and return it; apply ``on_error`` to a failure."""
        conversation = await self.conversation(variables)
        failure = conversation.failure
        on_error = "" if failure is None else self.model_params["on_error"]
        value = failure if on_error == "return" else conversation.value
        answer = Answer(value, conversation.reply, conversation.messages)
        others = {call: last for call, last in _last_answers.get({}).items() if call() is not None}
        _last_answers.set({**others, ref(self): answer})
        if failure is not None and on_error == "raise":
            raise failure
        if on_error == "none":
            logger().error("the answer cannot be used: %s", failure)
        return answer

    async def conversation(
        self, variables: dict[str, Any], get_reply: GetReply = SendMessage.reply
    ) -> Conversation:
        """Call until an answer fits, or the model refuses; failures are returned, not raised."""
        client = self.client
        templates = self.templates()
        messages = templates.render(variables)
        model = client.model_named(self.model_params.get("model"))
        is_given = self.model_params.get("response_format") is not None
        schema = None if is_given else unchecked_format(self.output_type)
        is_sent = schema is not None and client.capabilities(model).structured_output
        expected = "" if is_sent else self._expected(templates, messages)
        question: dict[str, Any] = messages[-1]
        question["content"] = "\n\n".join(filter(None, (question["content"], expected)))
        conversation = await converse(
            SendMessage(
                client,
                messages,
                {**self._sent_params(), **({"response_format": schema} if is_sent else {})},
                partial(self.notes, variables),
            ),
            read=self._parse_reply,
            correction=lambda: correction(expected or self._expected(templates, messages)),
            max_corrections=self.output_retries,
            get_reply=get_reply,
        )
        lacks_schema = schema is not None and not is_sent
        return self._with_final_error(conversation, variables, model if lacks_schema else None)

    def _expected(self, templates: Templates, messages: list[dict[str, Data]]) -> str:
        """Return the sentence that requests the output type, after the messages of a prompt."""
        rendered = templates.without_conversation(messages)
        return describe(self.output_type, "\n".join(map(message_text, rendered)))

    def _with_final_error(
        self,
        conversation: Conversation,
        variables: dict[str, Any],
        unstructured_model: str | None = None,
    ) -> Conversation:
        """Return a conversation with the full error of its failure.

        :param unstructured_model: the model, if it got no schema because llmcall does not know that it takes one.
        """
        if not isinstance(conversation.failure, OutputError):
            return conversation
        is_refused = conversation.refusal is not None
        failure = final_error(
            conversation.failure,
            conversation.replies,
            self.templates().used(variables),
            unstructured_model=None if is_refused else unstructured_model,
        )
        return conversation._replace(failure=failure, is_missing=is_refused)

    def _parse_reply(self, reply: Reply) -> object:
        """Return an answer as the output type."""
        if reply.refusal is not None:
            raise OutputError(
                "the model refused to answer",
                text=reply.refusal,
                expected=describe(self.output_type),
            )
        return read(reply.content or "", self.output_type)

    def _sent_params(self) -> dict[str, object]:
        """Return the model parameters. Of an answer to a given ``response_format``, the output type decides whether
        it fits, so an answer that does not fit is recorded, and corrected; a text has to fit the format.
        """
        given = self.model_params.get("response_format")
        if self.output_type is str or not isinstance(given, dict):
            return self.model_params
        unchecked = UncheckedFormat(plain(given, "response_format"))
        return {**self.model_params, "response_format": unchecked}

    # Rows

    def __map_job__(self) -> RowJob:
        """Return the job of a ``map``'s rows."""
        return RowJob(self, row_variables)

    def columns(self) -> tuple[str, ...]:
        """Return the columns that a table has beside the value."""
        return field_names(self.output_type)

    def varied(self, texts: Mapping[str, str | None], params: Mapping[str, object]) -> LLMCall:
        """Return the same call with other texts or model parameters.

        :param texts: templates by the role of their message, and the history; ``None`` removes a
            message.
        """
        sources = {
            **self._sources,
            **{role: TemplateSource(None, text) for role, text in texts.items()},
        }
        varied = copy.copy(self)
        varied._sources = checked_sources(
            {role: sources[role] for role in ("system", "user") if role in sources}
        )
        history = texts.get("history", self._history)
        varied._history = checked_history(history, varied._sources)
        varied.model_params = {**self.model_params, **params}
        return varied

    # Templates

    def render(self, /, **variables: object) -> list[dict[str, object]]:
        """Return the messages from the templates, without llmcall's words about the output type.

        :raises TemplateError: if a template or a variable is missing.
        """
        return self.templates().render(variables)

    def check(self, variables: Mapping[str, object]) -> None:
        """Raise an error for variables that give no prompt; nothing is sent."""
        messages, _ = messages_to_send(self.templates().render(variables))
        recordable(messages, "messages")

    def notes(self, variables: Mapping[str, object]) -> dict[str, Data]:
        """Return the notes of a question's record: its form, and that its answer can be read."""
        templates = self.templates()
        *_, question = self._sources.values()
        used = sorted(templates.used(variables).items())
        normalize = normalizer(self.client.settings.cache_normalize) or str
        form = {
            "name": self.name
            or question.file_name
            or one_line(question.text or "", NAME_CHARACTERS),
            "digest": templates.digest,
            "variables": {
                name: one_line(
                    normalize(_words(used_fields(value, templates.variables[name]))),
                    VARIABLE_CHARACTERS,
                )
                for name, value in used
            },
        }
        return {FORM.name: form, UNREAD.name: False}

    def refuse_unused(self, variables: Mapping[str, object]) -> None:
        """Refuse a variable that no template uses, unless its name begins with ``_``.

        :raises TypeError: with the nearest variable; a ``TemplateError`` for a function's parameter.
        """
        templates = self.templates()
        templates.refuse_single_braces(variables)
        used = templates.variables
        if ANY in used and self.has_files and not variables.keys() <= used.keys():
            # a copy has read no file but those that these variables include
            used = copy.copy(self).templates().rendered_variables(variables)
        for name in variables:
            if name in used or name.startswith("_") or (self.parameters and name in OBJECTS):
                continue
            if self.parameters:
                raise TemplateError(
                    f"{self.name}(): no template uses the parameter {name!r}: write {{{{ {name} }}}} there, "
                    f"or call the parameter _{name}"
                )
            raise mistake(
                f"no template uses the variable {name!r}{nearest(name, used) or '.'} "
                f"Model parameters go to LLMCall(…, temperature=0)"
            )

    @property
    def has_files(self) -> bool:
        """Return whether a template is a file."""
        return any(source.file_name is not None for source in self._sources.values())

    def templates(self) -> Templates:
        """Return the compiled templates.

        :raises TemplateError: for a missing file or a syntax error.
        """
        folder = ""
        if self.has_files:
            folder = str(self.template_path or self.client.settings.templates_path)
        templates = self._compiled.get(folder)
        if templates is None or not templates.are_current():
            templates = Templates.compile(self._sources, self._history, folder, self._texts)
            self._compiled[folder] = templates
        return templates


def _words(value: object) -> str:
    """Return a variable's value as text: of an object without data, its type."""
    try:
        return as_text(plain(value, "variable"))
    except (TypeError, ValueError):
        return str(value) if isinstance(value, date) else type(value).__name__
