"""Imports of files, which the header of the cassette names with their digests, so that anybody can repeat them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config.resolve import configured
from ...keys.parameters import checked_parameters
from ...keys.request import Data
from ...stores.records.answers import same_answer
from ...stores.records.reader import read
from ...support.display import counted
from .import_answers import Imported, import_located
from .layouts import by_layout, entries_in
from .published_tables import Columns, parameters


def import_files(
    files: Sequence[str],
    to: str,
    options: Mapping[str, Any],
    source: str | None,
    layout: Callable[[str], Iterable[object]] | None = None,
) -> Imported:
    """Import files, and note their digests and the options in the cassette's header.

    :param options: those of ``model``, ``params``, ``columns`` and ``layout`` that the command got.
    :param layout: the function that ``layout`` names.
    """
    columns = Columns(options.get("columns"))
    if layout is None:
        entries = entries_in(files, columns, options.get("model"))
    else:
        entries = by_layout(layout, options["layout"], files, columns)
    params = checked_parameters(parameters(options.get("params", {})))
    made_of = {"files": [*map(_entry, _files(files))], **options}
    return import_located(
        entries, to, options.get("model"), params, source, columns=columns, made_of=made_of
    )


def _files(paths: Iterable[str]) -> Iterator[Path]:
    """Yield the files at some paths, and those in the folders there."""
    for path in map(Path, paths):
        yield from (
            (each for each in sorted(path.rglob("*")) if each.is_file())
            if path.is_dir()
            else [path]
        )


def _entry(path: Path) -> dict[str, Data]:
    name = os.path.relpath(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "name": path.name if name.startswith(os.pardir) else Path(name).as_posix(),
        "sha256": digest,
    }


def differences_of_import(
    imported: Data, recording: Path, packed: Mapping[str, Path], folder: Path, *, is_whole: bool
) -> list[str] | str:
    """Import the files of a cassette again, and return in words what differs, or why it cannot be done.

    :param imported: the note in the cassette's header.
    :param packed: the files that are at hand, by their SHA-256.
    :param folder: an empty one.
    :param is_whole: ``False`` if answers were left out of the recording.
    """
    files = imported.get("files") if isinstance(imported, dict) else None
    if not files:
        return "its header names no files"
    if "layout" in imported:
        return f"the function {imported['layout']} read its files"
    if missing := [file["name"] for file in files if file["sha256"] not in packed]:
        return f"{counted(len(missing), 'file')} not packed: {', '.join(missing)}"
    copies = []
    for number, file in enumerate(files):
        copies.append(folder / str(number) / Path(file["name"]).name)
        copies[-1].parent.mkdir()
        copies[-1].write_bytes(packed[file["sha256"]].read_bytes())
    again = folder / "again.jsonl"
    with configured(cassette_allow=["(?s).+"]):  # its author allowed what looks like a credential
        import_files([*map(str, copies)], str(again), imported, None)
    records = {record.cache_key: record for record in read(again)}
    found = [*read(recording)]
    differing = [
        f"{record.sample or record.cache_key[:12]} is not as in the files"
        for record in found
        if record.cache_key not in records or not same_answer(record, records[record.cache_key])
    ]
    lacking = len(records.keys() - {record.cache_key for record in found})
    if lacking and is_whole:
        differing.append(f"{counted(lacking, 'answer')} of the files not in the recording")
    return differing
