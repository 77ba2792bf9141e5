"""The note in the header of a file with answers that llmcall did not record: their source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ...keys.request import Data
from ...stores.notes import HeaderNote
from ...support.display import as_json

# In words or by name; empty if unknown
Source = Mapping[str, Data] | str
IN_PART = "in part"
SOURCE = "source"  # beside what the answers were made of


def _source_of(recorded: Iterable[Source | None]) -> Source | None:
    """Return the source of the answers of a file, from those of its records; ``None`` if llmcall recorded all. If it
    recorded some, the others' sources stand under ``in part``.
    """
    sources: dict[str | None, Source | None] = {}
    for source in recorded:
        sources.setdefault(None if source is None else as_json(source), source)
    if len(sources) < 2:
        return next(iter(sources.values()), None)
    words = [_source_words(source) for source in sources.values() if source is not None]
    names = "; ".join(sorted({*words}))
    is_part = None in sources or any(map(_is_part, sources.values()))
    return {IN_PART: names} if is_part else names


def _words(source: Source) -> str:
    if _is_part(source):
        return f"imported in part from {_source_words(source)}; llmcall recorded the others"
    return f"imported from {_source_words(source)}, not recorded by llmcall"


def _is_part(source: Source | None) -> bool:
    return isinstance(source, Mapping) and source.keys() == {IN_PART}


def imported_note(source: Source, made_of: Mapping[str, Data], skipped: Counter[str]) -> Source:
    """Return the note of a file: the source alone, or with what the answers were made of.

    :param made_of: ``files`` (of each its ``name`` and ``sha256``) and the options of the import.
    :param skipped: the reasons for which answers were left out, with their numbers.
    """
    reasons = {"skipped": dict(skipped.most_common())} if skipped else {}
    return {SOURCE: source, **made_of, **reasons} if made_of or reasons else source


def _details(source: Source) -> dict[str, str]:
    """Describe what the answers were made of, by label."""
    if not isinstance(source, Mapping) or SOURCE not in source:
        return {}
    files = [f"{file['name']} (SHA-256 {file['sha256']})" for file in source.get("files", ())]
    skipped = [f"{count:,} × {reason}" for reason, count in source.get("skipped", {}).items()]
    return {"imported files": ", ".join(files), "not imported": "; ".join(skipped)}


def _source_words(source: Source) -> str:
    if isinstance(source, Mapping) and SOURCE in source:
        source = source[SOURCE]
    if isinstance(source, str):
        return source or "an unnamed source"
    if _is_part(source):
        return str(source[IN_PART])
    return ", ".join(f"{name} {source[name]}" for name in sorted(source)) or "an unnamed source"


IMPORTED = HeaderNote(
    *("imported", (str, dict), _source_of, _words),
    layout=6,
    details=_details,
    remake="features.importing.import_answers:differences_of_import",
)
