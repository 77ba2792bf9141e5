"""What sending recorded requests again adds."""

from __future__ import annotations

from ...features import Feature

FEATURE = Feature(
    names={"features.resend.resend": "resend"},
    commands={"resend": "features.resend.command:resend"},
)
