"""What a program may quote of an answer: the whole, its lines, the fields of its JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from ..display.formatting import as_json
from ..errors import OutputError
from ..outputs import containers
from ..types import Record
from .texts import text_of

_SENTENCE = re.compile(r"[^.!?]*[.!?]")
_LABELLED = re.compile(r"\W*(\w[\w ]{0,30}):\s*(\S.*)")


class Form(NamedTuple):
    """The words of an answer, or of a part of it.

    :param text: as it is written.
    :param words: as they are compared.
    :param lead: the marks before the first word, which a program may strip.
    :param trail: the marks after the last one.
    :param size: the characters of the words.
    """

    text: str
    words: tuple[str, ...]
    lead: tuple[str, ...]
    trail: tuple[str, ...]
    size: int


@lru_cache(maxsize=4096)
def form_of(text: str) -> Form:
    """Return the words of a text."""
    tokenized = text_of(text)
    first = tokenized.word_tokens[0] if tokenized.word_tokens else len(tokenized.tokens)
    last = tokenized.word_tokens[-1] if tokenized.word_tokens else len(tokenized.tokens)

    def marks(begin: int, end: int) -> tuple[str, ...]:
        return tuple(
            tokenized.tokens[index] for index in range(begin, end) if not tokenized.blanks[index]
        )

    lead, trail = marks(0, first), marks(last + 1, len(tokenized.tokens))
    return Form(text, tokenized.words, lead, trail, sum(map(len, tokenized.words)))


def forms(record: Record, normalize: Callable[[str], str] | None) -> dict[Hashable, Form]:
    """Return what a program may quote of an answer: the whole, its lines, the fields of its JSON.

    :param normalize: what the recording takes out of the texts of requests, or ``None``.
    :returns: the parts by where they stand in the answer.
    """
    response = record.response
    if record.kind == "chat":
        choices = response.get("choices") or ()
        answer: Any = [choice.get("message") for choice in choices]
    elif record.kind == "function":
        answer = response.get("value")
    else:
        # The events of a stream hold pieces; the answer is their text.
        answer = [record.answer, response] if record.kind == "http" else None
    return {
        location: form_of(normalize(text) if normalize else text)
        for location, text in _parts(answer, ())
    }


def _parts(value: Any, location: tuple[Hashable, ...]) -> Iterator[tuple[Hashable, str]]:
    if isinstance(value, str):
        yield location, value
        yield from _parts_of_text(value, location)
        return
    if isinstance(value, bytes):
        return
    yield location, as_json(value)
    if isinstance(value, (dict, list)):
        items: Iterable[tuple[Hashable, Any]] = (
            value.items() if isinstance(value, dict) else enumerate(value)
        )
        for name, item in items:
            yield from _parts(item, (*location, name))


def _parts_of_text(text: str, location: tuple[Hashable, ...]) -> Iterator[tuple[Hashable, str]]:
    try:
        data = containers(text) if "{" in text or "[" in text else []
    except OutputError:
        data = []  # what is no JSON has no fields
    for number, value in enumerate(data):
        yield from _parts(value, (*location, "json", number))
    if data:
        return
    sentence = _SENTENCE.match(text)
    if sentence and sentence[0] != text:
        yield (*location, "sentence"), sentence[0]
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if len(lines) > 1:
            yield (*location, "line", number), line
        if label := _LABELLED.fullmatch(line):
            yield (*location, "label", label[1].casefold()), label[2]
