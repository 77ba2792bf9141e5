"""What an override notes beside the key of a record."""

from __future__ import annotations

from ...stores.notes import Note

# Whether the user gave the answer, in place of the model's
OVERRIDE = Note[bool]("override", bool, False, rule="is not true", words=lambda _: "overridden")
