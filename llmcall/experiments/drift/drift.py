"""``llmcall.drift``: a sample of a recording's requests, resent and compared."""

from __future__ import annotations

import itertools
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from statistics import fmean
from typing import Literal, NamedTuple, overload

from ...apis.token_usage import tier_of, total_cost
from ...clients.base import LLMClient
from ...clients.registry import client as registered_client
from ...clients.registry import settings
from ...errors import APIError, ArgumentError, CacheMissError, ContentFilterError, EmptyAnswerError
from ...many.map import map as run_map
from ...many.map_options import checked_count
from ...review.runs import RecordedRun, load
from ...scopes.scope import scope
from ...stores.cassettes.cassette import Cassette
from ...stores.record import Record
from ...stores.records.reader import read as read_records
from ...stores.records.served import model_of
from ...support.arguments import checked
from ...support.display import counted, money, one_line, printable
from ..intervals import import_statistics
from .answer_values import (
    VALUE,
    answers_frame,
    answers_of,
    read_answer,
    user_reader,
    value_columns,
)
from .estimate import USEFUL_DEVIATIONS, Spread, spread_of
from .result import Drift
from .sample import DriftCall, DriftCheck, Requests, compared_run

QUOTED_CHARACTERS = 60  # of an answer, in an error
MOST_OF_THE_COST = 0.1  # of the recording, that a check costs unless told otherwise
NOT_FOUND = 404
NO_SUCH_MODEL = "model_not_found"  # the API's code, which may come with a 403
GONE = (
    "If the model no longer exists, call another one with model= (--model); the result is then marked as another "
    "model's"
)


class DriftPlan(NamedTuple):
    """The plan of a check for drift; see :func:`llmcall.drift`.

    :param calls: the number of calls, each with one answer or, if ``n`` is above 1, several.
    :param cost: USD, by the tokens of the recorded answers at the current price, or ``None`` if a
        price is unknown.
    :param width: the width to expect of the 95 % interval, if answers vary as the recorded ones do;
        of several values, of the one whose interval is widest beside its own spread. ``None`` if
        there will be no interval, or if no answer can be read.
    :param notes: further sentences about the check.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(["3", "4", "2", "5"])
    >>> with llmcall.cassette("ratings-planned.jsonl"):
    ...     for name in ("Ann", "Ben"):
    ...         with llmcall.scope(name):
    ...             for _ in range(2):
    ...                 _ = client.send_message(f"You are {name}. Rate the bread.", temperature=1)
    >>> plan = llmcall.drift("ratings-planned.jsonl", calls=10, dry_run=True)
    >>> plan.calls, round(plan.width, 1)
    (10, 4.3)
    """

    calls: int
    cost: float | None
    width: float | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        cost = "at an unknown price" if self.cost is None else f"cost {money(self.cost)}"
        return "\n".join([f"{counted(self.calls, 'call')}, {cost}", *self.notes])


@overload
def drift(run: object, *, dry_run: Literal[True], **options: object) -> DriftPlan: ...
@overload
def drift(
    run: object,
    *,
    share: float | None = None,
    calls: int | None = None,
    seed: int = 0,
    where: Callable[[Record], bool] | None = None,
    value: Callable[[str], object] | None = None,
    model: str | None = None,
    to: str | os.PathLike[str] | None = None,
    against: object = None,
    dry_run: Literal[False] = False,
) -> Drift: ...


@checked  # type: ignore[misc]  # options are those that it names
def drift(
    run: object,
    *,
    share: float | None = None,
    calls: int | None = None,
    seed: int = 0,
    where: Callable[[Record], bool] | None = None,
    value: Callable[[str], object] | None = None,
    model: str | None = None,
    to: str | os.PathLike[str] | None = None,
    against: object = None,
    dry_run: bool = False,
) -> Drift | DriftPlan:
    """Resend part of a recording's chat requests, and compare the new answers with the
    recorded ones; or compare those of two recordings.

    The requests are sent exactly as they were recorded, with their histories, as new draws. Each
    new answer is compared with all recorded answers to the same request.

    The intervals are about this recording: what varies are the draws of its requests, and the
    choice of the resent requests. The larger of these two spreads counts.

    :param run: the recording: a cassette (a path or a ``Cassette``), an export, a cache, or one of
        these and a scope in a tuple. It stays as it is.
    :param share: the share of the different requests to resend. A request that several
        actors sent counts once for each.
    :param calls: the number of calls, instead of ``share``. If there are fewer different requests,
        they are sent several times.
    :param seed: decides which requests are sent. More calls with the same seed begin with the same
        ones.
    :param where: gets a record and returns whether its request may be sent; ``None`` means all. The new
        answers are compared with all recorded answers to the same request.
    :param value: reads an answer's text as a number or a ``bool``; ``None`` or a ``ValueError`` means
        that it cannot be read. It may return a dict of these by name. Without it, numbers, yes and no,
        and the fields of a JSON object that hold these are read, and answers of :func:`llmcall.choice`
        as the share of each option.
    :param model: another model instead of the recorded one; the result is marked.
    :param to: the cassette that records the new answers as they come. If it contains them already, they
        are replayed. By default ``run`` with ``.drift`` before its suffix.
    :param against: another recording, whose answers replace new ones where its requests are
        identical; no call is made. Answers that both runs share (key, sample and answer) are not new, unless
        they were made on other days: they are counted and left out. With ``model``, its requests to that
        model are compared.
    :param dry_run: whether to make no call and return a plan.
    :returns: a :class:`llmcall.types.Drift`, or a :class:`llmcall.types.DriftPlan` for a dry run.
    :raises TypeError, ValueError: if an argument is wrong, or if the answers are of a kind that needs
        ``value``.
    :raises ConfigError: if pandas and scipy are not installed (the extra ``study``).
    :raises CacheError: if nothing in the recording can be resent, or if two recordings have no
        request in common.
    :raises CacheMissError: if ``to`` is complete and contains another check.
    :raises APIError: if a call fails after all retries. ``to`` holds the answers so far: run the check again to
        continue. Filtered or empty answers are only counted, and requested again then.
    :raises KeyboardInterrupt: as :func:`llmcall.map` does; run the check again to continue it.

    >>> from llmcall.testing import ScriptedClient
    >>> rating = ScriptedClient(lambda messages: "3")
    >>> with llmcall.cassette("ratings.jsonl"):
    ...     for name in ("Ann", "Ben", "Cleo"):
    ...         with llmcall.scope(name):
    ...             _ = rating.send_message(f"You are {name}. Rate the bread.", temperature=1)
    >>> plan = llmcall.drift("ratings.jsonl", share=1, dry_run=True)
    >>> plan.calls
    3
    """
    _check_size(share, calls)
    if against is not None and (to is not None or dry_run or not share is calls is None):
        raise ArgumentError(
            "against= (--against) compares two recordings and makes no call: leave out to=, share=, calls= and dry_run="
        )
    source = run[0] if isinstance(run, tuple) and run else run
    path = source.path if isinstance(source, Cassette) else source
    if against is None and to is None and isinstance(path, (str, os.PathLike)):
        root, ending = os.path.splitext(os.fspath(path))
        to = f"{root}.drift{ending}"
    if to is not None and isinstance(path, (str, os.PathLike)):
        one, other = (os.path.realpath(os.path.expanduser(given)) for given in (to, path))
        if one == other:
            raise ArgumentError(
                f"to is {os.fspath(to)!r}, the recording itself; give the check a file of its own"
            )
    elif to is against is None and not dry_run:
        raise ArgumentError(
            "to= (--to) is missing: it names the cassette that records the new answers of a cache"
        )
    import_statistics("llmcall.drift computes intervals")
    client = registered_client()
    requested_model = None if model is None else client.model_named(model)
    recorded_run = load(run)
    requests = Requests(recorded_run, where, are_resent=against is None, model=requested_model)
    reader = read_answer if value is None else user_reader(value)
    if against is not None:
        check, records = compared_run(requests, load(against), requested_model)
        if value is None:
            _check_readable(check.recorded)
        return Drift(check, reader, records)
    answers = answers_frame(requests.records, reader)
    spreads = [spread_of(answers, column) for column in value_columns(answers)]
    if calls is None and share is not None:
        calls = max(1, round(share * requests.different))
    elif calls is None:
        calls = _useful_calls(requests, spreads, recorded_run, client, seed, requested_model)
    different = counted(requests.different, "different recorded request")
    check = DriftCheck(
        requests,
        itertools.islice(requests.calls(seed), calls),
        requested_model,
        f"{counted(calls, 'call')}, sampled from {different} in {requests.name} (seed {seed})",
    )
    if value is None:
        _check_readable(check.recorded)
    if dry_run:
        cost = total_cost(
            _expected_cost(check.records[call.digest], client, check.model) for call in check.calls
        )
        width, sentences = _expected_widths(check, spreads)
        if unreadable := 100 * answers["unreadable"].mean():
            sentences.append(f"{unreadable:.1f} % of the recorded answers are unreadable.")
        return DriftPlan(len(check.calls), cost, width, (*check.notes(), *sentences))
    assert to is not None
    _record_answers(check, client, to)
    answered = {record.cache_key: record for record in read_records(to)}
    return Drift(check, reader, [answered.get(check.key(call)) for call in check.calls])


def _check_size(share: float | None, calls: int | None) -> None:
    """Check the arguments that say how many calls to make."""
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


def _affordable(
    calls: Iterable[DriftCall],
    run: RecordedRun,
    requests: Requests,
    client: LLMClient,
    model: str | None,
) -> Iterator[DriftCall]:
    """Yield the calls for a tenth of the run's cost, or a tenth as many if a cost is unknown or 0; one at least."""
    answers = list(filter(model_of, run.records))  # a recorded function costs nothing
    limit = total_cost(answer.cost for answer in answers)
    expected = cache(lambda digest: _expected_cost(requests.records[digest], client, model))
    spent = 0.0
    for number, call in enumerate(calls, 1):
        cost = expected(call.digest)
        if not limit or not cost:
            is_affordable = number <= MOST_OF_THE_COST * len(answers)
        else:
            spent += cost
            is_affordable = spent <= MOST_OF_THE_COST * limit
        if number > 1 and not is_affordable:
            return
        yield call


def _useful_calls(
    requests: Requests,
    spreads: Sequence[Spread],
    run: RecordedRun,
    client: LLMClient,
    seed: int,
    model: str | None,
) -> int:
    """Return how many calls give a useful interval of each value, within a tenth of the cost."""
    draws = [*itertools.chain.from_iterable(requests.records.values())]
    answers = sum(len(answers_of(draw)) for draw in draws)  # a call with n has n answers
    affordable = len([*_affordable(requests.calls(seed), run, requests, client, model)])

    def is_enough(calls: int) -> bool:
        sent = min(calls, requests.different, len(requests.records))
        new, recorded = calls * answers // len(draws), sent * answers // len(requests.records)
        is_sample = calls < requests.different
        widths = [spread.width(sent, new, recorded, is_sample=is_sample) for spread in spreads]
        return bool(widths) and all(
            width is not None and width <= spread.useful_width
            for spread, width in zip(spreads, widths, strict=True)
        )

    return 1 + bisect_left(range(1, affordable), True, key=is_enough)


def _expected_widths(
    check: DriftCheck, spreads: Iterable[Spread]
) -> tuple[float | None, list[str]]:
    """Return the expected width of the interval that is widest beside its value's spread; a sentence on each."""
    per_call = {
        digest: max(len(answers_of(draw)) for draw in draws)
        for digest, draws in check.records.items()
    }
    new = sum(per_call[call.digest] for call in check.calls)
    recorded = sum(len(answers_of(draw)) for draw in check.recorded)
    widths = []
    sentences = []
    for spread in spreads:
        width = spread.width(len(check.records), new, recorded, is_sample=check.is_sample)
        name = printable(spread.name.removeprefix(VALUE))
        if width is None:
            sentences.append(
                f"{name}: no 95 % interval is to be expected; more calls may give one."
            )
            continue
        beside = width / spread.useful_width
        deviations = (
            "" if spread.is_share else f", {beside * USEFUL_DEVIATIONS:.2g} standard deviations"
        )
        widths.append((beside, width))
        sentences.append(f"{name}: expect a 95 % interval about {width:.2g} wide{deviations}.")
    return max(widths)[1] if widths else None, sentences


def _check_readable(records: Iterable[Record]) -> None:
    """Check that at least one recorded answer can be read."""
    answers = [
        (record, answer.text)
        for record in records
        for answer in answers_of(record)
        if not answer.is_refused
    ]
    if answers and not any(read_answer(*answer) for answer in answers):
        raise ArgumentError(
            "give value= (--value), a function that reads an answer's text as a number, or as None: the recorded "
            "answers are neither numbers, nor yes or no, nor JSON objects with such fields, nor options of a choice "
            f"({one_line(answers[0][1], QUOTED_CHARACTERS)!r})"
        )


def _expected_cost(
    records: Sequence[Record], client: LLMClient, requested_model: str | None
) -> float | None:
    """Return the expected cost of a call, by the recorded answers, or ``None`` if a price is unknown."""
    request = records[0].request
    model = str(request["model"] if requested_model is None else requested_model)
    price = client.price(model, tier_of(client.resolved.defaults))
    if price is None:
        return None
    costs = []
    for record in records:
        response = record.response
        if None in record.usage[:2]:  # the server did not report the tokens
            usage = {
                "prompt_tokens": int(client.count_tokens(request["messages"], model)),
                "completion_tokens": int(client.count_tokens(record.answer, model)),
            }
            response = {**response, "usage": usage}
        cost = price.cost_of_answer(response)
        if cost is None:
            return None
        costs.append(cost.total)
    return fmean(costs)


def _record_answers(check: DriftCheck, client: LLMClient, to: str | os.PathLike[str]) -> None:
    """Record the answers to a check's calls in a cassette; recorded answers are not requested again.

    If some answers were filtered or empty, the recording stays incomplete, so that the next check
    requests these again.
    """
    errors: list[APIError] = []

    def resend(call: DriftCall) -> None:
        try:
            client.resend(check.request(call), call.sample)
        except (ContentFilterError, EmptyAnswerError) as error:
            errors.append(error)

    try:
        with (
            suppress(ContentFilterError, EmptyAnswerError),
            Cassette(to, settings().cassette_mode),
            scope(None),
        ):
            run_map(resend, check.calls)
            if errors:
                raise errors[0]
    except CacheMissError as error:
        raise CacheMissError(
            f"{os.fspath(to)} contains another check, or a part of this one. Name another file, or repeat the check "
            "with the same recording, seed, share, where and model. To add the missing answers, set "
            "LLMCALL_CASSETTE_MODE=new"
        ) from error
    except APIError as error:
        if error.status_code == NOT_FOUND or error.code == NO_SUCH_MODEL:
            error.args = (f"{str(error).rstrip('.')}. {GONE}",)
        raise
    if len(errors) == len(check.calls):
        raise errors[0]
