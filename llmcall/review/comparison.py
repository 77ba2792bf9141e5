"""Runs of one program compared: for each actor, the call at which two runs part, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from ..display.data_frames import data_frame
from ..display.formatting import OF_NO_ACTOR, counted
from ..display.printable import printable
from ..errors import short_traceback
from ..types import Record
from .actors import Align, matched_actors
from .causes import causes
from .findings import WHY, Parting, Row
from .pairs import Pair, paired
from .progress import Cause
from .runs import RecordedRun, load

if TYPE_CHECKING:
    import pandas

SCOPES_SHOWN = 4


class Comparison:
    """What two or more runs have in common, and where they diverge; ``str()`` of it is a report.

    :ivar same: the number of calls with the same request and the same answer.
    :ivar changed: the number of calls whose request or answer differs.
    :ivar added: the number of calls that only the other run has.
    :ivar missing: the number of calls that only the first run has.
    :ivar parted: one :class:`.Parting` for each actor whose runs diverge.
    :ivar later: for each actor whose runs diverge by a draw, the first call after that in which the
        prompt, the parameters or the model changed by more than a quoted earlier answer; also as a
        :class:`.Parting`.
    :ivar renamed: the actors that were matched by their first prompt: the other run's scope to the
        first one's. If actors are named by their system message, and it was edited, the most similar
        prompts are matched.
    :ivar pairs: the records of each row.

    >>> comparison = llmcall.compare("examples/survey.jsonl", "examples/survey_need.jsonl")
    >>> comparison
    Comparison(same=0, changed=96, added=0, missing=384, parted=480)
    >>> sorted({parting.why for parting in comparison.parted})
    ['missing', 'prompt']
    """

    def __init__(
        self, run: RecordedRun, others: Sequence[RecordedRun], align: Align | None = None
    ) -> None:
        self.pairs: list[Pair] = []
        self.parted: list[Parting] = []
        self.later: list[Parting] = []
        self.renamed: dict[str, str] = {}
        self._edited: dict[str, str] = {}
        self._names = [each.name for each in (run, *others)]
        self._served = [", ".join(each.served) for each in (run, *others)]
        for run_number, other in enumerate(others, 1):
            self._add(run_number, run, other, align)
        counts = Counter(pair.status for pair in self.pairs)
        self.same, self.changed = counts["same"], counts["changed"]
        self.added, self.missing = counts["added"], counts["missing"]

    def _add(
        self, run_number: int, run: RecordedRun, other: RecordedRun, align: Align | None
    ) -> None:
        """Add the calls of one of the other runs."""
        matched = matched_actors(run, other, align)
        self.renamed |= matched.renamed
        self._edited |= matched.edited
        actors, other_actors = matched.actors, matched.other_actors
        pairs_by_scope = {
            scope: list(
                paired(scope, run_number, actors.get(scope, []), other_actors.get(scope, []))
            )
            for scope in {**actors, **other_actors}
        }
        causes_by_scope = causes(pairs_by_scope, run.normalize, other.normalize)
        for scope, pairs in pairs_by_scope.items():
            self.pairs += pairs
            parting, later = causes_by_scope[scope]
            if parting is not None:
                self.parted.append(_parting(parting, pairs))
            if later is not None:
                self.later.append(_parting(later, pairs))

    @cached_property
    def rows(self) -> list[Row]:
        """Return one :class:`.Row` for each call."""
        return [
            Row(
                pair.scope,
                pair.place,
                pair.status,
                *_prompt_and_answer(pair.one),
                *_prompt_and_answer(pair.other),
                pair.run,
            )
            for pair in self.pairs
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas DataFrame."""
        return data_frame(self.rows, Row._fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data, for JSON."""
        counts = {
            name: getattr(self, name) for name in ("same", "changed", "added", "missing", "renamed")
        }
        lists: dict[str, list[Any]] = {
            "parted": self.parted,
            "later": self.later,
            "rows": self.rows,
        }
        return counts | {
            name: [each._asdict() for each in values] for name, values in lists.items()
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return (
            f"Comparison(same={self.same}, changed={self.changed}, added={self.added}, missing={self.missing}, "
            f"parted={len(self.parted)})"
        )

    def _repr_html_(self) -> str:
        head, *rest = self._lines()
        items = "".join(f"<li>{escape(line.strip())}</li>" for line in rest)
        return f"<div><b>{escape(head)}</b><ul>{items}</ul></div>"

    def _lines(self) -> Iterator[str]:
        yield (
            f"{counted(len(self.pairs), 'call')}: {self.same:,} the same, {self.changed:,} changed, "
            f"{self.added:,} added, {self.missing:,} missing"
        )
        if not self.same and not self.changed:
            yield "The runs have no actor in common: their scopes and their prompts differ."
            return
        for other_scope, scope in sorted(self.renamed.items()):
            how = (
                "its system message, which names it, was edited"
                if other_scope in self._edited
                else "matched by its first prompt"
            )
            yield f"{_scope_name(scope)} is called {_scope_name(other_scope)} in the other run ({how})"
        if not self.parted:
            yield "The runs do not diverge."
        yield from self._change_lines(self.parted, "")
        yield from self._change_lines(self.later, ", after it had diverged")
        yield from self._model_lines()

    def _model_lines(self) -> Iterator[str]:
        """Yield a line for each run, with the models that answered and their days, if these differ."""
        if len(set(self._served)) == 1:
            return
        for name, served in zip(self._names, self._served, strict=True):
            yield f"{printable(name)}: answered by {served or 'no model'}"

    def _change_lines(self, partings: Iterable[Parting], when: str) -> Iterator[str]:
        """Yield a line for each change, however many scopes it is in: certain causes, then doubtful
        ones, then whole calls.
        """
        groups: dict[tuple[bool, bool, int, str, str, str], list[Parting]] = {}
        for parting in partings:
            is_call = parting.why in ("missing", "added")
            words = "" if is_call else parting.in_words()
            key = is_call, bool(parting.doubt), parting.run, parting.why, words, parting.perhaps
            groups.setdefault(key, []).append(parting)
        for (is_call, _, run, why, words, _), group in sorted(
            groups.items(), key=lambda each: each[0][:2]
        ):
            of_run = f" of {self._names[run]}" if len(self._names) > 2 else ""
            scopes = ", ".join(_scope_name(parting.scope) for parting in group[:SCOPES_SHOWN])
            if len(group) > 1:
                more = (
                    f" and {len(group) - SCOPES_SHOWN:,} more" if len(group) > SCOPES_SHOWN else ""
                )
                where = f"the same change in {len(group):,} scopes{of_run} ({scopes}{more})"
                change = "" if is_call else f": {words}"
            else:
                where = f"{scopes}, {group[0].call}{of_run}"
                change = f": {group[0].in_words()}"
            yield f"{where}{when}: {WHY[why]}{change}{group[0].perhaps}"


@short_traceback
def compare(run: Any, *others: Any, align: Align | None = None) -> Comparison:
    """Compare a run with others of the same program.

    Actors are matched by their scope paths, without a first level that names the whole run; if a
    scope was given with each run, by their paths below these. An actor's calls are matched by their
    requests and draws, wherever they stand; the others by their requests or, if these differ, by
    their place. If a change only repeats an earlier answer in the history, the runs
    do not count as diverging there.

    :param run: a cassette (its path or a :class:`~llmcall.Cassette`), an exported file, a cache or
        its directory; or a tuple of one of them and a scope: ``(cache, "rep-1")``.
    :param others: the other runs, at least one.
    :param align: says what an actor of another run is called in the first: a dict of scope paths,
        or a function.
    :returns: the comparison.
    :raises CacheError: if a run has no record.
    :raises FileNotFoundError: if a run's file does not exist.
    :raises TypeError: if there is no other run, or an argument is not a run.

    >>> comparison = llmcall.compare("examples/survey.jsonl", "examples/survey_need.jsonl")
    >>> print(comparison)  # doctest: +ELLIPSIS
    480 calls: 0 the same, 96 changed, 0 added, 384 missing
    the same change in 96 scopes (village/~072c86d9f30d3d75, ...): the prompt changed: [-do you want-] {+does it need+}
    the same change in 384 scopes (village/~04ad2bfcc8483d89, ...): the other run ends, or does not make this call
    """
    if not others:
        raise TypeError("compare() takes at least two runs")
    first, *rest = [load(each) for each in (run, *others)]
    return Comparison(first, rest, align)


def _parting(cause: Cause, pairs: Sequence[Pair]) -> Parting:
    """Return a cause as it is told."""
    pair = pairs[cause.place]
    return Parting(
        pair.scope,
        pair.place,
        cause.why,
        cause.before,
        cause.after,
        pair.run,
        cause.doubt,
        _served(pair) if cause.why == "draw" else (),
    )


def _served(pair: Pair) -> tuple[str, ...]:
    """Return the models that answered in both runs, if they differ."""
    names = [record.served for record in (pair.one, pair.other) if record and record.served]
    return tuple(names) if len(set(names)) > 1 else ()


def _prompt_and_answer(record: Record | None) -> tuple[str | None, str | None]:
    return (None, None) if record is None else (record.prompt, record.answer)


def _scope_name(scope: str) -> str:
    return printable(scope) or OF_NO_ACTOR
