"""What typed questions add."""

from __future__ import annotations

from ..features import Feature

FEATURE = Feature(notes={"form": "typed.notes:FORM", "unread": "typed.notes:UNREAD"})
