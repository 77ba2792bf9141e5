"""The lines with which a run or a server ends: the calls sent, replayed and refused, and the unused records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ..additions import additions
from ..config import resolve as config
from ..config.values import without_password
from ..stores.cassettes.cassette import Cassette
from ..stores.cassettes.reports import FROM_CACHE
from ..support.display import counted, money
from ..support.failures import Counts
from .interceptors import Sight
from .recorder import Recorder


def has_gaps(recorder: Recorder, cassette: Cassette | None, missed: list[str]) -> bool:
    """Return whether a recording lacks something, or a replay refused it, so that the exit code is not 0.

    :param cassette: the closed cassette, or ``None``.
    :param missed: the lines about children that were not recorded.
    """
    is_left_out = cassette is not None and bool(cassette.left_out)
    is_refused = recorder.first_error is not None or (recorder.sends_nothing and bool(missed))
    return is_left_out or is_refused


def summary_lines(
    recorder: Recorder,
    cassette: Cassette | None,
    whole: Counts,
    file: Path | None,
    another: str,
    explain: Callable[[], str],
) -> list[str]:
    """Return a line that counts the calls of a run, and lines of what the user must know about them.

    :param cassette: the closed cassette that recorded them; ``None``: they are all calls of the process.
    :param whole: the counts of the process since the run began.
    :param file: its path, whatever the working directory is now.
    :param another: in words, how to make another repeat.
    :param explain: returns why there were no calls.
    """
    counts = whole if cassette is None else cassette.counts
    sums, not_recorded, moved, replayed = counts.sums, 0, 0, 0
    given = [(sums[word], word) for word in additions("given").values()]
    # Each of these counts as replayed from the cassette or, without one, as from the cache.
    given_calls = sum(number for number, _ in given)
    supplied = sums["cached_calls"] - given_calls
    if cassette is not None:
        moved = cassette.tape.callers.calls
        not_recorded = sums["asked"] - sums["recorded"] + len(cassette.left_out)
        supplied = sums["cached_calls"] - sums["replayed_calls"]
        replayed = sums["replayed_calls"] - given_calls
    spent = ", ".join(_spent(counts))
    parts = [
        (sums["asked"], f"asked ({spent})" if spent else "asked"),
        (supplied, "from the cache"),
        (replayed, "replayed"),
        *given,
        (sums["retries"], "retry" if sums["retries"] == 1 else "retries"),
        (sums["unsent"], "not sent"),
        (not_recorded, "not recorded"),
        (whole.sums["refused"] + recorder.refused, "refused"),
    ]
    shown = [f"{number:,} {words}" for number, words in parts if number] or ["0 asked"]
    where = _where_recorded(recorder, cassette, file)
    if shown == [f"{replayed:,} replayed"]:
        lines = [f"{counted(replayed, 'call')} replayed from {where}"]
    else:
        lines = [f"{', '.join(shown)}: {where}"]
    is_used = cassette is not None and (
        cassette.recorded or cassette.replayed or cassette.failures.is_used
    )
    if shown == ["0 asked"] and not (
        is_used or recorder.seen[Sight.MODEL_CONNECTION] or recorder.seen[Sight.MODEL_REQUEST]
    ):
        lines += filter(None, [explain()])
    if moved:
        calls = counted(moved, "call")
        lines.append(f"{calls} may have another caller's answer. Name the actors: --actor")
    is_of_earlier_run = supplied if cassette is None else cassette.supplied
    if is_of_earlier_run and not recorder.sends_nothing:
        own = "" if cassette is None else " and a new cassette"
        lines.append(
            f"the answers from the cache come {FROM_CACHE}. For new ones, use {another}{own}"
        )
    if cassette is not None and cassette.unused_words:
        lines.append(cassette.unused_words)
    return lines


def _where_recorded(recorder: Recorder, cassette: Cassette | None, file: Path | None) -> str:
    """Return where the answers are: the cassette, or without one the cache."""
    if cassette is not None:
        is_saved = cassette.file.is_written or not cassette.recorded
        is_file = is_saved and file is not None and file.exists()
        return str(cassette.path) if is_file else f"{cassette.path} not written"
    settings = config.settings()
    if settings.cache_mode == "off" and not recorder.sends_nothing:
        return "nothing was recorded, because the cache's mode is off"
    return str(without_password(settings.cache_path))


def _spent(counts: Counts) -> Iterator[str]:
    """Yield the amounts spent, and for how many answers they are unknown: a part never counts as the whole."""
    sums = counts.sums
    tokens = sums["input_tokens"] + sums["output_tokens"]
    if tokens:
        yield counted(tokens, "token")
    if tokens and "cost" in sums:
        yield money(sums["cost"])
    unknown_tokens = max(counts.unknown["input_tokens"], counts.unknown["output_tokens"])
    unknown = {"tokens": unknown_tokens, "cost": counts.unknown["cost"]}
    if unknown["tokens"] == unknown["cost"]:
        unknown = {"tokens and cost": unknown_tokens}
    for name, number in unknown.items():
        if number:
            yield f"{name} unknown for {counted(number, 'call')}"
