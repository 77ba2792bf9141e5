"""The forms of a run's prompts: what prompts of one template have in common, found by their words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

GAP = "[…]"
MAX_FORMS = 8
MAX_COMPARED = 200  # different prompts; more are sampled evenly
MIN_SHARE = 0.5  # of the words of the shorter of two prompts of one form
_WORD = re.compile(r"\s*\S+")  # with the blanks before it


class Form(NamedTuple):
    """The form that some prompts have in common.

    :param text: the common words, with ``[…]`` where the prompts differ.
    :param example: the first of these prompts.
    :param times: how often the compared ones were sent.
    """

    text: str
    example: str
    times: int


def prompt_forms(prompts: Iterable[str]) -> list[Form]:
    """Return the most frequent forms of some prompts."""
    counts = Counter(prompts)
    texts = list(counts)
    step = max(1, len(texts) / MAX_COMPARED)
    compared = [texts[int(number * step)] for number in range(min(len(texts), MAX_COMPARED))]
    forms: list[tuple[list[str], str, int]] = []
    for text in compared:
        words = _WORD.findall(text)
        for index, (form_words, example, count) in enumerate(forms):
            common = _common_words(form_words, words)
            if common:
                forms[index] = common, example, count + counts[text]
                break
        else:
            forms.append((words, text, counts[text]))
    forms.sort(key=lambda form: -form[2])
    return [
        Form("".join(words).strip(), example.strip(), count)
        for words, example, count in forms[:MAX_FORMS]
    ]


def _common_words(form: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the words that a form and a prompt share, with gaps, or an empty list if they are too few."""
    matcher = SequenceMatcher(None, form, words, autojunk=False)
    ends = (0, 0), (len(form) - 1, len(words) - 1)
    blocks = [
        (start, other, size)
        for start, other, size in matcher.get_matching_blocks()
        # a single word within the text, such as "the", is shared by chance
        if size > 1 or (size and (start, other) in ends)
    ]
    shared = sum(size for _, _, size in blocks)
    constant = sum(word.strip() != GAP for word in form)
    if shared < MIN_SHARE * min(constant, len(words)) or not shared:
        return []
    return list(_with_gaps(blocks, form, len(words)))


def _with_gaps(
    blocks: Iterable[tuple[int, int, int]], form: Sequence[str], length: int
) -> Iterator[str]:
    """Yield the words of some blocks, and a gap where words of one of the two texts are left out."""
    form_end = words_end = 0
    for start, other, size in [*blocks, (len(form), length, 0)]:
        if start > form_end or other > words_end:
            yield GAP if form_end == 0 else f" {GAP}"
        yield from form[start : start + size]
        form_end, words_end = start + size, other + size
