"""Typed answers: templates in, values out."""

from __future__ import annotations

from ..additions import Feature

FEATURE = Feature(notes={"form": "typed.notes:FORM", "unread": "typed.notes:UNREAD"})
