"""``llmcall.resend``: a sample of a recording's chat requests, each sent once more."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from ...apis.message import message_text
from ...apis.token_usage import total_cost
from ...clients.base import LLMClient
from ...clients.registry import client as registered_client
from ...clients.registry import settings
from ...core import threads
from ...core.answer import reply_to
from ...core.kinds import KINDS
from ...core.prepare import place_as, unplaced_call
from ...core.reply import Reply
from ...errors import APIError, ArgumentError, CacheError, ContentFilterError, EmptyAnswerError
from ...keys.keys import key_of
from ...keys.messages import DIGEST
from ...keys.parameters import CONFIGURED_UNKEYED
from ...keys.request import Data, Request, strings_in
from ...many.map import map as run_map
from ...many.map_options import checked_count
from ...review.runs import RecordedRun, load
from ...scopes.active import next_order
from ...scopes.position import without_repeats
from ...scopes.scope import scope as open_scope
from ...stores.cache.cache import ResponseCache
from ...stores.cassettes.cassette import Cassette
from ...stores.cassettes.current import open_current_cassette
from ...stores.record import Record
from ...stores.records.header import model_of
from ...stores.records.reader import read as read_records
from ...support.arguments import checked
from ...support.display import counted, printable
from ...support.frames import data_frame, import_pandas
from ...support.normalizers import NORMALIZERS
from ...support.notices import notice
from ..plans.plan import Plan
from ..plans.planner import UnrecordedDraw, plan_of, price_of

if TYPE_CHECKING:
    import pandas


SCOPE = "~again"
COLUMNS = ("request", "scope", "when", "answer", "served", "finish_reason", "refusal")
# Normalizers replace texts by these markers; a header names no normalizers that code has set.
MARKER = re.compile("|".join(re.escape(f"<{name}>") for name in (*sorted(NORMALIZERS), "…")))


class _Question(NamedTuple):
    """A request to send again.

    :param digest: the request's, without its draw.
    :param recorded: its recorded draws.
    """

    digest: str
    request: dict[str, Data]
    recorded: list[Record]

    @property
    def scope(self) -> str:
        """Return the scope of its first draw, without the repeats of a ``map``; empty outside any scope."""
        return actor_of(self.recorded[0])

    @property
    def sample(self) -> str:
        """Return the name of the new draw."""
        return f"{'/'.join(filter(None, (SCOPE, self.scope)))}#0"

    @property
    def key(self) -> str:
        """Return the key of the new draw."""
        return key_of("chat", self.request, self.sample)

    def __repr__(self) -> str:  # in a map's errors
        return self.sample

    def expected_cost(self, client: LLMClient) -> float | None:
        """Return what the recorded answers would cost at the current price, on average; ``None`` if unknown."""
        price = price_of(client, body_again(client, self.request))
        costs = [price and price.cost_of_answer(record.response) for record in self.recorded]
        return None if None in costs else fmean(cost.total for cost in costs if cost is not None)


@overload
def resend(run: object, *, dry_run: Literal[True], **options: object) -> Plan: ...
@overload
def resend(
    run: object,
    *,
    share: float | None = None,
    calls: int | None = None,
    seed: int = 0,
    where: Callable[[Record], bool] | None = None,
    model: str | None = None,
    to: str | os.PathLike[str] | None = None,
    dry_run: Literal[False] = False,
) -> pandas.DataFrame: ...


@checked  # type: ignore[misc]  # options are those that it names
def resend(
    run: object,
    *,
    share: float | None = None,
    calls: int | None = None,
    seed: int = 0,
    where: Callable[[Record], bool] | None = None,
    model: str | None = None,
    to: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
) -> pandas.DataFrame | Plan:
    """Send a sample of a recording's chat requests once more, and return the old and new answers.

    The requests are sent exactly as they were recorded, with their histories, as new draws, by the
    configured client. Every request is equally likely. The sample leaves out, and counts, requests with
    normalized text, with images or sounds recorded only as digests, or converted from legacy completions.

    :param run: the recording: a cassette (a path or a ``Cassette``), an export, a cache, or one of
        these and a scope in a tuple. It stays as it is.
    :param share: the share of the different requests to send; either this or ``calls`` is required.
    :param calls: the number of different requests to send.
    :param seed: decides which requests are sent. More calls with the same seed begin with the same
        ones.
    :param where: gets a record and returns whether its request may be sent; ``None`` means all.
    :param model: another model instead of the recorded one; a warning says so.
    :param to: the cassette that records the new answers as they come. If it contains them already, they
        are replayed. By default ``run`` with ``.again`` before its suffix.
    :param dry_run: ``True`` makes no call and returns a plan.
    :returns: a DataFrame with a row for each answer: request (the digest of the request without its draw, as in the
        frame of a cassette; with ``model``, of the request to that model), scope (without the repeats of a
        ``map``), when (``"then"``: each recorded draw; ``"now"``), answer, served (the server's name for the
        model), finish_reason, refusal; or, for a dry run, a :class:`llmcall.types.Plan`.
    :raises TypeError, ValueError: if an argument is wrong.
    :raises ConfigError: if pandas is not installed (the extra ``study``).
    :raises CacheError: if no request of the recording can be sent.
    :raises CacheMissError: if ``to`` is complete and contains another sample.
    :raises APIError: if a call fails after all retries. ``to`` holds the answers so far: call it again to
        continue. Filtered or empty answers are only counted, and requested again then.
    :raises KeyboardInterrupt: as :func:`llmcall.map` does; call it again to continue.

    >>> from llmcall.testing import ScriptedClient
    >>> rating = ScriptedClient(lambda messages: "3")
    >>> with llmcall.cassette("ratings.jsonl"):
    ...     for name in ("Ann", "Ben"):
    ...         with llmcall.scope(name):
    ...             _ = rating.send_message(f"You are {name}. Rate the bread.", temperature=1)
    >>> llmcall.register_client("rating", rating)
    >>> with llmcall.configured(api_type="rating"):
    ...     again = llmcall.resend("ratings.jsonl", share=1)
    >>> again["when"].tolist(), again["answer"].tolist()
    (['then', 'now', 'then', 'now'], ['3', '3', '3', '3'])
    """
    if (share is None) == (calls is None):
        raise ArgumentError("give either share= or calls= (--share, --calls): how many to send")
    if share is not None and not 0 < share <= 1:
        raise ArgumentError(f"share is {share!r}; it must be more than 0 and at most 1")
    if calls is not None:
        checked_count("calls", calls)
    import_pandas()
    to = file_of(run, to)
    client = registered_client()
    model = None if model is None else client.model_named(model)
    questions, notes = _questions(load(run), where, model)
    calls = calls or max(1, round((share or 0) * len(questions)))
    if calls > len(questions):
        found = counted(len(questions), "different request")
        raise ArgumentError(f"calls is {calls:,}, but the recording has {found} to send, each once")
    sample = sorted(
        questions, key=lambda it: sha256(f"resend\n{seed}\n{it.digest}".encode()).digest()
    )[:calls]
    if dry_run:
        there = {record.cache_key for record in read_records(to)} if os.path.exists(to) else set()
        misses = [question for question in sample if question.key not in there]
        drafts = [UnrecordedDraw.of(client, body_again(client, it.request)) for it in misses]
        cost = total_cost(question.expected_cost(client) for question in misses)
        return plan_of(calls - len(misses), drafts, cost, notes)
    for note in notes:
        notice("%s", note)
    _record(client, to, sample)
    answers = {record.cache_key: record for record in read_records(to)}
    if missing := sum(question.key not in answers for question in sample):
        words = counted(missing, "request")
        notice("%s got no answer: filtered or empty. Resend again to repeat only these", words)
    rows: list[tuple[object, ...]] = []
    for question in sample:
        draws = [(actor_of(record), "then", record) for record in question.recorded]
        if question.key in answers:
            draws.append((question.scope, "now", answers[question.key]))
        for scope, when, record in draws:
            for choice in record.choices:  # several, if n is above 1
                answer, refusal = message_text(choice["message"]), choice["message"].get("refusal")
                cells = answer, record.served, choice.get("finish_reason"), refusal
                rows.append((question.digest, scope or None, when, *cells))
    return data_frame(rows, COLUMNS)


def file_of(run: object, to: str | os.PathLike[str] | None) -> str:
    """Return the cassette of the new answers.

    :raises ArgumentError: if nothing names one, or if it is the recording.
    """
    source: Any = run[0] if isinstance(run, tuple) else run
    path = source.path if isinstance(source, (Cassette, ResponseCache)) else source
    root, suffix = os.path.splitext(os.fspath(path).rstrip(os.sep))
    if to is None and "://" in root:
        raise ArgumentError(
            "to= (--to) is missing: for a cache, it must name the cassette that records the new answers"
        )
    to = f"{root}.again{suffix}" if to is None else os.path.expanduser(to)
    if os.path.realpath(to) == os.path.realpath(os.path.expanduser(path)):
        raise ArgumentError(
            f"to is {to!r}, the recording itself; name another file for the new answers"
        )
    return to


def _questions(
    run: RecordedRun, where: Callable[[Record], bool] | None, model: str | None
) -> tuple[list[_Question], tuple[str, ...]]:
    """Return the requests that may be sent; and sentences on them.

    :raises CacheError: if there is none.
    """
    draws: defaultdict[str, list[Record]] = defaultdict(list)
    selected: dict[str, str] = {}
    left: dict[str, str] = {}  # the reasons
    for record in filter(model_of, run.records):
        if record.kind in ("chat", "http") and not record.given:
            digest = key_of(record.kind, _with_model(record, model), None)
            reason = _reason_to_leave_out(record)
            if not reason:
                draws[digest].append(record)
            if where is None or where(record):
                (left if reason else selected)[digest] = reason
    counts = Counter(left.values())
    left_out = ", ".join(f"{counted(counts[it], 'request')} {it}" for it in sorted(counts))
    questions = [
        _Question(digest, _with_model(draws[digest][0], model), draws[digest])
        for digest in selected
    ]
    if not questions:
        reason = left_out or ("where= selects none" if draws else "it holds no chat request")
        raise CacheError(f"nothing in {printable(run.name)} can be sent again: {reason}")
    notes = []
    models = sorted({str(draw.model) for question in questions for draw in question.recorded})
    if model is not None and models != [model]:
        notes.append(
            f"ANOTHER MODEL: {printable(model)} is asked instead of {', '.join(map(printable, models))}, so a "
            "difference is between models, not a change in one"
        )
    if left_out:
        notes.append(f"left out: {left_out}")
    return questions, tuple(notes)


def _with_model(record: Record, model: str | None) -> dict[str, Data]:
    """Return a recorded request, to another model unless that is ``None``."""
    return record.request if model is None else {**record.request, "model": model}


def _reason_to_leave_out(record: Record) -> str:
    """Return why a request cannot be sent as it was recorded; empty if it can."""
    if record.kind == "http":
        return "of an API other than chat completions"
    if record.model is None:
        return "without the name of a model"
    if record.response.get("converted"):
        return "converted from a legacy completion"
    texts = list(strings_in(record.request["messages"]))
    if any(map(DIGEST.match, texts)):
        return "with an image or sound recorded only as a digest"
    return "with normalized text" if any(map(MARKER.search, texts)) else ""


def actor_of(record: Record) -> str:
    """Return the scope of a call without the repeats of a ``map``; empty outside any scope."""
    return without_repeats(record.scope)[0]


def _record(client: LLMClient, to: str, sample: Sequence[_Question]) -> None:
    """Record the missing answers in a cassette. It stays incomplete if answers were filtered or empty, so the
    next run requests these.
    """
    errors: list[APIError] = []

    def send(question: _Question) -> None:
        try:
            send_again(client, question.request, question.sample)
        except (ContentFilterError, EmptyAnswerError) as error:
            errors.append(error)

    with (
        suppress(ContentFilterError, EmptyAnswerError),
        Cassette(to, settings().cassette_mode),
        open_scope(None),
    ):
        run_map(send, sample)
        if errors:
            raise errors[0]
    if len(errors) == len(sample):
        raise errors[0]


def body_again(client: LLMClient, recorded_request: Mapping[str, Data]) -> dict[str, Data]:
    """Return the body that resends a recorded chat request."""
    defaults = client.resolved.defaults
    unkeyed = {name: defaults[name] for name in CONFIGURED_UNKEYED if name in defaults}
    fields = {name: value for name, value in recorded_request.items() if name != "namespace"}
    return {**unkeyed, **fields}


def send_again(client: LLMClient, recorded_request: Mapping[str, Data], sample: str) -> Reply:
    """Resend a recorded chat request exactly as recorded, as a new draw.

    No configured default is added to it, and the disk cache neither answers nor keeps it: only the open cassette does.
    No other model answers if the context is too long.

    :param recorded_request: the recorded request: :attr:`llmcall.types.Record.request`.
    :param sample: the whole name of the draw; the current scope adds nothing to it.
    :raises APIError: if the call failed after all retries.
    :raises CacheMissError: if no call is allowed, and the answer is not recorded.
    """
    resolved = client.resolved
    body = body_again(client, recorded_request)
    request = Request("chat", body["model"], recorded_request, body, {}, None, "")
    options = resolved.options._replace(cache=False, on_error="raise")
    unplaced = unplaced_call(
        client, resolved, open_current_cassette(), request, options, KINDS["chat"]
    )
    return threads.run(reply_to(place_as(unplaced, sample, next_order())))
