"""Write a file of records."""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import secrets
from ..requests.plain_data import ordered, ordered_names, plain
from ..responses.body import finite
from ..surrogates import check_unicode
from .answers import lasting
from .header import with_used_models
from .line import LINES, VERSION, line_of
from .references import INLINE_CHARACTERS, digest_of, stands_for_another
from .served import as_header, served_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..types import Data, Record
    from .served import Served


class Writer:
    """Encode records as the lines of one file, each text before its first use.

    :param allow: regular expressions for texts that look like credentials but are not secret.
    """

    def __init__(self, allow: tuple[str, ...] = ()) -> None:
        self._allow = allow
        self._checked_texts: set[str] = set()
        self._record_number = 0
        self._digests: dict[str, str] = {}  # of the texts that were written
        # Of the texts that the current record is the first to use.
        self._new_digests: dict[str, str] = {}

    def header(
        self,
        settings: Mapping[str, Data],
        *,
        run: Mapping[str, Data] | None = None,
        complete: bool = True,
        served: Served | None = None,
    ) -> str:
        """Return the first line; see :func:`encode`.

        :param served: the models that answered, with their days.
        """
        fields = {"settings": ordered(dict(settings))}
        if run is not None:
            fields = {"run": ordered(dict(run)), **fields}
        days = as_header(served or {})
        if days:
            fields["served"] = days
        secrets.refuse(fields, self._allow, "the header")
        incomplete = {} if complete else {"complete": False}
        line = line_of({"llmcall": VERSION, **incomplete, **fields})
        check_unicode(line, "the settings")
        return line

    def lines(self, record: Record) -> list[str]:
        """Return the lines of a record; see :func:`encode`. After an error, it is as if there were
        no such record.
        """
        self._record_number += 1
        self._new_digests = {}
        entry = self._entry(record)
        self._digests |= self._new_digests
        texts = [
            line_of({"text": digest, "lines": text.split("\n")})
            for text, digest in self._new_digests.items()
        ]
        return [*texts, line_of(entry)]

    def _entry(self, record: Record) -> dict[str, Any]:
        """Return the fields of a record's line, as JSON can hold them."""
        sample = "" if record.sample is None else f" (sample {record.sample!r})"
        location = f"record {self._record_number}{sample}"
        fields = {name: getattr(record, name) for name in LINES["kind"]}
        try:
            fields["response"] = finite(lasting(record.response))
            entry = {
                name: plain(value, name, for_record=True, surrogates=name == "response")
                for name, value in fields.items()
                if value is not None
            }
            secrets.refuse(entry, self._allow, location, self._checked_texts)
            for name in ("request", "response"):
                entry[name] = self._encoded(entry[name])
        except (TypeError, ValueError) as error:
            raise type(error)(f"{location}: {error}") from None
        except RecursionError:
            raise ValueError(
                f"{location}: its request or response is nested too deeply to be recorded"
            ) from None
        return entry

    def _encoded(self, data: Data) -> Any:
        """Return plain data as JSON can hold it, with references instead of long texts."""
        if isinstance(data, str) and len(data) > INLINE_CHARACTERS:
            digest = self._digests.get(data)
            return {"$text": digest or self._new_digests.setdefault(data, digest_of(data))}
        if isinstance(data, dict):
            encoded = {name: self._encoded(data[name]) for name in ordered_names(data)}
            return {"$data": encoded} if stands_for_another(data) else encoded
        if isinstance(data, list):
            return [self._encoded(item) for item in data]
        return {"$bytes": b64encode(data).decode()} if isinstance(data, bytes) else data


def encode(
    settings: Mapping[str, Data],
    records: Iterable[Record],
    *,
    run: Mapping[str, Data] | None = None,
    allow: tuple[str, ...] = (),
    complete: bool = True,
) -> Iterator[str]:
    """Yield the lines of a file, each with its newline.

    :param settings: the settings that decide keys, as JSON data; only the sections of models that
        the records name are written.
    :param records: the records in the order of the calls; they are written by scope path.
    :param run: the options of ``llmcall run``, or ``None`` if that did not record it.
    :param allow: regular expressions for texts that look like credentials but are not secret.
    :param complete: whether the recording is complete.
    :raises ValueError: if a record holds too deep a nesting, or a request holds NaN, an infinity or
        a lone surrogate; the message names the place.
    :raises TypeError: if a record holds anything but plain data; the message names the place.
    :raises CacheError: if a text looks like a credential; the message names the place.
    """
    records = list(records)
    writer = Writer(allow)
    header = with_used_models(settings, records)
    yield writer.header(header, run=run, complete=complete, served=served_by(records))
    for record in sorted(
        records, key=lambda record: (record.sample is not None, record.scope.split("/"))
    ):
        yield from writer.lines(record)


def write(
    path: str | os.PathLike[str],
    settings: Mapping[str, Data],
    records: Iterable[Record],
    *,
    run: Mapping[str, Data] | None = None,
    allow: tuple[str, ...] = (),
    complete: bool = True,
) -> None:
    """Write a file, whole or not at all; see :func:`encode` for what it raises.

    Missing folders are made. An existing file keeps its mode; a new one gets it from the umask.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else None
    temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.tmp")
    try:
        with open(
            temporary, "xb", opener=partial(os.open, mode=0o666 if mode is None else 0o600)
        ) as file:
            file.writelines(
                line.encode()
                for line in encode(settings, records, run=run, allow=allow, complete=complete)
            )
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
