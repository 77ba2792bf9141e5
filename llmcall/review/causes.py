"""What made the runs of some actors part: causes, told apart from what only repeats earlier answers.

A recording keeps the order of each actor's calls, and not that between actors. So the calls are gone
through as the runs may have gone: an actor's next call can be passed if its request is the same, or
differs only by answers that came before it. If no actor can go on, one of the next calls must be a
cause. Another actor's answer came before a call if it stands in an earlier round. In the same round it
may have come before, and counts if it can be passed first. In a later round it never counts.

A short answer, such as "yes" or "3", may stand in a prompt by chance. So it counts only if it is a
message of its own, or if the program repeats it in other rounds as well.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache, partial
from heapq import merge
from itertools import accumulate
from typing import Any, NamedTuple

from ..differences.fields import Difference, differences
from ..differences.words import passages, pieces
from ..display.formatting import OUTSIDE_ANY_SCOPE, as_json
from ..display.printable import printable
from ..records.answers import same_answer
from ..types import Record
from .changes import Change, Part, Parts, Turn, order_of
from .forms import Form, forms
from .pairs import Pair
from .quotes import LONG, Admits, ChangedAnswers, FormPair, Quote
from .repeats import CONTEXTS, PROMPT, Repeats
from .texts import Text, text_of
from .unquoted import quotes, without_quotes

Normalize = Callable[[str], str] | None
Words = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]  # of changed passages, in both runs
Came = Callable[["Actor", Change], bool]

QUOTING = ("assistant", "tool", "function")  # roles of messages that repeat a whole answer
BEFORE, BESIDE, AFTER = range(3)
PERHAPS = "perhaps a consequence"


class Cause(NamedTuple):
    """Why an actor's runs part at a call.

    :param scope: the actor's.
    :param number: the call's place among the actor's, from 0.
    :param why: as of a :class:`~llmcall.review.comparison.Parting`, as are the others.
    """

    scope: str
    number: int
    why: str
    before: str | None
    after: str | None
    doubt: str = ""


class Actor:
    """The calls of one actor, and how far they were gone through.

    :ivar passed: how many calls came before what is looked at.
    :ivar noted: how many of them the index of answers knows of.
    :ivar parting: the first call at which its runs part.
    :ivar later: the first call after another draw that is a cause again.
    """

    def __init__(self, scope: str, calls: list[Pair]) -> None:
        self.scope = scope
        self.calls = calls
        self.passed = 0
        self.noted = 0
        self.parting: Cause | None = None
        self.later: Cause | None = None

    def progress(self, index: int) -> tuple[int, float]:
        """Return how far a call is in the run: its number, and its share of the actor's calls."""
        return index, index / len(self.calls)

    def is_done(self) -> bool:
        """Return whether nothing more is to be told of it."""
        return self.passed == len(self.calls)

    def part(self, cause: Cause) -> None:
        """Note a cause, and go past it; the rest of the calls is passed if no more causes count."""
        self.passed += 1
        if self.parting is None:
            self.parting = cause
            if cause.why != "draw":
                self.passed = len(self.calls)
        elif cause.why in ("prompt", "parameters", "model"):
            self.later = cause
            self.passed = len(self.calls)


def causes(
    actors: Mapping[str, list[Pair]], normalize: Normalize, other_normalize: Normalize
) -> dict[str, tuple[Cause | None, Cause | None]]:
    """Return what made each actor's runs part, and what did again after another draw.

    :param normalize: what the first recording takes out of texts, or ``None``.
    :param other_normalize: what the other one does.
    """
    runs = Runs(actors, normalize, other_normalize)
    runs.go()
    return {scope: (actor.parting, actor.later) for scope, actor in runs.actors.items()}


class Runs:
    """Two runs that are gone through at once."""

    def __init__(
        self,
        actors: Mapping[str, list[Pair]],
        normalize: Normalize,
        other_normalize: Normalize,
    ) -> None:
        self.actors = {scope: Actor(scope, calls) for scope, calls in actors.items()}
        self._normalizers = normalize, other_normalize
        self._forms: dict[int, dict[Hashable, Form]] = {}
        self._explained: set[tuple[str, str, str]] = set()
        self._unquotable: set[tuple[str, str]] = set()
        self._holding: dict[Words, Parts] = {}
        self._moved: list[Actor] = []

    # The order

    def go(self) -> None:
        """Go through all calls."""
        waiting = list(self.actors.values())
        while waiting:
            passed = [actor.passed for actor in waiting]
            for actor in waiting:
                while not actor.is_done() and self._pass(actor):
                    self._moved.append(actor)
            is_stuck = [actor.passed for actor in waiting] == passed
            waiting = [actor for actor in waiting if not actor.is_done()]
            if is_stuck:
                self._part(waiting)
                waiting = [actor for actor in waiting if not actor.is_done()]

    def _pass(self, actor: Actor) -> bool:
        """Go past an actor's next call, unless it is a cause, or may repeat what is still to come."""
        call = actor.calls[actor.passed]
        if call.one is None or call.other is None:
            before = None if call.one is None else call.one.prompt
            after = None if call.other is None else call.other.prompt
            actor.part(Cause(actor.scope, actor.passed, call.status, before, after))
        elif call.status == "same":
            actor.passed += 1
        elif call.is_same_request:
            actor.part(Cause(actor.scope, actor.passed, "draw", call.one.answer, call.other.answer))
        elif not self._unexplained(actor, self._has_come):
            actor.passed += 1
        else:
            return False
        return True

    def _part(self, stuck: list[Actor]) -> None:
        """Find the causes among the next calls of all actors that are not done."""
        sought = {actor.scope: self._unexplained(actor, self._may_come) for actor in stuck}
        awaited = {actor.scope: self._awaited(actor) for actor in stuck if not sought[actor.scope]}
        waiting_for = _reversed(awaited)
        certain: list[Cause] = []
        doubtful: list[Cause] = []
        waiting: list[Cause] = []
        for actor in stuck:
            found = sought[actor.scope]
            own = []
            if found:
                came = partial(self._came_without, _behind(actor.scope, waiting_for))
                own = [each for each in found if not self._quoted(actor, each, came)]
            if own:
                certain.append(self._cause(actor, own, self._has_come))
            elif found and all(self._quoted(actor, each, self._has_come) for each in found):
                doubtful.append(self._cause(actor, found, self._has_come))
            else:
                found = self._unexplained(actor, self._has_come)
                waiting.append(self._cause(actor, found, self._may_come))
        # Those that wait for each other may each repeat another's answer: one must be a cause.
        first = min((cause.number for cause in waiting), default=0)
        for cause in certain or doubtful or [each for each in waiting if each.number == first]:
            self.actors[cause.scope].part(cause)
            self._moved.append(self.actors[cause.scope])

    def _awaited(self, actor: Actor) -> set[str]:
        """Return the actors whose next answers an actor's next call repeats."""
        return {
            quote.part.change.scope
            for each in self._differences(actor)
            for quote in self._quotes(actor, each, self._admits(actor, each, self._may_come)) or ()
            if not self._has_come(actor, quote.part.change)
        }

    def _came_without(self, behind: set[str], actor: Actor, change: Change) -> bool:
        """Return whether an answer may have come before a call that other actors wait for.

        :param behind: these actors.
        """
        is_open = change.scope not in behind and self._may_come(actor, change)
        return is_open or self._has_come(actor, change)

    def _order(self, actor: Actor, change: Change) -> int:
        """Return whether an answer came before an actor's next call, as far as rounds tell."""
        if change.scope == actor.scope:
            return BEFORE if change.number < actor.passed else AFTER
        return self._turn_order(actor, (change.number, change.calls))

    def _turn_order(self, actor: Actor, turn: Turn) -> int:
        """Return whether a turn of other actors comes before an actor's next call."""
        its = turn[0], turn[0] / turn[1]
        own = actor.progress(actor.passed)
        if its[0] < own[0] and its[1] < own[1]:
            return BEFORE
        return AFTER if its[0] > own[0] and its[1] > own[1] else BESIDE

    def _that_came(self, actor: Actor, parts: Parts, came: Came) -> Iterator[Part]:
        """Yield the parts that came before an actor's next call, in their order.

        An actor's own turns are in the same order, apart from the next call itself.
        """
        found: list[Iterable[Part]] = []
        for turn, each in parts.by_turn.items():
            order = self._turn_order(actor, turn)
            if order == BEFORE:
                found.append(each)
            elif order == BESIDE and came == self._has_come:
                found.append(parts.passed.get(turn, ()))
            elif order == BESIDE:
                found.append(part for part in each if came(actor, part.change))
        return merge(*found, key=order_of)

    # What a call repeats

    @cached_property
    def _changes(self) -> list[Change]:
        """The answers that differ."""
        return [
            Change(
                scope,
                index,
                self._forms_of(call.one, 0),
                self._forms_of(call.other, 1),
                len(actor.calls),
            )
            for scope, actor in self.actors.items()
            for index, call in enumerate(actor.calls)
            if call.one and call.other and call.status == "changed"
            if not same_answer(call.one, call.other)
        ]

    @cached_property
    def _repeats(self) -> Repeats:
        calls = {
            scope: [(call.one, call.other) for call in actor.calls]
            for scope, actor in self.actors.items()
        }
        sources = dict.fromkeys(change.scope for change in self._changes)
        return Repeats(calls, sources, self._forms_of)

    @cached_property
    def _index(self) -> ChangedAnswers:
        return ChangedAnswers(self._changes)

    @property
    def _answers(self) -> ChangedAnswers:
        """The answers that differ, by their words; they know which calls were passed."""
        while self._moved:
            actor = self._moved.pop()
            for number in range(actor.noted, actor.passed):
                self._index.note_passed(actor.scope, number)
            actor.noted = actor.passed
        return self._index

    @cached_property
    def _earliest(self) -> list[float]:
        """The smallest share of its actor's calls that any changed answer has up to each call."""
        shares: dict[int, float] = {}
        for change in self._changes:
            share = change.number / change.calls
            shares[change.number] = min(share, shares.get(change.number, 1))
        numbers = range(max(shares, default=-1) + 1)
        return list(accumulate((shares.get(number, 1) for number in numbers), min))

    def _any_before(self, actor: Actor) -> bool:
        """Return whether any changed answer came before an actor's next call."""
        number, share = actor.progress(actor.passed)
        last = min(number, len(self._earliest)) - 1
        return last >= 0 and self._earliest[last] < share

    @cached_property
    def _by_word(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """The indexes of the changes whose answers have a word, in each run."""
        found: tuple[dict[str, list[int]], dict[str, list[int]]] = {}, {}
        for index, change in enumerate(self._changes):
            for by_word, said in zip(found, (change.ours, change.theirs), strict=True):
                for word in {word for form in said.values() for word in form.words}:
                    by_word.setdefault(word, []).append(index)
        return found

    def _that_hold(self, changed: Words) -> Parts:
        """Return the changes whose answers contain the words that changed in a prompt."""
        if changed in self._holding:
            return self._holding[changed]
        found = self._holding[changed] = Parts()
        if not changed or not all(gone and new for gone, new in changed):
            return found
        indexes = [
            by_word.get(word, [])
            for piece in changed
            for by_word, words in zip(self._by_word, piece, strict=True)
            for word in words
        ]
        for index in min(indexes, key=len):
            change = self._changes[index]
            if all(
                _holds(change.ours, gone) and _holds(change.theirs, new) for gone, new in changed
            ):
                part = found.add(change)
                self._answers.watch(found, part)
                if change.number < self.actors[change.scope].passed:
                    found.note_passed(part)
        return found

    def _forms_of(self, record: Record, run: int) -> dict[Hashable, Form]:
        if id(record) not in self._forms:
            self._forms[id(record)] = forms(record, self._normalizers[run])
        return self._forms[id(record)]

    def _differences(self, actor: Actor) -> list[Difference]:
        call = actor.calls[actor.passed]
        assert call.one is not None and call.other is not None
        return list(differences(call.one.request, call.other.request))

    def _unexplained(self, actor: Actor, came: Came) -> list[Difference]:
        """Return what differs in an actor's next call beyond the answers that it repeats."""
        return [
            each
            for each in self._differences(actor)
            if not self._is_explained(actor, each, self._admits(actor, each, came))
        ]

    def _is_explained(self, actor: Actor, each: Difference, admits: Admits) -> bool:
        key = actor.scope, _plain_text(each.recorded), _plain_text(each.asked)
        if key in self._explained:
            return True
        found = self._quotes(actor, each, admits)
        if found and all(self._has_come(actor, quote.part.change) for quote in found):
            self._explained.add(key)
        return bool(found)

    def _quotes(self, actor: Actor, each: Difference, admits: Admits) -> list[Quote] | None:
        """Return the answers that explain a difference; ``None`` if they do not."""
        if each.field not in PROMPT:
            return None
        before, after = _plain_text(each.recorded), _plain_text(each.asked)
        if (before, after) in self._unquotable:
            return None
        found = quotes(before, after, self._answers, admits)
        if found is None and quotes(before, after, self._answers, _admit_any) is None:
            self._unquotable.add((before, after))
        return found

    def _admits(self, actor: Actor, difference: Difference, came: Came) -> Admits:
        """Return what tells whether an actor's next call repeats an answer."""

        def admits(parts: Parts, pair: FormPair, text: Text, at: int) -> Part | None:
            return self._known(actor, difference, parts, came, pair, text, at)

        return admits

    def _has_come(self, actor: Actor, change: Change) -> bool:
        """Return whether an answer came before an actor's next call."""
        order = self._order(actor, change)
        is_passed = change.number < self.actors[change.scope].passed
        return order == BEFORE or (order == BESIDE and is_passed)

    def _may_come(self, actor: Actor, change: Change) -> bool:
        """Return whether an answer came before an actor's next call, or may have in the same round."""
        return self._order(actor, change) != AFTER

    def _known(
        self,
        actor: Actor,
        difference: Difference,
        parts: Parts,
        came: Came,
        pair: FormPair,
        text: Text,
        at: int,
    ) -> Part | None:
        """Return the first part that a text repeats, and whose words it does not hold by chance."""
        if max(pair[0].size, pair[1].size) >= LONG or pair[0].words == pair[1].words:
            return next(self._that_came(actor, parts, came), None)
        found: list[Iterable[Part]] = [
            repeated
            for words in CONTEXTS
            for repeated in self._repeated(actor, text.words_before(at, words), pair[0], parts)
        ]
        if difference.role in QUOTING and text.words == pair[0].words:
            found.append(parts.within(actor.scope))
        known = merge(*found, key=order_of)
        return next((part for part in known if came(actor, part.change)), None)

    def _repeated(
        self, actor: Actor, context: tuple[str, ...], form: Form, parts: Parts
    ) -> Iterator[Iterator[Part]]:
        """Yield the parts of each turn that the program repeats behind some words in other rounds,
        too.
        """
        if self._repeats.stands_elsewhere(actor.scope, actor.passed, context):
            for group in self._repeats.groups_of(parts):
                if self._turn_order(actor, group.turn) != AFTER:
                    yield self._repeats.repeated(actor.scope, actor.passed, context, form, group)

    # In words

    def _cause(self, actor: Actor, found: list[Difference], came: Came) -> Cause:
        """Return the cause of an actor's next call.

        :param found: what differs beyond the answers that it repeats.
        :param came: says which answers it may repeat nevertheless.
        """
        told = next((each for each in found if each.field in ("model", *PROMPT)), None)
        if told is None:
            parameters = (
                ", ".join(f"{each.place}={as_json(value)}" for each, value in values)
                for values in (
                    [(each, each.recorded) for each in found],
                    [(each, each.asked) for each in found],
                )
            )
            return Cause(actor.scope, actor.passed, "parameters", *parameters)
        before, after = _text(told.recorded), _text(told.asked)
        if told.field == "model":
            return Cause(actor.scope, actor.passed, "model", before, after)
        doubt = self._doubt(actor, told, came)
        if isinstance(told.recorded, str) and isinstance(told.asked, str):
            admits = self._admits(actor, told, self._may_come)
            rest = without_quotes(told.recorded, told.asked, self._answers, admits)
            after = after if rest == before else rest
        return Cause(actor.scope, actor.passed, "prompt", before, after, doubt)

    def _doubt(self, actor: Actor, told: Difference, came: Came) -> str:
        """Return why a changed prompt may be a consequence; empty if nothing suggests it."""
        quoted = self._quoted(actor, told, came)
        if quoted is not None:
            name = printable(quoted.scope) or OUTSIDE_ANY_SCOPE
            return f"{PERHAPS}: {name} said so in call {quoted.number + 1}"
        if actor.parting is None and self._any_before(actor):
            return f"{PERHAPS}: answers changed before it"
        return ""

    def _quoted(self, actor: Actor, told: Difference, came: Came) -> Change | None:
        """Return an answer that has the words that changed in a prompt, maybe by chance."""
        if told.field not in PROMPT:
            return None
        found = self._quotes(
            actor, told, lambda parts, *_: next(self._that_came(actor, parts, came), None)
        )
        if found:
            return found[0].part.change
        before, after = _plain_text(told.recorded), _plain_text(told.asked)
        changed = _words_changed(before, after)
        part = next(self._that_came(actor, self._that_hold(changed), came), None)
        return None if part is None else part.change


def _admit_any(parts: Parts, *_: object) -> Part | None:
    """Return the first of some parts."""
    return next(part for each in parts.by_turn.values() for part in each)


@lru_cache(maxsize=4096)
def _words_changed(before: str, after: str) -> Words:
    """Return the words of each passage in which two texts differ, in both."""
    return tuple(
        (text_of(gone).words, text_of(new).words)
        for gone, new in (pieces(each, before, after) for each in passages(before, after))
    )


def _reversed(awaited: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the actors that wait for each actor."""
    found: dict[str, set[str]] = {}
    for scope, others in awaited.items():
        for other in others:
            found.setdefault(other, set()).add(scope)
    return found


def _behind(scope: str, waiting_for: Mapping[str, set[str]]) -> set[str]:
    """Return an actor and those that wait for it, also through others.

    :param waiting_for: the actors that wait for each actor.
    """
    found = {scope}
    more = [scope]
    while more:
        new = waiting_for.get(more.pop(), set()) - found
        found |= new
        more += new
    return found


def _holds(said: Mapping[Hashable, Form], words: tuple[str, ...]) -> bool:
    """Return whether an answer holds some words in this order."""
    sought = f" {' '.join(words)} "
    return bool(words) and any(sought in f" {' '.join(form.words)} " for form in said.values())


def _plain_text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else as_json(value)


def _text(value: Any) -> str | None:
    """Return what is there in one of two requests; of a message its text, if it has one."""
    content = value.get("content") if isinstance(value, dict) else None
    if isinstance(content, str) and content.strip():
        return content
    return value if value is None or isinstance(value, str) else as_json(value)
