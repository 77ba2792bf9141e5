"""``llmcall config``: every setting, its value, and where it came from."""

from __future__ import annotations

import json
from typing import Any

import click

__all__ = ["show_config"]


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def show_config(as_json: bool) -> None:
    """Show every setting, and where it came from.

    Secrets are masked.
    """
    from ..clients.registry import settings
    from ..tables import columns

    found = [(row.section, row.key, _data(value), origin.text) for row, value, origin in settings().items()]
    if as_json:
        rows = [dict(zip(("section", "key", "value", "origin"), row, strict=True)) for row in found]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
    else:
        click.echo(columns([line for row in found for line in _lines(*row)]))


def _data(value: Any) -> Any:
    """Return a setting's value as JSON has it."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, tuple):
        return [_data(item) for item in value]
    return {name: _data(item) for name, item in value.items()} if hasattr(value, "items") else value


def _lines(section: str, key: str, value: Any, origin: str) -> list[tuple[str, str, str]]:
    """Return a setting as the lines of config.ini that would give it, each with where it came from."""
    if key:
        return [(f"[{section}] {key}", _shown(value), origin)]
    if value is None:  # it can be given in code alone
        return []
    if isinstance(value, list):
        value = {endpoint.pop("name"): endpoint for endpoint in value}
    if not isinstance(value, dict):
        return [(f"[{section}]", _shown(value), origin)]
    return [line for name in value for line in _entry(section, name, value[name], origin)] or [
        (f"[{section}]", "-", origin)
    ]


def _entry(section: str, name: str, value: Any, origin: str) -> list[tuple[str, str, str]]:
    if not isinstance(value, dict):
        return [(f"[{section}] {name}", _shown(value), origin)]
    given = {field.upper(): item for field, item in value.items() if item is not None}
    return [(f"[{section} {name}] {field}", _shown(item), origin) for field, item in given.items()]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
