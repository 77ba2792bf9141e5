"""Cassettes of answers that others published."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    names={"features.importing.import_answers": "import_answers"},
    types={"features.importing.import_answers": "Imported"},
    commands={"import": "features.importing.command:import_answers"},
    header_notes={"imported": "features.importing.notes:IMPORTED"},
    remedies={
        "a file that is not a cassette": "make a cassette of published answers with 'llmcall import'",
    },
)
