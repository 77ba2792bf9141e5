"""Signs that a file of records was edited by hand: records that do not fit together.

An answer that was changed together with the histories that hold it leaves no such sign.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from ..display.formatting import as_json, one_line
from ..display.printable import printable
from ..requests.normalizers import normalizer
from ..requests.plain_data import map_texts
from ..types import message_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..records.reader import RecordFile
    from ..types import Record

TEXT_CHARACTERS = 60  # characters of a text in a finding
WORD = r"\w+"


class Finding(NamedTuple):
    """What does not fit together in a file.

    :param about: ``"order"``, ``"key"`` or ``"quotes"``.
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
        *_changed_histories(records),
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


def _changed_histories(records: Sequence[Record]) -> Iterator[Finding]:
    """Yield the answers in whose place the same actor's later prompts have another message."""
    answered: dict[tuple[str, str], list[tuple[int, Record]]] = defaultdict(list)
    for number, record in enumerate(records, 1):
        if record.kind == "chat" and record.answer:
            history = "".join(map(as_json, record.request["messages"]))
            answered[record.scope, history].append((number, record))
    reported: set[int] = set()
    for number, record in enumerate(records, 1):
        history = ""
        for message in record.request.get("messages", ()):
            is_answer = message.get("role") == "assistant"
            earlier = answered.get((record.scope, history)) if is_answer else None
            history += as_json(message)
            text = message_text(message)
            if earlier and not any(_is_part(each.answer, text) for _, each in earlier):
                first_number, first_record = earlier[0]
                if first_number in reported:
                    continue
                reported.add(first_number)
                words = (
                    f"its answer has {_excerpt(first_record.answer)}, but the prompt of record {number} "
                    f"({printable(record.sample or 'outside any scope')}) has {_excerpt(text)}"
                )
                yield _finding("quotes", first_number, first_record, words)


def _is_part(text: str, other: str) -> bool:
    """Return whether one of two texts contains all the words of the other in a row."""
    words, other_words = (f" {' '.join(re.findall(WORD, each))} " for each in (text, other))
    return words in other_words or other_words in words


def _excerpt(text: str) -> str:
    return f'"{printable(one_line(text, TEXT_CHARACTERS))}"'
