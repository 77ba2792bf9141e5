"""Conversations as text, for a terminal and for git: always the same, and a change in one actor's calls moves
no other actor's lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from ..apis.message import object_in, objects_in
from ..keys.request import title_of
from ..stores.notes import words_of_notes
from ..stores.record import Record
from ..stores.records.line import INLINE_CHARACTERS, text_digest
from ..support.display import (
    OF_NO_ACTOR,
    OUTSIDE_ANY_SCOPE,
    as_json,
    counted,
    one_line,
    printable,
    visible,
)
from .conversations import RecordedCall, asked_of_item

INDENT = "    "
TEXT_CHARACTERS = 60  # of a text that was shown above
PARAMETER_CHARACTERS = 120  # of a parameter, such as a schema, that is shown again


def record_name(record: Record) -> str:
    """Return a record's name in a list: its sample, its model or function, and its first words."""
    first_words = one_line(record.prompt, TEXT_CHARACTERS)
    return printable(
        f'{record.sample or ""} {title_of(record.kind, record.request)} "{first_words}"'.lstrip()
    )


def describe_arms(record: Record) -> str:
    """Return in words which arms used a record; empty without arms."""
    label = "arm" if len(record.arms) == 1 else "arms"
    return f"{label} {', '.join(record.arms)}" if record.arms else ""


def text_lines(
    settings: Mapping[str, object],
    groups: Iterable[tuple[str, Iterable[RecordedCall]]],
    served: Sequence[str] = (),
    origin: str = "",
    *,
    names_scopes: bool = False,
) -> Iterator[str]:
    """Yield the lines of a file, coloured for a terminal.

    :param settings: the header's settings: defaults, from which a call may differ.
    :param groups: the calls by heading.
    :param served: in words, the models that answered and their days.
    :param origin: in words, the origin of imported answers.
    :param names_scopes: ``True`` if each call has its scope above it: the headings are no scopes.
    """
    from ..support.libraries import click

    if origin:
        yield click.style(visible(origin), bold=True)
    for name, value in sorted(settings.items()):
        yield click.style(f"configured {name}: {visible(as_json(value))}", dim=True)
    for words in served:
        yield click.style(f"answered by {words}", dim=True)
    shown_texts: set[str] = set()  # their digests
    for number, (heading, calls) in enumerate(groups):
        calls = iter(calls)
        first = next(calls)
        if number or settings or served or origin:
            yield ""
        asked = asked_of_item(heading, first.record)
        words = f"{heading or OF_NO_ACTOR}  ({asked})" if asked else heading or OF_NO_ACTOR
        yield click.style(f"=== {visible(words)}", bold=True)
        for call in chain([first], calls):
            yield ""
            if names_scopes:
                yield click.style(visible(call.record.scope) or OUTSIDE_ANY_SCOPE, bold=True)
            yield from _call_lines(call, shown_texts)


def _call_lines(call: RecordedCall, shown_texts: set[str]) -> Iterator[str]:
    """Yield the lines of one call; long texts among ``shown_texts`` are abbreviated, and new ones added."""
    from ..support.libraries import click

    tools = _tool_names(call.record.request.get("tools"))
    parameters = "".join(
        f"  {name}={tools if name == 'tools' and tools else _abbreviated(value, shown_texts, PARAMETER_CHARACTERS)}"
        for name, value in call.parameters
    )
    caller = f"  asked by {call.record.caller}" if call.record.caller else ""
    arms = f"  in {describe_arms(call.record)}" if call.record.arms else ""
    noted = "".join(f"  {words}" for words in words_of_notes(call.record.notes))
    draw = f"#{call.draw}  " if call.draw else ""
    yield click.style(
        visible(f"--- call {call.number}  {draw}{call.title}{parameters}{caller}{arms}{noted}"),
        fg="cyan",
    )
    if call.repeated:
        yield click.style(f"{INDENT}… {counted(call.repeated, 'message')} as above", dim=True)
    utterances = [("", "blue", utterance) for utterance in call.messages[call.repeated :]]
    utterances += [("→ ", "green", utterance) for utterance in call.answers]
    for prefix, colour, utterance in utterances:
        yield click.style(f"{prefix}{visible(utterance.role)}", fg=colour)
        for text in utterance.texts:
            for line in visible(_abbreviated(text, shown_texts)).split("\n"):
                yield f"{INDENT}{line}".rstrip()


def _tool_names(tools: object) -> str:
    """Return the names of a chat's tools and the length of their JSON; empty if a tool has no name."""
    functions = [object_in(tool.get("function", tool)) for tool in objects_in(tools)]
    names = [str(function.get("name", "")) for function in functions]
    return (
        f"{', '.join(names)} ({len(as_json(tools)):,} characters)" if all(names) and names else ""
    )


def _abbreviated(text: str, shown_texts: set[str], limit: int = INLINE_CHARACTERS) -> str:
    """Return a text, or the first words of one over the limit that was shown above."""
    if len(text) <= limit:
        return text
    digest = text_digest(text)
    if digest in shown_texts:
        return f"… as above, {len(text):,} characters: {one_line(text, TEXT_CHARACTERS)}"
    shown_texts.add(digest)
    return text
