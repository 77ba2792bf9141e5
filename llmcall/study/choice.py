"""Closed questions: a call whose value is one of some options, in an order that is known."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from ..calls import Conversation, LLMCall, SendMessage, TableJob, converse, row_variables
from ..display.data_frames import import_pandas
from ..display.formatting import counted
from ..errors import OutputError, short_traceback
from ..outputs import INSTRUCTION, correction, without_reasoning
from ..parallel.bar import is_shown
from ..parallel.map import map as run_map
from ..parallel.rows import is_frame, rows_of
from ..parallel.variations import CrossedJob, crossing
from .choice_options import checked_options
from .choice_orders import Respondent, all_orders, moving_order, warn_of_given_order
from .choice_shares import FirstAnswer, SharesJob, check_for_shares, mean_shares, share_columns

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from ..types import Reply

# What a question settles by itself.
_SETTLED = {
    "user": "the question is the user message's template",
    "user_template_name": "the question is the user message's template",
    "output_type": "the value is one of the options",
    "response_format": "the options are listed only in the prompt, because models prefer a second list",
}


class Choice(LLMCall):
    """A closed question, made by :func:`llmcall.choice`: an :class:`LLMCall` whose value is one of
    its options, or ``None`` if the answer is none of them.

    :ivar question: the template of the user message.
    :ivar options: what it may return, in the order given.
    :ivar order: the name of the order.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(["B", "It depends."])
    >>> policy = llmcall.choice("What should the town do?", ["tax", "ban"], client=client)
    >>> policy(), policy()
    ('ban', None)
    >>> print(client.requests[0].messages[0]["content"])
    What should the town do?
    <BLANKLINE>
    A. tax
    B. ban
    <BLANKLINE>
    Answer with one letter only.
    """

    def __init__(
        self,
        question: str,
        options: Iterable[str] | Mapping[Any, str],
        *,
        order: str = "given",
        last: Iterable[Any] = (),
        output_retries: int = 0,
        **arguments: Any,
    ) -> None:
        _check_arguments(question, arguments)
        super().__init__(user=question, output_retries=output_retries, **arguments)
        self._options = checked_options(options, last, order)
        self.options = self._options.values
        self.order = order
        self.question = question

    def __repr__(self) -> str:
        options = ", ".join(map(repr, self.options))
        return f"Choice({self.question!r}, [{options}], order={self.order!r})"

    @property
    def wants_names(self) -> bool:
        """Return whether the items of a map have names outside any scope, too: the order depends on
        them.
        """
        return self.order != "given"

    def columns(self) -> tuple[str, ...]:
        """Return the names of what has a column of its own in a table, beside the value."""
        return ("position", "order")

    @short_traceback
    def map(self, rows: Iterable[Any], **map_options: Any) -> Any:
        """Ask about each row, and return the options chosen, in the order of the rows.

        :param rows: dicts of the question's variables, or a pandas DataFrame.
        :param map_options: those of :func:`llmcall.map`.
        :returns: a list, with ``None`` for an answer that is none of the options; with ``repeats``,
            a list of lists; with ``dry_run=True`` a :class:`.Plan`.
        """
        return super().map(rows, **map_options)

    @short_traceback
    def table(self, rows: Iterable[Any], **map_options: Any) -> Any:
        """Ask about each row, and return a DataFrame with a row for each row and repeat.

        Its columns are those of :meth:`LLMCall.table`, and after ``value``

        - ``position``, the place of the chosen option in the list that was read, from 1
        - ``order``, all options as the letters A, B, C, … stood for them.

        An answer that is none of the options is a missing value, and no error: its text is in
        ``unread``, or in ``refusal``. The table's ``attrs`` count both under these names; with a
        progress bar, a line below it says so.

        :param rows: dicts of the question's variables, or a pandas DataFrame.
        :param map_options: those of :func:`llmcall.map`.
        :raises ConfigError: if pandas is not installed.
        """
        table = super().table(rows, **map_options)
        if map_options.get("dry_run"):
            return table
        is_missing = table["value"].isna() & table["error"].isna()
        is_refusal = table["refusal"].notna()
        refused = int((is_missing & is_refusal).sum())
        unread = int((is_missing & ~is_refusal & table["unread"].notna()).sum())
        table.attrs.update(unread=unread, refusal=refused)
        if (unread or refused) and is_shown(map_options.get("progress")):
            line = f"{counted(unread, 'answer')} named no option, {counted(refused, 'refusal')}"
            print(line, file=sys.stderr)
        return table

    def conversation(self, variables: dict[str, Any]) -> Generator[SendMessage, Any, Conversation]:
        """Ask until an answer names an option or the tries are used up; an API's failure is
        returned, not raised.
        """
        respondent = Respondent.current()
        order = self._full_order(moving_order(self.order, self._moving_count, respondent))
        conversation = yield from converse(
            SendMessage(self.client, self.prompt(variables, order), self.model_params),
            read=lambda reply: self._read_position(reply, order),
            correction=correction(INSTRUCTION),
            most_corrections=self.output_retries,
            note_messages=self._note_messages,
        )
        warn_of_given_order(self.order, respondent)
        position = conversation.value
        is_missing = isinstance(conversation.failure, OutputError)
        return conversation._replace(
            value=None if position is None else self.options[order[position]],
            failure=None if is_missing else conversation.failure,
            is_missing=is_missing,
            fields={
                "position": None if position is None else position + 1,
                "order": tuple(self.options[index] for index in order),
            },
        )

    def _read_position(self, reply: Reply, order: tuple[int, ...]) -> int:
        """Return the position, in the order that was read, of the option that an answer names.

        :raises OutputError: for an answer that names none, and for a refusal.
        """
        if reply.refusal is not None:
            raise OutputError("the model refused to answer", text=reply.refusal)
        position = self._options.read(without_reasoning(reply.content or ""), order)
        if position is None:
            raise OutputError("it names none of the options")
        return position

    def shares(
        self,
        rows: Iterable[Any],
        *,
        logprobs: bool = True,
        vary: Mapping[str, Any] | None = None,
        **map_options: Any,
    ) -> Any:
        """Estimate how likely each option is for each row.

        The probabilities are those of the answer's first token: the letter, also with a space
        before it or in lower case. They are averaged over all rotations of the options that move,
        one call each; for ``order="reverse"`` over both directions, and for ``order="given"`` there
        is one order. Most servers give them as they are before the temperature.

        :param rows: dicts of the question's variables, or a pandas DataFrame.
        :param logprobs: whether to read log probabilities. ``False`` counts the draws of
            ``repeats`` instead, in the orders of :meth:`table`.
        :param vary: crosses the rows with levels, as for :meth:`LLMCall.table`.
        :param map_options: those of :func:`llmcall.map`. Without ``logprobs=False``, ``repeats`` is
            an error, since the probabilities need no draws. With ``on_error="none"`` or
            ``"return"`` a row of which a call failed has missing values; ``"return"`` adds a column
            ``error``.
        :returns: a DataFrame with the rows' columns, then ``p_<option>`` for each option (its code
            if it has one) and ``p_other`` for what falls on no option, from 0 to 1; with
            ``dry_run=True`` a :class:`.Plan`.
        :raises ConfigError: if pandas is not installed, or, before a second call, if the server
            gives no log probabilities or the model reasons before it answers.
        :raises ValueError: for more than 20 options with log probabilities, and if two columns
            would have the same name.

        >>> from llmcall.testing import ScriptedClient
        >>> client = ScriptedClient(["A", "B", "A", "neither"])
        >>> policy = llmcall.choice("What should {{ town }} do?", ["tax", "ban"], client=client)
        >>> policy.shares([{"town": "Rye"}], logprobs=False, repeats=4)
          town  p_tax  p_ban  p_other
        0  Rye    0.5   0.25     0.25
        """
        frame, rows = _frame_and_rows(rows)
        crossed = None
        questions = [self]
        jobs: list[Any]
        if vary is not None:
            crossed = crossing(self, [row_variables(row) for row in rows_of(rows)], vary)
            questions, rows, frame = crossed.calls, crossed.items, crossed.frame(frame)
        columns = share_columns(self.options, list(frame.columns))
        is_plan = map_options.get("dry_run", False)
        row_jobs = [question.__map_job__() for question in questions]
        if logprobs:
            orders = self._orders_of_shares(map_options)
            jobs = _probability_jobs(questions, orders)
            map_options["repeats"] = len(orders)
        else:
            jobs = row_jobs if is_plan else [TableJob(job) for job in row_jobs]
        answers = run_map(_crossed_job(jobs), rows, **map_options)
        if is_plan:
            return answers
        if map_options.get("repeats", 1) == 1:
            answers = [[answer] for answer in answers]
        row_shares = [
            mean_shares(each) if logprobs else self._counted_shares(each) for each in answers
        ]
        table = frame.reset_index(drop=True)
        for number, name in enumerate(columns):
            table[name] = [
                math.nan if isinstance(each, Exception) or each is None else each[number]
                for each in row_shares
            ]
        if map_options.get("on_error") == "return":
            table["error"] = [each if isinstance(each, Exception) else None for each in row_shares]
        return table

    def _orders_of_shares(self, map_options: Mapping[str, Any]) -> list[tuple[int, ...]]:
        """Return the orders over which probabilities are averaged.

        :raises ValueError: for ``repeats``.
        """
        if "repeats" in map_options:
            raise ValueError(
                "repeats counts draws, and log probabilities need none: leave it out, or give "
                "logprobs=False"
            )
        return [self._full_order(each) for each in all_orders(self.order, self._moving_count)]

    def _counted_shares(
        self, draws: list[Conversation | Exception | None]
    ) -> list[float] | Exception | None:
        """Return the shares among a row's draws; if one failed, its error, or ``None``."""
        counts = [0] * (len(self.options) + 1)
        for draw in draws:
            if draw is None or isinstance(draw, Exception):
                return draw
            if draw.failure is not None or draw.reply is None:
                return draw.failure
            is_option = draw.value is not None
            counts[self.options.index(draw.value) if is_option else -1] += 1
        return [count / len(draws) for count in counts]

    @property
    def model(self) -> str:
        """Return the name of the model that it asks."""
        return self.client.model_named(self.model_params.get("model"))

    @property
    def _moving_count(self) -> int:
        """Return how many options move."""
        return len(self._options.moving)

    def _full_order(self, order: tuple[int, ...]) -> tuple[int, ...]:
        """Return the order of all options: of those that move, then of the last ones."""
        moving = self._options.moving
        return (*(moving[index] for index in order), *self._options.last)

    def prompt(self, variables: dict[str, Any], order: tuple[int, ...]) -> list[dict[str, Any]]:
        """Return the messages that ask the question with its options in an order.

        :param order: the index of each option as it was given.
        """
        messages = self.render(**variables)
        parts = (messages[-1]["content"], self._options.listing(order), INSTRUCTION)
        messages[-1]["content"] = "\n\n".join(parts)
        return messages


def choice(
    question: str,
    options: Iterable[str] | Mapping[Any, str],
    *,
    system: str | None = None,
    order: str = "given",
    last: Iterable[Any] = (),
    **arguments: Any,
) -> Choice:
    """Make a closed question: a call whose value is one of the options.

    The prompt lists each option once, on a line of its own under a letter. The answer may be the
    letter, alone or followed by ``.``, ``)`` or ``:`` and anything else, or an option's whole text.
    Case, quotes and closing punctuation don't matter. Anything else, and a refusal, is a missing
    value: the call returns ``None``, and asks again only if ``output_retries`` says so.

    The order depends on the scope path and the repeat of a ``map`` (outside any scope, on the row).
    So a respondent reads the same order in every wording, with every model and in every arm, and
    new rows change nobody's order. If the wording is a variable of the question, ``key=`` has to
    name the respondents.

    :param question: the template of the user message, such as ``"Is {{ product }} too dear?"``.
    :param options: 2 to 26 texts, or a dict of codes and texts; the call returns the text or the
        code.
    :param system: the template of the system message.
    :param order: ``"given"``; ``"reverse"``, for half of the respondents; ``"shuffle"``, a new
        random order for each repeat; or ``"rotate"``: each repeat begins one option later, so with as
        many repeats as options that move, each option appears once in each position.
    :param last: options, by text or code, that stay at the end, such as ``["none of these"]``.
    :param arguments: further arguments of :class:`LLMCall`, such as ``client=``,
        ``output_retries=`` (0 unless given) and ``temperature=``.
    :raises TypeError: if the options are not a list of texts or a dict, and for an argument that
        the question settles, such as ``output_type``.
    :raises ValueError: for fewer than 2 options or more than 26, for options that no answer could
        tell apart, if ``last`` names something else than an option, and for an unknown order.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(lambda messages: "A")  # prefers what stands first
    >>> policy = llmcall.choice(
    ...     "What should {{ town }} do?", ["tax", "ban", "label"], order="rotate", client=client
    ... )
    >>> with llmcall.scope("survey"):
    ...     policy.map([{"town": "Rye"}], repeats=3)
    [['label', 'tax', 'ban']]
    """
    return Choice(question, options, system=system, order=order, last=last, **arguments)


def _check_arguments(question: Any, arguments: Mapping[str, Any]) -> None:
    if not isinstance(question, str):
        raise TypeError(f"question is {question!r}; it must be a string, the template of a message")
    for name, reason in _SETTLED.items():
        if name in arguments:
            raise TypeError(f"a choice takes no {name}: {reason}")


def _probability_jobs(
    questions: Iterable[Choice], orders: Sequence[tuple[int, ...]]
) -> list[SharesJob]:
    """Return what asks for the probabilities of questions; the same model proves itself once.

    :raises ValueError: for more than 20 options.
    :raises ConfigError: if a model is known to give no log probabilities.
    """
    jobs = []
    first_answers: dict[str, FirstAnswer] = {}
    for question in questions:
        check_for_shares(question)
        first = first_answers.setdefault(question.model, FirstAnswer())
        jobs.append(SharesJob(question, orders, first))
    return jobs


def _crossed_job(jobs: Sequence[Any]) -> Any:
    """Return what asks about the rows of all cells: the job itself if nothing varies."""
    return jobs[0] if len(jobs) == 1 else CrossedJob(tuple(jobs))


def _frame_and_rows(rows: Any) -> tuple[Any, Any]:
    """Return rows as a DataFrame, and as a map takes them.

    :raises ConfigError: if pandas is not installed.
    """
    pandas = import_pandas()
    if is_frame(rows):
        return rows, rows
    rows = list(rows)
    return pandas.DataFrame(rows), rows
