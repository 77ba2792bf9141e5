"""What sending recorded requests again adds."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    needs=("effects", "plans"),
    names={"features.resend.resend": "resend"},
    commands={"resend": "features.resend.command:resend"},
)
