"""``llmcall cassette``: recordings to be reviewed, compared and merged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import CacheCorruptError, CacheError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..cassettes.format import Lines
    from ..review.conversations import Group
    from ..review.text import Line
    from ..types import Record

__all__ = ["cassette"]

STYLES: dict[str, dict[str, Any]] = {
    "scope": {"bold": True},
    "call": {"fg": "cyan"},
    "role": {"fg": "blue"},
    "answer": {"fg": "green"},
    "note": {"dim": True},
    "settings": {"dim": True},
    "+": {"fg": "green"},
    "-": {"fg": "red"},
    "~": {"fg": "yellow"},
}

existing = click.Path(exists=True, dir_okay=False)


@click.group()
def cassette() -> None:
    """Review, compare and merge recordings."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def _read(file: str) -> Lines:
    from ..cassettes import format as lines
    from ..requests.keys import key_of

    return lines.read(file, key_of)


def _grouped(found: Lines) -> list[Group]:
    from ..review.conversations import grouped

    return grouped(found)


# show


@cassette.command()
@click.argument("file", type=existing)
@click.option("--html", is_flag=True, help="Write one page for a browser, which needs no other file.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to a file instead of standard output.")
@click.option("--textconv", is_flag=True, help="For git: a file that cannot be read is shown as it is.")
@as_json
def show(file: str, html: bool, output: str | None, textconv: bool, as_json: bool) -> None:
    """Show what was asked and answered, as conversations.

    The text is the same each time, so git can compare it: "llmcall cassette show --textconv" is a textconv.
    """
    if html and as_json:
        raise click.UsageError("--html and --json exclude each other")
    try:
        _write(_shown(file, html, as_json), output)
    except CacheError as error:
        if not textconv:
            raise
        _write([_plain_line(f"cannot be read: {error}"), *map(_plain_line, _raw_lines(file))], output)


def _shown(file: str, html: bool, as_json: bool) -> list[Line]:
    from ..review.text import text_lines

    found = _read(file)
    if as_json:
        records = [record._asdict() for record in found]
        return [_plain_line(json.dumps(records, indent=2, ensure_ascii=False, default=bytes.hex))]
    groups = _grouped(found)
    if html:
        from ..review.page import page

        return [_plain_line(page(Path(file).name, found.settings, groups))]
    return list(text_lines(found.settings, groups))


def _plain_line(text: str) -> Line:
    from ..review.text import Line

    return Line("plain", text)


def _raw_lines(file: str) -> list[str]:
    from ..review.text import visible

    return visible(Path(file).read_bytes().decode("utf-8", errors="replace")).splitlines()


def _write(lines: Iterable[Line], output: str | None = None) -> None:
    """Write lines in UTF-8; colours only to a terminal."""
    if output is not None:
        Path(output).write_bytes(_encoded(lines))
    elif sys.stdout.isatty():
        for line in lines:
            click.echo(click.style(line.text, **STYLES.get(line.kind, {})))
    else:
        click.echo(_encoded(lines), nl=False)


def _encoded(lines: Iterable[Line]) -> bytes:
    return "".join(f"{line.text}\n" for line in lines).encode()


# diff


@cassette.command()
@click.argument("before", type=existing)
@click.argument("after", type=existing)
@click.option("--exit-code", is_flag=True, help="Exit with 1 where the two differ.")
@as_json
def diff(before: str, after: str, exit_code: bool, as_json: bool) -> None:
    """Say which records came, went and changed, and where two runs part.

    The exit code is 0, also where they differ, unless --exit-code is given (as with git diff).
    """
    from ..review.changes import comparison_data, comparison_lines
    from ..review.comparison import compare

    first, second = _read(before), _read(after)
    found = compare(first, second, (first.settings, second.settings))
    if as_json:
        click.echo(json.dumps(comparison_data(found), indent=2, ensure_ascii=False))
    else:
        _write(comparison_lines(found))
    if exit_code and (found.partings or found.settings):
        raise click.exceptions.Exit(1)


# merge


@cassette.command()
@click.argument("one", type=existing)
@click.argument("other", type=existing)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The file to write.")
@click.option(
    "--on-conflict",
    type=click.Choice(["keep", "replace", "raise"]),
    default="raise",
    show_default=True,
    help="Where both answer a request differently: keep the first's answer, replace it, or write nothing.",
)
def merge(one: str, other: str, output: str, on_conflict: str) -> None:
    """Write the records of two files to one, and list the conflicts.

    The settings in their headers must be the same.
    """
    from ..cassettes import format as lines
    from ..clients.registry import settings
    from ..review.comparison import settings_changes

    first, second = _read(one), _read(other)
    different = [name for name, *_ in settings_changes(first.settings, second.settings)]
    if different:
        raise CacheError(f"{one} and {other} were recorded under different settings: {', '.join(different)}")
    records, conflicts = merged(first, second, on_conflict)
    for conflict in conflicts:
        click.echo(f"conflict: {_conflict(conflict)}", err=True)
    if conflicts and on_conflict == "raise":
        count = f"{len(conflicts)} request{'' if len(conflicts) == 1 else 's'}"
        raise CacheCorruptError(
            f"{one} and {other} answer {count} differently, and nothing was written; choose with --on-conflict"
        )
    lines.write(output, first.settings, records, allow=settings().cassette_allow)
    click.echo(f"{len(records):,} records written to {output}", err=True)


def _conflict(conflict: Conflict) -> str:
    from ..review.changes import named
    from ..review.conversations import grouped
    from ..review.text import visible

    calls = [grouped([record])[0].calls[0] for record in conflict]
    answers = [block.text for call in calls for said in call.answers[:1] for block in said.blocks[:1]]
    return f"{named(calls[0])}: {visible(' | '.join(json.dumps(text, ensure_ascii=False) for text in answers))}"


class Conflict(NamedTuple):
    """Be two answers to one request."""

    kept: Record
    other: Record


def merged(one: Iterable[Record], other: Iterable[Record], choice: str = "keep") -> tuple[list[Record], list[Conflict]]:
    """Return the records of two files, and the requests to which they hold different answers.

    :param one: records in the order of the calls; they come first, and the other's stand after what they followed
        there, so that the calls of a scope stay in order.
    :param choice: at a conflict, ``"keep"`` the first answer, or ``"replace"`` it by the other's.
    """
    found: dict[str, Record] = {record.cache_key: record for record in one}
    from ..review.comparison import same_answer

    followers: dict[str | None, list[Record]] = {}
    conflicts = []
    last = None
    for record in other:
        earlier = found.get(record.cache_key)
        if earlier is None:
            followers.setdefault(last, []).append(record)
            continue
        last = record.cache_key
        if not same_answer(earlier, record):
            conflicts.append(Conflict(earlier, record))
            if choice == "replace":
                found[last] = record
    ordered = list(followers.get(None, ()))
    for key, record in found.items():
        ordered += [record, *followers.get(key, ())]
    return ordered, conflicts
