"""``llmcall cache``: shows, moves and deletes recorded answers."""

from __future__ import annotations

import time
from collections import Counter

import click

from ..additions import additions
from ..clients.registry import settings
from ..config.values import without_password
from ..errors import CacheError
from ..keys.keys import short_key
from ..review.conversations import read_by_actor, text_lines
from ..review.runs import RecordedRun
from ..stores.cache.cache import ResponseCache
from ..stores.record import Record
from ..stores.records.header import model_of
from ..support.display import counted, one_line, printable, quantity, text_table
from .options import (
    Group,
    Source,
    Where,
    conflict_option,
    full_key,
    json_option,
    selection_options,
)
from .output import echo, echo_json

TEXT_CHARACTERS = 40  # of a question or an answer in a table
TOTALS = ("input_tokens", "output_tokens", "cost")


@click.group(cls=Group)
@click.option(
    "--path", type=click.Path(), help="Cache directory or server, instead of the configured one."
)
@click.pass_context
def cache(context: click.Context, path: str | None) -> None:
    """Inspect, move and delete recorded answers."""
    context.obj = context.with_resource(ResponseCache(path or settings().cache_path))


@cache.command()
@selection_options
@json_option
@click.pass_obj
def stats(response_cache: ResponseCache, where: Where | None, as_json: bool) -> None:
    """Show where the cache is, how large it is, and what is in it.

    Counts records, models, tokens and cost, and shows the oldest record's date. --scope, --model and
    --since select records.
    """
    models: Counter[str] = Counter()
    totals: dict[str, float] = dict.fromkeys(TOTALS, 0)
    unknown: set[str] = set()
    oldest: float | None = None
    for record in response_cache.records(where=where):
        models[record.model or record.kind] += 1
        oldest = min(oldest or record.stored_at or 0, record.stored_at or 0)
        if model_of(record):
            usage = record.usage
            amounts = {"input_tokens": usage.input_tokens, "cost": record.cost}
            if record.kind != "embedding":  # an embedding has no output tokens
                amounts["output_tokens"] = usage.output_tokens
            unknown |= {name for name, amount in amounts.items() if amount is None}
            for name, amount in amounts.items():
                totals[name] += amount or 0
    size = response_cache.stats().size
    count = models.total()
    sums = {name: None if name in unknown else total for name, total in totals.items()}
    if as_json:
        data = {
            "path": str(response_cache.path),
            "records": count,
            **sums,
            "size": size,
            "models": models,
            "since": oldest,
        }
        echo_json(data)
        return
    echo(f"{response_cache.path}: {counted(count, 'record')}, {size / 1e6:,.1f} MB")
    if count:
        names = (f"{printable(name)} ({number:,})" for name, number in models.most_common())
        amounts_text = (
            f"{name.replace('_', ' ')} {quantity(name, total)}" for name, total in sums.items()
        )
        echo(f"since {_date(oldest)}\nmodels: {', '.join(names)}\n{', '.join(amounts_text)}")


def _date(stored_at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(stored_at or 0))


@cache.command("ls")
@selection_options
@json_option
@click.pass_obj
def list_records(response_cache: ResponseCache, where: Where | None, as_json: bool) -> None:
    """List records, oldest first.

    --json prints more fields of each record, and whole texts.
    """
    records = list(response_cache.records(where=where))
    if as_json:
        echo_json([_record_fields(record) for record in records])
        return
    if not records:
        echo(_nothing_selected(response_cache), err=True)
        return
    rows = list(map(_row, records))
    echo(text_table([list(rows[0]), *(list(row.values()) for row in rows)], right=[4]))


def _nothing_selected(response_cache: ResponseCache) -> str:
    """Return the message for an empty selection."""
    return f"none of {counted(len(response_cache), 'record')} in {response_cache.path} matches"


def _record_fields(record: Record) -> dict[str, object]:
    return {
        "key": record.cache_key,
        "kind": record.kind,
        "model": record.model,
        "sample": record.sample,
        "stored_at": record.stored_at,
        "cost": record.cost,
        "asked": record.prompt,
        "answered": record.answer,
    }


def _row(record: Record) -> dict[str, str]:
    return {
        "key": short_key(record.cache_key),
        "model": printable(record.model or "-"),
        "sample": printable(record.sample or "-"),
        "stored": _date(record.stored_at),
        "cost": quantity("cost", record.cost),
        "asked": printable(one_line(record.prompt, TEXT_CHARACTERS)),
        "answered": printable(one_line(record.answer, TEXT_CHARACTERS)),
    }


@cache.command()
@click.argument("key")
@json_option
@click.pass_obj
def show(response_cache: ResponseCache, key: str, as_json: bool) -> None:
    """Show a record: the request and its answer.

    KEY is a record's key or the beginning of one.
    """
    record = response_cache.get(_full_key(response_cache, key), mode="replay")
    assert record is not None
    if as_json:
        echo_json(record.as_dict(), default=lambda data: data.hex())
        return
    echo(f"{record.kind} {record.cache_key}")
    echo(f"cost {quantity('cost', record.cost)}, stored {_date(record.stored_at)}")
    for line in text_lines({}, read_by_actor(RecordedRun("", [record], {}))):
        echo(line)


def _full_key(response_cache: ResponseCache, prefix: str) -> str:
    place = f"{counted(len(response_cache), 'record')} in {response_cache.path}"
    keys = (key for key, *_ in response_cache.storage.rows())
    return full_key(keys, prefix, place, shown_by="llmcall cache ls")


@cache.command()
@click.argument("file", type=click.Path(dir_okay=False))
@selection_options
@click.pass_obj
def export(response_cache: ResponseCache, file: str, where: Where | None) -> None:
    """Write records to a file.

    FILE has the format of a cassette (JSON Lines). If no record is selected, nothing is written.
    """
    count = response_cache.export(file, where=where)
    if not count:
        raise CacheError(f"{_nothing_selected(response_cache)}, so {file} was not written")
    echo(f"{counted(count, 'record')} written to {file}")


CACHES = ", or ".join(("another cache's directory or server", *additions("formats")))


@cache.command(
    help=f"""Add the records of a file or another cache.

    SOURCE is an exported file or cassette, {CACHES}."""
)
@click.argument("source", type=Source(exists=True))
@conflict_option("keep", "keep the cache's answer, replace it, or load nothing")
@click.pass_obj
def load(response_cache: ResponseCache, source: str, on_conflict: str) -> None:
    """Add the records of a file or another cache."""
    count = response_cache.load(source, on_conflict=on_conflict)
    echo(f"{counted(count, 'record')} loaded into {response_cache.path}")


@cache.command()
@click.argument("key", nargs=-1)
@selection_options
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def delete(
    response_cache: ResponseCache, key: tuple[str, ...], where: Where | None, yes: bool
) -> None:
    """Delete records.

    KEY is a record's key or the beginning of one.
    """
    if bool(key) == bool(where):
        raise click.UsageError(
            "give either KEYs, or --model, --scope or --since; 'llmcall cache clear' deletes all records"
        )
    keys = {_full_key(response_cache, prefix) for prefix in key}
    count = len(keys) or sum(1 for _ in response_cache.records(where=where))
    if count and not yes:
        total = counted(len(response_cache), "record")
        click.confirm(f"Delete {count:,} of {total} in {response_cache.path}?", abort=True)
    count = (
        response_cache.delete(keys=keys) if where is None else response_cache.delete(where=where)
    )
    echo(f"{counted(count, 'record')} deleted")


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def clear(response_cache: ResponseCache, yes: bool) -> None:
    """Delete all records."""
    count = len(response_cache)
    if count and not yes:
        click.confirm(f"Delete {counted(count, 'record')} in {response_cache.path}?", abort=True)
    echo(f"{counted(response_cache.clear(), 'record')} deleted")


@cache.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.pass_obj
def salvage(response_cache: ResponseCache, folder: str) -> None:
    """Copy the readable records of a damaged cache.

    They are written to a new cache in FOLDER. The damaged cache stays as it is.
    """
    count = response_cache.salvage(folder)
    if not count:
        raise CacheError(f"no record in {response_cache.path} can be read, so nothing was written")
    echo(
        f"{counted(count, 'record')} copied from {response_cache.path} to {without_password(folder)}; to use the new "
        f"cache, set PATH = {without_password(folder)} in [Cache]"
    )
