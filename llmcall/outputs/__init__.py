"""Text to typed value: what a model answered, as the output type that the caller asked for.

Lenient in form, strict in meaning: fences, words around the value, units and Markdown are ignored,
but an answer that can be read in two ways is refused, so that the model is asked again and nothing
is guessed. The value must be the answer, or one of its phrases between punctuation, as in "Yes, I
would." or "Answer: **7**". What only a sentence says ("It is not **true**", "about 5 million") is
refused. JSON may have fences, comments, trailing commas and Python's names.
"""

from .expectations import CORRECTION, correction, describe
from .fields import fields_of
from .json_values import containers
from .lettered_options import (
    INSTRUCTION,
    letter_position,
    listed_options,
    listing,
    named_option,
    option_position,
    plain,
)
from .phrases import peeled
from .reading import read, without_thoughts

__all__ = [
    "CORRECTION",
    "INSTRUCTION",
    "containers",
    "correction",
    "describe",
    "fields_of",
    "letter_position",
    "listed_options",
    "listing",
    "named_option",
    "option_position",
    "peeled",
    "plain",
    "read",
    "without_thoughts",
]
