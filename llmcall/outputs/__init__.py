"""Text to typed value: what a model answered, as the output type that the caller asked for.

An answer is its JSON, or, where the type is simple, plain words; whatever is not plainly a value of
the type is refused, so that the model is asked again and nothing is guessed.
"""

from .expectations import CORRECTION, correction, describe
from .json_texts import json_value, without_reasoning
from .lettered_options import (
    INSTRUCTION,
    letter_position,
    listed_options,
    listing,
    named_option,
    option_position,
    plain,
)
from .reading import plain_words, read

__all__ = [
    "CORRECTION",
    "INSTRUCTION",
    "correction",
    "describe",
    "json_value",
    "letter_position",
    "listed_options",
    "listing",
    "named_option",
    "option_position",
    "plain",
    "plain_words",
    "read",
    "without_reasoning",
]
