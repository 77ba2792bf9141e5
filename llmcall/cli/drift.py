"""``llmcall drift``: check whether a model still answers a recording's requests as it did."""

from __future__ import annotations

from typing import Any

import click

from ..display.printable import visible, visible_json
from .cache import Source, json_option
from .named import function_named


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
def drift(run: str, scope: str | None, value: str | None, as_json: bool, **options: Any) -> None:
    """Ask some recorded requests again and compare the answers.

    RUN is a cassette, an exported file or a cache directory. It is not changed. For each value, the
    output shows how far it has shifted, with a 95 % interval.
    """
    from ..study.drift.drift import drift as check

    if options["to"] is None and not options["dry_run"]:
        raise click.UsageError("name the file for the new answers, --to FILE, or use --dry-run")
    if value is not None:
        options["value"] = function_named("--value", value)
    result: Any = check(run if scope is None else (run, scope), **options)
    if as_json:
        click.echo(visible_json(result._asdict() if options["dry_run"] else result.to_dict()))
    else:
        click.echo(visible(str(result)))
