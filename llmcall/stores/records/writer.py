"""The writing of a file of records."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence

from ...config import resolve as config
from ...errors import CacheError
from ...keys.plain_data import is_too_deep, recordable, recordable_answer
from ...keys.request import Data
from ...support import secrets
from ...support.data import check_unicode
from ...support.system import check_replaceable, file_beside
from ..days import Days
from ..notes import header_notes_of
from ..record import Record, scope_of, sorted_scopes
from .answers import stable_response
from .header import Header, answered, joined_served, served_entry
from .keyed_settings import with_used_models
from .line import (
    BEFORE_NOTES,
    INLINE_CHARACTERS,
    VERSION,
    encode_line,
    is_marker,
    refuse_folder,
    text_digest,
)
from .reader import content_of, header_in


def encode(
    header: Header, records: Sequence[Record], left_out: dict[str, str] | None = None
) -> Iterator[str]:
    """Yield the lines of a file, each with its newline.

    :param header: the header; only the models and ``[Model …]`` sections of the records are written.
    :param records: the records in the order of the calls; they are written by scope path. They are
        read twice.
    :param left_out: gets, by key, why a record cannot be written; ``None`` raises the first reason.
    :raises ValueError: if a record is nested too deeply, or a request holds NaN, an infinity or a lone
        surrogate; names the location.
    :raises TypeError: if a record holds anything but plain data; names the location.
    :raises CacheError: if a text looks like a credential; names the location.
    """
    allow = config.settings().cassette_allow
    secrets.note_environment(os.environ)
    records = _by_scope(records)
    notes, models, found = [], set(), []
    for record in records:  # each may be read from a file for it
        notes.append(record.header_notes)
        models.add((record.kind, record.request.get("model")))
        found.append(answered(record))
    # A record with a name that looks like a credential is left out below.
    hidden = {
        pair for pair in set(found) if any(secrets.find(text, allow) for text in _names(*pair))
    }
    served = joined_served(pair for pair in found if pair not in hidden)
    header = header._replace(
        notes={**header_notes_of(notes), **header.notes},
        # A parameter stays without a record that shows it: a forgotten answer is drawn again with it.
        settings=with_used_models(header.settings, models),
        served=served,
    )
    yield header_line(header, allow)
    written_texts: set[str] = set()  # digests
    checked_texts: set[int] = set()
    for number, record in enumerate(records, 1):
        try:
            texts: dict[str, str] = {}
            sample = "" if record.sample is None else f" (sample {secrets.masked(record.sample)!r})"
            location = f"record {number}{sample}"
            names = [*_names(*found[number - 1])]
            secrets.refuse_credentials({"served": names}, allow, location, checked_texts)
            line = record_line(record, location, allow, checked_texts, texts)
        except (CacheError, TypeError, ValueError) as error:
            if left_out is None:
                raise
            left_out[record.cache_key] = str(error)
            continue
        for digest in texts:
            if digest not in written_texts:
                yield encode_line({"text": digest, "lines": texts[digest].split("\n")})
        written_texts |= texts.keys()
        yield line


def _by_scope(records: Iterable[Record]) -> list[Record]:
    """Return records as a file groups them: by scope path, those outside any scope first."""
    groups: dict[str | None, list[Record]] = {}
    for record in records:
        groups.setdefault(scope_of(record), []).append(record)
    return [record for path in sorted_scopes(groups) for record in groups[path]]


def _names(model: str | None, days: Days | None) -> tuple[str, ...]:
    """Return what a header says of the model that gave an answer: its name, fingerprints, hosts and providers."""
    return (model or "", *(days.fingerprints + days.hosts + days.providers if days else ()))


def header_line(header: Header, allow: Sequence[str]) -> str:
    """Return the line of a header as it stands.

    :param allow: see :func:`.secrets.find`.
    :raises ValueError: if a setting holds a lone surrogate.
    :raises CacheError: if a text looks like a credential.
    """
    optional = {**dict(sorted(header.notes.items())), "run": header.run}
    entry = {name: recordable(value, name) for name, value in optional.items() if value is not None}
    entry["settings"] = recordable(header.settings, "settings")
    if served := served_entry(header.served):
        entry["served"] = served
    if header.unanswered:
        entry["unanswered"] = header.unanswered
    secrets.refuse_credentials(entry, allow, "the header")
    incomplete = {} if header.is_complete else {"complete": False}
    line = encode_line({"llmcall": VERSION, **incomplete, **entry})
    check_unicode(line, "the settings")
    return line


def record_line(
    record: Record,
    location: str,
    allow: Sequence[str],
    checked_texts: set[int],
    texts: dict[str, str],
) -> str:
    """Return the line of a record; see :func:`encode` for what it raises.

    :param checked_texts: the hashes of texts without credentials; the record's are added.
    :param texts: gets the long texts, by their digests.
    """
    try:
        fields: dict[str, Data] = {name: getattr(record, name) for name in BEFORE_NOTES}
        fields["arms"] = list(record.arms) or None
        fields |= dict(sorted(record.notes.items()))
        fields["request"] = record.request
        fields["response"] = stable_response(record.response)
        fields["cost"] = record.cost
        entry = {
            name: (
                recordable_answer(value, f"{location}: {name}")
                if name == "response"
                else recordable(value, f"{location}: {name}")
            )
            for name, value in fields.items()
            if value is not None
        }
        secrets.refuse_credentials(entry, allow, location, checked_texts)
        entry["key"] = record.cache_key
        for name in ("request", "response"):
            entry[name] = _encoded(entry[name], texts)
        line = encode_line(entry)
        if is_too_deep(entry, line):
            raise RecursionError
    except RecursionError:
        raise ValueError(
            f"{location}: its request or response is nested too deeply to be recorded"
        ) from None
    return line


def _encoded(data: Data, texts: dict[str, str]) -> Data:
    """Return what :func:`.recordable` returned as JSON can hold it, with references instead of long texts."""
    if isinstance(data, str) and len(data) > INLINE_CHARACTERS:
        digest = text_digest(data)
        texts[digest] = data
        return {"$text": digest}
    if isinstance(data, dict):
        encoded = {name: _encoded(item, texts) for name, item in data.items()}
        return {"$data": encoded} if is_marker(data) else encoded
    if isinstance(data, list):
        return [_encoded(item, texts) for item in data]
    return {"$bytes": b64encode(data).decode()} if isinstance(data, bytes) else data


def write(
    path: str | os.PathLike[str],
    header: Header,
    records: Sequence[Record],
    *,
    replaces: bytes | None = None,
    left_out: dict[str, str] | None = None,
) -> None:
    """Write a file, whole or not at all; see :func:`encode` for what else it raises.

    Missing folders are made. An existing file keeps its mode; a new one gets it from the umask.

    :param replaces: the content that it may replace, or ``None`` for any cassette's.
    :param left_out: gets, by key, why a record cannot be written; if there is one, the file stays as it was.
    :raises CacheError: if another process has written the file, the path is a folder's, the folder is not
        writable, or the disk is full.
    :raises CacheCorruptError: if the file exists and is not a cassette.
    """
    target = os.path.realpath(os.path.expanduser(path))
    check_writable(target)
    if replaces is None:
        header_in(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        with file_beside(target) as file:
            for line in encode(header, records, left_out):
                file.write(line.encode())
            if left_out:
                return
            file.flush()
            os.fsync(file.fileno())
            if replaces is not None and content_of(target) != replaces:
                raise CacheError(
                    f"another process wrote {os.fspath(path)} after this one read it, so it is not overwritten: "
                    "run this again, one process at a time; answers in the disk cache are not requested again"
                )
            file.close()  # Windows replaces no file that is open
            os.replace(file.name, target)
    except OSError as error:
        raise CacheError(
            f"{os.fspath(path)} was not written ({error.strerror or error}): make room if the disk is full, or name a "
            "file on another disk, and run it again; answers in the disk cache are not requested again"
        ) from error


def check_writable(path: str) -> None:
    """Refuse a file that could not be written, before there is anything to write.

    :param path: its real path.
    :raises CacheError: if it is no regular file, or the folder that it would be in is not writable.
    """
    refuse_folder(path)
    check_replaceable(path)
    folder = os.path.dirname(path)
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        raise CacheError(
            f"{path} cannot be written: you may not create files in {folder}. Name a file in another "
            "folder, or make this one writable"
        )
