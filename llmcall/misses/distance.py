"""How much a recorded request has in common with the one that was asked."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from ..differences.fields import CONTENTS
from ..differences.words import common_ends
from ..requests.contents import messages_of, strings_in
from ..types import Data, Record, Request
from .samples import split_sample

UNRELATED = 2.0  # from this distance on, a record has little to do with a request

PARAMETER = 1.0  # for each parameter that differs
OTHER_SCOPE = 0.6
OTHER_DRAW = 0.2
MISSING_MESSAGE = 0.8  # for each message more or less
MOST_MISSING = 1.6  # for all of them together
LAST_MESSAGE = 2.5  # times another message's weight: it contains the question
OTHER_TEXT = 0.02  # for any difference between two texts, however small


def distance(request: Request, record: Record) -> float:
    """Return how far a record is from a request: 0 if they are the same, else more."""
    asked, recorded = request.asked, record.request
    parameters = (asked.keys() | recorded.keys()) - set(CONTENTS)
    differing = [name for name in parameters if asked.get(name) != recorded.get(name)]
    return (
        PARAMETER * len(differing)
        + _sample_distance(request.sample, record.sample)
        + _message_distance(messages_of(asked), messages_of(recorded))
    )


def _sample_distance(asked: str | None, recorded: str | None) -> float:
    if asked == recorded:
        return 0.0
    path, _ = split_sample(asked)
    recorded_path, _ = split_sample(recorded)
    return OTHER_DRAW if path == recorded_path else OTHER_SCOPE


def _message_distance(asked: Sequence[Data], recorded: Sequence[Data]) -> float:
    common_count, _ = common_ends(asked, recorded)
    asked, recorded = asked[common_count:], recorded[common_count:]
    total = min(MISSING_MESSAGE * abs(len(asked) - len(recorded)), MOST_MISSING)
    weight = LAST_MESSAGE
    for message, recorded_message in zip(reversed(asked), reversed(recorded), strict=False):
        total += weight * _text_distance(message, recorded_message)
        weight = 1.0
    return total


def _text_distance(asked: Data, recorded: Data) -> float:
    """Return 0 for equal data and up to 1 for texts without a common word."""
    if asked == recorded:
        return 0.0
    matcher = SequenceMatcher(None, _words(asked), _words(recorded), autojunk=False)
    return OTHER_TEXT + (1 - OTHER_TEXT) * (1 - matcher.quick_ratio())


def _words(data: Data) -> list[str]:
    return [word for text in strings_in(data) for word in text.split()]
