"""The columns of a survey's rows, found again in its prompts and scopes.

A recording holds prompts, and no rows. But the prompts of one template are the same up to what each
row fills in. So their common words are the template, and what stands between them are the columns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import pairwise, takewhile
from typing import Any, NamedTuple

from ..display.formatting import as_json, distinct_lines
from ..scopes import without_repeats
from .conversations import NOT_PARAMETERS, Call

MOST_PROMPTS = 60  # prompts by which a template is found
LONGEST_PROMPT = 6_000  # characters of such a prompt
MOST_VALUES = 12  # of a column by which answers are shown
BINS = 4  # of a column of many numbers
LABEL_WORDS = 3
VALUE_CHARACTERS = 60
FEWEST_DIGITS, MOST_DIGITS = 6, 17  # of the numbers at the ends of a range

_TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_GAP = "\0"  # in a template: what a row fills in


class Column(NamedTuple):
    """One column of a survey's rows.

    :param name: what it is called.
    :param values: its value in each call; ``None`` if a call has none.
    """

    name: str
    values: list[str | None]


def columns(calls: Sequence[Call]) -> list[Column]:
    """Return what tells the calls of a survey apart, with at most :data:`MOST_VALUES` values each:
    levels of the scope, parameters, the model, and words of the prompts.

    What tells the same calls apart as an earlier one is left out; so are numbers that only name the
    actors.
    """
    distinct_columns = []
    partitions: set[tuple[int, ...]] = set()
    names = _names(calls)
    for column in (*_scope_columns(calls), *_parameter_columns(calls), *_prompt_columns(calls)):
        if column.values != names:
            column = _binned(column)
        if 2 <= len(set(column.values) - {None}) <= MOST_VALUES:
            numbers: dict[str | None, int] = {}
            partition = tuple(numbers.setdefault(value, len(numbers)) for value in column.values)
            if partition not in partitions:
                partitions.add(partition)
                distinct_columns.append(column)
    return distinct_columns


def _binned(column: Column) -> Column:
    """Return a column of many numbers as one of ranges with as many calls each."""
    texts = [value for value in column.values if value is not None]
    if len(set(texts)) <= MOST_VALUES or not all(map(_NUMBER.fullmatch, texts)):
        return column
    name_of = binned([float(text) for text in texts])
    return column._replace(
        values=[None if value is None else name_of(float(value)) for value in column.values]
    )


def binned(numbers: Sequence[float], bins: int = BINS) -> Callable[[float], str]:
    """Return what names the range that a number is in: ranges with about as many numbers each."""
    ordered = sorted(numbers)
    edges = sorted({ordered[len(ordered) * number // bins] for number in range(bins)})
    ends = [*(max(n for n in ordered if n < edge) for edge in edges[1:]), ordered[-1]]
    number_names = _number_names([*edges, *ends])
    names = [
        number_names[low] if low == high else f"{number_names[low]} to {number_names[high]}"
        for low, high in zip(edges, ends, strict=True)
    ]

    def name_of(number: float) -> str:
        return names[max(0, sum(edge <= number for edge in edges) - 1)]

    return name_of


def _number_names(numbers: Iterable[float]) -> dict[float, str]:
    """Return numbers in words, with as many digits as tell different ones apart."""
    different = set(numbers)
    for digits in range(FEWEST_DIGITS, MOST_DIGITS):
        names = {number: f"{number:.{digits}g}" for number in different}
        if len(set(names.values())) == len(names):
            return names
    return {number: str(number) for number in different}


# Scopes and parameters


def _names(calls: Sequence[Call]) -> list[str | None]:
    """Return the last names in the scopes if no two actors share one; else nothing."""
    scopes = [without_repeats(call.record.scope)[0] for call in calls]
    names = [scope.rpartition("/")[2] for scope in scopes]
    return [*names] if len(set(names)) == len(set(scopes)) else []


def _scope_columns(calls: Sequence[Call]) -> Iterator[Column]:
    """Yield the levels of the scopes, and the columns that a key joins in one."""
    paths = [without_repeats(call.record.scope)[0].split("/") for call in calls]
    for level in range(max(map(len, paths), default=0)):
        names = [path[level] if level < len(path) else None for path in paths]
        yield Column(f"scope, level {level + 1}", names)
        parts = [name.split(",") if name else [] for name in names]
        sizes = {len(each) for each in parts if each}
        if len(sizes) == 1 and max(sizes) > 1:
            for number in range(max(sizes)):
                values = [each[number] if each else None for each in parts]
                yield Column(f"key, column {number + 1}", values)


def _parameter_columns(calls: Sequence[Call]) -> Iterator[Column]:
    """Yield the model, the served model, and the parameters."""
    yield Column("model", [call.model for call in calls])
    yield Column("served model", [call.record.served for call in calls])
    names = sorted({name for call in calls for name in call.record.request} - {*NOT_PARAMETERS})
    for name in names:
        values = [call.record.request.get(name) for call in calls]
        yield Column(name, [None if value is None else as_json(value) for value in values])


# Prompts


def _prompt_columns(calls: Sequence[Call]) -> Iterator[Column]:
    prompts = [_prompt(call) for call in calls]
    distinct_prompts = list(dict.fromkeys(prompts))
    sample = distinct_prompts[:: -(-len(distinct_prompts) // MOST_PROMPTS)]
    if len(sample) < 2 or max(map(len, sample)) > LONGEST_PROMPT:
        return
    template = _template([_TOKEN.findall(text) for text in sample])
    fixed_texts = "".join(template).split(_GAP)
    pattern = re.compile("(.*?)".join(map(re.escape, fixed_texts)), re.DOTALL)
    matches = {text: pattern.fullmatch(text) for text in distinct_prompts}
    for number, (before, after) in enumerate(pairwise(fixed_texts), 1):
        values = {text: match and match[number] for text, match in matches.items()}
        if len(set(values.values()) - {None}) > 1:
            lines = distinct_lines((value for value in values.values() if value), VALUE_CHARACTERS)
            names = {
                text: None if value is None else lines.get(value) or "(nothing)"
                for text, value in values.items()
            }
            yield Column(_label(before, after), [names[text] for text in prompts])


def _prompt(call: Call) -> str:
    """Return what a call asked first, without what follows an answer."""
    messages = takewhile(lambda message: not message.role.startswith("assistant"), call.messages)
    return "\n".join(text for message in messages for text in message.texts)


def _template(texts: Iterable[Sequence[str]]) -> list[str]:
    """Return what texts have in common, in tokens, with gaps for what differs."""
    first, *rest = texts
    template = list(first)
    for text in rest:
        matcher = SequenceMatcher(None, template, text, autojunk=False)
        merged: list[str] = []
        end, text_end = 0, 0
        for begin, text_begin, size in matcher.get_matching_blocks():
            if (begin > end or text_begin > text_end) and merged[-1:] != [_GAP]:
                merged.append(_GAP)
            for token in template[begin : begin + size]:
                if token != _GAP or merged[-1:] != [_GAP]:
                    merged.append(token)
            end, text_end = begin + size, text_begin + size
        template = merged
    return template


def _label(before: str, after: str) -> str:
    """Return what a gap is called: the words beside it."""
    words = before.split()[-LABEL_WORDS:]
    if any(map(str.isalnum, "".join(words))):
        return f"“{' '.join(words)} …”"
    return f"“… {' '.join(after.split()[:LABEL_WORDS])}”"


def counts_by(values: Sequence[str], column: Column | None) -> Mapping[str, Counter[str]]:
    """Return how often each value came, for each value of a column; ``""`` stands for all."""
    counts: dict[str, Counter[str]] = {}
    groups: Iterable[Any] = column.values if column else [""] * len(values)
    for value, group in zip(values, groups, strict=True):
        counts.setdefault("(none)" if group is None else group, Counter())[value] += 1
    return counts
