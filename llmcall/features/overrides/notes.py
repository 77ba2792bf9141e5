"""What an override notes beside the key of a record."""

from __future__ import annotations

from ...stores.notes import Note

# Whether the user gave the answer, instead of the model
OVERRIDE = Note[bool]("override", bool, False, rule="is not true", words=lambda _: "overridden")
