"""``llmcall config``: every setting, its value, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ..text import visible_json

__all__ = ["show_config"]


@click.command("config")
@click.option("--all", "everything", is_flag=True, help="Show also the settings that have their defaults.")
@click.option("--json", "as_json", is_flag=True, help="Print all settings as JSON.")
def show_config(everything: bool, as_json: bool) -> None:
    """Show the settings and where they came from.

    First, and without --all alone, those that differ from their defaults. Secrets are masked.
    """
    from ..clients.registry import settings
    from ..config import resolve
    from ..tables import columns

    found = [(row, _data(value), origin.text) for row, value, origin in settings().items()]
    if as_json:
        rows = [{"section": row.section, "key": row.key, "value": value, "origin": text} for row, value, text in found]
        click.echo(visible_json(rows, default=str))
        return
    changed = [line for row, value, origin in found if origin != "default" for line in _lines(row, value, origin)]
    rest = [line for row, value, origin in found if origin == "default" for line in _lines(row, value, origin)]
    shown = changed + rest * everything
    if shown:
        click.echo(columns(shown))
    if not everything:
        click.echo(f"{len(rest)} more have their defaults: --all shows them")
    click.echo(resolve.searched())


def _data(value: Any) -> Any:
    """Return a setting's value as JSON has it."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, tuple):
        return [_data(item) for item in value]
    return {name: _data(item) for name, item in value.items()} if isinstance(value, dict) else value


def _lines(row: Any, value: Any, origin: str) -> Iterator[tuple[str, str, str]]:
    """Yield the lines of config.ini that would give a setting, each with where it came from."""
    if row.key:
        yield f"[{row.section}] {row.key}", _shown(value), origin
        return
    named = {each["name"]: each for each in value} if isinstance(value, list) else value
    if not isinstance(named, dict):  # a function, or its absence
        if value is not None:
            yield f"[{row.section}] {row.name}", _shown(value), origin
        return
    if not named:
        yield f"[{row.section}]", "-", origin
    for name, fields in named.items():
        if isinstance(fields, dict):
            for field, item in fields.items():
                if item is not None and field != "name":
                    yield f"[{row.section} {name}] {field.upper()}", _shown(item), origin
        else:
            yield f"[{row.section}] {name}", _shown(fields), origin


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
