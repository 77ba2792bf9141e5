"""Why two runs of an actor diverge: the causes, without the changes that only repeat earlier answers.

A recording keeps the order of each actor's calls, but not the order between actors. So both runs are
gone through together, in an order in which their calls may have been made. An actor's next call is
passed if both runs sent the same request, or if the requests differ only by answers that came before.
If no actor can go on, one of the next calls must be a cause.

Another actor's answer came before a call if it was given in an earlier round. In the same round it
counts if its own call can be passed first. In a later round it never counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from ..differences.fields import Difference, differences
from ..display.formatting import OF_NO_ACTOR, as_json
from ..display.printable import printable
from ..records.answers import said
from ..types import Record
from .changes import Change
from .explanations import Explanations, Normalize, sides
from .order import CameBefore, Order
from .pairs import Pair
from .progress import Actor, Cause
from .repeats import PROMPT_FIELDS

PERHAPS = "perhaps a consequence"


def causes(
    actors: Mapping[str, list[Pair]], normalize: Normalize, other_normalize: Normalize
) -> dict[str, tuple[Cause | None, Cause | None]]:
    """Return why each actor's runs diverge, and the next cause if the first is another draw.

    :param normalize: what the first recording takes out of texts, or ``None``.
    :param other_normalize: what the other one does.
    """
    runs = TwoRuns(actors, normalize, other_normalize)
    runs.go()
    return {scope: (actor.parting, actor.later) for scope, actor in runs.actors.items()}


class TwoRuns:
    """Two runs whose calls are passed together, actor by actor."""

    def __init__(
        self,
        actors: Mapping[str, list[Pair]],
        normalize: Normalize,
        other_normalize: Normalize,
    ) -> None:
        self.actors = {scope: Actor(scope, calls) for scope, calls in actors.items()}
        self._order = Order(self.actors)
        self._explanations = Explanations(self.actors, self._order, (normalize, other_normalize))

    def go(self) -> None:
        """Pass all calls, and note the causes."""
        waiting = list(self.actors.values())
        while waiting:
            next_places = [actor.next_place for actor in waiting]
            for actor in waiting:
                while not actor.is_done() and self._pass(actor):
                    self._explanations.note_moved(actor)
            is_stuck = [actor.next_place for actor in waiting] == next_places
            waiting = [actor for actor in waiting if not actor.is_done()]
            if is_stuck:
                self._note_causes(waiting)
                waiting = [actor for actor in waiting if not actor.is_done()]

    def _pass(self, actor: Actor) -> bool:
        """Pass an actor's next call and return ``True``, unless its requests differ by more than the
        answers that came before it.
        """
        call = actor.calls[actor.next_place]
        if call.one is None or call.other is None:
            before = None if call.one is None else call.one.prompt
            after = None if call.other is None else call.other.prompt
            actor.note_cause(Cause(actor.scope, actor.next_place, call.status, before, after))
        elif call.status == "same":
            actor.next_place += 1
        elif call.is_same_request:
            before, after = _answers(call.one, call.other)
            actor.note_cause(Cause(actor.scope, actor.next_place, "draw", before, after))
        elif not self._explanations.unexplained(actor, self._order.has_come):
            actor.next_place += 1
        else:
            return False
        return True

    def _note_causes(self, stuck: list[Actor]) -> None:
        """Note the causes among the next calls of actors that cannot go on."""
        for cause in self._causes_among(stuck):
            actor = self.actors[cause.scope]
            actor.note_cause(cause)
            self._explanations.note_moved(actor)

    def _causes_among(self, stuck: list[Actor]) -> list[Cause]:
        """Return the causes among the next calls of actors that cannot go on.

        These are the certain causes. If there are none, they are the doubtful ones, and if there are
        none of these either, the earliest of the calls that wait for each other.
        """
        explanations, order = self._explanations, self._order
        unexplained = {
            actor.scope: explanations.unexplained(actor, order.may_come) for actor in stuck
        }
        awaited = {
            actor.scope: self._awaited(actor) for actor in stuck if not unexplained[actor.scope]
        }
        waiting_for = _waiting_for(awaited)
        certain: list[Cause] = []
        doubtful: list[Cause] = []
        waiting: list[Cause] = []
        for actor in stuck:
            differences = unexplained[actor.scope]
            unquoted = []
            if differences:
                came_before = partial(self._came_without, _with_waiting(actor.scope, waiting_for))
                unquoted = [
                    each
                    for each in differences
                    if not explanations.quoted_answer(actor, each, came_before)
                ]
            if unquoted:
                certain.append(self._cause(actor, unquoted, order.has_come))
            elif differences and all(
                explanations.quoted_answer(actor, each, order.has_come) for each in differences
            ):
                doubtful.append(self._cause(actor, differences, order.has_come))
            else:
                differences = explanations.unexplained(actor, order.has_come)
                waiting.append(self._cause(actor, differences, order.may_come))
        # Each may repeat another's answer: one must be a cause.
        first = min((cause.place for cause in waiting), default=0)
        return certain or doubtful or [each for each in waiting if each.place == first]

    def _awaited(self, actor: Actor) -> set[str]:
        """Return the actors whose calls must be passed before an actor's next call, which repeats
        their answers.
        """
        return {
            quote.part.change.scope
            for each in self._explanations.differences_of(actor)
            for quote in self._explanations.quotes_in(actor, each, self._order.may_come) or ()
            if not self._order.has_come(actor, quote.part.change)
        }

    def _came_without(self, waiting_scopes: set[str], actor: Actor, change: Change) -> bool:
        """Return whether an answer may have come before an actor's next call.

        :param waiting_scopes: the actors that wait for that call; of theirs, only passed answers count.
        """
        is_open = change.scope not in waiting_scopes and self._order.may_come(actor, change)
        return is_open or self._order.has_come(actor, change)

    # In words

    def _cause(
        self, actor: Actor, differing_fields: list[Difference], came_before: CameBefore
    ) -> Cause:
        """Return the cause of an actor's next call.

        :param differing_fields: what differs beyond the answers that it repeats.
        :param came_before: says which answers came before it; it may repeat one of these by chance.
        """
        difference = next(
            (each for each in differing_fields if each.field in ("model", *PROMPT_FIELDS)), None
        )
        if difference is None:
            values = _values(differing_fields)
            return Cause(actor.scope, actor.next_place, "parameters", *values)
        before, after = map(_text, sides(difference))
        if difference.field == "model":
            return Cause(actor.scope, actor.next_place, "model", before, after)
        doubt = self._doubt(actor, difference, came_before)
        if all(isinstance(side, str) for side in sides(difference)):
            own_text = self._explanations.without_quotes(actor, difference)
            after = after if own_text == before else own_text
        return Cause(actor.scope, actor.next_place, "prompt", before, after, doubt)

    def _doubt(self, actor: Actor, difference: Difference, came_before: CameBefore) -> str:
        """Return why a changed prompt may be a consequence, in words; empty if nothing suggests it."""
        change = self._explanations.quoted_answer(actor, difference, came_before)
        if change is not None:
            name = printable(change.scope) or OF_NO_ACTOR
            return f"{PERHAPS}: {name} said so in call {change.place + 1}"
        if actor.parting is None and self._explanations.any_before(actor):
            return f"{PERHAPS}: answers changed before it"
        return ""


def _waiting_for(awaited: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the actors that wait for each actor."""
    waiting_for: dict[str, set[str]] = {}
    for scope, awaited_scopes in awaited.items():
        for awaited_scope in awaited_scopes:
            waiting_for.setdefault(awaited_scope, set()).add(scope)
    return waiting_for


def _with_waiting(scope: str, waiting_for: Mapping[str, set[str]]) -> set[str]:
    """Return an actor and those that wait for it, also through others.

    :param waiting_for: the actors that wait for each actor.
    """
    scopes = {scope}
    queue = [scope]
    while queue:
        new = waiting_for.get(queue.pop(), set()) - scopes
        scopes |= new
        queue += new
    return scopes


def _answers(record: Record, other: Record) -> tuple[str | None, str | None]:
    """Return two answers to the same request; the other fields that differ if the texts do not."""
    if record.answer != other.answer:
        return record.answer, other.answer
    return _values(differences({"response": said(record)}, {"response": said(other)}))


def _values(differing_fields: Iterable[Difference]) -> tuple[str, str]:
    """Return the values of fields in both runs as texts, such as ``top_p=0.5``."""
    values = [(each.place, *sides(each)) for each in differing_fields]
    before = ", ".join(f"{name}={as_json(value)}" for name, value, _ in values)
    after = ", ".join(f"{name}={as_json(value)}" for name, _, value in values)
    return before, after


def _text(value: Any) -> str | None:
    """Return a field's value as text: a message's content if it is text, other data as JSON."""
    content = value.get("content") if isinstance(value, dict) else None
    if isinstance(content, str) and content.strip():
        return content
    return value if value is None or isinstance(value, str) else as_json(value)
