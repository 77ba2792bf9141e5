"""``llmcall drift``: check whether a model still answers a recording's requests as it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..display.printable import visible, visible_json
from .cache import Source, json_option
from .named import object_named

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command()
@click.argument("run", type=Source(exists=True))
@click.option(
    "--to",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The cassette that records the new answers. Answers that it already contains are replayed.",
)
@click.option(
    "--share",
    type=float,
    default=0.05,
    show_default=True,
    help="The share of the different requests to ask again.",
)
@click.option(
    "--calls", type=click.IntRange(min=1), help="The number of calls, instead of --share."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Decides which requests are asked again."
)
@click.option("--model", help="Another model to ask instead of the recorded one.")
@click.option(
    "--value",
    metavar="MODULE:FUNCTION",
    help="A function that turns an answer's text into a number, or None if it is unreadable.",
)
@click.option(
    "--scope", metavar="GLOB", help="Only requests in this scope and the scopes below it."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Make no call. Print the number of calls and the cost.",
)
@json_option
def drift(
    run: str,
    to: str | None,
    share: float,
    calls: int | None,
    seed: int,
    model: str | None,
    value: str | None,
    scope: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask some recorded requests again and compare the answers.

    RUN is a cassette, an exported file or a cache directory. It is not changed. For each value, the
    output shows how far it has shifted, with a 95 % interval.
    """
    from ..study.drift.drift import drift as check

    if to is None and not dry_run:
        raise click.UsageError("name the file for the new answers, --to FILE, or use --dry-run")
    options: dict[str, Any] = {
        "share": share,
        "calls": calls,
        "seed": seed,
        "value": None if value is None else _function(value),
        "model": model,
        "to": to,
    }
    recorded = run if scope is None else (run, scope)
    if dry_run:
        plan = check(recorded, **options, dry_run=True)
        click.echo(visible_json(plan._asdict()) if as_json else visible(str(plan)))
        return
    result = check(recorded, **options)
    click.echo(visible_json(result.to_dict()) if as_json else visible(str(result)))


def _function(name: str) -> Callable[[str], Any]:
    """Return the function that an option names; modules of the working directory are found."""
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise click.UsageError(f"--value {name!r} must be MODULE:FUNCTION")
    try:
        named_function = object_named(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.UsageError(f"--value {name!r}: {error}") from error
    if not callable(named_function):
        raise click.UsageError(f"--value {name!r} is not a function")
    return named_function  # type: ignore[no-any-return]
