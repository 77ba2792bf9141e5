"""Closed questions, whose value is one of their options."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    names={"features.closed_questions.choice": "choice"},
    types={"features.closed_questions.choice": "Choice"},
)
