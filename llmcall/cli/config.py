"""``llmcall config``: every setting, its value, and where it comes from."""

from __future__ import annotations

from typing import Any

import click

from ..clients import registry
from ..config import resolve
from ..config.endpoints import Endpoint
from ..config.setting import Setting
from ..support.display import text_table
from .options import json_option
from .output import echo, echo_json


@click.command("config")
@json_option
def show_config(as_json: bool) -> None:
    """Show every setting, its value and its origin.

    Settings that differ from their defaults come first. Secrets are masked.
    """
    items = registry.settings().items()
    entries = [(row, _json_value(value), origin) for row, value, origin in items]
    if as_json:
        rows = [
            {
                "section": row.section,
                "key": row.key,
                "name": row.name,
                "value": value,
                "origin": origin,
            }
            for row, value, origin in entries
        ]
        echo_json(rows)
        return
    lines = [
        (key, _value_text(item), origin)
        for row, value, origin in entries
        for key, item in _config_lines(row, value)
    ]
    lines.sort(key=lambda line: line[2] == "default")
    echo(text_table(lines))
    echo(resolve.file_summary())


def _json_value(value: object) -> object:
    """Return a setting's value as JSON data; endpoints become dicts."""
    if not isinstance(value, tuple):
        return value
    return [item._asdict() if isinstance(item, Endpoint) else item for item in value]


def _config_lines(row: Setting, value: Any) -> list[tuple[str, object]]:
    """Return the keys in config.ini for a setting, each with its value."""
    if row.name == "endpoints":
        value = {
            fields["name"]: {key: field for key, field in fields.items() if key != "name"}
            for fields in value
        }
    if not isinstance(value, dict) or not value:
        return [(f"[{row.section}] {row.key or row.name}", value)]
    if row.name not in ("endpoints", "models"):
        return [(f"[{row.section}] {model}", item) for model, item in value.items()]
    return [
        (f"[{row.section} {name}] {field.upper()}", item)
        for name, fields in value.items()
        for field, item in fields.items()
        if item is not None
    ]


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return "-" if value in (None, "", {}) else str(value)
