"""The one option that an answer in words chooses: yes or no, a ``Literal``, an ``Enum``.

An answer that names two options, or one in a negation or a question, is refused: asking again is
cheaper than a wrong reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from ..errors import OutputError
from .numerals import number

__all__ = ["bare", "choice", "is_choice", "labels", "verdict"]

_WRAPPING = " \t\r\n\ufeff\u200b*_`~\"'“”‘’«»„.!,:;#>()[]"
_VERDICTS = {"yes": True, "yeah": True, "yep": True, "true": True, "no": False, "nope": False, "false": False}
_VERDICT = re.compile(rf"(?<![\w-])(?:{'|'.join(_VERDICTS)})(?![\w-])", re.IGNORECASE)
_MARKS = re.compile(r"[*_`\"“”‘’«»#>\ufeff\u200b]")
# "No idea" and "no bread" decide nothing: "no" counts where it ends a phrase, or one of these words goes on
_GOES_ON = re.compile(
    r"(?![ \t]+[^\W\d_])|[ \t]+(?:because|since|as|if|unless|i|i'd|i'm|we|it|it's|he|she|they|this|that|thanks?|not|"
    r"yes|no|sir|madam)\b",
    re.IGNORECASE,
)
_TURNS = re.compile(
    r"(?:\b(?:yes|yeah|yep|true)\W{1,3}(?:and|or)|\b(?:but|actually|wait|then|rather|also))\W{1,5}$", re.IGNORECASE
)
_STATES = re.compile(
    r"(?:^|^(?:well|oh|ah|hmm|um|okay|ok|so|sure|of course)\W{1,5}"
    r"|\b(?:answer|decision|verdict|response|conclusion|choice|result|value|say|is|be)\b\W{1,20})$",
    re.IGNORECASE,
)
_PHRASE_END = re.compile(r"[ \t]*(?:$|[^\w \t]|(?:because|since|as|if)\b)", re.IGNORECASE)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|unsure|uncertain|undecided|depends|either way|(?:not|n't) (?:sure|know|say|decide)|"
    r"cannot (?:say|decide))\b|n't (?:sure|know|say|decide)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:not|never|no|nor|neither|without|cannot|refuse|avoid|against|decline|reject|unlikely|except|"
    r"instead of|rather than|anything but)\b|n't\b",
    re.IGNORECASE,
)
_NEGATED_AFTER = re.compile(
    r"\W*(?:or\s+)?(?:(?:is|was|would be|seems)\s+)?(?:not\b|never\b|(?:is|was|would)n't\b)", re.I
)
_PHRASE_MARK = re.compile(r"\W*$|[).:,;!*\]]|[\"'](?!\w)")
_NUMERAL = re.compile(r"[-\d.]+")
_SENTENCE_END = re.compile(r"([.!?;\n]+)")


def bare(text: str) -> str:
    """Return a text without the quotes, Markdown marks, brackets and stops around it."""
    return text.strip(_WRAPPING)


def verdict(text: str) -> bool:
    """Read yes or no (also true or false).

    The word must open the answer, stand alone in a sentence, or follow words such as ``the answer is``; it must not be
    contradicted, negated or hedged anywhere in the answer ("Yes and no", "yes … actually no", "not true", "maybe").

    :raises OutputError: for an answer that gives neither, or both.
    """
    text = re.sub(r"^\W+", "", _MARKS.sub("", text.replace("’", "'"))).rstrip()
    matches = [match for match in _VERDICT.finditer(text) if _counts(text, match)]
    values = {_VERDICTS[match[0].lower()] for match in matches}
    if len(values) > 1:
        raise OutputError("it says both yes and no")
    if not values or not any(_states(text, match) for match in matches):
        raise OutputError("it says neither yes nor no")
    for match in matches:
        _refuse_doubt(text, match)
    return values.pop()


def is_choice(output_type: Any) -> bool:
    """Tell whether a type is a ``Literal`` or an ``Enum``."""
    from enum import Enum

    return get_origin(output_type) is Literal or (isinstance(output_type, type) and issubclass(output_type, Enum))


def labels(output_type: Any) -> dict[str, Any]:
    """Map the text by which a model names an option to the option.

    :param output_type: a ``Literal`` (an option's JSON text, a string's own), or an ``Enum`` (a member's value
        where it is a string, else its name).
    :raises TypeError: for a ``Literal`` of bytes.
    """
    if get_origin(output_type) is Literal:
        return {_label(option): option for option in get_args(output_type)}
    return {_label(member): member for member in output_type}


def choice(text: str, output_type: Any) -> Any:
    """Read the one option that an answer names, in any case; an ``Enum``'s member also by its name.

    :raises OutputError: for an answer that names none, several, or one in a negation or a question.
    """
    options = labels(output_type)
    spellings = _spellings(options, output_type)
    text = text.replace("’", "'")
    for whole in (text.strip(), bare(text)):
        named = [whole] if whole in options else spellings.get(_normal(whole), [])
        if len(named) == 1:
            return options[named[0]]
    if {label.lower() for label in options} in ({"yes", "no"}, {"true", "false"}):
        wanted = verdict(text)
        return next(option for label, option in options.items() if _VERDICTS[label.lower()] is wanted)
    values = {label: getattr(option, "value", option) for label, option in options.items()}
    pattern = _pattern(tuple(label for label in spellings if not _NUMERAL.fullmatch(label)))
    if all(type(value) in (int, float) for value in values.values()) and not pattern.search(text):
        return options[_numbered(text, values)]
    return options[_named(text, pattern, spellings, options)]


def _counts(text: str, match: re.Match[str]) -> bool:
    if match[0].lower() != "no" or _GOES_ON.match(text, match.end()):
        return True
    return _TURNS.search(_before(text, match)) is not None


def _states(text: str, match: re.Match[str]) -> bool:
    if match.start() == 0:
        return match[0].lower() != "no" or _GOES_ON.match(text, match.end()) is not None
    return (
        _STATES.search(_before(text, match).lstrip()) is not None and _PHRASE_END.match(text, match.end()) is not None
    )


def _before(text: str, match: re.Match[str]) -> str:
    """Return what stands before a match in its sentence, at most the last 200 characters."""
    return _SENTENCE_END.split(text[max(0, match.start() - 200) : match.start()])[-1]


def _refuse_doubt(text: str, match: re.Match[str]) -> None:
    before = _before(text, match)
    after = _SENTENCE_END.split(text[match.end() : match.end() + 200])[0]
    if hedge := _HEDGE.search(before + " " + after):
        raise OutputError(f"{hedge[0].strip()!r} leaves it undecided")
    if negation := re.search(r"(?:\b(?:not|never|cannot)|n't)\b[^,:]*$", before, re.IGNORECASE):
        raise OutputError(f"{(negation[0] + match[0])!r} is a negation")


def _label(option: Any) -> str:
    from enum import Enum

    if isinstance(option, Enum):
        return option.value if isinstance(option.value, str) else option.name
    if isinstance(option, bytes):
        raise TypeError("a Literal of bytes cannot be an output type: a model answers in text")
    return (
        option
        if isinstance(option, str)
        else {"True": "true", "False": "false", "None": "null"}.get(repr(option), repr(option))
    )


def _normal(text: str) -> str:
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.replace("’", "'")).strip().lower()


def _spellings(options: Mapping[str, Any], output_type: Any) -> dict[str, list[str]]:
    """Map each spelling, in lower case, to the labels that it may mean: more than one where only case tells."""
    spellings: dict[str, list[str]] = {}
    for label in options:
        spellings.setdefault(_normal(label), []).append(label)
    for name, member in getattr(output_type, "__members__", {}).items():
        for other in (name, str(member.value)):
            spellings.setdefault(_normal(other), [_label(member)])
    return spellings


@lru_cache(maxsize=64)
def _pattern(spellings: tuple[str, ...]) -> re.Pattern[str]:
    """Compile a search for whole words; the longest spelling comes first, so that "very good" is not "good"."""
    longest_first = sorted(filter(None, spellings), key=lambda spelling: (-len(spelling), spelling))
    words = "|".join(map(_word, longest_first)) or "(?!)"
    return re.compile(rf"(?<![^\W_])(?<![^\W_]-)(?:{words})(?![^\W_]|-[^\W_])", re.IGNORECASE)


def _word(spelling: str) -> str:
    if len(spelling) == 1:
        ends = rf"(?={_PHRASE_MARK.pattern})"
        capital = rf"I(?:{ends}|(?=\s+(?:or|and|is)\b))" if spelling == "i" else re.escape(spelling.upper())
        return rf"(?-i:{capital}|{re.escape(spelling)}{ends})"
    return r"[\s_-]+".join(map(re.escape, spelling.split(" ")))


def _numbered(text: str, values: Mapping[str, Any]) -> str:
    value = number(text)
    for label, option in values.items():
        if option == value:
            return label
    raise OutputError(f"{value} is none of the options")


def _named(text: str, pattern: re.Pattern[str], spellings: Mapping[str, list[str]], options: Mapping[str, Any]) -> str:
    named: list[str] = []
    is_stated = False
    for match in pattern.finditer(text):
        named += [match[0]] if match[0] in options else spellings.get(_normal(match[0]), [])
        # the words "A" and "I" are no choice of A or I: a letter alone must end a phrase
        is_stated = is_stated or len(match[0]) > 1 or _PHRASE_MARK.match(text, match.end()) is not None
    found = list(dict.fromkeys(named))
    if len(found) > 1:
        raise OutputError(f"it names more than one option: {', '.join(found)}")
    if not found or not is_stated:
        raise OutputError("it names none of the options")
    _refuse_negation(pattern.sub("\0", text), found[0])
    return found[0]


def _refuse_negation(masked: str, label: str) -> None:
    """Refuse an option, masked as a NUL, that stands in a negated sentence or in a question."""
    pieces = [*_SENTENCE_END.split(masked), ""]
    for sentence, end in zip(pieces[::2], pieces[1::2], strict=True):
        before, mark, after = sentence.rpartition("\0")
        if mark and (_NEGATION.search(before) or _NEGATED_AFTER.match(after)):
            raise OutputError(f"it names {label} in a negation")
        if mark and "?" in end:
            raise OutputError(f"it names {label} in a question")
