"""Recorded requests, sent again: does the model still answer as it did?"""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    needs=("effects", "plans"),
    names={"features.resend.resend": "resend"},
    commands={"resend": "features.resend.command:resend"},
)
