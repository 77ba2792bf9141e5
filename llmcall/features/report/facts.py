"""The facts at the top of a page: a run's size, models, tokens, cost and failures."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

from ...apis.message import as_text
from ...keys.keys import key_of
from ...review.conversations import (
    ASKED_AGAIN,
    CUT,
    MARKS,
    REFUSED,
    UNREAD,
    RecordedCall,
    conversations,
    is_conversed,
)
from ...review.runs import RecordedRun
from ...scopes.position import is_reserved_name, without_repeats
from ...stores.days import Days
from ...stores.record import Record
from ...stores.records.served import model_of, served_by, served_words
from ...support.display import as_json, counted, money
from ...typed.notes import FORM

MAX_CONDITIONS = 20  # more first levels of scopes are repeats


class Circumstances(NamedTuple):
    """The properties that many calls share.

    :param kind: the kind of their records.
    :param model: the model that was asked for, or ``None``.
    :param asked_model: the model that was asked for, or else the one that answered.
    :param interface: how the model was accessed.
    :param way: the way that it came: through the API, from a local model, or imported.
    :param is_ended: ``True`` if its record says how the answer ended.
    :param is_imported: ``True`` if llmcall did not record it.
    :param arms: the arms that used it.
    :param marks: how its answer ended, of :data:`.MARKS`.
    :param parameters: the request's parameters, as name and JSON.
    :param has_form: ``True`` if an ``LLMCall`` made it.
    :param is_conversed: see :func:`.is_conversed`.
    :param recalls: ``True`` if it sends earlier answers of the actor along.
    :param has_examples: ``True`` if it holds worked examples.
    :param is_instructed: ``True`` if it holds a system message.
    :param system_prompt: identifies its system prompt; ``None`` without one.
    """

    kind: str
    model: str | None
    asked_model: str
    interface: str
    way: str
    is_ended: bool
    is_imported: bool
    arms: tuple[str, ...]
    marks: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    has_form: bool
    is_conversed: bool
    recalls: bool
    has_examples: bool
    is_instructed: bool
    system_prompt: bytes | None

    @property
    def is_embedding(self) -> bool:
        """Return whether it is a text's embedding."""
        return self.kind == "embedding"


class AskedCall(NamedTuple):
    """The properties of a call that a model answered. Memory for a run of a million calls allows no more.

    :param of: what it has in common with others.
    :param scope: its scope path.
    :param tokens_in: tokens, or ``None``.
    :param tokens_out: tokens, or ``None``.
    :param cost: USD, or ``None``.
    :param request: identifies its request, without the draw.
    :param question: identifies what its repeats have in common if a template asked; ``None`` for another call.
    :param user_prompt: identifies its prompt; ``None`` without one.
    """

    of: Circumstances
    scope: str
    tokens_in: int | None
    tokens_out: int | None
    cost: float | None
    request: bytes
    question: bytes | None
    user_prompt: bytes | None


class RunFacts:
    """The facts in a run's records and headers, for its page, its checklist and a package's README.

    :param run: the run.
    :ivar shared: how many records several arms used.
    :ivar asked: the calls that a model answered, actor by actor; each text of embeddings has one.
    """

    def __init__(self, run: RecordedRun) -> None:
        self.run = run
        self._kinds: Counter[str] = Counter()
        self._arms: Counter[str] = Counter()
        self._first_places: dict[str, tuple[int, int]] = {}  # of kinds and arms
        self.shared = 0
        self.asked: list[AskedCall] = []
        self._places = array("Q")  # of their records in the run
        self._met: dict[Circumstances, Circumstances] = {}

    @classmethod
    def of(cls, run: RecordedRun) -> RunFacts:
        """Return the facts of a run."""
        found = cls(run)
        for _, places, calls in conversations(run):
            for place, call in zip(places, calls, strict=True):
                found.add(place, call)
        return found

    def add(self, place: int, call: RecordedCall) -> None:
        """Count a call.

        :param place: its record's among those of the run.
        """
        record = call.record
        self._kinds[record.kind] += 1
        self._arms.update(record.arms)
        self.shared += len(record.arms) > 1
        for number, name in enumerate((record.kind, *record.arms)):
            first = place, number
            self._first_places[name] = min(first, self._first_places.get(name, first))
        model = model_of(record)
        if not model:
            return
        form, usage = FORM.of(record), record.usage
        circumstances = Circumstances(
            record.kind,
            record.model,
            record.model or model,
            _interface(record),
            _way(record),
            is_ended(record),
            bool(record.header_notes),
            record.arms,
            call.marks,
            call.parameters,
            form is not None,
            is_conversed(call),
            call.recalls,
            bool(call.examples),
            any(message.sender in SYSTEM_ROLES for message in call.messages),
            prompt_of(call, SYSTEM_PROMPT),
        )
        request = record.request
        question = None
        if form is not None:
            fixed = {name: value for name, value in request.items() if name != "messages"}
            item, _ = without_repeats(record.scope)
            shown = [item, form["digest"], form["variables"], fixed, len(request["messages"])]
            question = _digest(as_json(shown))
        self._places.append(place)
        self.asked.append(
            AskedCall(
                self._met.setdefault(circumstances, circumstances),
                record.scope,
                usage.input_tokens,
                usage.output_tokens,
                record.cost,
                bytes.fromhex(key_of(record.kind, request, None))[:DIGEST_BYTES],
                question,
                prompt_of(call, USER_PROMPT),
            )
        )

    @cached_property
    def served(self) -> dict[str, Days | None]:
        """Return the models that answered, each with its days."""
        return served_by(self.run.records)

    @property
    def kinds(self) -> Counter[str]:
        """Return how many records of the run are of each kind."""
        return self._in_order(self._kinds)

    @property
    def arms(self) -> Counter[str]:
        """Return how many records each arm used."""
        return self._in_order(self._arms)

    def _in_order(self, counts: Counter[str]) -> Counter[str]:
        """Return counts in the order of the file."""
        return Counter({n: counts[n] for n in sorted(counts, key=self._first_places.__getitem__)})

    @cached_property
    def answers(self) -> list[AskedCall]:
        """Return the calls that a model answered, in the order of the file."""
        order = sorted(range(len(self.asked)), key=self._places.__getitem__)
        return [self.asked[number] for number in order]

    def texts_of(self, role: str, prompts: Collection[bytes]) -> dict[bytes, tuple[str, str]]:
        """Return prompts, each with the name of its template; empty without one.

        :param role: of :data:`SYSTEM_PROMPT`, :data:`USER_PROMPT`.
        :param prompts: what identifies them; the first call of each is read again.
        """
        missing, places = {*prompts}, set[int]()
        for asked, place in zip(self.asked, self._places, strict=True):
            identity = asked.of.system_prompt if role == SYSTEM_PROMPT else asked.user_prompt
            if identity in missing:
                missing.remove(identity)
                places.add(place)
        found: dict[bytes, tuple[str, str]] = {}
        for _, of_actor, calls in conversations(self.run, lambda some: not places.isdisjoint(some)):
            for place, call in zip(of_actor, calls, strict=True):
                if place in places and (prompt := prompt_of(call, role)) is not None:
                    form = FORM.of(call.record)
                    found[prompt] = form["name"] if form else "", new_text(call, role)
        return found

    @property
    def spoken(self) -> list[AskedCall]:
        """Return the calls without embeddings."""
        return [call for call in self.asked if not call.of.is_embedding]

    @property
    def models(self) -> list[str]:
        """Return the models that were asked for."""
        return sorted({model for answer in self._met if (model := answer.model) is not None})

    def by_condition(self, depth: int = 1) -> dict[str, list[AskedCall]]:
        """Return the answers by arm, or by the first levels of scopes that have scopes below them; empty without
        several of them, or with more than :data:`.MAX_CONDITIONS`.

        :param depth: the number of levels.
        """
        by_name: dict[str, list[AskedCall]] = {}
        has_arms = any(answer.arms for answer in self._met)
        for answer in self.answers:
            levels = answer.scope.split("/", depth)
            above = levels[:depth] if len(levels) > depth else []
            names = [] if any(map(is_reserved_name, above)) else ["/".join(above)]
            for name in filter(None, answer.of.arms if has_arms else names):
                by_name.setdefault(name, []).append(answer)
            if len(by_name) > MAX_CONDITIONS:
                return {}
        return by_name if len(by_name) > 1 else {}

    @property
    def marks(self) -> Counter[str]:
        """Return how many answers have each mark."""
        return Counter(mark for call in self.asked for mark in call.of.marks)

    @property
    def given(self) -> dict[str, str]:
        """Return in words how many answers no model gave, by the word for these."""
        numbers = Counter(record.given for record in self.run.records if record.given)
        return {
            word: f"{counted(number, 'answer')} given by the author, not by a model"
            for word, number in numbers.items()
        }

    @property
    def unended(self) -> int:
        """Return how many answers do not say how they ended, as published texts don't: whether they were cut or
        refused is not recorded.
        """
        return sum(not call.of.is_ended for call in self.spoken)

    @property
    def endings(self) -> str:
        """Return in words how many answers were cut, refused, asked again or unread; only what an ``LLMCall`` asks
        for has a form, and is known as unread. What was not recorded has no count.
        """
        marks, total, unended = self.marks, len(self.spoken), self.unended
        ended = f"{marks[CUT]:,} were cut, {marks[REFUSED]:,} refused"
        if not unended:
            ended = f"Of {counted(total, 'answer')}, {ended}"
        else:
            known = f"; of the others, {ended}" if unended < total else ""
            ended = f"Whether {unended:,} of {counted(total, 'answer')} were cut or refused was not recorded{known}"
        if any(answer.has_form for answer in self._met):
            unread = f"{counted(marks[UNREAD], 'other')} could not be read by it"
        elif self.run.origin:
            return f"{ended}. Whether answers were asked again or could be read was not recorded."
        else:
            unread = "whether others could be read was not recorded"
        return f"{ended}, {marks[ASKED_AGAIN]:,} asked again by an LLMCall; {unread}."

    @property
    def missing(self) -> list[str]:
        """Return in words the answers that are not there: calls without one, and pruned ones."""
        unknown = "Whether calls got no answer was not recorded" if self.run.origin else ""
        return [*filter(None, [self.run.unanswered or unknown]), *self.run.pruned]


def is_ended(record: Record) -> bool:
    """Return whether a record says how its answer ended."""
    return record.finish_reason is not None or record.refusal is not None


SYSTEM_PROMPT, USER_PROMPT = "system", "user"
SYSTEM_ROLES = ("system", "developer")
LOCAL = "local"  # what records of the small model hold instead of a host
DIGEST_BYTES = 16


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


def prompt_of(call: RecordedCall, role: str) -> bytes | None:
    """Return what identifies a prompt of a call: its template, or its text; ``None`` without a text."""
    text = new_text(call, role)
    form = FORM.of(call.record)
    return _digest(f"form {form['digest']}" if form else f"text {text}") if text else None


def new_text(call: RecordedCall, role: str) -> str:
    """Return what a call says in a role, without the conversation before it; a user's prompt has its worked examples,
    each message below its sender.
    """
    if role == SYSTEM_PROMPT:
        said = [message for message in call.messages if message.sender in SYSTEM_ROLES]
        return "\n\n".join("\n".join(message.texts) for message in said).strip()
    if call.record.kind == "embedding":
        return ""
    said = [
        message
        for number, message in enumerate(call.messages)
        if message.sender not in SYSTEM_ROLES
        and (not message.is_answer or number in call.examples)
        and (number >= call.repeated or {number, number + 1} & {*call.examples})
    ]
    texts = ["\n".join(message.texts).strip() for message in said]
    if len(said) == 1:
        return texts[0]
    return "\n\n".join(
        f"{message.role}{', an example' if message.is_answer else ''}:\n{text}"
        for message, text in zip(said, texts, strict=True)
    )


def _interface(record: Record) -> str:
    if record.kind == "http":
        return str(record.request.get("path"))
    if record.kind == "embedding":
        return "embeddings"
    if record.header_notes and not is_ended(record):  # a published text
        return "how the model was accessed was not recorded"
    return "responses" if "output" in record.response else "chat completions"


def _way(answer: Record) -> str:
    if answer.header_notes:
        return "imported"
    is_local = answer.days is not None and answer.days.hosts == (LOCAL,)
    return "to a local model" if is_local else "through the API"


def facts(found: RunFacts) -> dict[str, str]:
    """Return the facts about a run by label."""
    run, answers, kinds = found.run, found.answers, found.kinds
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    settings = {
        name: as_text(value)
        for name, value in sorted(run.settings.items())
        if name not in ("model", "embedding_model")
    }
    spoken = [answer for answer in answers if not answer.of.is_embedding]
    by_label = {
        "source": run.origin,
        "calls": f"{len(run.records):,}" + (f" ({by_kind})" if len(kinds) > 1 else ""),
        "actors": _actors({answer.scope for answer in spoken}),
        "model": ", ".join(found.models),
        "answered by": ", ".join(served_words(found.served)),
        "arms": _arms(found),
        "tokens in": recorded_sum([answer.tokens_in for answer in answers], "{:,}".format),
        "tokens out": recorded_sum([answer.tokens_out for answer in spoken], "{:,}".format),
        "cost": recorded_sum([answer.cost for answer in answers], money),
        **found.given,
        "left out": "; ".join(run.pruned),
        "failures": "; ".join(_failures(found)),
        **settings,
    }
    return {label: value for label, value in by_label.items() if value}


def _actors(scopes: Collection[str]) -> str:
    """Return in words how many actors there are; the repeats of a ``map`` are one actor."""
    count = len({without_repeats(scope)[0] for scope in scopes})
    repeats = f" ({len(scopes):,} with repeats)" if count < len(scopes) else ""
    return f"{count:,}{repeats}" if count else ""


def _arms(found: RunFacts) -> str:
    """Return in words how many records each arm used, and how many several arms share."""
    words = [f"{name} ({count:,})" for name, count in found.arms.items()]
    return ", ".join(words) + (f"; {found.shared:,} shared" if found.shared else "")


def recorded_sum(amounts: Sequence[float | None], format_sum: Callable[[float], str]) -> str:
    """Return the sum of the recorded amounts in words, and of how many answers it is; empty without answers."""
    if not amounts:
        return ""
    recorded = [amount for amount in amounts if amount is not None]
    if not recorded:
        return "not recorded"
    lacking = len(amounts) - len(recorded)
    return format_sum(sum(recorded)) + (f", and {lacking:,} not recorded" if lacking else "")


def _failures(found: RunFacts) -> Iterator[str]:
    """Yield failures that records show; a call that failed after all retries leaves no record."""
    marks = found.marks
    yield from (f"{counted(marks[mark], 'answer')} {mark}" for mark in MARKS if marks[mark])
    if found.run.unanswered:
        yield found.run.unanswered
    if not found.run.is_complete:
        yield "the recording was interrupted"
