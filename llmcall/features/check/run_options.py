"""``llmcall run --check [N]``, and the option of the replays that it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ...cli.options import NumberOption, RunOption
from .check import FEWEST, USUAL, check_replays
from .held_back import Plan, held_back


def _check(replays: int | None) -> None:
    """Check the replays and end the command, if it is to check; else let it run the program."""
    if replays is not None:
        check_replays(replays)


@contextmanager
def _held_back(plan: str | None) -> Iterator[None]:
    """Hold answers back in one of the replays, and note what it asked."""
    if plan is None:
        yield
        return
    with held_back(Plan.read(plan)):
        yield


CHECK_OPTION = RunOption(
    click.option(
        "--check",
        "replays",
        cls=NumberOption,
        usual=USUAL,
        type=click.IntRange(FEWEST),
        help=f"Replay the program N times (default: {USUAL}), each time with other delays and another hash seed, and "
        "compare exit code, output, and what each caller asks.",
    ),
    before=_check,
)
HELD_BACK_OPTION = RunOption(click.option("--held-back", "held_back", hidden=True), _held_back)
