"""Comparisons of a program's runs: for each actor, the call at which two runs part, and the reason; as Markdown,
too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ..scopes.position import without_repeats
from ..stores.record import Record
from ..support.arguments import checked
from ..support.display import (
    OF_NO_ACTOR,
    counted,
    html_labelled,
    natural,
    one_line,
    printable,
)
from ..support.frames import data_frame
from .divergences import Divergence, divergences
from .pairs import Align, Pair, item_words, paired_runs
from .runs import RecordedRun, is_in_scope, load, short_names

if TYPE_CHECKING:
    import pandas

SCOPES_SHOWN = 4
NAME_CHARACTERS = 60  # of an item's words in a line


class Row(NamedTuple):
    """One call of the runs.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param index: the call's number in the actor's run, from 0: in the first run, or in the other one
        if it was added there.
    :param status: ``"same"``, ``"changed"``, ``"added"``, or ``"missing"`` in the other run.
    :param prompt: the last message of the request in the first run, or ``None`` without such a call.
    :param answer: the answer in the first run, or ``None``.
    :param other_prompt: the prompt in the other run, or ``None``.
    :param other_answer: the answer in the other run, or ``None``.
    :param run: the number of the other run, from 1.
    """

    scope: str
    index: int  # type: ignore[assignment]
    status: str
    prompt: str | None
    answer: str | None
    other_prompt: str | None
    other_answer: str | None
    run: int = 1


def row_of(pair: Pair) -> Row:
    """Return the row of a pair of calls."""
    answers = *_prompt_and_answer(pair.one), *_prompt_and_answer(pair.other)
    return Row(pair.scope, pair.index, pair.status, *answers, pair.run)


class Comparison:
    """A comparison of two or more runs, with the calls at which they diverge; ``str()`` gives a report.

    :ivar same: the number of calls with the same request and the same answer.
    :ivar changed: the number of calls whose request or answer differs.
    :ivar added: the number of calls that only the other run has.
    :ivar missing: the number of calls that only the first run has.
    :ivar divergences: a :class:`.Divergence` for each actor whose runs differ: the first call that differs.
    :ivar pairs: the records of each row.
    :ivar names: the names of the runs, the first run's first.

    >>> comparison = llmcall.compare("examples/survey.jsonl", "examples/survey_need.jsonl")
    >>> comparison
    Comparison(same=0, changed=96, added=0, missing=384, divergences=480)
    >>> sorted({divergence.reason for divergence in comparison.divergences})
    ['missing', 'prompt']
    """

    def __init__(
        self,
        run: RecordedRun,
        others: Sequence[RecordedRun],
        align: Align | None = None,
        scope: str = "",
    ) -> None:
        # A scope hides rows, not reasons: consequences are sought in the whole runs.
        shown_actors: list[list[Pair]] = []
        self.divergences: list[Divergence] = []
        self.names = short_names((run, *others))
        self._served = [", ".join(compared.served) for compared in (run, *others)]
        for number, other in enumerate(others, 1):
            actors = list(paired_runs(run, other, number, align))
            shown = {pairs[0].scope for pairs in actors if not scope or _is_shown(pairs, scope)}
            shown_actors += [pairs for pairs in actors if pairs[0].scope in shown]
            self.divergences += [
                divergence for divergence in divergences(actors) if divergence.scope in shown
            ]
        # Consequences are found in the order of the file; the report is sorted by the actors' names.
        self._words = item_words(chain.from_iterable(shown_actors))
        shown_actors.sort(key=lambda pairs: self._shown_order(pairs[0]))
        self.pairs = [*chain.from_iterable(shown_actors)]
        self.divergences.sort(key=self._shown_order)
        counts = Counter(pair.status for pair in self.pairs)
        self.same, self.changed = counts["same"], counts["changed"]
        self.added, self.missing = counts["added"], counts["missing"]

    @cached_property
    def rows(self) -> list[Row]:
        """Return one :class:`.Row` for each call."""
        return list(map(row_of, self.pairs))

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas DataFrame."""
        return data_frame(self.rows, Row._fields)

    def to_dict(self) -> dict[str, object]:
        """Return the comparison as plain data, for JSON."""
        return {
            "runs": self.names,
            "same": self.same,
            "changed": self.changed,
            "added": self.added,
            "missing": self.missing,
            "divergences": [divergence.to_dict() for divergence in self.divergences],
            "rows": [row._asdict() for row in self.rows],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return (
            f"Comparison(same={self.same}, changed={self.changed}, added={self.added}, missing={self.missing}, "
            f"divergences={len(self.divergences)})"
        )

    def _repr_html_(self) -> str:
        head, *lines = self._lines()
        # an actor and the call, a colon, and the change
        rows = (line.partition(": ") for line in lines)
        return html_labelled(head, ((label, change) for label, _, change in rows))

    def _lines(self) -> Iterator[str]:
        yield (
            f"{counted(len(self.pairs), 'call')}: {self.same:,} the same, {self.changed:,} changed, "
            f"{self.added:,} added, {self.missing:,} missing"
        )
        if not self.divergences:
            yield "The runs do not diverge."
        yield from self._change_lines()
        followers = [divergence for divergence in self.divergences if divergence.caused_by]
        if followers:
            actors = self._actors(followers)
            yield (
                f"{counted(len(actors), 'more actor')} ({self._listed(actors)}) changed later: their prompts quote "
                "answers that had already changed, so this may just follow."
            )
        yield from self._model_lines()

    def _change_lines(self) -> Iterator[str]:
        """Yield a line for each change that is not a consequence: those within calls, then whole calls, by place."""
        groups: dict[tuple[bool, int, str], list[Divergence]] = {}
        for divergence in self.divergences:
            if not divergence.caused_by:
                is_call = divergence.reason in ("missing", "added")
                words = divergence.in_words(self.names[divergence.run], is_one_of_many=True)
                groups.setdefault((is_call, divergence.run, words), []).append(divergence)
        firsts = {
            key: min(divergence.index for divergence in group) for key, group in groups.items()
        }
        for key in sorted(groups, key=lambda key: (key[0], firsts[key])):
            (_, run, words), group = key, groups[key]
            in_run = f" of {printable(self.names[run])}" if len(self.names) > 2 else ""
            if len(group) > 1 and key[0]:
                yield self._calls_line(group)
            elif len(group) > 1:
                names = self._actors(group)
                actors = f"{counted(len(names), 'actor')}{in_run} ({self._listed(names)})"
                yield f"the same change for {actors}: {words}"
            else:
                [divergence] = group
                where = f"{self.actor_name(divergence.scope)}, call {divergence.index + 1}{in_run}"
                yield f"{where}: {divergence.in_words(self.names[run])}"

    def _calls_line(self, group: Sequence[Divergence]) -> str:
        """Return the line for actors that make fewer calls in another run, or more; an item's repeats are one actor."""
        status, run = group[0].status, group[0].run
        actors = {without_repeats(divergence.scope)[0] for divergence in group}
        counts = Counter(
            pair.item
            for pair in self.pairs
            if (pair.status, pair.run) == (status, run) and pair.item in actors
        )
        names = [f"{self.actor_name(item)} ({count:,})" for item, count in counts.items()]
        makes = f"make{'s' if len(names) == 1 else ''} {'fewer' if status == 'missing' else 'more'} calls"
        return f"{counted(len(names), 'actor')} {makes} in {printable(self.names[run])}: {self._listed(names)}"

    def _shown_order(self, row: Pair | Divergence) -> tuple[object, ...]:
        return row.run, natural(self.actor_name(row.scope) if "~" in row.scope else row.scope)

    def actor_name(self, scope: str) -> str:
        """Return an actor's scope in words: of an item of a map, the variables of its question."""
        item, _ = without_repeats(scope)
        repeat = scope[len(item) :].replace("/~", ", repeat ")
        words = (
            one_line(self._words[item], NAME_CHARACTERS) + repeat if item in self._words else scope
        )
        return printable(words) or OF_NO_ACTOR

    def _actors(self, group: Iterable[Divergence]) -> list[str]:
        """Return the names of the actors of some divergences; the repeats of an item are one actor."""
        items = dict.fromkeys(without_repeats(divergence.scope)[0] for divergence in group)
        return list(map(self.actor_name, items))

    def _listed(self, names: Sequence[str]) -> str:
        """Return the first names in one line, and the number of the others."""
        more = len(names) - SCOPES_SHOWN
        return ("; " if self._words else ", ").join(names[:SCOPES_SHOWN]) + (
            f" and {more:,} more" if more > 0 else ""
        )

    def _model_lines(self) -> Iterator[str]:
        """Yield the models that answered and their days, a line for each run, if they differ."""
        if len(set(self._served)) > 1:
            for name, served in zip(self.names, self._served, strict=True):
                yield f"{printable(name)}: answered by {served or 'no model'}"


@checked
def compare(
    run: object, *others: object, align: Callable[[str], str] | Mapping[str, str] | None = None
) -> Comparison:
    """Compare a run with others of the same program.

    Actors are matched by scope path, ignoring a first level that names the whole run; if each run comes
    with a scope, by the path below it. Actors that are named by their system messages (``actor="system"``) are
    matched by the words of these if they changed. An actor's calls are matched first by identical request and
    draw, in any order, then by requests that differ only in parameters. The calls between these, of one caller
    or system message, are matched in order, unless their words clearly say otherwise.

    :param run: a cassette (its path or a :class:`~llmcall.types.Cassette`), an exported file, a cache or
        its directory; or a tuple of one of them and a scope: ``(cache, "rep-1")``.
    :param others: the other runs, at least one.
    :param align: the first run's name for an actor of another run: a dict of scope paths, or a
        function.
    :returns: the comparison.
    :raises CacheError: if a run has no record.
    :raises FileNotFoundError: if a run's file does not exist.
    :raises TypeError: if there is no other run, or an argument is not a run.

    >>> comparison = llmcall.compare("examples/survey.jsonl", "examples/survey_need.jsonl")
    >>> print(comparison)  # doctest: +ELLIPSIS
    480 calls: 0 the same, 96 changed, 0 added, 384 missing
    the same change for 48 actors (45, bus, alone, ...): the prompt changed: [-do you want-] {+does it need+}
    192 actors make fewer calls in survey_need.jsonl: 18, bus, alone, ...
    """
    if not others:
        raise TypeError("compare() takes two runs or more; also give the other run")
    first, *rest = [load(compared) for compared in (run, *others)]
    return Comparison(first, rest, align)


def _is_shown(pairs: Sequence[Pair], scope: str) -> bool:
    """Return whether an actor is in a scope, in either run."""
    paths = {record.scope for pair in pairs for record in (pair.one, pair.other) if record}
    return any(is_in_scope(path, scope) for path in paths)


def _prompt_and_answer(record: Record | None) -> tuple[str | None, str | None]:
    return (None, None) if record is None else (record.prompt, record.answer)


MAX_LINES = 20  # of the changes, before the calls that differ
MAX_CALLS = 50  # that differ, in a table; GitHub takes 65,536 characters
LINE_CHARACTERS, ANSWER_CHARACTERS = 500, 80


def markdown_of(comparison: Comparison) -> str:
    """Return a comparison of two runs as Markdown: what changed, and a folded table of the calls that differ."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    head, *lines = str(comparison).splitlines()
    names = list(map(_code, comparison.names))
    yield f"**{names[0]} → {names[1]}**: {head}"
    yield ""
    yield from (f"- {_code(one_line(line, LINE_CHARACTERS))}" for line in lines[:MAX_LINES])
    if lines[MAX_LINES:]:
        yield f"- and {counted(len(lines) - MAX_LINES, 'more line')}"
    rows = [pair for pair in comparison.pairs if pair.status != "same"]
    if not rows:
        return
    yield ""
    yield f"<details><summary>{counted(len(rows), 'call')} changed, added or missing</summary>"
    yield ""
    yield f"| actor | call | | {names[0]} | {names[1]} |"
    yield "|---|---|---|---|---|"
    for row in map(row_of, rows[:MAX_CALLS]):
        cells = [_code(comparison.actor_name(row.scope)), str(row.index + 1), row.status]
        answers = (row.answer, row.other_answer)
        cells += [
            "" if text is None else _code(one_line(text, ANSWER_CHARACTERS)) for text in answers
        ]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
    if rows[MAX_CALLS:]:
        yield f"and {len(rows) - MAX_CALLS:,} more"
        yield ""
    yield "</details>"


def _code(text: str) -> str:
    """Return a text as a code span, in which nothing is markup, a link or a mention."""
    text = printable(text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest or not text.strip() else f"{fence}{text}{fence}"
