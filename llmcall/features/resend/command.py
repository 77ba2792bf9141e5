"""``llmcall resend``."""

from __future__ import annotations

import shlex
from typing import Any

import click

from ...cli.options import Source, UserPath, unicode_text
from ...cli.output import echo
from ...review.runs import load
from ...support.display import counted, visible
from ..plans.plan import Plan
from .resend import file_of, last_calls
from .resend import resend as resend_sample


@click.command()
@click.argument("run", type=Source(exists=True))
@click.option(
    "--share",
    type=float,
    help="The share of the different requests to send. Without it and --calls, for at most a tenth of the "
    "recording's cost.",
)
@click.option(
    "--calls", type=click.IntRange(min=1), help="The number of calls, instead of --share."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The seed that selects the requests."
)
@click.option("--last", is_flag=True, help="Only the last request of each conversation.")
@click.option(
    "--model", callback=unicode_text, help="Another model to ask instead of the recorded one."
)
@click.option(
    "--dry-run", is_flag=True, help="Make no call. Print the number of calls and their cost."
)
@click.option(
    "-o",
    "--to",
    type=UserPath(dir_okay=False),
    metavar="FILE",
    help="The cassette that records the new answers, by default RUN with .again before its suffix. Answers that it "
    "already contains are replayed.",
)
def resend(run: str, last: bool, **options: Any) -> None:
    """Resend some recorded requests and count the same answers.

    RUN is a cassette, an exported file or a cache directory. It is not changed. The output says how
    many requests got the same answer again, and who answered then and now. llmcall.resend returns the
    answers as a table, and llmcall.effect the shift of a value with its interval.
    """
    where = last_calls(load(run)) if last else None
    found = resend_sample(run, where=where, **options)
    if isinstance(found, Plan):
        echo(visible(str(found)))
        return
    to = file_of(run, options["to"])
    then, now = (
        found[found["when"] == when].groupby("request", sort=False)["answer"].agg(list)
        for when in ("then", "now")
    )
    twice = then[then.str.len() > 1]
    before = f"{(twice.str[0] == twice.str[1]).sum():,} of {counted(len(twice), 'request')}"
    again = f"{(then.str[0].reindex(now.index) == now.str[0]).sum():,} of {counted(len(now), 'request')}"
    lines = [
        f"{counted(int(now.str.len().sum()), 'answer')} to {counted(len(now), 'request')}",
        f"the same answer again, before: {before} (the first two recorded answers)"
        if len(twice)
        else "the same answer again, before: unknown, since none of these requests was recorded twice",
        f"the same answer again, now: {again} (the first recorded answer and the first new one)",
        f"answered then: {', '.join(load(run).served)}",
        f"answered now: {', '.join(load(to).served)}",
        f"to compare them: llmcall diff {shlex.quote(run)} {shlex.quote(to)}",
    ]
    echo(visible("\n".join(lines)))
