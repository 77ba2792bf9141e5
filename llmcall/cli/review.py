"""``llmcall show`` and ``diff``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import click

from ..errors import CacheError
from ..review.comparison import Comparison, markdown_of
from ..review.conversations import read_by_actor, read_by_round, text_lines
from ..review.runs import SCOPES_SHOWN_BY, RecordedRun, load
from ..support.display import has_colours, visible
from .options import Source, json_option
from .output import echo, echo_json, fitted, is_terminal, with_colours

SOURCE = Source(exists=True)
LINES_AT_ONCE = 1000  # to print


scope_option = click.option(
    "--scope",
    metavar="GLOB",
    help="Only this scope and the scopes below it, or all that match a pattern such as 'rep-1/l*'.",
)
other_scope_option = click.option(
    "--with",
    "other_scope",
    metavar="GLOB",
    help="Like --scope, but for the other run. Looked up in RUN unless OTHER is given.",
)


def source_of(run: str, scope: str | None) -> object:
    """Return the run that the arguments name."""
    return run if scope is None else (run, scope)


def load_both(
    run: str, scope: str | None, other: str | None, other_scope: str | None
) -> tuple[list[RecordedRun], Comparison]:
    """Return the runs to show, and their comparison; one scope of two runs only selects what is shown."""
    if scope is None or other is None or other_scope is not None:
        one, two = load(source_of(run, scope)), load(source_of(other or run, other_scope))
        return [one, two], Comparison(one, [two])
    whole = [load(run), load(other)]
    comparison = Comparison(whole[0], whole[1:], scope=scope)
    if not comparison.pairs:
        names = " or ".join(side.name for side in whole)
        raise CacheError(
            f"nothing is recorded in the scope {scope!r} of {names}; {SCOPES_SHOWN_BY}"
        )
    sides = zip(*((pair.one, pair.other) for pair in comparison.pairs), strict=True)
    shown = [
        compared._replace(
            name=f"the scope {scope!r} of {compared.name}",
            records=[record for record in side if record is not None],
        )
        for compared, side in zip(whole, sides, strict=True)
    ]
    return shown, comparison


@click.command()
@click.argument("run", type=SOURCE)
@scope_option
@click.option(
    "--by",
    type=click.Choice(["actor", "round"]),
    default="actor",
    show_default=True,
    help="Group the calls by actor or by round.",
)
@json_option
def show(run: str, scope: str | None, by: str, as_json: bool) -> None:
    """Show a run as conversations.

    RUN is a cassette, an exported file or a cache directory. "--by round" shows all actors' first
    calls, then their second calls, and so on. The output is the
    same each time, so git can use "llmcall show" as a textconv, which turns a cassette into text for
    "git diff". If a file cannot be read, the reason is shown first, then the file as it is.
    """
    is_whole_file = scope is None and Path(run).is_file()
    try:
        recorded_run = load(source_of(run, scope), may_be_empty=is_whole_file)
        served, origin = recorded_run.served, recorded_run.origin  # reads each record
    except CacheError as error:
        if not is_whole_file:
            raise
        raw_lines = visible(Path(run).read_bytes().decode("utf-8", errors="replace")).splitlines()
        _print_lines([f"cannot be read: {error}", *raw_lines])
        return
    if as_json:
        records = [record.as_dict() for record in recorded_run.records]
        echo_json(records, default=bytes.hex)
        return
    is_by_round = by == "round"
    calls = read_by_round(recorded_run) if is_by_round else read_by_actor(recorded_run)
    settings = {} if is_by_round else recorded_run.settings
    _print_lines(text_lines(settings, calls, served, origin, names_scopes=is_by_round))


def _print_lines(lines: Iterable[str]) -> None:
    """Print lines in UTF-8, with colours only to a terminal."""
    rest = iter(lines)
    while text := "".join(f"{line}\n" for line in islice(rest, LINES_AT_ONCE)):
        if not is_terminal():
            echo(click.unstyle(text).encode(), nl=False)
        else:
            shown = fitted(text)
            echo(shown if has_colours(is_terminal=True) else click.unstyle(shown), nl=False)


@click.command()
@click.argument("run", type=SOURCE)
@click.argument("other", required=False, type=SOURCE)
@scope_option
@other_scope_option
@click.option("--exit-code", is_flag=True, help="Exit with 1 if the runs differ.")
@json_option
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print Markdown for a pull request's comment."
)
def diff(
    run: str,
    other: str | None,
    scope: str | None,
    other_scope: str | None,
    exit_code: bool,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Show where and why two runs diverge, by actor.

    RUN and OTHER are cassettes, exported files or cache directories. With two files, --scope
    filters the output; the whole runs are still compared. With RUN alone, --scope and --with name the two
    scopes to compare. The exit code is 0 even if the runs differ, unless you use --exit-code (as with git
    diff).
    """
    if other is None and other_scope is None:
        raise click.UsageError("give two runs: RUN OTHER, or RUN --scope NAME --with NAME")
    _, comparison = load_both(run, scope, other, other_scope)
    if as_json:
        echo_json(comparison.to_dict())
    elif as_markdown:
        echo(markdown_of(comparison), nl=False)
    else:
        echo(with_colours(str(comparison)))
    if exit_code and comparison.same != len(comparison.pairs):
        raise click.exceptions.Exit(1)
