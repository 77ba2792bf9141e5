"""Closed questions: a call whose value is one of its options, listed in a known order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ...answers.instructions import correction
from ...answers.json_texts import without_reasoning
from ...answers.lettered_options import INSTRUCTION, listing, option_position
from ...core.reply import Reply
from ...errors import OutputError
from ...support.arguments import checked
from ...typed.corrections import Conversation, GetReply, SendMessage, converse
from ...typed.llm_call import LLMCall
from ...typed.rows import RowJob
from .options import ChoiceOptions, Respondent, checked_options, moving_order


class Choice(LLMCall):
    """A closed question, made by :func:`llmcall.choice`: an :class:`llmcall.LLMCall` whose value is one of
    its options.

    :ivar question: the template of the user message.
    :ivar options: the answers it may return, in the order given.
    :ivar order: the name of the order.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(["B"])
    >>> policy = llmcall.choice("What should the town do?", ["tax", "ban"], client=client)
    >>> policy()
    'ban'
    >>> print(client.requests[0].messages[0]["content"])
    What should the town do?
    <BLANKLINE>
    A. tax
    B. ban
    <BLANKLINE>
    Answer with one letter only.
    """

    @checked
    def __init__(
        self,
        question: str,
        options: Iterable[str] | Mapping[Any, str],
        *,
        order: str = "given",
        last: Iterable[object] = (),
        output_retries: int = 0,
        **arguments: Any,
    ) -> None:
        super().__init__(user=question, output_type=str, output_retries=output_retries, **arguments)
        self._options = checked_options(options, last, order)
        self._texts = {
            f"option {number}": text for number, text in enumerate(self._options.texts, 1)
        }
        self.options = self._options.values
        self.order = order
        self.question = question

    def __repr__(self) -> str:
        options = ", ".join(map(repr, self.options))
        return f"Choice({self.question!r}, [{options}], order={self.order!r})"

    def __map_job__(self) -> RowJob:
        """Return the job of a ``map``'s rows. Outside any scope, the order depends on
        their names.
        """
        return replace(super().__map_job__(), is_named=self.order != "given")

    def columns(self) -> tuple[str, ...]:
        """Return the columns that a table has beside the value: the position of the chosen option in the
        list that was read, from 1, and all options in that order, as JSON, since databases have no lists.
        """
        return ("position", "order")

    def check(self, variables: Mapping[str, object]) -> None:
        """Raise a ``TemplateError`` for variables that give no prompt, or no options; nothing is sent."""
        super().check(variables)
        self._rendered_options(variables)

    async def conversation(
        self, variables: dict[str, Any], get_reply: GetReply = SendMessage.reply
    ) -> Conversation:
        """Call until an answer names an option or no tries are left; failures are returned, not raised."""
        respondent = Respondent.current()
        options = self._rendered_options(variables)
        texts = self._options.texts_in(self._options.moving)
        moving = moving_order(self.order, texts, respondent)
        order = (*(self._options.moving[index] for index in moving), *self._options.last)
        read_values = [options.values[index] for index in order]
        messages = self.render(**variables)
        listed = listing(options.texts_in(order))
        messages[-1]["content"] = f"{messages[-1]['content']}\n\n{listed}\n\n{INSTRUCTION}"
        conversation = await converse(
            SendMessage(self.client, messages, self.model_params, partial(self.notes, variables)),
            read=lambda reply: _read_position(reply, options, order),
            correction=lambda: correction(INSTRUCTION),
            max_corrections=self.output_retries,
            get_reply=get_reply,
        )
        position = conversation.value
        return self._with_final_error(conversation, variables)._replace(
            value=None if position is None else read_values[position],
            is_missing=isinstance(conversation.failure, OutputError),
            fields={
                "position": None if position is None else position + 1,
                "order": json.dumps(read_values, ensure_ascii=False, default=str),
            },
        )

    def _rendered_options(self, variables: Mapping[str, object]) -> ChoiceOptions:
        """Return the options of a row, or raise a ``TemplateError`` if an answer could not tell them apart."""
        templates = self.templates()
        texts = [template.render(variables) for template in templates.texts]
        return self._options.rendered(texts, self.order, templates.used(variables))


def _read_position(reply: Reply, options: ChoiceOptions, order: tuple[int, ...]) -> int:
    """Return the position, in the order that was read, of the option that an answer names."""
    if reply.refusal is not None:
        raise OutputError("the model refused to answer", text=reply.refusal, expected=INSTRUCTION)
    position = option_position(without_reasoning(reply.content or ""), options.texts_in(order))
    if position is None:
        raise OutputError(
            "it names none of the options", text=reply.content or "", expected=INSTRUCTION
        )
    return position


def choice(
    question: str,
    options: Iterable[str] | Mapping[Any, str],
    *,
    system: str | None = None,
    order: str = "given",
    last: Iterable[object] = (),
    **arguments: Any,
) -> Choice:
    """Make a closed question: a call whose value is one of the options.

    The prompt lists each option once, on its own line, under a letter. The answer may be the
    letter, alone, on a line before its reasons, or followed by ``.``, ``)``, ``:`` or ``" -"`` and
    anything else. The letter may be bold, or follow "Option" or "Answer:". The answer may also be an
    option's whole text. Case, quotes and closing punctuation don't matter. Anything else, an answer that
    names two options, and a refusal are missing values in ``.table``; a single call and ``.map`` raise an
    ``OutputError``. They are asked again only with ``output_retries=``.

    The order depends on the options that move, the scope path and the repeat of a ``map`` (outside any
    scope, on the row). So a respondent reads the same order in every wording of the question, with
    every model and in every arm, and new rows change no other row's order; two questions with
    different options have different orders. If the wording is a variable of the question, name the
    respondents with ``key=`` in a scope.

    :param question: the template of the user message, such as ``"Is {{ product }} too dear?"``.
    :param options: 2 to 26 strings, or a dict from code to text; the call returns the text or the
        code. A text is a template, such as ``{"left": "{{ left }}", "right": "{{ right }}"}``, and is
        rendered with the row.
    :param system: the template of the system message.
    :param order: ``"given"``; ``"reverse"``, for half of the respondents; ``"shuffle"``, a new
        random order for each repeat; or ``"rotate"``: each repeat begins one option later, so with as
        many repeats as options that move, each option appears once in each position.
    :param last: options, by text or code, that stay at the end, such as ``["none of these"]``.
    :param arguments: further arguments of :class:`llmcall.LLMCall`, such as ``client=``,
        ``output_retries=`` (0 unless given) and ``temperature=``.
    :raises TypeError: if the options are not a list of texts or a dict, and for an argument that
        the question settles, such as ``output_type``.
    :raises ValueError: for fewer than 2 options or more than 26, for two that an answer cannot tell
        apart, if ``last`` names an unknown option, and for an unknown order.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(lambda messages: "A")  # prefers what stands first
    >>> policy = llmcall.choice(
    ...     "What should {{ town }} do?", ["tax", "ban", "label"], order="rotate", client=client
    ... )
    >>> with llmcall.scope("survey"):
    ...     policy.map([{"town": "Rye"}], repeats=3)
    [['ban', 'label', 'tax']]
    """
    return Choice(question, options, system=system, order=order, last=last, **arguments)
