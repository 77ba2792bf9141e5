"""``llmcall report``."""

from __future__ import annotations

import re
from pathlib import Path

import click

from ...cli.output import echo
from ...cli.review import SOURCE, load_both, other_scope_option, scope_option, source_of
from ...clients.registry import settings
from ...review.runs import load
from ...support import secrets
from ...support.system import check_replaceable
from .page import page

MARK = b'<meta name="generator" content="llmcall">'  # in each page


@click.command()
@click.argument("run", type=SOURCE)
@click.option("--against", type=SOURCE, help="Another run, to show next to this one.")
@scope_option
@other_scope_option
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    help="Show at most this many calls, from evenly chosen actors (10,000).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="The HTML file to write. By default, it has the run's name.",
)
def report(
    run: str,
    against: str | None,
    scope: str | None,
    other_scope: str | None,
    sample: int | None,
    output: str | None,
) -> None:
    """Render a run, or two side by side, as HTML.

    RUN is a cassette, an exported file or a cache directory. The page needs no other file and no
    network. Without -o, "market.jsonl" becomes "market.html" in the current directory, and two runs
    "monday-tuesday.html". A file that is not such a page is left as it is.
    """
    if output is None:
        names = [scope or Path(run).stem, other_scope or (Path(against).stem if against else "")]
        output = re.sub(r"[^\w.-]+", "-", "-".join(filter(None, names))).strip("-.") + ".html"
    if against is None and other_scope is None:
        runs, comparison = [load(source_of(run, scope))], None
    else:
        runs, comparison = load_both(run, scope, against, other_scope)
    path = Path(output).resolve()
    check_replaceable(str(path), MARK)
    text = page(*runs, comparison=comparison, sample=sample)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    echo(f"written to {output}", err=True)
    match = secrets.find(text, settings().cassette_allow)
    if match is not None:
        echo(
            f"{output} contains what looks like {match.kind} ({match.beginning}…); search the page for it before you "
            "share it. If it is not a secret, set [Cassette] ALLOW to a regular expression that matches all of it",
            err=True,
        )
