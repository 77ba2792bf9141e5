"""LLMCall: templates in, a typed value out; and ``@llm``, which makes a function of it."""

from __future__ import annotations

import copy
import functools
import inspect
import re
import typing
from collections.abc import Mapping
from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar
from weakref import ref

from .clients.registry import client as shared_client
from .display.formatting import shortened
from .engine.drivers import adrive, drive
from .errors import APIError, LLMCallError, OutputError, TemplateError, short_traceback
from .outputs import correction, describe, fields_of, read
from .prompts import Template, Variables, all_variables, file_template, text_template
from .requests.parameters import UNCHECKED
from .requests.schemas import response_format
from .requests.signatures import Parameters
from .types import message_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from weakref import ReferenceType

    from .clients.base import LLMClient
    from .types import Reply

Arguments = ParamSpec("Arguments")
Rest = ParamSpec("Rest")
Value = TypeVar("Value")

SELF = re.compile(r"\{[{%][^}]*(?<![.\w])self\b")  # a tag with the variable ``self``
# Jinja2's tags, and a name in single braces, as in an f-string
BRACES = re.compile(
    r"\{\{.*?\}\} | \{%.*?%\} | \{\#.*?\#\} | \{\s*(?P<name>[^\W\d]\w*)\b[^{}\n]*\}",
    re.DOTALL | re.VERBOSE,
)


class Answer(NamedTuple):
    """What a call returned.

    :param value: the answer, parsed into the output type.
    :param reply: the reply that it was parsed from.
    :param messages: all that was sent and answered, the answer included.

    >>> ask = llmcall.LLMCall(user="{{ greeting }}", max_tokens=16)
    >>> answer = ask.run(greeting="Good morning!")
    >>> answer.value, answer.reply.finish_reason, len(answer.messages)
    ('Good morning!', 'stop', 2)
    """

    value: Any
    reply: Reply | None
    messages: list[dict[str, Any]]


class Asked(NamedTuple):
    """What a call came to, before ``on_error`` decides what becomes of a failure.

    :param value: the answer as the output type; ``None`` if there is none.
    :param failure: why there is none: the API's error, or an ``OutputError`` for an answer that does
        not fit and for a refusal. ``None`` also if the client logged the error.
    :param replies: the answers, in order.
    :param messages: all that was sent and answered, the answers included.
    :param tries: how many answers were asked for.
    :param is_missing: whether the last answer does not fit, and that is a missing value and no
        failure.
    :param fields: what has a column of its own in a table; ``None`` means the value's fields.
    """

    value: Any
    failure: Exception | None
    replies: list[Reply]
    messages: list[dict[str, Any]]
    tries: int
    is_missing: bool = False
    fields: Mapping[str, Any] | None = None

    @property
    def reply(self) -> Reply | None:
        """Return the last answer; ``None`` if none came to what was asked last."""
        return self.replies[-1] if self.replies and self.tries == len(self.replies) else None

    @property
    def refusal(self) -> str | None:
        """Return the text in which the model refused, or ``None``."""
        return None if self.reply is None else self.reply.refusal

    @property
    def unread(self) -> str | None:
        """Return the first answer if it did not fit the output type, or ``None``."""
        if not self.replies:
            return None
        first = self.replies[0]
        is_misfit = self.is_missing or self.failure is not None
        fits = first is self.reply and (not is_misfit or self.refusal is not None)
        return None if fits else message_text(first)


class Asking(NamedTuple):
    """Ask for the reply to some messages: an effect of the flow of a call."""

    client: LLMClient
    messages: list[dict[str, Any]]
    params: dict[str, Any]

    def perform(self) -> Any:
        """Ask in this thread."""
        return self.client.send_message(self.messages, **self.params)

    async def aperform(self) -> Any:
        """Ask without blocking the event loop."""
        return await self.client.asend_message(self.messages, **self.params)


class _Templates(NamedTuple):
    """The compiled templates of a call.

    :param by_role: each by the role of its message.
    :param variables: the names that they use.
    :param braced: for each name in single braces that none of them uses, an error that says so.
    """

    by_role: dict[str, Template]
    variables: Variables
    braced: Mapping[str, str]

    def check(self, names: Iterable[str]) -> None:
        """Refuse ``{name}`` if ``{{ name }}`` is meant: the model would read the braces.

        :param names: the variables that are given.
        :raises TemplateError: naming the template, the line and the variable.
        """
        for name in names:
            if name in self.braced:
                raise TemplateError(self.braced[name])


# What each LLMCall gave last in a context; a new dict at each change, since tasks share what they
# inherit.
_last: ContextVar[dict[ReferenceType[LLMCall], Answer]] = ContextVar("llmcall last answers")


class RowJob(NamedTuple):
    """Ask about each row of a ``map``.

    :param variables: gives the templates' variables of a row.
    :param bound: those of them that are the same for all rows.
    """

    call: LLMCall
    variables: Callable[[Any], dict[str, Any]]
    bound: Mapping[str, Any] = {}

    def __map_job__(self) -> RowJob:
        return self

    @property
    def client(self) -> LLMClient:
        """Return whom it asks."""
        return self.call.client

    @property
    def wants_names(self) -> bool:
        """Return whether an item has a name outside any scope, too."""
        return self.call.wants_names

    def run(self, item: Any) -> Any:
        """Ask about an item, and return the value."""
        return self.call.run(**self.variables(item)).value

    def conversation(self, item: Any) -> Generator[Asking, Any, Asked]:
        """Ask until an answer fits; see :meth:`LLMCall.conversation`."""
        return self.call.conversation(self.variables(item))

    def identity(self, item: Any) -> dict[str, Any]:
        """Return what identifies an item: only the variables, and their fields, that the templates
        use.
        """
        used = self.call.variables()
        values = self.variables(item).items()
        return {
            name: _used(value, used[name])
            for name, value in values
            if name in used and name not in self.bound
        }


class TableJob(NamedTuple):
    """Ask about each row of a table, and return all that is known of the answer.

    :param rows: asks about a row.
    """

    rows: RowJob

    @property
    def wants_names(self) -> bool:
        """Return whether a row has a name outside any scope, too."""
        return self.rows.wants_names

    def __map_job__(self) -> TableJob:
        return self

    @short_traceback
    def run(self, item: Any) -> Asked:
        """Ask about a row. A refusal is an answer, and raises nothing.

        :raises APIError, OutputError: if there is no answer that fits, unless ``on_error`` is among
            the call's parameters. ``.asked`` has what was answered before.
        """
        asked: Asked = drive(self.rows.conversation(item))  # type: ignore[arg-type]
        failure = asked.failure
        is_raised = self.rows.call.model_params["on_error"] == "raise"
        if failure is None or asked.refusal is not None or not is_raised:
            return asked
        if isinstance(failure, LLMCallError):
            failure.asked = asked._replace(failure=None)
        raise failure

    def identity(self, item: Any) -> dict[str, Any]:
        """Return what identifies a row."""
        return self.rows.identity(item)


def _varied_table(
    job: RowJob, rows: Iterable[Any], vary: Mapping[str, Any], map_options: dict[str, Any]
) -> Any:
    """Return the table of rows that vary, or its plan; see :meth:`LLMCall.table`."""
    from .display.data_frames import import_pandas
    from .parallel import variations
    from .parallel.map import map as mapped
    from .parallel.rows import is_frame, rows_of
    from .parallel.tables import answer_table

    given = [of_row(row) for row in rows_of(rows)]
    crossed = variations.crossing(job.call, given, vary, job.bound)
    jobs = [job._replace(call=call) for call in crossed.calls]
    crossed_job = variations.CrossedJob(tuple(jobs))
    variations.warn_of_equal_levels(crossed, crossed_job)
    if map_options.get("dry_run"):
        return mapped(crossed_job, crossed.items, **map_options)
    if map_options.get("on_error") == "none":
        map_options["on_error"] = "return"  # the column error has it
    table_job = variations.CrossedJob(tuple(TableJob(each) for each in jobs))
    frame = rows if is_frame(rows) else import_pandas().DataFrame(given)
    return answer_table(
        crossed.frame(frame),
        map_options.get("repeats", 1),
        job.call.columns(),
        lambda _: mapped(table_job, crossed.items, **map_options),
    )


def of_row(item: Any) -> dict[str, Any]:
    """Return the templates' variables of an item.

    :raises TypeError: if it is not a row.
    """
    if not isinstance(item, Mapping):
        raise TypeError(
            f"a row is {type(item).__name__}; it must be a dict of the templates' variables"
        )
    unnamed = [name for name in item if not isinstance(name, str)]
    if unnamed:
        raise TypeError(f"a row has the column {unnamed[0]!r}; a column's name must be a string")
    return dict(item)


def _used(value: Any, fields: frozenset[str] | None) -> Any:
    """Return what is used of a dict or a dataclass: these fields, or all of it if it lacks
    one of them.
    """
    own = value if isinstance(value, dict) else getattr(value, "__dataclass_fields__", None)
    if own is None or fields is None or not fields <= own.keys():
        return value
    return {field: value[field] if own is value else getattr(value, field) for field in fields}


class LLMCall:
    """Render templates, ask a model, and parse its answer into a type.

    :param system_template_name: a file under ``[Templates] PATH`` with the system message.
    :param user_template_name: likewise with the user message.
    :param system: the system message's template itself, instead of a file.
    :param user: likewise the user message's.
    :param output_type: ``str``, ``bool``, ``int``, ``float``, ``Literal[…]``, an ``Enum``,
        ``list[…]``, ``dict``, a pydantic model, a dataclass or a ``TypedDict``.
    :param output_retries: how often an answer that does not fit is asked again, saying why. A
        refusal is an answer, and is not asked again.
    :param client: whom to ask; ``None`` means the configured one.
    :param template_path: the folder of the templates, instead of the configured one.
    :param model_params: arguments of :meth:`LLMClient.send_message`; ``on_error`` is ``"raise"``
        unless given.
    :raises TypeError: if a template is given twice, or none is given; for
        ``enable_pydantic_model_return``.
    :raises ValueError: if ``output_retries`` is no whole number from 0 on.

    >>> from typing import Literal
    >>> mood = llmcall.LLMCall(
    ...     user="Review: I loved it. Mood: good. Review: It was boring. Mood: bad. Review: {{ text }} Mood:",
    ...     output_type=Literal["good", "bad"],
    ...     temperature=0,
    ... )
    >>> mood(text="Terrible food, rude staff, never again.")
    'bad'
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
        sources = {"system": (system_template_name, system), "user": (user_template_name, user)}
        self._sources = {role: source for role, source in sources.items() if source != (None, None)}
        for role, (name, text) in self._sources.items():
            if name is not None and text is not None:
                raise TypeError(
                    f"the {role} template is given twice: as the file {name!r} and as text"
                )
        if not self._sources:
            raise TypeError("LLMCall needs a template: a file name, or system= or user= as text")
        if type(output_retries) is not int or output_retries < 0:
            raise ValueError(
                f"output_retries is {output_retries!r}; it must be a whole number of at least 0"
            )
        if model_params.get("enable_pydantic_model_return"):
            raise TypeError(
                "enable_pydantic_model_return is an argument of send_message; LLMCall takes the class as output_type="
            )
        self._is_of_files = any(name is not None for name, _ in self._sources.values())
        self.output_type = output_type
        self.output_retries = output_retries
        self.template_path = template_path
        self.model_params = {**model_params, "on_error": model_params.get("on_error") or "raise"}
        self.parameters: frozenset[str] = frozenset()  # of the function that it answers for
        self._client = client
        self._compiled: dict[str, _Templates] = {}  # by their folder
        # The response_format of the calls, if any, at a generation of the settings, for a model and
        # an output type.
        self._format_at: tuple[Any, dict[str, Any]] = None, {}

    def __getstate__(self) -> dict[str, Any]:
        # made again in another process
        return {
            **self.__dict__,
            "_compiled": {},
            "_format_at": (None, {}),
        }

    def __repr__(self) -> str:
        given = [f"{role}={_shown(name or text)}" for role, (name, text) in self._sources.items()]
        kind = getattr(self.output_type, "__name__", None) or str(self.output_type).replace(
            "typing.", ""
        )
        return f"LLMCall({', '.join(given)}, output_type={kind})"

    def varied(self, texts: Mapping[str, str | None], params: Mapping[str, Any]) -> LLMCall:
        """Return the same call with other texts or model parameters.

        :param texts: templates by the role of their message; ``None`` leaves a message out.
        """
        sources = {**self._sources, **{role: (None, text) for role, text in texts.items()}}
        varied = copy.copy(self)
        varied._sources = {
            role: sources[role]
            for role in ("system", "user")
            if sources.get(role, (None, None)) != (None, None)
        }
        if not varied._sources:
            raise TypeError("LLMCall needs a template, but one of vary's levels removes them all")
        varied._is_of_files = any(name is not None for name, _ in varied._sources.values())
        varied.model_params = {**self.model_params, **params}
        return varied

    @property
    def wants_names(self) -> bool:
        """Return whether the items of a map have names outside any scope, too."""
        return False

    @property
    def client(self) -> LLMClient:
        """Return whom the call asks."""
        return shared_client() if self._client is None else self._client

    def call(self, /, **variables: Any) -> Any:
        """Ask, and return the answer as the output type.

        :param variables: the templates' variables.
        :raises TemplateError: if a template or a variable is missing.
        :raises OutputError: if no answer fitted the output type, or the model refused.
        :raises APIError: if the call failed for good. With ``on_error="none"`` both give ``None``.
        """
        return self.run(**variables).value

    __call__ = call

    @short_traceback
    def run(self, /, **variables: Any) -> Answer:
        """Ask, and return the value, the reply and the messages; arguments and errors as of
        :meth:`call`.
        """
        return drive(self.asking(variables))  # type: ignore[arg-type]

    @short_traceback
    async def arun(self, /, **variables: Any) -> Answer:
        """Ask without blocking the event loop; as :meth:`run`."""
        return await adrive(self.asking(variables))  # type: ignore[arg-type]

    async def acall(self, /, **variables: Any) -> Any:
        """Ask without blocking the event loop; as :meth:`call`."""
        return (await self.arun(**variables)).value

    @short_traceback
    def map(self: Any, rows: Iterable[Any], **map_options: Any) -> Any:
        """Ask about each row, and return the values in the order of the rows.

        :param rows: dicts of the templates' variables, or a pandas DataFrame; more columns than the
            templates use are no error.
        :param map_options: those of :func:`llmcall.map`.
        :returns: a list; with ``repeats``, a list of lists; with ``dry_run=True`` a :class:`.Plan`.
        """
        from .parallel.map import map as mapped

        return mapped(self, rows, **map_options)

    @short_traceback
    def table(
        self: Any,
        rows: Iterable[Any],
        *,
        vary: Mapping[str, Any] | None = None,
        **map_options: Any,
    ) -> Any:
        """Ask about each row, and return a DataFrame with a row for each row and repeat.

        Its columns are those of the rows, and then

        - ``repeat``, from 0 on
        - ``value``, and a column for each field of a pydantic model, a dataclass or a ``TypedDict``
          (named ``value.NAME`` if the table has a column of the field's name)
        - ``error``, the exception of a row that failed, unless it was raised
        - ``tries``, how many answers were asked for
        - ``unread``, the first answer, if it did not fit the output type
        - ``refusal``, the text in which the model refused. A refusal is an answer: it is not asked
          again and raises nothing, whatever ``on_error`` says, and its row has no value.
        - ``served``, the model that answered, by the name that the server gave
        - ``finish_reason``, such as ``"stop"`` or ``"length"``
        - ``cached``, whether no call was made for the row
        - ``cost``, USD when the answers were made, corrections included; missing if unknown
        - ``cache_key``, the last answer's.

        :param rows: as for :meth:`map`; none of their columns may have one of those names.
        :param vary: crosses the rows with levels of model parameters, of the texts ``system`` and
            ``user``, or of the templates' variables: a list of values for each, or a dict of values
            by label. The rows are repeated for each combination, with the labels in a column for
            each axis. Each combination has the draws that it has in a table of its own.
        :param map_options: those of :func:`llmcall.map`; the exception that leaves has the answers
            in ``.results``.
        :raises ConfigError: if pandas is not installed.
        :raises ValueError: if a column has one of those names; for an axis that is unknown, has two
            meanings or is a column of the rows.
        """
        from .parallel.map import map as mapped
        from .parallel.tables import answer_table

        if vary is not None:
            return _varied_table(self.__map_job__(), rows, vary, map_options)
        if map_options.get("dry_run"):
            return mapped(self, rows, **map_options)
        if map_options.get("on_error") == "none":
            map_options["on_error"] = "return"  # the column error has it
        job = TableJob(self.__map_job__())
        return answer_table(
            rows,
            map_options.get("repeats", 1),
            job.rows.call.columns(),
            functools.partial(mapped, job, **map_options),
        )

    def __map_job__(self) -> RowJob:
        """Return how a ``map`` asks about rows."""
        return RowJob(self, of_row)

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """Return all messages of the last call in this context, its answer included; ``None``
        before any.
        """
        answer = _last.get({}).get(ref(self))
        return answer.messages if answer else None

    @property
    def model_output(self) -> Reply | None:
        """Return the reply of the last call in this context; ``None`` before any."""
        answer = _last.get({}).get(ref(self))
        return answer.reply if answer else None

    def columns(self) -> tuple[str, ...]:
        """Return the names of what has a column of its own in a table, beside the value."""
        return fields_of(self.output_type)

    def render(self, /, **variables: Any) -> list[dict[str, Any]]:
        """Return the messages that the templates give, before anything is said of the output type.

        :raises TemplateError: if a template or a variable is missing.
        """
        templates = self._templates()
        templates.check(variables)
        return [
            {"role": role, "content": template.render(variables)}
            for role, template in templates.by_role.items()
        ]

    def variables(self) -> Variables:
        """Return the names that the templates use, each with the fields that are used of it, or
        ``None`` for all.
        """
        return self._templates().variables

    def first_or_correction(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """Return ``"first"`` for messages that the templates may have given, ``"correction"`` if
        more follow them, and ``None`` for any others.
        """
        templates = self._templates().by_role
        if len(messages) < len(templates):
            return None
        for message, (role, template) in zip(messages, templates.items(), strict=False):
            text = message.get("content")
            if message.get("role") != role or not isinstance(text, str):
                return None
            if not template.may_have_made(text):
                return None
        return "first" if len(messages) == len(templates) else "correction"

    def longest_fixed_text(self) -> str:
        """Return the longest text that every prompt of the call has."""
        templates = self._templates().by_role.values()
        return max((piece for template in templates for piece in template.fixed), key=len)

    def _templates(self) -> _Templates:
        folder = (
            str(self.template_path or self.client.settings.templates_path)
            if self._is_of_files
            else ""
        )
        found = self._compiled.get(folder)
        if found is None:
            templates = {
                role: text_template(text or "", f"<{role}>")
                if name is None
                else file_template(name, folder)
                for role, (name, text) in self._sources.items()
            }
            used = all_variables(template.variables for template in templates.values())
            braced = _braced(templates.values(), used)
            found = _Templates(templates, used, braced)
            found.check(sorted(self.parameters))
            self._compiled[folder] = found
        return found

    def asking(self, variables: dict[str, Any]) -> Generator[Asking, Any, Answer]:
        """Ask until an answer fits; the same for every driver.

        :raises APIError, OutputError: if no answer fitted, unless ``on_error`` says otherwise.
        """
        asked = yield from self.conversation(variables)
        answer = Answer(asked.value, asked.reply, asked.messages)
        if asked.failure is None:
            return self._remember(answer)
        return self._failed(asked.failure, answer)

    def conversation(self, variables: dict[str, Any]) -> Generator[Asking, Any, Asked]:
        """Ask until an answer fits, or the model refuses; a failure is returned, not raised."""
        client = self.client
        messages = self.render(**variables)
        params, structured = self._params(client)
        prompt = "\n".join(message["content"] for message in messages)
        expected = describe(self.output_type, prompt)
        if expected and not structured:
            texts = filter(None, (messages[-1]["content"], expected))
            messages[-1]["content"] = "\n\n".join(texts)
        replies: list[Reply] = []
        while True:
            self._remember(Answer(None, None, messages))
            try:
                reply = yield Asking(client, messages, params)
            except APIError as error:
                reply = error
            tries = len(replies) + 1
            if reply is None or isinstance(reply, Exception):
                return Asked(None, reply, replies, messages, tries)
            replies.append(reply)
            messages = [*messages, reply]
            try:
                value = self._read(reply, structured=structured)
                return Asked(value, None, replies, messages, tries)
            except OutputError as error:
                if reply.refusal is None and tries <= self.output_retries:
                    again = correction(error, describe(self.output_type, prompt, again=True))
                    messages = [*messages, {"role": "user", "content": again}]
                    continue
                unformatted = None
                if not structured and reply.refusal is None:
                    unformatted = self._unformatted(client)
                failure = self._output_error(error, replies, variables, params, unformatted)
            return Asked(None, failure, replies, messages, tries)

    def _read(self, reply: Reply, *, structured: bool) -> Any:
        """Return an answer as the output type.

        :raises OutputError: if it does not fit, or is a refusal.
        """
        if reply.refusal is not None:
            raise OutputError(
                "the model refused to answer",
                text=reply.refusal,
                expected=describe(self.output_type),
            )
        return read(reply.content or "", self.output_type, structured=structured)

    def _output_error(
        self,
        error: OutputError,
        replies: list[Reply],
        variables: Mapping[str, Any],
        params: Mapping[str, Any],
        unformatted: str | None,
    ) -> OutputError:
        """Return the error of a call whose last answer cannot be used.

        :param error: why the last answer cannot be used.
        :param params: the arguments of the calls.
        :param unformatted: see :func:`_report`.
        """
        used = {name: value for name, value in variables.items() if name in self.variables()}
        is_kept = self.client.settings.cache_mode != "off" and params.get("cache") is not False
        failure = OutputError(
            _report(error, replies, used, is_kept, unformatted),
            text=error.text,
            expected=error.expected,
        )
        failure.__cause__ = error.__cause__
        return failure

    def _params(self, client: LLMClient) -> tuple[dict[str, Any], bool]:
        """Return the arguments of the calls, and whether the API holds the answers to a schema of
        ours.
        """
        if "response_format" in self.model_params:
            return self.model_params, False
        model = client.model_named(self.model_params.get("model"))
        place = client.resolved.generation, model, self.output_type
        known, wanted = self._format_at
        if known != place:
            found = (
                response_format(self.output_type)
                if client.capabilities(model).structured_output
                else None
            )
            wanted = {} if found is None else {"response_format": {**found, UNCHECKED: True}}
            self._format_at = place, wanted
        return {**self.model_params, **wanted}, bool(wanted)

    def _unformatted(self, client: LLMClient) -> str | None:
        """Return the name of the model if structured output could be used, but is not known to work
        there.
        """
        if self.output_type is str or "response_format" in self.model_params:
            return None
        can_be_asked_for = response_format(self.output_type) is not None
        return client.model_named(self.model_params.get("model")) if can_be_asked_for else None

    def _failed(self, failure: Exception, answer: Answer) -> Answer:
        """Raise, log or return a failure, as ``on_error`` says."""
        wanted = self.model_params["on_error"]
        if wanted == "raise":
            self._remember(answer)
            raise failure
        if wanted == "return":
            return self._remember(answer._replace(value=failure))
        import logging

        logging.getLogger("llmcall").error("the answer cannot be used: %s", failure)
        return self._remember(answer)

    def _remember(self, answer: Answer) -> Answer:
        known = {call: last for call, last in _last.get({}).items() if call() is not None}
        known[ref(self)] = answer
        _last.set(known)
        return answer


def _braced(templates: Iterable[Template], used: Variables) -> dict[str, str]:
    """Return an error for each name in single braces, outside Jinja2's tags, that is not used."""
    errors: dict[str, str] = {}
    for template in templates:
        for found in BRACES.finditer(template.text):
            name = found["name"]
            if name is None or name in used:
                continue
            line = template.text.count("\n", 0, found.start()) + 1
            errors.setdefault(
                name,
                f"{template.name}, line {line}: {found[0]} is not a template tag; "
                f"write {{{{ {name} }}}} for the value, "
                f'or {{{{ "{{{name}}}" }}}} to send the braces',
            )
    return errors


def _report(
    error: OutputError,
    replies: list[Reply],
    variables: Mapping[str, Any],
    is_kept: bool,
    unformatted: str | None,
) -> str:
    """Return the message of a failed call: the answer, what was expected, the scope, the item, the
    number of tries, and how to ask again.

    :param unformatted: the model, if structured output may be switched on for it.
    """
    last = replies[-1]
    lines = [str(error), f"answer: {_shown(error.text, 300)}"]
    if error.expected:
        lines.append(f"expected: {shortened(error.expected, 300)}")
    if unformatted is not None:
        lines.append(
            f"structured output was not used, because the model {unformatted!r} is not known to "
            "support it. If its server "
            f"does, switch it on in config.ini: [Model {unformatted}] STRUCTURED_OUTPUT = yes"
        )
    if last.finish_reason == "length":
        lines.append("the answer was cut at the token limit: raise max_tokens")
    if last.sample is not None:
        lines.append(f"scope: {last.sample}")
    if variables:
        lines.append(
            "item: " + ", ".join(f"{name}={_shown(value)}" for name, value in variables.items())
        )
    tries = "after 1 try" if len(replies) == 1 else f"after {len(replies)} tries"
    if is_kept or last.cached:
        keys = " ".join(reply.cache_key[:12] for reply in replies)
        tries += f", recorded; to ask again, delete the records: llmcall cache delete {keys}"
    lines.append(tries)
    return "\n  ".join(lines)


def _shown(value: Any, most: int = 60) -> str:
    return shortened(repr(value), most)


class LLMFunction(Generic[Arguments, Value]):
    """A function whose body is a model's answer; as a method it binds its object.

    :ivar llm_call: the :class:`LLMCall` that answers; its templates take the arguments as
        variables.
    """

    __name__: str
    __qualname__: str
    map, table = LLMCall.map, LLMCall.table

    def __init__(self, function: Callable[Arguments, Value], llm_call: LLMCall) -> None:
        functools.update_wrapper(self, function)
        self._parameters = Parameters(function)
        # The object of a bound method, by the name of the parameter that stands for it.
        self.bound: dict[str, Any] = {}
        self.llm_call = llm_call
        llm_call.parameters = frozenset(self._parameters.signature.parameters)

    def _variables(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._parameters.arguments((*self.bound.values(), *args), kwargs)

    @short_traceback
    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """Ask, and return the answer as the type that the function is annotated to return."""
        return self.run(*args, **kwargs).value  # type: ignore[no-any-return]

    def run(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        """Ask, and return the value, the reply and the messages."""
        return self.llm_call.run(**self._variables(*args, **kwargs))

    @short_traceback
    async def acall(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """Ask without blocking the event loop."""
        return (await self.llm_call.arun(**self._variables(*args, **kwargs))).value  # type: ignore[no-any-return]

    def __map_job__(self) -> RowJob:
        """Return how a ``map`` asks about rows."""
        return RowJob(self.llm_call, self.variables, self.bound)

    def __repr__(self) -> str:
        return f"<llm function {self.__qualname__}{self._parameters.signature}>"

    def variables(self, item: Any) -> dict[str, Any]:
        """Return the templates' variables of an item of a ``map``: of a row, those that the
        function takes.

        :param item: a row, or anything else as the first argument.
        :raises TypeError: if an argument is missing.
        """
        if not isinstance(item, Mapping):
            return self._variables(item)
        taken, rest = self._parameters.defaults, self._parameters.rest
        found = {
            **taken,
            **{name: value for name, value in item.items() if name in taken},
            **self.bound,
        }
        for name, value in found.items():
            if value is inspect.Parameter.empty:
                raise TypeError(f"missing a required argument: {name!r}")
        if rest is not None:
            found[rest] = {name: value for name, value in item.items() if name not in taken}
        return found

    @typing.overload
    def __get__(self, instance: None, owner: Any) -> LLMFunction[Arguments, Value]: ...
    @typing.overload
    def __get__(
        self: LLMFunction[Concatenate[Any, Rest], Value], instance: object, owner: Any
    ) -> LLMFunction[Rest, Value]: ...

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        bound: Any = object.__new__(LLMFunction)
        bound.__dict__.update(
            self.__dict__, bound={next(iter(self._parameters.defaults), "self"): instance}
        )
        return bound

    def __reduce__(self) -> Any:
        # By its name, as any function; a bound one as an attribute of its object.
        return (getattr, (*self.bound.values(), self.__name__)) if self.bound else self.__qualname__


def call_arguments(function: Callable[..., Any], params: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the :class:`LLMCall` behind a function.

    :param params: those that the decorator was given; a user template among them leaves the
        docstring a docstring.
    :raises TypeError: if the function has no docstring, is async, or its template takes
        ``self``.
    """
    name = function.__qualname__
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{name} is async; define it with def, and await {function.__name__}.acall(…)"
        )
    found = {"output_type": _returned(function), **params}
    if params.keys() & {"user", "user_template_name"}:
        return found
    if not function.__doc__:
        raise TypeError(f"{name} has no docstring; it is the template of the user message")
    if SELF.search(function.__doc__):
        raise TypeError(
            f"{name}: Jinja2 reserves the name self; give the first argument another name"
        )
    # as Python 3.13 keeps it: the same prompt on all
    return {
        "user": inspect.cleandoc(function.__doc__),
        **found,
    }


def _returned(function: Callable[..., Any]) -> Any:
    """Return the type that a function is annotated to return; ``str`` if it has no annotation."""
    annotation = inspect.signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        return str
    # Of the return annotation alone: those of the arguments may be names that exist for type
    # checkers only.
    returning = SimpleNamespace(__annotations__={"return": annotation})
    return typing.get_type_hints(returning, function.__globals__, include_extras=True)["return"]


@typing.overload
def llm(function: Callable[Arguments, Value], /) -> LLMFunction[Arguments, Value]: ...
@typing.overload
def llm(**params: Any) -> Callable[[Callable[Arguments, Value]], LLMFunction[Arguments, Value]]: ...


def llm(function: Any = None, /, **params: Any) -> Any:
    """Make a function of a model: its docstring is the user template, its return annotation the
    output type.

    :param params: the arguments of :class:`LLMCall`, such as ``system=`` and ``temperature=``.
    :returns: a decorator, or, used without parentheses, the function.
    :raises TypeError: if the function has no docstring, is async, or its template takes
        ``self``.

    >>> @llmcall.llm(max_tokens=16)
    ... def greet(greeting: str) -> str:
    ...     "{{ greeting }}"
    >>> greet("Good morning!")
    'Good morning!'
    """

    def made(decorated: Any) -> Any:
        """Make a function that asks of the decorated one."""
        return LLMFunction(decorated, LLMCall(**call_arguments(decorated, params)))

    return made if function is None else made(function)
