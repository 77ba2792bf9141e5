"""The records of a run as conversations: by scope, without the history that each request repeats; and their text, for
a terminal and for git: always the same, and a change in one actor's calls moves no other actor's lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from ..additions import additions
from ..apis.endings import is_cut, is_ordinary, is_refused
from ..apis.message import (
    as_text,
    content_and_images,
    image_name,
    transcript_of,
)
from ..apis.shapes import CONTENT_FIELDS, body_messages, choices_of
from ..keys.messages import numbered_calls
from ..keys.request import Data, title_of
from ..scopes.position import without_repeats
from ..stores.notes import words_of_notes
from ..stores.record import Record
from ..stores.records.header import model_of
from ..stores.records.line import INLINE_CHARACTERS, text_digest
from ..support.display import (
    OF_NO_ACTOR,
    OUTSIDE_ANY_SCOPE,
    as_json,
    counted,
    natural,
    one_line,
    printable,
    visible,
)
from ..typed import notes
from .runs import RecordedRun

# Fields of a request that are not parameters
NOT_PARAMETERS = ("model", "messages", "input", "function", "arguments", "method", "path", "body")
TEXT_TYPES = ("text", "input_text", "output_text")  # of parts
ANSWERING_ROLE = "assistant"
INDENT = "    "
TEXT_CHARACTERS = 60  # of a text that was shown above
PARAMETER_CHARACTERS = 120  # of a parameter, such as a schema, that is shown again
CUT, REFUSED, ASKED_AGAIN, UNREAD = "cut", "refused", "asked again", "unread"
# With their words on the page. Of several marks of one answer, the survey shows the first.
MARKS = {
    **{word: f"✎ {word}: no model gave it" for word in additions("given").values()},
    REFUSED: "⊘ refused",
    CUT: "✂ cut: ended by length",
    ASKED_AGAIN: "↻ not usable, asked again",
    UNREAD: "∅ could not be read",
}


class Utterance(NamedTuple):
    """One message, or one answer.

    :param role: its role, with the name, or the tool call that it answers, in parentheses.
    :param texts: its parts as text: texts, tool calls, a refusal; anything else as JSON.
    """

    role: str
    texts: tuple[str, ...]

    @property
    def sender(self) -> str:
        """Return its role alone."""
        return self.role.split(" ", 1)[0]

    @property
    def is_answer(self) -> bool:
        """Return whether an assistant says it."""
        return self.sender == ANSWERING_ROLE


class RecordedCall(NamedTuple):
    """One recorded call.

    :param number: its number among the actor's calls, from 1.
    :param draw: its draw: the part of its sample after ``#``, or empty.
    :param title: the model's or the function's name.
    :param parameters: the request's parameters, as name and JSON.
    :param messages: the request's messages.
    :param repeated: the number of first messages that an earlier call of the actor contained.
    :param answers: the answers; several if ``n`` is above 1.
    :param marks: how its answer ended, of :data:`.MARKS`; empty unless :func:`marked_calls` read it.
    """

    record: Record
    number: int
    draw: str
    title: str
    parameters: tuple[tuple[str, str], ...]
    messages: tuple[Utterance, ...]
    repeated: int
    answers: tuple[Utterance, ...]
    marks: tuple[str, ...] = ()


def read_by_actor(run: RecordedRun) -> Iterator[tuple[str, Iterator[RecordedCall]]]:
    """Yield the actors of a run by name, each with its calls, which are read when needed."""
    by_actor = run.by_actor()
    for actor in sorted(by_actor, key=natural):
        yield actor, _calls(by_actor[actor])


def read_by_round(run: RecordedRun) -> Iterator[tuple[str, Iterator[RecordedCall]]]:
    """Yield the calls of a run by round: the first calls of all actors, then the second ones, …"""
    numbered = zip_longest(*(calls for _, calls in read_by_actor(run)))
    for number, calls in enumerate(numbered, 1):
        yield f"call {number}", filter(None, calls)


def is_item(scope: str) -> bool:
    """Return whether a scope is an item's of a ``map``, which has a digest for a name."""
    return without_repeats(scope)[0].rpartition("/")[2].startswith("~")


def asked_of_item(scope: str, record: Record | None) -> str:
    """Return the variables of the question that an item of a ``map`` was asked; empty for another scope."""
    form = None if record is None else notes.FORM.of(record)
    return ", ".join(form["variables"].values()) if form and is_item(scope) else ""


def _calls(records: Iterable[Record]) -> Iterator[RecordedCall]:
    """Yield the calls of an actor."""
    histories: set[int] = set()  # the hashes of those so far
    # A history takes the memory of its new messages alone, and equal parameters that of one.
    shared_messages: dict[Utterance, Utterance] = {}
    shared_parameters: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}
    for call_number, record in enumerate(records, 1):
        messages = tuple(
            shared_messages.setdefault(message, message)
            for message in map(_utterance, _request_messages(record))
        )
        parameters = tuple(
            (name, as_json(value)) for name, value in sorted(_request_parameters(record).items())
        )
        spoken = _answer_messages(record)
        answers = tuple(_answers(record, spoken))
        history, repeated = 0, 0
        for number, message in enumerate(messages, 1):
            history = hash((history, message))
            if history in histories and number < len(messages):
                repeated = number
            histories.add(history)
        for answer in spoken or [message._replace(role=ANSWERING_ROLE) for message in answers]:
            histories.add(hash((history, answer)))
        yield RecordedCall(
            record,
            call_number,
            (record.sample or "").partition("#")[2],
            title_of(record.kind, record.request),
            shared_parameters.setdefault(parameters, parameters),
            messages,
            repeated,
            answers,
        )


def _request_messages(record: Record) -> Sequence[Mapping[str, object]]:
    """Return the messages of a chat; any other request as one message."""
    request = record.request
    if record.kind == "chat":
        return request["messages"]  # type: ignore[no-any-return]
    if _calls_model(record):
        return list(body_messages(request["body"]))
    role, name = {"embedding": ("text", "input"), "http": ("body", "body")}.get(
        record.kind, ("arguments", "arguments")
    )
    return [{"role": role, "content": request.get(name)}]


def _calls_model(record: Record) -> bool:
    """Return whether an HTTP request calls a model."""
    if record.kind != "http" or model_of(record) is None:
        return False
    body = record.request.get("body")
    return isinstance(body, dict) and not set(CONTENT_FIELDS).isdisjoint(body)


def _request_parameters(record: Record) -> dict[str, object]:
    """Return a request's parameters, those in an HTTP body included."""
    parameters = {
        name: value for name, value in record.request.items() if name not in NOT_PARAMETERS
    }
    if _calls_model(record):
        body = record.request["body"]
        parameters |= {name: value for name, value in body.items() if name not in CONTENT_FIELDS}
    return parameters


def _utterance(message: Mapping[str, Data]) -> Utterance:
    """Return a message as an utterance."""
    role = str(message.get("role") or ANSWERING_ROLE)
    label = message.get("name") or message.get("tool_call_id")
    content, images = content_and_images(message)
    calls = message.get("tool_calls") or ()
    if not isinstance(content, list):
        content = [] if content is None else [content]
    texts = [*map(_part_text, content), *map(image_name, images)]
    texts.extend(f"calls {_tool_call(call)}" for call in calls)
    if message.get("function_call"):  # of an older API
        texts.append(f"calls {_tool_call({'function': message['function_call']})}")
    transcript = transcript_of(message)
    if transcript is not None:
        texts.append(f"says: {transcript}")
    if message.get("refusal"):
        texts.append(f"refuses: {message['refusal']}")
    return Utterance(f"{role} ({label})" if label else role, tuple(texts))


def _part_text(part: object) -> str:
    if isinstance(part, dict) and part.get("type") in TEXT_TYPES and "text" in part:
        part = part["text"]
    return as_text(part)


def _tool_call(call: Mapping[str, Data]) -> str:
    function = call.get("function")
    if not function:
        return as_json(call)
    identifier = f"  [{call['id']}]" if call.get("id") else ""
    return f"{function.get('name')}({function.get('arguments', '')}){identifier}"


def _answer_messages(record: Record) -> list[Utterance]:
    """Return an answer's messages, tool calls numbered as in the next request; empty unless it is a chat."""
    messages = record.request.get("messages", [])
    return [
        _utterance(numbered_calls([*messages, choice["message"]])[-1])
        for choice in choices_of(record.response)
    ]


def _answers(record: Record, spoken: Sequence[Utterance]) -> Iterator[Utterance]:
    """Yield a call's answers from its messages; several if ``n`` is above 1."""
    choices = choices_of(record.response)
    for choice, utterance in zip(choices, spoken, strict=True):
        which = f", choice {choice.get('index', 0) + 1} of {len(choices)}" if choices[1:] else ""
        role = f"{utterance.role}{which}{_ending(choice.get('finish_reason'))}"
        yield utterance._replace(role=role)
    if not choices and _calls_model(record):
        text = f"refuses: {record.refusal}" if record.refusal else record.answer
        yield Utterance(f"{ANSWERING_ROLE}{_ending(record.finish_reason)}", (text,))
    elif not choices:
        role = "embedding" if "embedding" in record.response else "result"
        yield Utterance(role, (record.answer,))


def _ending(reason: str | None) -> str:
    return "" if is_ordinary(reason) else f", ended by {reason}"


def marked_calls(run: RecordedRun) -> Iterator[RecordedCall]:
    """Yield the calls of a run, actor by actor, with the marks of their answers.

    An ``LLMCall`` asks again below the question and the answer that it could not read.
    """
    for _, unmarked in read_by_actor(run):
        calls = list(unmarked)
        asked_below = {
            hash((call.messages[:-2], call.messages[-2].texts))
            for call in calls
            if notes.FORM.of(call.record) is not None and len(call.messages) > 2
        }
        for call in calls:
            is_asked_again = notes.UNREAD.of(call.record) and any(
                hash((call.messages, answer.texts)) in asked_below for answer in call.answers
            )
            yield call._replace(marks=marks_of(call.record, is_asked_again=is_asked_again))


def marks_of(record: Record, *, is_asked_again: bool) -> tuple[str, ...]:
    """Return the marks of an answer. An answer that was refused or corrected is not also marked
    as unread.
    """
    ends = [choice.get("finish_reason") for choice in record.choices]
    is_refusal = record.refusal is not None or any(map(is_refused, ends))
    has_mark = {
        **({record.given: True} if record.given else {}),
        REFUSED: is_refusal,
        CUT: any(map(is_cut, ends)),
        ASKED_AGAIN: is_asked_again,
        UNREAD: notes.UNREAD.of(record) and not is_refusal and not is_asked_again,
    }
    return tuple(mark for mark, is_marked in has_mark.items() if is_marked)


def record_name(record: Record) -> str:
    """Return a record's name in a list: its sample, its model or function, and its first words."""
    first_words = one_line(record.prompt, TEXT_CHARACTERS)
    return printable(
        f'{record.sample or ""} {title_of(record.kind, record.request)} "{first_words}"'.lstrip()
    )


def describe_arms(record: Record) -> str:
    """Say which arms used a record; empty without arms."""
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

    parameters = "".join(
        f"  {name}={_abbreviated(value, shown_texts, PARAMETER_CHARACTERS)}"
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


def _abbreviated(text: str, shown_texts: set[str], limit: int = INLINE_CHARACTERS) -> str:
    """Return a text, or the first words of one over the limit that was shown above."""
    if len(text) <= limit:
        return text
    digest = text_digest(text)
    if digest in shown_texts:
        return f"… as above, {len(text):,} characters: {one_line(text, TEXT_CHARACTERS)}"
    shown_texts.add(digest)
    return text
