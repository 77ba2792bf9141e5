"""Why a request is not recorded, as far as what differs from the nearest record tells."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections import Counter
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from ..text import printable
from .differences import brief
from .passages import masked, pieces, shortened
from .similarity import said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..config.settings import Settings
    from ..types import Data
    from .differences import Difference

__all__ = ["causes_of", "causes_of_differences"]

MOST = 4  # causes that a message names
ALIKE = 0.6  # of two words, one of which may be the other misspelt
WIDTH = 60  # characters of a value
PARAMETERS = {"response_format": "the output type's schema", "tools": "the schema of a tool"}
MEDIA = re.compile(r"data:[^;,]*(?:;[^;,]*)*;?sha256,|sha256,")


def causes_of_differences(differences: Sequence[Difference], settings: Settings) -> list[str]:
    """Return what made a request differ from the nearest record, in sentences.

    :param settings: those that made the request.
    """
    found: dict[str, None] = {}
    whole = [difference for difference in differences if difference.place.endswith("]")]
    for difference in differences:
        if difference not in whole:
            found |= dict.fromkeys(_of_field(difference, settings))
    found |= dict.fromkeys(_of_messages(whole))
    return list(found)


def causes_of(causes: Sequence[str]) -> tuple[str, ...]:
    """Return the causes that a message names."""
    return tuple(causes[:MOST])


def _of_field(difference: Difference, settings: Settings) -> Iterator[str]:
    place = re.split(r"[.\[]", difference.place)[0]
    if place == "model":
        yield _of_model(str(difference.recorded), str(difference.asked), settings)
    elif place == "namespace":
        yield _of_namespace(difference, settings)
    elif place == "function":
        yield _of_function(str(difference.recorded), str(difference.asked))
    elif MEDIA.match(str(difference.recorded)) and MEDIA.match(str(difference.asked)):
        yield f"{difference.place} is another image or sound: its bytes' SHA-256 differs"
    elif difference.passages and place in ("messages", "input", "arguments"):
        yield from _of_text(difference)
    elif place in PARAMETERS:
        yield f"{PARAMETERS[place]} changed: {_values(difference)}"
    else:
        yield f"{_values(difference)}{_origin(difference, settings)}"


def _values(difference: Difference) -> str:
    if difference.recorded is None:
        return f"{difference.place} is {brief(difference.asked, WIDTH)} here, and the record has none"
    if difference.asked is None:
        return f"{difference.place} is not given here, and the record has {brief(difference.recorded, WIDTH)}"
    return (
        f"{difference.place} is {brief(difference.asked, WIDTH)} here, and {brief(difference.recorded, WIDTH)} "
        "in the record"
    )


def _origin(difference: Difference, settings: Settings) -> str:
    """Name the setting that says the same value, since it may have come from there."""
    value = getattr(settings, difference.place, None)
    if value is None or value != difference.asked:
        return ""
    return f" (the setting {difference.place.upper()} says so: {settings.origin(difference.place)})"


def _of_model(recorded: str, asked: str, settings: Settings) -> str:
    begin = f"the model is {asked} here, and {recorded} in the record"
    if settings.aliases.get(recorded) is not None:
        return f"{begin}; {recorded} is an alias now: 'llmcall cache rekey' moves what was recorded before it was"
    where = f" (the setting MODEL: {settings.origin('model')})" if settings.model == asked else ""
    return f"{begin}{where}; if one is the other's name, an alias is missing: [Aliases] {asked} = {recorded}"


def _of_namespace(difference: Difference, settings: Settings) -> str:
    return (
        f"[Cache] NAMESPACE is {brief(difference.asked or '', WIDTH)} here, and "
        f"{brief(difference.recorded or '', WIDTH)} in the record ({settings.origin('cache_namespace')}); "
        "'llmcall cache rekey' moves a cache's records to the present one"
    )


def _of_function(recorded: str, asked: str) -> str:
    begin = f"the function is {asked} here, and {recorded} in the record"
    name = recorded.rpartition(".")[2]
    if name != asked.rpartition(".")[2]:
        return begin
    return f"{begin}: it moved, or is run as a script and imported; @llmcall.recorded(name={recorded!r}) finds it again"


def _of_text(difference: Difference) -> Iterator[str]:
    what = _what(difference)
    outward = _outward(difference.recorded, difference.asked)
    if outward:
        yield f"{what} differs only in {outward}"
        return
    difference = difference._replace(recorded=masked(difference.recorded), asked=masked(difference.asked))
    yield _rewritten(difference, what)


def _what(difference: Difference) -> str:
    names = {"system": "the system message", "developer": "the system message", "tool": "a tool's result"}
    if difference.role == "assistant":
        return "an earlier answer"
    return names.get(difference.role, difference.place)


def _outward(recorded: str, asked: str) -> str:
    """Return what two texts of the same words differ in, or nothing where the words differ."""
    tests: tuple[tuple[Any, str], ...] = (
        (lambda text: text.replace("\r\n", "\n"), "its line endings (CRLF and LF)"),
        (lambda text: text.rstrip("\n"), f"its trailing newline ({_more(recorded, asked)} than in the record)"),
        (str.rstrip, "the white space at its end"),
        (textwrap.dedent, "its indentation: dedent_messages=True removes what is common to all lines"),
        (lambda text: text.split(), "its white space"),
        (lambda text: "".join(text.split()), "its white space"),
        (lambda text: unicodedata.normalize("NFC", text), "how its characters are composed (Unicode NFC and NFD)"),
        (lambda text: _typed(text), "its quotation marks, dashes or spaces (typographic and plain)"),
        (str.casefold, "upper and lower case"),
    )
    return next((words for form, words in tests if form(recorded) == form(asked)), "")


def _more(recorded: str, asked: str) -> str:
    count = len(asked) - len(recorded)
    return f"{abs(count)} {'more' if count > 0 else 'less'}"


def _typed(text: str) -> str:
    plain = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\u00a0": " "})
    return text.translate(plain)


def _rewritten(difference: Difference, what: str) -> str:
    if difference.role == "assistant":
        return (
            "an earlier answer in the conversation is another: this run parted from the recorded one before this "
            "call; its first miss tells where"
        )
    if difference.role == "tool":
        return "a tool's result is another: with the tool under @llmcall.recorded it is replayed as well"
    one, other = (shortened(printable(piece.strip()), WIDTH) for piece in _first_pieces(difference))
    if len(difference.passages) == 1 and _misspelt(one, other):
        return f"in {what}, one word is spelt in another way: recorded {one!r}, asked {other!r}"
    return f"{what} changed: {_pair(one, other)}"


def _pair(one: str, other: str) -> str:
    if one == other:
        return "what looks like a credential is another"
    if not one or not other:
        return f"{other!r} is new" if other else f"{one!r} is gone"
    return f"recorded {one!r}, asked {other!r}"


def _first_pieces(difference: Difference) -> tuple[str, str]:
    return pieces(difference.passages[0], difference.recorded, difference.asked)


def _misspelt(one: str, other: str) -> bool:
    words = one.isalpha() and other.isalpha()
    return words and SequenceMatcher(None, one, other).ratio() >= ALIKE


def _of_messages(whole: Sequence[Difference]) -> Iterator[str]:
    """Say what whole messages are missing, new, or elsewhere."""
    messages = [difference for difference in whole if difference.place.startswith("messages")]
    gone = [difference.recorded for difference in messages if difference.asked is None]
    new = [difference.asked for difference in messages if difference.recorded is None]
    if gone and Counter(map(repr, gone)) == Counter(map(repr, new)):
        yield "the same messages come in another order: rounds or agents take turns in another way than when recorded"
        return
    if new:
        yield f"{_messages(new)} not in the record: a round, or an agent, was added before the question"
    if gone:
        yield f"{_messages(gone)} missing that the record has: rounds come in another order, or one is left out"
    for difference in whole:
        if difference not in messages:
            yield f"{PARAMETERS.get(difference.place.partition('[')[0], 'a parameter')} changed: {_values(difference)}"


def _messages(messages: Sequence[Data]) -> str:
    first = brief(said(messages[0]), 30)
    return f"{len(messages)} messages are" if len(messages) > 1 else f"the message {first} is"
