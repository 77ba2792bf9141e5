"""``llmcall cassette``: recordings merged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import click

from ..errors import CacheError
from ..types import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["cassette", "merged"]

existing = click.Path(exists=True, dir_okay=False)


@click.group()
def cassette() -> None:
    """Merge recordings; "show", "diff" and "report" look at them."""


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

    first, second = lines.read(one), lines.read(other)
    names = sorted({*first.settings, *second.settings})
    different = [name for name in names if first.settings.get(name) != second.settings.get(name)]
    if different:
        raise CacheError(f"{one} and {other} were recorded under different settings: {', '.join(different)}")
    records, conflicts = merged(first, second, on_conflict)
    for conflict in conflicts:
        click.echo(f"conflict: {_conflict(conflict)}", err=True)
    if conflicts and on_conflict == "raise":
        count = f"{len(conflicts)} request{'' if len(conflicts) == 1 else 's'}"
        raise CacheError(
            f"{one} and {other} answer {count} differently, and nothing was written; choose with --on-conflict"
        )
    lines.write(output, first.settings, records, allow=settings().cassette_allow)
    click.echo(f"{len(records):,} records written to {output}", err=True)


def _conflict(conflict: Conflict) -> str:
    from ..review.conversations import grouped, named
    from ..text import visible

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
    from ..review.runs import same_answer

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
