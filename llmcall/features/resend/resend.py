"""``llmcall.resend``: a sample of a recording's chat requests, sent once more."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

from ...apis.message import message_text
from ...apis.token_usage import total_cost
from ...clients.base import LLMClient
from ...clients.registry import client as registered_client
from ...clients.registry import settings
from ...errors import (
    APIError,
    ArgumentError,
    CacheError,
    CacheMissError,
    ContentFilterError,
    EmptyAnswerError,
)
from ...keys.keys import key_of
from ...keys.messages import DIGEST
from ...keys.request import Data, strings_in
from ...many.map import map as run_map
from ...many.map_options import checked_count
from ...review.runs import RUNS, RecordedRun, load
from ...scopes.position import without_repeats
from ...scopes.scope import scope as open_scope
from ...stores.cache.cache import ResponseCache
from ...stores.cassettes.cassette import Cassette
from ...stores.differences import canonical_text
from ...stores.record import Record
from ...stores.records.reader import read as read_records
from ...stores.records.served import model_of
from ...support.arguments import checked
from ...support.display import counted, data_frame, import_pandas, printable
from ...support.normalizers import NORMALIZERS
from ...support.notices import notice
from ..plans.plan import Plan
from ..plans.planner import UnrecordedDraw, plan_of, price_of
from .requests import body_again, send_again

if TYPE_CHECKING:
    import pandas

SCOPE = "~again"
MOST_OF_THE_COST = 0.1  # of the run, that a sample costs unless told otherwise
COLUMNS = ("request", "scope", "when", "answer", "served", "finish_reason", "refusal")
# Normalizers replace texts by these markers; a header names no normalizers that code has set.
MARKER = re.compile("|".join(re.escape(f"<{name}>") for name in (*sorted(NORMALIZERS), "…")))
NOT_FOUND = 404
NO_SUCH_MODEL = "model_not_found"  # the API's code, which may come with a 403


class _Call(NamedTuple):
    """A request to send again.

    :param digest: the request's, without its draw.
    :param sample: the name of the draw, such as ``"~again/study/ann#0"``.
    """

    digest: str
    request: dict[str, Data]
    sample: str

    @property
    def key(self) -> str:
        """Return its key."""
        return key_of("chat", self.request, self.sample)

    def __repr__(self) -> str:  # in a map's errors
        return self.sample


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
    configured client. Every request is equally likely. Requests with normalized text, with an image or sound
    of which only the digest is recorded, or converted from a legacy completion, are left out and counted.

    :param run: the recording: a cassette (a path or a ``Cassette``), an export, a cache, or one of
        these and a scope in a tuple. It stays as it is.
    :param share: the share of the different requests to send.
    :param calls: the number of requests to send, instead of ``share``. If there are fewer different ones, they
        are sent several times. Without either, the calls cost at most a tenth of what the run did; where a cost is
        unknown, they are a tenth of its calls.
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
    if share is not None and not 0 < share <= 1:
        raise ArgumentError(
            f"share is {share!r}; it must be more than 0 and at most 1. For more, give calls= (--calls)"
        )
    if calls is not None:
        checked_count("calls", calls)
    if not (share is None or calls is None):
        raise ArgumentError(
            "share= and calls= (--share, --calls) both say how many calls: give one"
        )
    import_pandas()
    to = file_of(run, to)
    client = registered_client()
    model = None if model is None else client.model_named(model)
    recorded_run = load(run)
    requests, notes = _requests(recorded_run, where, model)
    order = sorted(requests, key=lambda digest: _rank(seed, digest))
    expected = cache(lambda digest: _expected_cost(requests[digest], client, model))
    if share is not None:
        calls = max(1, round(share * len(order)))
    elif calls is None:
        calls = _affordable(order, expected, recorded_run)
    if calls > len(order):
        times = counted(calls // len(order), "time")
        words = times if calls % len(order) == 0 else f"at least {times}"
        requests_there = counted(len(order), "different request")
        notes = (*notes, f"{calls:,} calls of {requests_there}: each is sent {words}")
    sample = []
    for number in range(calls):
        first = requests[digest := order[number % len(order)]][0]
        path = "/".join(filter(None, (SCOPE, actor_of(first))))
        request = _with_model(first, model)
        sample.append(_Call(digest, request, f"{path}#{number // len(order)}"))
    if dry_run:
        there = {record.cache_key for record in read_records(to)} if os.path.exists(to) else set()
        misses = [call for call in sample if call.key not in there]
        cost = total_cost(expected(call.digest) for call in misses)
        drafts = [UnrecordedDraw.of(client, body_again(client, call.request)) for call in misses]
        return plan_of(calls - len(misses), drafts, cost, notes)
    for note in notes:
        notice("%s", note)
    _record(client, to, sample)
    answers = {record.cache_key: record for record in read_records(to)}
    new: dict[str, list[Record]] = {call.digest: [] for call in sample}
    for call in sample:
        new[call.digest] += filter(None, [answers.get(call.key)])
    if missing := calls - sum(map(len, new.values())):
        words = counted(missing, "request")
        notice("%s got no answer: filtered or empty. Resend again to repeat only these", words)
    rows: list[tuple[object, ...]] = []
    for digest, records in new.items():
        path = actor_of(requests[digest][0])
        then = [(actor_of(record), "then", record) for record in requests[digest]]
        rows += (
            (digest, scope or None, when, *cells)
            for scope, when, record in (*then, *((path, "now", record) for record in records))
            for cells in _answer_cells(record)
        )
    return data_frame(rows, COLUMNS)


def file_of(run: object, to: str | os.PathLike[str] | None) -> str:
    """Return the cassette of the new answers.

    :raises ArgumentError: if nothing names one, or if it is the recording.
    """
    source = run[0] if isinstance(run, tuple) and run else run
    path = source.path if isinstance(source, (Cassette, ResponseCache)) else source
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{run!r} is not a run; {RUNS}")
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


def _requests(
    run: RecordedRun, where: Callable[[Record], bool] | None, model: str | None
) -> tuple[dict[str, list[Record]], tuple[str, ...]]:
    """Return the recorded draws of each request that may be sent, by its digest; and sentences on the answers.

    :raises CacheError: if there is none.
    """
    draws: defaultdict[str, list[Record]] = defaultdict(list)
    selected: dict[str, None] = {}
    reasons: dict[str, str] = {}
    for record in run.records:
        if record.kind not in ("chat", "http") or not model_of(record):
            continue
        digest = key_of(record.kind, _with_model(record, model), None)
        reason = _reason_to_leave_out(record)
        if not reason:
            draws[digest].append(record)
        if where is None or where(record):
            if reason:
                reasons[digest] = reason
            else:
                selected[digest] = None
    left_out = ", ".join(
        f"{counted(count, 'request')} {reason}"
        for reason, count in sorted(Counter(reasons.values()).items())
    )
    if not selected:
        reason = left_out or ("where= selects none" if draws else "it holds no chat request")
        raise CacheError(f"nothing in {printable(run.name)} can be sent again: {reason}")
    notes = []
    if run.origin:
        notes.append(f"the recorded answers are {printable(run.origin)}")
    recorded_models = sorted(
        {str(record.request["model"]) for digest in selected for record in draws[digest]}
    )
    if model is not None and recorded_models != [model]:
        notes.append(
            f"ANOTHER MODEL: {printable(model)} is asked instead of {', '.join(map(printable, recorded_models))}, so a "
            "difference is between models, not a change in one"
        )
    if left_out:
        notes.append(f"left out: {left_out}")
    return {digest: draws[digest] for digest in selected}, tuple(notes)


def _with_model(record: Record, model: str | None) -> dict[str, Data]:
    """Return a recorded request, to another model unless that is ``None``."""
    return record.request if model is None else {**record.request, "model": model}


def _reason_to_leave_out(record: Record) -> str:
    """Return why a request cannot be sent as it was recorded; empty if it can."""
    if record.given:
        return f"{record.given}: no model answered"
    if record.kind == "http":
        return "of an API other than chat completions"
    if record.model is None:
        return "without the name of a model"
    if record.is_converted:
        return "converted from a legacy completion"
    texts = list(strings_in(record.request["messages"]))
    if any(map(DIGEST.match, texts)):
        return "with an image or sound recorded only as a digest"
    return "with normalized text" if any(map(MARKER.search, texts)) else ""


def _rank(seed: int, digest: str) -> bytes:
    return hashlib.sha256(f"resend\n{seed}\n{digest}".encode()).digest()


def actor_of(record: Record) -> str:
    """Return the scope of a call without the repeats of a ``map``; empty outside any scope."""
    return without_repeats(record.scope)[0]


def _expected_cost(records: Sequence[Record], client: LLMClient, model: str | None) -> float | None:
    """Return the cost of a call at the current price, by the recorded answers; ``None`` if unknown."""
    price = price_of(client, body_again(client, _with_model(records[0], model)))
    costs = [price and price.cost_of_answer(record.response) for record in records]
    return None if None in costs else fmean(cost.total for cost in costs if cost is not None)


def _affordable(
    order: Sequence[str], expected_cost: Callable[[str], float | None], run: RecordedRun
) -> int:
    """Return how many calls a tenth of the run's cost pays for, or a tenth of its calls if a cost is unknown or 0;
    one at least.
    """
    answers = list(filter(model_of, run.records))  # a recorded function costs nothing
    limit = total_cost(answer.cost for answer in answers)
    spent = 0.0
    for number, digest in enumerate(itertools.cycle(order)):
        cost = expected_cost(digest)
        if not limit or not cost:
            return max(1, int(MOST_OF_THE_COST * len(answers)))
        spent += cost
        if spent > MOST_OF_THE_COST * limit:
            return max(1, number)
    raise AssertionError("the order is empty")


def _record(client: LLMClient, to: str, calls: Sequence[_Call]) -> None:
    """Record the answers in a cassette; recorded ones are not requested again. If some answers were filtered or
    empty, it stays incomplete, so that the next time requests these.
    """
    errors: list[APIError] = []

    def send(call: _Call) -> None:
        try:
            send_again(client, call.request, call.sample)
        except (ContentFilterError, EmptyAnswerError) as error:
            errors.append(error)

    try:
        with (
            suppress(ContentFilterError, EmptyAnswerError),
            Cassette(to, settings().cassette_mode),
            open_scope(None),
        ):
            run_map(send, calls)
            if errors:
                raise errors[0]
    except CacheMissError as error:
        raise CacheMissError(
            f"{to} contains another sample, or a part of this one. Name another file, or repeat it with the same "
            "recording, seed, share, where and model. To add the missing answers, set LLMCALL_CASSETTE_MODE=new"
        ) from error
    except APIError as error:
        if error.status_code == NOT_FOUND or error.code == NO_SUCH_MODEL:
            words = "If the model no longer exists, ask another one with model= (--model)"
            error.args = (f"{str(error).rstrip('.')}. {words}",)
        raise
    if len(errors) == len(calls):
        raise errors[0]


def _answer_cells(record: Record) -> Iterator[tuple[str | None, ...]]:
    """Yield the cells of each answer; a record with several choices holds several."""
    for choice in record.choices:
        message = choice["message"]
        finish_reason, refusal = choice.get("finish_reason"), message.get("refusal")
        yield message_text(message), record.served, finish_reason, refusal


def last_calls(run: RecordedRun) -> Callable[[Record], bool]:
    """Return a filter for the last call of each conversation: no other call in its scope continues
    its messages. Of draws of one request, those that are continued have the answers that the other calls
    repeat; if one repeats none of them, all are continued.
    """
    histories: dict[tuple[str, int, str], int] = {}  # numbers, by scope, history and next message
    ends: dict[str, int] = {}  # by the key of a chat's record, the history of its request
    answers: defaultdict[int, set[str]] = defaultdict(set)  # by history
    continuations: defaultdict[int, set[str]] = defaultdict(set)  # the next messages, by history
    for record in run.records:
        if record.kind != "chat":
            continue
        history = 0
        for message in record.request["messages"]:
            continuations[history].add(message_text(message))
            step = record.scope, history, canonical_text(message)
            history = histories.setdefault(step, len(histories) + 1)
        ends[record.cache_key] = history
        answers[history].add(record.answer)

    def is_last(record: Record) -> bool:
        history = ends.get(record.cache_key, -1)
        repeated = continuations[history]
        return not repeated or (repeated <= answers[history] and record.answer not in repeated)

    return is_last
