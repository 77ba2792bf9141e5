"""Signs that a file of records was edited by hand: records that do not fit together.

An answer that was changed together with all of its quotations leaves no such sign.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from ..display.formatting import as_json, one_line
from ..display.printable import printable
from ..records.references import digest_of
from ..requests.keys import key_of
from ..requests.normalizers import normalizer
from ..requests.plain_data import map_texts
from ..types import message_text
from .texts import padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..records.reader import RecordFile
    from ..types import Record

LONG_TEXT = 200  # characters; two draws seldom have the same ones by chance
TEXT_CHARACTERS = 60  # characters of a text in a finding
PIECE_WORDS = 3  # words in a row by which a text is known again
FEWEST_WORDS = 8  # of a text that is looked for in later prompts
MOST_HOLDERS = 50  # answers that have a piece; one that more of them have tells none from others
LEAST_LIKENESS = 0.5  # the share of its pieces that makes a line a quotation of another line


class Finding(NamedTuple):
    """What does not fit together in a file.

    :param about: ``"order"``, ``"key"``, ``"draws"`` or ``"quotes"``.
    :param record: the record's number in the file, from 1.
    :param sample: its scope path and draw; empty outside any scope.
    :param words: what does not fit.
    """

    about: str
    record: int
    sample: str
    words: str

    def __str__(self) -> str:
        sample = f" ({printable(self.sample)})" if self.sample else ""
        return f"record {self.record}{sample}: {self.words}"


def findings(file: RecordFile) -> list[Finding]:
    """Return what does not fit together in a file, in the order of its records."""
    records = file.records()
    all_findings = [
        *_out_of_order(records),
        *_foreign_keys(records, file.settings),
        *_copied_draws(records),
        *_changed_quotations(records),
    ]
    return sorted(all_findings, key=lambda finding: finding.record)


def _finding(about: str, number: int, record: Record, words: str) -> Finding:
    return Finding(about, number, record.sample or "", words)


def _out_of_order(records: Sequence[Record]) -> Iterator[Finding]:
    """Yield the records that come after those of a scope that sorts later."""
    last: tuple[bool, list[str]] = False, []
    name = ""
    for number, record in enumerate(records, 1):
        order = record.sample is not None, record.scope.split("/")
        if order < last:
            words = f"it comes after records of {name}, whose scope sorts later"
            yield _finding("order", number, record, words)
        else:
            last, name = order, printable(record.scope)


def _foreign_keys(records: Sequence[Record], settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the records that no call can use.

    Under the header's settings no call has such a key, or the record points to one that the file
    lacks.
    """
    replace = normalizer(tuple(settings.get("cache_normalize", ())))
    aliases = settings.get("aliases", {})
    keys = {record.cache_key for record in records}
    for number, record in enumerate(records, 1):
        request, model = record.request, record.request.get("model")
        target = record.response.get("fallback") if record.kind == "chat" else None
        if target is not None and target not in keys:
            words = f"it points to the record {str(target)[:12]}…, which the file lacks"
            yield _finding("key", number, record, words)
        if replace is not None and map_texts(request, replace) != request:
            words = (
                "its request has text that the header's cache_normalize removes, so no call has its "
                "key"
            )
            yield _finding("key", number, record, words)
        if isinstance(model, str) and aliases.get(model, model) != model:
            words = (
                f"its model is {printable(model)}, which the header's aliases call "
                f"{printable(str(aliases[model]))}, so no call has its key"
            )
            yield _finding("key", number, record, words)


def _copied_draws(records: Sequence[Record]) -> Iterator[Finding]:
    """Yield the draws of a request that repeat the long text of an earlier draw."""
    first_draws: dict[tuple[str, str], tuple[int, Record]] = {}
    for number, record in enumerate(records, 1):
        request = record.request
        is_drawn = request.get("temperature") != 0 and "seed" not in request
        if record.kind != "chat" or not is_drawn or len(record.answer) < LONG_TEXT:
            continue
        key = key_of(record.kind, request, None), record.answer
        earlier_number, earlier_record = first_draws.setdefault(key, (number, record))
        if earlier_number != number:
            words = (
                f"its answer of {len(record.answer):,} characters is that of record {earlier_number} "
                f"({printable(earlier_record.sample or 'outside any scope')}), another draw of the same request"
            )
            yield _finding("draws", number, record, words)


# Quotations


def _changed_quotations(records: Sequence[Record]) -> Iterator[Finding]:
    """Yield the answers that later prompts quote with other words.

    A prompt quotes an answer as the next message of the same conversation, or in a line of another
    actor's prompt.
    """
    reported: set[int] = set()
    for answer_number, prompt_number, before, after in (
        *_changed_histories(records),
        *_changed_lines(records),
    ):
        if answer_number in reported:
            continue
        reported.add(answer_number)
        name = printable(records[prompt_number - 1].sample or "outside any scope")
        words = (
            f"its answer has {_excerpt(before)}, but the prompt of record {prompt_number} ({name}) "
            f"has {_excerpt(after)}"
        )
        yield _finding("quotes", answer_number, records[answer_number - 1], words)


# The number of the answer's record, that of the prompt's, and the words of each.
ChangedQuotation = tuple[int, int, str, str]


def _changed_histories(records: Sequence[Record]) -> Iterator[ChangedQuotation]:
    """Yield the answers in whose place the same actor's later prompts have another message."""
    numbers_by_digest: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, record in enumerate(records, 1):
        if _is_chat(record):
            *_, digest = _digests(record)
            numbers_by_digest[record.scope, digest].append(number)
    for number, record in enumerate(records, 1):
        if not _is_chat(record):
            continue
        messages = record.request["messages"]
        for message, before in zip(messages, _digests(record), strict=False):
            if message.get("role") != "assistant":
                continue
            numbers = numbers_by_digest.get((record.scope, before), [])
            text = message_text(message)
            if numbers and not any(_is_part(records[each - 1].answer, text) for each in numbers):
                yield numbers[0], number, records[numbers[0] - 1].answer, text


def _is_chat(record: Record) -> bool:
    return record.kind == "chat" and bool(record.response.get("choices"))


def _digests(record: Record) -> Iterator[str]:
    """Yield a digest of the messages before each message of a request, and one of all messages."""
    digest = ""
    yield digest
    for message in record.request["messages"]:
        digest = digest_of(digest + as_json(message))
        yield digest


def _is_part(text: str, other: str) -> bool:
    """Return whether one of two texts contains all the words of the other in a row."""
    words, other_words = _words(text), _words(other)
    return _contains(words, other_words) or _contains(other_words, words)


class _Line(NamedTuple):
    """A line of an answer.

    :param number: the number of its record.
    :param pieces: all of its sequences of ``PIECE_WORDS`` words.
    """

    number: int
    line: str
    pieces: frozenset[str]


def _changed_lines(records: Sequence[Record]) -> Iterator[ChangedQuotation]:
    """Yield the answers' lines that another prompt of the same run quotes with a few other words.

    A prompt's line that is in any answer word for word quotes that answer, and is left out.
    """
    answers = [
        _Line(number, line, _pieces(line))
        for number, record in enumerate(records, 1)
        if _is_chat(record)
        for line in record.answer.splitlines()
    ]
    indexes_by_piece: dict[str, set[int]] = defaultdict(set)
    for index, answer in enumerate(answers):
        for piece in answer.pieces:
            indexes_by_piece[piece].add(index)
    first_prompts = _first_prompts(records)
    for number, line in _prompt_lines(records):
        prompt_run = _run_of(records[number - 1])
        for index in _likely_sources(line, answers, indexes_by_piece):
            answer = answers[index]
            record = records[answer.number - 1]
            # What an actor is told before its first answer quotes no answer of its own.
            is_in_first_prompt = line in first_prompts[record.scope]
            if _run_of(record) == prompt_run and not is_in_first_prompt:
                yield answer.number, number, answer.line, line
                break


def _run_of(record: Record) -> str:
    """Return the first level of a record's scope: a repeat, or a whole run."""
    return record.scope.partition("/")[0]


def _first_prompts(records: Sequence[Record]) -> dict[str, set[str]]:
    """Return the lines of each actor's first prompt."""
    lines_by_actor: dict[str, set[str]] = {}
    for record in records:
        if _is_chat(record) and record.scope not in lines_by_actor:
            texts = map(message_text, record.request["messages"])
            lines_by_actor[record.scope] = {line for text in texts for line in text.splitlines()}
    return lines_by_actor


def _prompt_lines(records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    """Yield each long line of a message that is not the model's, with the number of the first record
    that has it.
    """
    texts: set[str] = set()
    lines: set[str] = set()
    for number, record in enumerate(records, 1):
        for message in record.request["messages"] if _is_chat(record) else ():
            text = message_text(message)
            if message.get("role") == "assistant" or text in texts:
                continue
            texts.add(text)
            for line in text.splitlines():
                if line not in lines and len(_words(line)) >= FEWEST_WORDS:
                    lines.add(line)
                    yield number, line


def _likely_sources(
    line: str, answers: Sequence[_Line], indexes_by_piece: Mapping[str, set[int]]
) -> list[int]:
    """Return the indexes of the answers' lines that a prompt's line quotes with other words; none if
    an answer has it word for word.
    """
    shared: Counter[int] = Counter()
    pieces = _pieces(line)
    for piece in pieces:
        indexes = indexes_by_piece.get(piece, ())
        if len(indexes) <= MOST_HOLDERS:
            shared.update(indexes)
    if any(_is_part(answers[index].line, line) for index in shared):
        return []
    return [
        index
        for index, count in sorted(shared.items())
        if len(_words(answers[index].line)) >= FEWEST_WORDS
        and count >= LEAST_LIKENESS * max(len(pieces), len(answers[index].pieces))
    ]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _pieces(text: str) -> frozenset[str]:
    words = _words(text)
    return frozenset(
        " ".join(words[begin : begin + PIECE_WORDS])
        for begin in range(len(words) - PIECE_WORDS + 1)
    )


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    """Return whether some words stand in a row among others."""
    return padded(part) in padded(words)


def _excerpt(text: str) -> str:
    return f'"{printable(one_line(text, TEXT_CHARACTERS))}"'
