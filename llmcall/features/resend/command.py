"""``llmcall resend``."""

from __future__ import annotations

import shlex
from typing import Any

import click

from ...apis.token_usage import total_cost
from ...cli.options import Source
from ...cli.output import echo
from ...review.runs import load
from ...support.display import counted, money, visible
from ..plans.plan import Plan
from .resend import file_of
from .resend import resend as resend_sample


@click.command()
@click.argument("run", type=Source(exists=True))
@click.option("--share", type=float, help="The share of the different requests to send.")
@click.option(
    "--calls", type=click.IntRange(min=1), help="The number of requests, instead of --share."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The seed that selects the requests."
)
@click.option("--model", help="Another model to ask instead of the recorded one.")
@click.option(
    "--dry-run", is_flag=True, help="Make no call. Print the number of calls and their cost."
)
@click.option(
    "-o",
    "--to",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The cassette that records the new answers, by default RUN with .again before its suffix. Answers that it "
    "already contains are replayed.",
)
def resend(run: str, **options: Any) -> None:
    """Resend some recorded requests and count the same answers.

    RUN is a cassette, an exported file or a cache directory. It is not changed. The output says how
    many requests got one of their recorded answers again, who answered then and now, and the cost.
    llmcall.resend returns the answers as a table, and llmcall.effect the shift of a value with its interval.
    """
    found = resend_sample(run, **options)
    if isinstance(found, Plan):
        echo(visible(str(found)))
        return
    then, now = (
        found[found["when"] == when].groupby("request")["answer"].agg(set)
        for when in ("then", "now")
    )
    same = sum(bool(now[request] & then[request]) for request in now.index)
    again = load(to := file_of(run, options["to"]))
    cost = total_cost(record.cost for record in again.records)
    spent = "cost unknown" if cost is None else money(cost)
    lines = [
        f"{same:,} of {counted(len(now), 'request')} got one of their recorded answers again ({spent})",
        f"answered then: {', '.join(load(run).served)}",
        f"answered now: {', '.join(again.served)}",
        f"to compare them: llmcall diff {shlex.quote(run)} {shlex.quote(to)}",
    ]
    echo(visible("\n".join(lines)))
