"""Conversations as one page for a browser, style and script in it: nothing else is loaded, and no text is run."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.format import INLINE_CHARACTERS
from .conversations import brief, first_words, shown_data
from .text import OUTSIDE, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jinja2 import Template

    from .conversations import Block, Call, Group, Said

__all__ = ["page"]

OPEN_CHARACTERS = 1200  # of a text that is unfolded from the beginning
LEAST_COST = 0.000001  # USD
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class _Text(NamedTuple):
    """Be a text as the page shows it.

    :param summary: its first words where it is folded, else empty.
    :param first: the number of the call that shows it in full, where that is another one, else ``None``.
    """

    kind: str
    text: str
    summary: str = ""
    first: int | None = None


def page(name: str, settings: Mapping[str, Any], groups: Iterable[Group]) -> str:
    """Return the page.

    :param name: the file's name.
    :param settings: what stands in its header.
    :param groups: its calls.
    """
    style, script = _data("cassette.css"), _data("cassette.js")
    groups = list(groups)
    return _template().render(
        name=visible(name),
        settings=[(visible(key), visible(shown_data(value))) for key, value in sorted(settings.items())],
        totals=_totals([call for group in groups for call in group.calls]),
        scopes=_scopes(groups),
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}",
    )


@functools.lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_data("cassette.html"))


def _data(name: str) -> str:
    from importlib.resources import files

    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Return what allows one inline style or script in a Content-Security-Policy (CSP Level 3, hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _totals(calls: list[Call]) -> list[tuple[str, str]]:
    usages = [call.usage for call in calls]
    asked = [call for call in calls if call.record.kind != "function"]
    costs = [call.record.cost for call in asked if call.record.cost is not None]
    models = sorted({call.title for call in asked})
    found = [("records", f"{len(calls):,}"), ("models", visible(", ".join(models)))]
    found.append(("tokens in", f"{sum(usage.input_tokens or 0 for usage in usages):,}"))
    found.append(("tokens out", f"{sum(usage.output_tokens or 0 for usage in usages):,}"))
    if costs:
        rest = len(asked) - len(costs)
        found.append(("cost", f"{_dollars(sum(costs))}{f', {rest:,} unknown' if rest else ''}"))
    return [(label, value) for label, value in found if value not in ("", "0")]


def _scopes(groups: list[Group]) -> list[dict[str, Any]]:
    seen: dict[str, int] = {}
    scopes = []
    for number, group in enumerate(groups, 1):
        outer, _, last = visible(group.scope).rpartition("/")
        calls = [_call(call, seen) for call in group.calls]
        outer = f"{outer}/" if outer else ""
        scopes.append({"number": number, "outer": outer, "last": last or OUTSIDE, "calls": calls})
    return scopes


def _call(call: Call, seen: dict[str, int]) -> dict[str, Any]:
    return {
        "number": call.number,
        "kind": call.record.kind,
        "draw": visible(call.draw),
        "title": visible(call.title),
        "parameters": [(visible(name), _text("data", value, seen, call.number)) for name, value in call.parameters],
        "key": call.record.cache_key[:12],
        "facts": _facts(call),
        "after": call.after and {"number": call.after.number, "words": visible(first_words(call.after))},
        "known": call.known,
        "asked": [_said(said, seen, call.number) for said in call.asked],
        "answers": [_said(said, seen, call.number) for said in call.answers],
    }


def _facts(call: Call) -> str:
    usage, cost = call.usage, call.record.cost
    facts = []
    if usage.input_tokens is not None or usage.output_tokens is not None:
        facts.append(f"{usage.input_tokens or 0:,} → {usage.output_tokens or 0:,} tokens")
    if cost is not None:
        facts.append(_dollars(cost))
    return " · ".join(facts)


def _dollars(cost: float) -> str:
    if 0 < cost < LEAST_COST:
        return f"under ${LEAST_COST:.6f}"
    return f"${cost:.6f}" if cost < 1 else f"${cost:,.2f}"


def _said(said: Said, seen: dict[str, int], number: int) -> dict[str, Any]:
    role = said.role.partition(" ")[0].rstrip(",")
    return {
        "role": visible(said.role),
        "style": role if role in ROLES else "other",
        "texts": [_block(block, seen, number) for block in said.blocks],
    }


def _block(block: Block, seen: dict[str, int], number: int) -> _Text:
    return _text(block.kind, block.text, seen, number)


def _text(kind: str, text: str, seen: dict[str, int], number: int) -> _Text:
    """Return a text; a long one is written once in the page, and folded."""
    if len(text) <= INLINE_CHARACTERS:
        return _Text(kind, visible(text))
    first = seen.setdefault(text, number)
    if first != number:
        return _Text(kind, "", visible(brief(text, 90)), first)
    return _Text(kind, visible(text), visible(brief(text, 90)) if len(text) > OPEN_CHARACTERS else "")
