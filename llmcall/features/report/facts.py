"""The facts at the top of a page: a run's size, models, tokens, cost and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from ...apis.message import as_text
from ...keys.keys import key_of
from ...keys.request import title_of
from ...review.conversations import (
    ASKED_AGAIN,
    CUT,
    MARKS,
    REFUSED,
    UNREAD,
    RecordedCall,
    marked_calls,
)
from ...review.runs import RecordedRun
from ...scopes.position import without_repeats
from ...stores.notes import known_header_notes
from ...stores.record import Record
from ...stores.records.header import Served, model_of, served_by, served_words
from ...support.display import as_json, counted, money, printable
from ...typed.notes import FORM


class AskedCall(NamedTuple):
    """A call that a model answered.

    :param call: the call; one for each text of embeddings.
    :param model: the model that was asked for, or else the one that answered.
    :param request: identifies its request, without the draw.
    :param question: identifies what its repeats have in common if a template asked; ``None`` for another call.
    :param is_asked_again: ``True`` if it asks again, below an answer that its ``LLMCall`` could not read.
    """

    call: RecordedCall
    model: str
    request: str
    question: str | None
    is_asked_again: bool

    @property
    def record(self) -> Record:
        """Return its record."""
        return self.call.record

    @property
    def is_embedding(self) -> bool:
        """Return whether it is a text's embedding."""
        return self.record.kind == "embedding"

    @property
    def interface(self) -> str:
        """Return how the model was accessed."""
        record = self.record
        if record.kind == "http":
            return str(record.request.get("path"))
        if self.is_embedding:
            return "embeddings"
        if record.header_notes and not is_ended(record):  # a published text
            return "how the model was accessed was not recorded"
        return "responses" if "output" in record.response else "chat completions"

    @property
    def way(self) -> str:
        """Return the way that it came: through the API, from a local model, or imported."""
        if self.record.header_notes:
            return "imported"
        days = self.record.days
        return "to a local model" if days and days.hosts == (LOCAL,) else "through the API"


class RunFacts:
    """The facts in a run's records and headers, for its page, its checklist and a package's README.

    :param run: the run.
    :ivar kinds: how many records are of each kind.
    :ivar arms: how many records each arm used.
    :ivar shared: how many records several arms used.
    :ivar functions: how many results recorded functions gave, by their names.
    :ivar calls: all calls, actor by actor.
    :ivar asked: those that a model answered; each text of embeddings has one.
    """

    def __init__(self, run: RecordedRun) -> None:
        self.run = run
        records = run.records
        self.kinds = Counter(record.kind for record in records)
        self.arms = Counter(arm for record in records for arm in record.arms)
        self.shared = sum(len(record.arms) > 1 for record in records)
        results = (record for record in records if record.kind == "function")
        self.functions = Counter(title_of(record.kind, record.request) for record in results)
        self._given = Counter(record.given for record in records if record.given)
        self.calls = [*marked_calls(run)]
        self.asked: list[AskedCall] = []
        misfits: set[tuple[object, ...]] = set()  # the conversations that an LLMCall goes on with
        for call in self.calls:
            record, messages, form = call.record, call.messages, FORM.of(call.record)
            model, request = model_of(record), record.request
            if not model:
                continue
            question, is_asked_again = None, False
            if form is not None:
                fixed = {name: value for name, value in request.items() if name != "messages"}
                item, _ = without_repeats(record.scope)
                question = as_json([item, form["digest"], form["variables"], fixed, len(messages)])
                texts = messages[-2].texts if len(messages) > 2 else ()
                is_asked_again = (messages[:-2], texts) in misfits
            if ASKED_AGAIN in call.marks:
                misfits.update((messages, answer.texts) for answer in call.answers)
            key = key_of(record.kind, request, None)
            asked = AskedCall(call, record.model or model, key, question, is_asked_again)
            self.asked.append(asked)

    @cached_property
    def served(self) -> Served:
        """Return the models that answered, each with its days."""
        return served_by(self.run.records)

    @property
    def spoken(self) -> list[AskedCall]:
        """Return the calls without embeddings."""
        return [call for call in self.asked if not call.is_embedding]

    @property
    def models(self) -> list[str]:
        """Return the models that were asked for."""
        return sorted({answer.record.model for answer in self.asked if answer.record.model})

    @property
    def marks(self) -> Counter[str]:
        """Return how many answers have each mark."""
        return Counter(mark for asked in self.asked for mark in asked.call.marks)

    @property
    def given(self) -> dict[str, str]:
        """Say how many answers no model gave, by kind."""
        return {
            word: f"{counted(number, 'answer')} given by the author, not by a model"
            for word, number in self._given.items()
        }

    @property
    def function_results(self) -> str:
        """Say how many results recorded functions gave; empty without any."""
        counts = self.functions.items()
        return ", ".join(f"{name} ({counted(count, 'result')})" for name, count in counts)

    @property
    def named_draws(self) -> str:
        """Say how many draws the program named with ``sample=``; empty if none is known. In a scope, only
        a text is known from a counted draw.
        """
        draws = [asked.call.draw for asked in self.asked if _is_named(asked.record)]
        if not draws:
            return ""
        names = ", ".join([*dict.fromkeys(draws)][:MAX_DRAWS])
        more = ", …" if len({*draws}) > MAX_DRAWS else ""
        return f"{counted(len(draws), 'draw')} named by the program (sample=): {names}{more}"

    @property
    def endings(self) -> str:
        """Return in words how many answers were cut, refused, asked again or unread; only what an ``LLMCall`` asks
        for has a form, and is known as unread. Published texts don't say how they ended. What was not recorded has
        no count.
        """
        marks, answers = self.marks, counted(len(self.spoken), "answer")
        unended = sum(not is_ended(asked.record) for asked in self.spoken)
        known, unknown = [CUT, REFUSED], ""
        if any(FORM.of(asked.record) for asked in self.asked):
            known += [ASKED_AGAIN, UNREAD]
        elif self.run.origin:
            unknown = "Whether they were asked again or could be read was not recorded."
        else:
            known.append(ASKED_AGAIN)
            unknown = "Whether they could be read was not recorded."
        counts = [f"{f'{marks[mark]:,}' if marks[mark] else 'none'} {mark}" for mark in known]
        none = f"none {', '.join(known[:-1])} or {known[-1]}"
        ended = ", ".join(counts) if any(map(marks.__getitem__, known)) else none
        found = f"{answers}: {ended}"
        if unended:
            others = f". The others: {ended}" if unended < len(self.spoken) else ""
            found = f"Whether {unended:,} of {answers} were cut or refused was not recorded{others}"
        return f"{found}. {unknown}".rstrip()

    @property
    def missing(self) -> list[str]:
        """Describe the missing answers: calls without an answer, and pruned answers."""
        unknown = "Whether calls got no answer was not recorded" if self.run.origin else ""
        return [*filter(None, [self.run.unanswered or unknown]), *self.run.pruned]


def is_ended(record: Record) -> bool:
    """Return whether a record says how its answer ended."""
    return record.finish_reason is not None or record.refusal is not None


SYSTEM_PROMPT, USER_PROMPT = "system", "user"
SYSTEM_ROLES = ("system", "developer")
LOCAL = "local"  # what records of the small model hold instead of a host
MAX_DRAWS = 8  # named in words


def _is_named(record: Record) -> bool:
    path, mark, draw = (record.sample or "").partition("#")
    return bool(mark) and not record.header_notes and (not path or not draw.isdecimal())


def new_text(call: RecordedCall, role: str) -> str:
    """Return what a call adds in a role. A user's prompt includes turns of an assistant that are new in it, such as
    worked examples, each message under its sender.
    """
    if role == SYSTEM_PROMPT:
        said = [message for message in call.messages if message.sender in SYSTEM_ROLES]
        return "\n\n".join("\n".join(message.texts) for message in said).strip()
    if call.record.kind == "embedding":
        return ""
    said = [
        message for message in call.messages[call.repeated :] if message.sender not in SYSTEM_ROLES
    ]
    texts = ["\n".join(message.texts).strip() for message in said]
    if len(said) == 1:
        return texts[0]
    return "\n\n".join(
        f"{message.role}:\n{text}" for message, text in zip(said, texts, strict=True)
    )


def facts(found: RunFacts) -> dict[str, str]:
    """Return the facts about a run by label."""
    run, kinds, answers = found.run, found.kinds, found.asked
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    settings = {
        name: as_text(value)
        for name, value in sorted(run.settings.items())
        if name not in ("model", "embedding_model")
    }
    spoken = found.spoken
    tokens_in = [answer.record.usage.input_tokens for answer in answers]
    tokens_out = [answer.record.usage.output_tokens for answer in spoken]
    by_label = {
        "source": run.origin,
        "calls": f"{len(run.records):,}" + (f" ({by_kind})" if len(kinds) > 1 else ""),
        "actors": _actors({answer.record.scope for answer in spoken}),
        "model": ", ".join(found.models),
        "answered by": ", ".join(served_words(found.served)),
        "arms": _arms(found),
        "tokens in": recorded_sum(tokens_in, "{:,}".format),
        "tokens out": recorded_sum(tokens_out, "{:,}".format),
        "cost": recorded_sum([answer.record.cost for answer in answers], money),
        **found.given,
        "functions": found.function_results,
        "named draws": found.named_draws,
        "left out": "; ".join(run.pruned),
        "failures": "; ".join(_failures(found)),
        **settings,
    }
    return {label: value for label, value in by_label.items() if value}


def study_facts(found: RunFacts) -> dict[str, str]:
    """Return what a reviewer of a study must know of its recordings, by label."""
    by_label = {
        **facts(found),
        "endings": found.endings,
        **_details(found.run),
        "missing": "; ".join(found.missing),
        "failures": "",  # among the endings, and what is missing
        "left out": "",
    }
    return {label: printable(words) for label, words in by_label.items() if words}


def _details(run: RecordedRun) -> dict[str, str]:
    """Return what the notes of headers say, by label."""
    found: dict[str, list[str]] = {}
    for header in run.headers:
        for name, value in header.notes.items():
            for label, words in known_header_notes()[name].details(value).items():
                found.setdefault(label, []).append(words)
    return {label: "; ".join(filter(None, words)) for label, words in found.items()}


def _actors(scopes: Collection[str]) -> str:
    """Say how many actors there are; the repeats of a ``map`` are one actor."""
    count = len({without_repeats(scope)[0] for scope in scopes})
    repeats = f" ({len(scopes):,} with repeats)" if count < len(scopes) else ""
    return f"{count:,}{repeats}" if count else ""


def _arms(found: RunFacts) -> str:
    """Say how many records each arm used, and how many several arms share."""
    words = [f"{name} ({count:,})" for name, count in found.arms.items()]
    return ", ".join(words) + (f"; {found.shared:,} shared" if found.shared else "")


def recorded_sum(amounts: Sequence[float | None], format_sum: Callable[[float], str]) -> str:
    """State the sum of the recorded amounts, and how many answers it covers; empty without answers."""
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
