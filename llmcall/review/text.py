"""Conversations as plain text, for a terminal, and for git to compare: stable, and a change moves no other line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.format import INLINE_CHARACTERS
from ..text import OUTSIDE, brief, counted, visible
from .conversations import first_words, shown_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .conversations import Block, Call, Group, Said

__all__ = ["Line", "round_lines", "text_lines"]

INDENT = "    "


class Line(NamedTuple):
    """Be a line of text.

    :param kind: ``"settings"``, ``"scope"``, ``"call"``, ``"role"``, ``"answer"``, ``"text"``, ``"note"`` or
        ``"blank"``.
    """

    kind: str
    text: str


BLANK = Line("blank", "")


def text_lines(settings: Mapping[str, Any], groups: Iterable[Group]) -> Iterator[Line]:
    """Yield the lines of a file.

    :param settings: what stands in its header.
    :param groups: its calls.
    """
    for name, value in sorted(settings.items()):
        yield Line("settings", f"{name}: {visible(shown_data(value))}")
    seen: set[str] = set()
    for number, group in enumerate(groups):
        if number or settings:
            yield BLANK
        yield Line("scope", f"=== {visible(group.scope) or OUTSIDE}")
        before = None
        for call in group.calls:
            yield BLANK
            yield from _call_lines(call, before, seen)
            before = call


def round_lines(groups: Sequence[Group]) -> Iterator[Line]:
    """Yield the n-th call of each actor beside the others', round by round.

    :param groups: the calls of each actor.
    """
    rounds = max((len(group.calls) for group in groups), default=0)
    for number in range(rounds):
        if number:
            yield BLANK
        yield Line("scope", f"=== round {number}")
        for group in groups:
            if number < len(group.calls):
                yield BLANK
                yield Line("scope", f"{visible(group.scope) or OUTSIDE}")
                yield from _call_lines(group.calls[number], group.calls[number - 1] if number else None)


def _call_lines(call: Call, before: Call | None = None, seen: set[str] | None = None) -> Iterator[Line]:
    """Yield the lines of one call.

    :param before: the call whose lines stand right above, or ``None``.
    :param seen: the long texts that stand above; gains those of this call.
    """
    seen = set() if seen is None else seen
    parameters = "".join(f"  {name}={_short(value, seen)}" for name, value in call.parameters)
    draw = f"#{call.draw}  " if call.draw else ""
    yield Line("call", visible(f"--- {draw}{call.title}{parameters}"))
    if call.after is not None:
        yield Line("note", f"{INDENT}… {_history(call, before)}")
    for said in call.asked:
        yield from _said("role", said, "", seen)
    for said in call.answers:
        yield from _said("answer", said, "→ ", seen)


def _history(call: Call, before: Call | None) -> str:
    count = counted(call.known, "message")
    assert call.after is not None
    if call.nearest is before:
        return f"{count} as above"
    return f'{count} as in the call that asked "{visible(first_words(call.after))}"'


def _said(kind: str, said: Said, mark: str, seen: set[str]) -> Iterator[Line]:
    yield Line(kind, f"{mark}{visible(said.role)}")
    for block in said.blocks:
        for line in visible(_words(block, seen)).split("\n"):
            yield Line("text", f"{INDENT}{line}".rstrip())


def _words(block: Block, seen: set[str]) -> str:
    if block.kind == "call":
        return f"calls {block.text}"
    if block.kind == "refusal":
        return f"refuses: {block.text}"
    if block.kind == "media":
        return f"[{block.text}]"
    return _short(block.text, seen)


def _short(text: str, seen: set[str]) -> str:
    """Return a text, but a long one that stands above already only in its first words."""
    if len(text) <= INLINE_CHARACTERS:
        return text
    if text in seen:
        return f"… as above, {len(text):,} characters: {brief(text, 60)}"
    seen.add(text)
    return text
