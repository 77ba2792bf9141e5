"""``llmcall cache``: what is recorded, and moving it."""

from __future__ import annotations

import json
import re
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from ..config.values import without_password
from ..errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cache.cache import ResponseCache
    from ..types import Record

__all__ = ["cache"]

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
SHORT = 12  # digits of a key that a table shows
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # what a terminal would obey in an answer from elsewhere
COUNTED = 10  # keys with one beginning, of which a message tells the number
WORDS = 48  # characters of a question that a table shows


@click.group()
@click.option("--path", type=click.Path(), help="The cache's directory or server, instead of the configured one.")
@click.pass_context
def cache(context: click.Context, path: str | None) -> None:
    """Look at, move and delete recorded answers."""
    from ..cache.cache import ResponseCache
    from ..clients.registry import settings

    context.obj = context.with_resource(ResponseCache(path or settings().cache_path))


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


class Source(click.Path):
    """Be a file or directory that is there, or a server's address."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the path or address."""
        return value if "://" in str(value) else super().convert(value, parameter, context)


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that select records."""
    for option in (
        click.option("--since", help="Only what was stored since: a date (2026-11-30), or an age (90m, 12h, 7d)."),
        click.option("--scope", metavar="GLOB", help="Only samples whose scope path matches, such as 'trial-3/*'."),
        click.option("--model", help="Only this model's answers."),
    ):
        command = option(command)
    return command


def _where(model: str | None, scope: str | None, since: str | None) -> Callable[[Record], bool] | None:
    if model is None and scope is None and since is None:
        return None
    begin = _moment(since) if since else None

    def where(record: Record) -> bool:
        """Tell whether a record is among those that are meant."""
        path = (record.sample or "").partition("#")[0]
        return (
            (model is None or record.request.get("model") == model)
            and (scope is None or fnmatchcase(path, scope))
            and (begin is None or (record.stored_at or 0) >= begin)
        )

    return where


def _moment(text: str) -> float:
    age = re.fullmatch(r"(\d+)\s*([smhdw])", text)
    if age:
        return time.time() - int(age[1]) * SECONDS[age[2]]
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a date (2026-11-30) nor an age (90m, 12h, 7d)") from None


@cache.command()
@as_json
@click.pass_obj
def stats(found: ResponseCache, as_json: bool) -> None:
    """Say where the cache is, and how large.

    That is: its directory or server, the records that it holds, and what they take there.
    """
    now = found.stats()
    if as_json:
        click.echo(json.dumps(now._asdict(), indent=2))
    else:
        click.echo(f"{now.path}: {now.records:,} records, {now.size / 1e6:,.1f} MB")


@cache.command("ls")
@selecting
@click.option("-n", "--limit", default=50, show_default=True, help="How many records at most; 0 shows all.")
@as_json
@click.pass_obj
def list_records(
    found: ResponseCache, model: str | None, scope: str | None, since: str | None, limit: int, as_json: bool
) -> None:
    """List records, oldest first."""
    from itertools import islice

    from ..tables import columns

    shown = list(islice(found.records(where=_where(model, scope, since)), limit or None))
    rows = [_row(record) for record in shown]
    if as_json:
        click.echo(json.dumps([dict(zip(HEADS, row, strict=True)) for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        click.echo(f"no such record among the {len(found):,} in {found.path}", err=True)
        return
    click.echo(columns([HEADS, *rows]))
    if limit and len(shown) == limit and len(found) > limit:
        click.echo(f"… the first {limit} of up to {len(found):,}; --limit 0 shows all", err=True)


HEADS = ("key", "kind", "model", "sample", "asked", "answered")


def _row(record: Record) -> tuple[str, ...]:
    model = str(record.request.get("model", "-"))
    key = record.cache_key[:SHORT]
    return key, record.kind, model, record.sample or "-", _brief(_asked(record)), _brief(_answered(record))


def _brief(text: str) -> str:
    flat = CONTROL.sub("\ufffd", " ".join(text.split()))
    return flat if len(flat) <= WORDS else flat[: WORDS - 1] + "…"


def _asked(record: Record) -> str:
    messages = record.request.get("messages")
    return _said(messages[-1]) if messages else _text(record.request.get("input", record.request))


def _answered(record: Record) -> str:
    choices = record.response.get("choices")
    if choices:
        return "\n\n".join(_said(choice["message"]) for choice in choices)
    embedding = record.response.get("embedding")
    return f"{len(embedding) // 4} numbers" if isinstance(embedding, bytes) else _text(record.response)


def _said(message: dict[str, Any]) -> str:
    calls = [call.get("function") or call.get("custom") or call for call in message.get("tool_calls") or ()]
    called = [f"{call.get('name')}({call.get('arguments') or call.get('input') or ''})" for call in calls]
    return "\n".join([_text(message.get("content") or message.get("refusal") or ""), *called]).strip()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)


@cache.command()
@click.argument("key")
@as_json
@click.pass_obj
def show(found: ResponseCache, key: str, as_json: bool) -> None:
    """Show what was asked and answered.

    KEY is a record's key, or the beginning of one.
    """
    record = found.lookup(_whole_key(found, key))
    assert record is not None
    if as_json:
        click.echo(json.dumps(record._asdict(), indent=2, ensure_ascii=False, default=lambda data: data.hex()))
        return
    parameters = {name: value for name, value in record.request.items() if name not in ("messages", "input")}
    click.echo(f"{record.kind} {record.cache_key}")
    click.echo(f"sample {record.sample or '-'}   cost {'?' if record.cost is None else f'${record.cost:.6f}'}")
    click.echo(json.dumps(parameters, ensure_ascii=False))
    for heading, text in _parts(record):
        click.echo(f"\n{click.style(heading, bold=True)}\n{text}")


def _parts(record: Record) -> list[tuple[str, str]]:
    """Return what was said, each with who said it."""
    asked = [(message["role"], _said(message)) for message in record.request.get("messages", ())]
    if "input" in record.request:
        asked = [("input", _text(record.request["input"]))]
    return [*asked, ("answer", _answered(record))]


def _whole_key(found: ResponseCache, prefix: str) -> str:
    keys = found.storage.starting(prefix.rstrip("…"), COUNTED)
    if len(keys) != 1:
        problem = f"{len(keys)} keys begin" if keys else "no key begins"
        raise CacheError(f"{problem} with {prefix!r} in {found.path}; 'llmcall cache ls' shows the keys")
    return keys[0]


@cache.command()
@click.argument("file", type=click.Path(dir_okay=False))
@selecting
@click.pass_obj
def export(found: ResponseCache, file: str, model: str | None, scope: str | None, since: str | None) -> None:
    """Write records to a file.

    FILE becomes JSON Lines, the form of a cassette.
    """
    click.echo(f"{found.export(file, where=_where(model, scope, since)):,} records written to {file}")


@cache.command()
@click.argument("source", type=Source(exists=True))
@click.option("--on-conflict", type=click.Choice(["keep", "replace", "raise"]), default="keep", show_default=True)
@click.pass_obj
def load(found: ResponseCache, source: str, on_conflict: str) -> None:
    """Add the records of a file or another cache.

    SOURCE is an exported file, a cassette, another cache's directory or server, or TinyTroupe's pickle cache.
    """
    click.echo(f"{found.load(source, on_conflict=on_conflict):,} records loaded into {found.path}")


@cache.command()
@click.argument("key", nargs=-1)
@selecting
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(
    found: ResponseCache, key: tuple[str, ...], model: str | None, scope: str | None, since: str | None, yes: bool
) -> None:
    """Delete records.

    KEY is a record's key, or the beginning of one.
    """
    where = _where(model, scope, since)
    if bool(key) == bool(where):
        raise click.UsageError(
            "say which: a KEY, or --model, --scope or --since; 'llmcall cache clear' deletes all"
            if where is None
            else "a KEY stands alone, without --model, --scope and --since"
        )
    keys = {_whole_key(found, each) for each in key}
    count = len(keys) or sum(1 for _ in found.records(where=where))
    if count and not yes:
        click.confirm(f"Delete {count:,} of {len(found):,} records in {found.path}?", abort=True)
    click.echo(f"{found.delete(keys=keys) if where is None else found.delete(where=where):,} records deleted")


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clear(found: ResponseCache, yes: bool) -> None:
    """Delete all records."""
    if len(found) and not yes:
        click.confirm(f"Delete all {len(found):,} records in {found.path}?", abort=True)
    click.echo(f"{found.clear():,} records deleted")


@cache.command()
@click.pass_obj
def verify(found: ResponseCache) -> None:
    """Read every record; list the damaged ones."""
    damaged = found.verify()
    for key in damaged:
        click.echo(key)
    if damaged:
        raise CacheError(f"{len(damaged)} of {len(found):,} records are damaged")
    click.echo(f"{len(found):,} records, all sound")


@cache.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.pass_obj
def salvage(found: ResponseCache, folder: str) -> None:
    """Save what a damaged cache still holds.

    Every record that can be read goes to a new cache in FOLDER; the damaged one stays as it is.
    """
    saved = found.salvage(folder)
    click.echo(f"{saved:,} records read from {found.path}, all in {without_password(folder)} now")


@cache.command()
@click.pass_obj
def rekey(found: ResponseCache) -> None:
    """Make all keys anew.

    For a change of aliases or namespace, or an llmcall whose keys are made in another way.
    """
    click.echo(f"{found.rekey():,} of {len(found):,} records changed")
