"""``llmcall cassette``: merges and checks cassettes, and drops answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import click

from ..clients.registry import settings
from ..config import resolve as config
from ..errors import CacheError
from ..keys.http_identity import under_settings
from ..keys.plain_data import is_same
from ..review.conversations import record_name
from ..stores.cache.cache import shared_cache
from ..stores.record import NumberedDraw, draw_of
from ..stores.records.answers import combine
from ..stores.records.reader import RecordFile, read
from ..stores.records.writer import write
from ..support.display import as_json, counted, printable, visible
from .options import Group, conflict_option, full_key, json_option, to_option
from .output import echo, echo_json

existing_file = click.Path(exists=True, dir_okay=False)
INCOMPLETE = (
    "the recording is incomplete: its run was interrupted, or the cassette was not closed. Run the program again "
    "in mode 'once', which continues the recording"
)


@click.group(cls=Group)
def cassette() -> None:
    """Merge and check cassettes, or remove answers."""


@cassette.command()
@click.argument("one", type=existing_file)
@click.argument("other", type=existing_file)
@to_option("The file to write.")
@conflict_option("raise", "keep the first file's answer, replace it, or write nothing")
def merge(one: str, other: str, to: str, on_conflict: str) -> None:
    """Write the records of two files to one, and list the conflicts.

    The settings in the two headers must be the same.
    """
    first, second = read(one), read(other)
    differences = first.header.differences(second.header)
    if differences and first.header.settings and second.header.settings:  # an empty file has none
        raise CacheError(
            f"{one} and {other} were recorded under different settings: {differences}; keep both files, or record one "
            "again with the other's settings"
        )
    records, conflicts = combine([*first], [*second], on_conflict)
    for conflict in conflicts:
        answers = " | ".join(as_json(record.answer) for record in conflict)
        echo(f"conflict: {record_name(conflict[0])}: {visible(answers)}", err=True)
    if conflicts and on_conflict == "raise":
        count = counted(len(conflicts), "request")
        raise CacheError(
            f"{one} and {other} have different answers to {count}, so nothing was written; choose with --on-conflict"
        )
    merged = {os.path.realpath(one): first, os.path.realpath(other): second}
    replaced = merged.get(os.path.realpath(to))
    digest = None if replaced is None else replaced.content
    write(to, first.header.joined(second.header), records, replaces=digest)
    echo(f"{counted(len(records), 'record')} written to {to}", err=True)


class Finding(NamedTuple):
    """A problem of a record in a file, or of the file.

    :param about: ``"key"`` or ``"draws"``; ``"complete"`` of the file.
    :param record: the record's number in the file, from 1; 0 for the file.
    :param sample: its scope path and draw; empty outside any scope.
    :param words: the problem.
    """

    about: str
    record: int
    sample: str
    words: str

    def __str__(self) -> str:
        if not self.record:
            return self.words
        sample = f" ({printable(self.sample)})" if self.sample else ""
        return f"record {self.record}{sample}: {self.words}"


def findings(file: RecordFile) -> Iterator[Finding]:
    """Yield that a recording is incomplete, the records whose key does not match the header, then those that follow
    a missing draw.
    """
    if not file.header.is_complete:
        yield Finding("complete", 0, "", INCOMPLETE)
    header = file.header.settings
    normalizers = tuple(header.get("cache_normalize") or ())
    with config.configured(cache_normalize=normalizers, aliases=header.get("aliases", {})):
        settings = config.settings()
    draws: set[NumberedDraw] = set()
    later: list[tuple[int, str, NumberedDraw]] = []  # draws, each with the one before it
    for number, record in enumerate(file, 1):
        sample = record.sample or ""
        if not is_same(under_settings(record.request, settings), record.request):
            words = (
                "with the header's settings, its request has a different key, so no call finds it"
            )
            yield Finding("key", number, sample, words)
        if draw := draw_of(record):
            draws.add(draw)
            if draw.number:
                later.append((number, sample, draw._replace(number=draw.number - 1)))
    for number, sample, before in later:
        if before not in draws:
            words = f"the draw before it, #{before.number}, is missing"
            yield Finding("draws", number, sample, words)


@cassette.command()
@click.argument("file", type=existing_file)
@json_option
def check(file: str, as_json: bool) -> None:
    """Check that a cassette's records fit together.

    Lists unreadable records, requests that no call can make under the header's settings, missing draws,
    and whether the recording was interrupted. The exit code is 1 if there are any, or if the file cannot be read.
    """
    recording = read(file)
    found = list(findings(recording))
    if as_json:
        echo_json([finding._asdict() for finding in found])
    else:
        for finding in found:
            echo(str(finding))
        count = counted(len(recording), "record")
        conclusion = counted(len(found), "finding") if found else "no inconsistency found"
        echo(f"{file}: {count}, {conclusion}", err=True)
    if found:
        raise click.exceptions.Exit(1)


@cassette.command()
@click.argument("file", type=existing_file)
@click.argument("key", nargs=-1, required=True)
def forget(file: str, key: tuple[str, ...]) -> None:
    """Drop answers, so that they are requested again.

    KEY is a record's key or the beginning of one, as tables and "llmcall show --json" have it. The
    answer leaves FILE and the configured disk cache; mode "update" then requests it alone.
    """
    recording = read(file)
    records = list(recording)
    place = f"{counted(len(records), 'record')} of {file}"
    shown_by = f"llmcall show --json {file}"
    keys = {
        full_key((record.cache_key for record in records), prefix, place, shown_by=shown_by)
        for prefix in key
    }
    kept = [record for record in records if record.cache_key not in keys]
    write(file, recording.header, kept, replaces=recording.content)
    cache = shared_cache(settings().cache_path)
    cached = cache.delete(keys=keys)
    echo(
        f"{counted(len(keys), 'record')} dropped from {file}, {cached:,} from the cache {cache.path}; mode 'update' "
        "requests what is missing",
        err=True,
    )
