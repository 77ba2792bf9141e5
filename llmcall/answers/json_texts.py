"""The JSON of an answer: the whole, the one fenced block, or the one object or array in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..keys.plain_data import STRICT_JSON
from ..support.data import Data
from ..support.lazy_names import pattern

# What opens and closes reasoning: tags, and the tokens of models whose servers leave them in.
_REASONING = [
    *(
        (f"<{name}>", f"</{name}>")
        for name in (
            *("think", "thinking", "thought", "thoughts"),
            *("reasoning", "reflection", "scratchpad"),
        )
    ),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
]
_FENCE = pattern(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n`]*)$", re.MULTILINE)
# Of JSON: an object, array, text, number, name, NaN or Infinity
_BEGINNINGS = '{["-0123456789tfnNI'
_BRACKET = pattern(r"[\[{\]}]")
_OPENING = pattern(r"[\[{]")


def without_reasoning(text: str) -> str:
    """Return an answer without the reasoning in tags that a server leaves in; reasoning that does
    not end leaves nothing.
    """
    for opening, closing in _REASONING:
        # the chat template of some models opens the tag, so that the answer only closes it
        if closing in text and opening not in text.partition(closing)[0]:
            text = text.partition(closing)[2]
        if opening in text:
            before, *blocks = text.split(opening)
            text = before + "".join(block.partition(closing)[2] for block in blocks)
    return text


def json_values(text: str) -> Iterator[tuple[str, Data]]:
    """Yield the JSON in an answer that may be its value, parsed: the whole answer, its one fenced block, its
    one object or array.

    :raises RecursionError: if JSON is nested too deeply.
    """
    whole = text.strip()
    decoded = _decoded(whole)  # first, since a tag within a JSON string is not reasoning
    answer = whole if decoded else without_reasoning(text).strip()
    if answer != whole:
        decoded = _decoded(answer)
    if decoded:
        yield from decoded
        return
    blocks = [*_fenced_blocks(answer)]
    if len(blocks) == 1:
        yield from _decoded(blocks[0].strip())
    containers = _containers(answer)
    if len(containers) == 1:
        yield from containers


def _decoded(text: str) -> list[tuple[str, Data]]:
    """Return a text with its value, or nothing if it is not JSON."""
    if text[:1] not in _BEGINNINGS:  # to raise and catch an error takes many times as long
        return []
    try:
        return [(text, STRICT_JSON.decode(text))]
    except ValueError:
        return []


def _fenced_blocks(text: str) -> Iterator[str]:
    """Yield the text between each opening fence and the next closing one like it. Other fences are text."""
    fences = [*_FENCE.finditer(text)]
    last_closings = {fence[1]: fence.start() for fence in fences if not fence[2]}
    opening = None
    for fence in fences:
        if opening is None:
            opening = fence if last_closings.get(fence[1], 0) > fence.start() else None
        elif fence[1] == opening[1] and not fence[2]:
            yield text[opening.end() : fence.start()]
            opening = None


def _containers(text: str) -> list[tuple[str, Data]]:
    """Return the outermost JSON objects and arrays, each with its value. The inside of a broken one is not searched."""
    found = []
    end = 0
    while match := _OPENING.search(text, end):
        start = match.start()
        try:
            value, end = STRICT_JSON.raw_decode(text, start)
            found.append((text[start:end], value))
        except ValueError:
            end = _end_of_brackets(text, start)
    return found


def _end_of_brackets(text: str, start: int) -> int:
    depth = 0
    for match in _BRACKET.finditer(text, start):
        depth += 1 if match[0] in "[{" else -1
        if depth == 0:
            return match.end()
    return len(text)
