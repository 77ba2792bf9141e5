"""What a page says of a run on top: its size, models, tokens and cost, and what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..display.formatting import as_json, counted, money
from ..display.printable import visible
from ..records.amounts import amounts_of
from ..records.served import is_given_by_model
from .conversations import ORDINARY_ENDS
from .marks import ASKED_AGAIN, REFUSED, ends_of

if TYPE_CHECKING:
    from .conversations import Call
    from .runs import RecordedRun


def facts(
    run: RecordedRun, calls: Sequence[Call], marks: Mapping[int, Sequence[str]]
) -> dict[str, str]:
    """Return what is said of a run, by its label.

    :param marks: of each record, by its ``id``.
    """
    model_calls = [call for call in calls if is_given_by_model(call.record)]
    amounts = amounts_of(call.record for call in calls)
    settings = {
        name: value if isinstance(value, str) else as_json(value)
        for name, value in sorted(run.settings.items())
        if name not in ("model", "embedding_model")
    }
    by_label = {
        "calls": _sizes(calls),
        "actors": f"{len(run.by_actor()):,}",
        "model": ", ".join(sorted({call.model for call in model_calls})),
        "answered by": ", ".join(run.served),
        "tokens in": _sum(amounts.input_tokens, "{:,}".format),
        "tokens out": _sum(amounts.output_tokens, "{:,}".format),
        "cost": _sum(amounts.cost, money),
        "failures": "; ".join(_failures(run, model_calls, marks)),
        **settings,
    }
    return {label: visible(value) for label, value in by_label.items() if value}


def _sizes(calls: Sequence[Call]) -> str:
    kinds = Counter(call.record.kind for call in calls)
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return f"{len(calls):,} ({by_kind})" if len(kinds) > 1 else f"{len(calls):,}"


def _sum(amounts: Sequence[float | None], written: Callable[[float], str]) -> str:
    """Return the sum of what is known, and how many amounts are not.

    :param written: writes a sum.
    """
    known_amounts = [amount for amount in amounts if amount is not None]
    if not known_amounts:
        return "unknown"
    unknown = len(amounts) - len(known_amounts)
    return written(sum(known_amounts)) + (f", {unknown:,} unknown" if unknown else "")


def _failures(
    run: RecordedRun, calls: Iterable[Call], marks: Mapping[int, Sequence[str]]
) -> Iterator[str]:
    """Yield what went wrong, as far as records tell: a call that failed for good leaves none."""
    ends: Counter[str] = Counter()
    mark_counts: Counter[str] = Counter()
    for call in calls:
        mark_counts.update(marks.get(id(call.record), ()))
        ends.update(ends_of(call.record))
    yield from (
        f"{counted(count, 'answer')} ended by {end}"
        for end, count in ends.items()
        if end not in ORDINARY_ENDS
    )
    for mark in (REFUSED, ASKED_AGAIN):
        if mark_counts[mark]:
            yield f"{counted(mark_counts[mark], 'answer')} {mark}"
    if not run.is_complete:
        yield "the recording broke off"
