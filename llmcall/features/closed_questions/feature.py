"""What closed questions add."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    names={"features.closed_questions.choice": "choice"},
    types={"features.closed_questions.choice": "Choice"},
)
