"""The lines with which a run or a server ends: the calls sent, replayed and refused, and the unused records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import resolve as config
from ..config.values import without_password
from ..stores.cassettes.reports import FROM_CACHE
from ..support.display import counted, money
from ..support.failures import process_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..stores.cassettes.cassette import Cassette
    from ..traffic.usage import RunUsage
    from .recorder import Recorder


def summary_lines(
    recorder: Recorder,
    cassette: Cassette | None,
    usage: RunUsage,
    file: Path | None,
    another: str,
    explain: Callable[[], str],
) -> list[str]:
    """Return a line that counts the calls of a run, and what the user must know of them.

    :param cassette: the closed cassette that recorded them; ``None``: they are all calls of the process.
    :param usage: what they used.
    :param file: its path, whatever the working directory is now.
    :param another: what makes another repeat.
    :param explain: returns why there were no calls.
    """
    failures = process_failures if cassette is None else cassette.failures
    replayed = not_recorded = in_doubt = 0
    if cassette is not None:
        replayed, not_recorded = usage.replayed_calls, failures.unrecorded
        in_doubt = cassette.tape.log.replayed_in_doubt()
    supplied = usage.cached_calls - replayed
    spent = ", ".join(_spent(usage))
    parts = [
        (failures.asked, f"asked ({spent})" if spent else "asked"),
        (supplied, "from the cache"),
        (replayed, "replayed"),
        (in_doubt, "of these by callers that a replay may swap"),
        (usage.retries, "retry" if usage.retries == 1 else "retries"),
        (failures.unsent, "not sent"),
        (not_recorded, "not recorded"),
        (process_failures.refused + recorder.refused, "refused"),
    ]
    counts = [f"{number:,} {words}" for number, words in parts if number] or ["0 asked"]
    where = _where_recorded(cassette, file)
    if counts == [f"{replayed:,} replayed"]:
        lines = [f"{counted(replayed, 'call')} replayed from {where}"]
    else:
        lines = [f"{', '.join(counts)}: {where}"]
    if counts == ["0 asked"] and not (recorder.unrecorded or recorder.passed):
        lines += filter(None, [explain()])
    if supplied and not recorder.sends_nothing:
        lines.append(_how_to_repeat(cassette, another))
    if cassette is not None and cassette.reports.unused:
        lines.append(cassette.reports.unused)
    return lines


def _where_recorded(cassette: Cassette | None, file: Path | None) -> str:
    """Return where the answers are: the cassette, or without one the cache."""
    if cassette is not None:
        is_saved = cassette.file.is_written or not cassette.recorded
        is_file = is_saved and file is not None and file.exists()
        return str(cassette.path) if is_file else f"{cassette.path} not written"
    settings = config.settings()
    if settings.cache_mode == "off":
        return "nothing was recorded, because the cache's mode is off"
    return str(without_password(settings.cache_path))


def _spent(usage: RunUsage) -> Iterator[str]:
    """Yield the amounts spent, and for how many answers they are unknown: a part never counts as the whole."""
    if usage.tokens:
        yield counted(usage.tokens, "token")
    if usage.tokens and usage.cost is not None:
        yield money(usage.cost)
    unknown = {"tokens": usage.unknown_tokens, "cost": usage.unknown_costs}
    if usage.unknown_tokens == usage.unknown_costs:
        unknown = {"tokens and cost": usage.unknown_costs}
    for name, number in unknown.items():
        if number:
            yield f"{name} unknown for {counted(number, 'call')}"


def _how_to_repeat(cassette: Cassette | None, another: str) -> str:
    """Return how another run gets new answers instead of the cache's."""
    own = "" if cassette is None else " and another cassette"
    return f"the answers from the cache come {FROM_CACHE}. For another repeat, use {another}{own}"
