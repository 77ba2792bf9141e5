"""The one option that an answer in words chooses: yes or no, a ``Literal``, an ``Enum``.

An answer that names two options, or one in a negation or a question, is refused: asking again is
cheaper than a wrong reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import OutputError
from ..requests.schemas import label_of, labels

__all__ = ["bare", "choice", "number", "verdict", "whole_number"]

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
    words = _VERDICT.finditer(text)
    matches = [match for match in words if _goes_on(text, match) or _TURNS.search(_before(text, match))]
    values = {_VERDICTS[match[0].lower()] for match in matches}
    if len(values) > 1:
        raise OutputError("it says both yes and no")
    if not values or not any(_states(text, match) for match in matches):
        raise OutputError("it says neither yes nor no")
    for match in matches:
        _refuse_doubt(text, match)
    return values.pop()


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
        value = number(text)
        found = [options[label] for label, option in values.items() if option == value]
        if not found:
            raise OutputError(f"{value} is none of the options")
        return found[0]
    return options[_named(text, pattern, spellings, options)]


def _goes_on(text: str, match: re.Match[str]) -> bool:
    return match[0].lower() != "no" or _GOES_ON.match(text, match.end()) is not None


def _states(text: str, match: re.Match[str]) -> bool:
    if match.start() == 0:
        return _goes_on(text, match)
    is_led_to = _STATES.search(_before(text, match).lstrip()) is not None
    return is_led_to and _PHRASE_END.match(text, match.end()) is not None


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


def _normal(text: str) -> str:
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.replace("’", "'")).strip().lower()


def _spellings(options: Mapping[str, Any], output_type: Any) -> dict[str, list[str]]:
    """Map each spelling, in lower case, to the labels that it may mean: more than one where only case tells."""
    spellings: dict[str, list[str]] = {}
    for option in options:
        spellings.setdefault(_normal(option), []).append(option)
    for name, member in getattr(output_type, "__members__", {}).items():
        for other in (name, str(member.value)):
            spellings.setdefault(_normal(other), [label_of(member)])
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


_PLAIN = str.maketrans({"−": "-", "’": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " "})
_MAX_DIGITS = 4000  # Python refuses to convert more than 4,300 (sys.int_info.default_max_str_digits)
_NUMBER = re.compile(
    r"""
    (?<![\w.,'+/^×–—-])
    (?P<sign>[-+]?) (?:[$€£¥₹]\ ?)? (?P<second_sign>[-+]?)
    (?P<digits>
        (?: [1-9][0-9]{0,2} (?P<separator>[,_\ ]) [0-9]{3} (?:(?P=separator)[0-9]{3}){0,40} (?![0-9])
          | [0-9]+ (?=[^0-9]|$) )
        (?P<fraction>\.[0-9]+)?
      | \.[0-9]+ )
    (?P<exponent>[eE][-+]?[0-9]+)?
    """,
    re.VERBOSE,
)
_REFUSED_AFTER = re.compile(
    r"""
    \s?[-–—:/*^×÷+=x]\s?[$€£¥₹]?[.0-9] | [.,'_][0-9]     # joined to another number
  | \s?\\?[%‰]  | \s?[¼-¾⅐-⅞²³¹⁰⁴-⁹]                    # not the number itself
  | (?:k|m|b|t|bn|mn|mm|tn|st|nd|rd|th|x|d|am|pm)\b      # ordinals, multiples, times, 3D
  | \s*(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore|grand|per\s?cent|point|and\s+(?:a|one|three))\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NUMBER_NEGATION = re.compile(r"\b(?:not|never|cannot|neither|nor|minus|negative)\b|n't\b", re.IGNORECASE)
_LOOSE_DASH = re.compile(r"(?:^|[^\w\s])\s*-\s+$")


def number(text: str) -> int | float:
    """Return the one number in a text.

    :param text: the answer.
    :returns: an ``int`` where the number is written without fraction and exponent, else a finite ``float``.
    :raises OutputError: where there is none, more than one, or one that can be read in two ways.
    """
    text = text.translate(_PLAIN)
    if not re.search(r"\d", text):
        raise OutputError("it holds no number in digits")
    if negation := _NUMBER_NEGATION.search(text):
        raise OutputError(f"the word {negation[0]!r} leaves open which number is meant")
    values = [_value(text, match) for match in _NUMBER.finditer(text)]
    if re.search(r"\d", _NUMBER.sub("", text)) or not values:
        raise OutputError("it holds digits that can be read in more than one way")
    if any(value != values[0] for value in values):
        shown = list(dict.fromkeys(str(value)[:20] for value in values))
        raise OutputError(f"it holds different numbers, {', '.join(shown[:3])}{', …' if shown[3:] else ''}")
    return values[0]


def whole_number(text: str) -> int:
    """Return the one number in a text, which must be whole; ``3.0`` and ``1e3`` are.

    :raises OutputError: as :func:`number` does, and for a fraction.
    """
    value = number(text)
    if isinstance(value, float) and (not value.is_integer() or abs(value) >= 2**53):
        raise OutputError(f"{value!r} is no whole number, or not exactly one")
    return int(value)


def _value(text: str, match: re.Match[str]) -> int | float:
    if after := _REFUSED_AFTER.match(text, match.end()):
        shown = text[match.start() : after.end()] + re.split(r"[^\w.,]", text[after.end() : after.end() + 10])[0]
        raise OutputError(f"{shown[-40:]!r} can be read in more than one way")
    if _LOOSE_DASH.search(text[max(0, match.start() - 40) : match.start()]):
        raise OutputError("the dash before the number may be a minus sign")
    if match["sign"] and match["second_sign"]:
        raise OutputError("the number has two signs")
    digits = re.sub("[,_ ]", "", match["digits"])
    if len(digits) > _MAX_DIGITS:
        raise OutputError(f"it holds a number of {len(digits)} digits")
    signed = (match["sign"] or match["second_sign"]) + digits
    if not match["exponent"] and "." not in digits:
        return int(signed)
    value = float(signed + (match["exponent"] or ""))
    if value in (float("inf"), float("-inf")):
        raise OutputError("it holds a number too large to read")
    return value
