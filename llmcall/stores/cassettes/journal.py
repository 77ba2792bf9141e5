"""The journal of a recording under way: each answer in a file beside the cassette, before its call returns."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from ...config import resolve as config
from ...errors import CacheError
from ...keys.request import Data
from ...support.notices import warn_once
from ...support.secrets import note_environment, used_credentials
from ...support.system import try_lock, write_at
from ..days import Days, days_entry, joined_days
from ..record import Record
from ..records.header import Header
from ..records.line import parse_line
from ..records.reader import header_in
from ..records.served import model_of
from ..records.writer import header_line, record_line, text_line

if TYPE_CHECKING:
    from ..records.keyed_settings import SettingsTaken

LONGEST_NAME = 255  # bytes of a file's name
BINARY = getattr(os, "O_BINARY", 0)  # on Windows
RECORD_LINE, TEXT_LINE = b'{"kind"', b'{"text"'  # how lines that llmcall wrote begin
# What a header of a journal names: the digest of the content that the recording goes on from, or this
OF_A_REWRITE = "rewrite"
WRITTEN = "written: "  # and, at its end, the digest of the file that has all of it
NO_HEADER = Header({})


def journal_path(path: str) -> str:
    """Return the path of a cassette's journal.

    :param path: the real path of the cassette.
    """
    folder, name = os.path.split(path)
    journal = f".{name}.journal"
    if len(os.fsencode(journal)) > LONGEST_NAME:
        journal = f".{sha256(os.fsencode(name)).hexdigest()}.journal"
    return os.path.join(folder, journal)


def recorded_header(path: str) -> Header | None:
    """Return the header of a cassette or, without one, of its journal; ``None`` without both."""
    return header_in(path) or header_in(journal_path(os.path.realpath(os.path.expanduser(path))))


class Entry(NamedTuple):
    """A record as lines.

    :param line: the record's.
    :param texts: the lines of its long texts, by digest.
    """

    line: bytes
    texts: dict[str, bytes]


class Journal:
    """The journal of a cassette: lines as the file has them, in the order of the answers.

    Its first line is a header that names the content which the recording goes on from (its digest), or that it
    rewrites the file. Further headers hold the settings and days so far. So the next opening can tell whether it
    belongs to the file, and reads both as one incomplete recording.

    :param cassette: the real path of the cassette.
    :param digest: of the file's content; empty without a file.
    :ivar path: the path of the journal.
    :ivar taken: the lines of a recording that broke off, which this one goes on with.
    :ivar is_of_rewrite: ``True`` if that one rewrote the file.
    :ivar goes_on: ``True`` if it began with what the file holds now; otherwise the file's answers count.
    """

    # Its process holds a lock on it, so that a second one neither writes to it nor takes it over. It
    # is made for the first call that the file does not answer. It is flushed, but not synchronized with the disk: a
    # killed process loses nothing by that, and a hundredth of a second for each answer would be felt. What
    # cannot be appended (the disk is full, a text looks like a credential) stays in memory until the end.
    def __init__(self, cassette: str, digest: bytes, *, is_rewrite: bool) -> None:
        self.cassette = cassette
        self.path = journal_path(cassette)
        self.taken = b""
        self.is_of_rewrite = False
        self.goes_on = True
        self._digest = digest.hex()
        self._is_rewrite = is_rewrite
        self._header = NO_HEADER
        self._settings: Mapping[str, Data] = {}
        self._days: Mapping[str, Days] = {}
        self._allow: Sequence[str] = ()
        self._file: int | None = None  # its descriptor
        self._size = 0
        self._is_torn = False  # whether more may follow than its size
        self._texts: set[str] = set()  # the digests of the long texts that it has
        self._checked_texts: set[int] = set()
        self._checked_for: tuple[str, ...] = ()  # the credentials that these were searched for
        self._checked: SettingsTaken | None = None
        self._is_told = self._is_of_other = False

    # Left by a recording that broke off

    def look(self, *, may_write: bool) -> None:
        """Take over what a recording left that broke off.

        :param may_write: ``True`` if this opening records. Then it keeps the journal, and one that does not belong to
            it is in its way.
        :raises CacheError: if one is in its way.
        """
        file = -1
        for flags in (os.O_RDWR, os.O_RDONLY):  # the second in a folder that cannot be written
            with suppress(OSError):
                file = os.open(self.path, flags | BINARY)
                break
        if file < 0:
            return
        if not try_lock(file):  # another process is recording
            os.close(file)
            return
        self._file = file
        with open(file, "rb", closefd=False) as lines:
            content = lines.read()
        content = content[: content.rfind(b"\n") + 1]
        last = content[content.rfind(b"\n", 0, -1) + 1 :]
        if self._digest and _mark_of(last) == WRITTEN + self._digest:  # the file has all of it
            self.remove()
            return
        problem = self._problem(content, may_write=may_write)
        if problem:
            self.close()
            if may_write:
                raise CacheError(problem)
            warn_once(problem)
        elif content:
            self.taken = content
            self._size, self._is_torn = len(content), True
            self._texts = {
                parse_line(line)["text"] for line in BytesIO(content) if line.startswith(TEXT_LINE)
            }

    def _problem(self, content: bytes, *, may_write: bool) -> str:
        """Return why what it holds does not belong to this opening, and what to do; empty if it does."""
        if not content:
            return ""
        begins_at = _mark_of(content[: content.find(b"\n") + 1])
        if begins_at is None:
            return (
                f"{self.path} is not a journal of this llmcall. If another version of llmcall made it, continue with "
                "that version; otherwise, move the file away"
            )
        self.is_of_rewrite = begins_at == OF_A_REWRITE
        if self._digest and self.is_of_rewrite and not self._is_rewrite:
            return (
                f"{self.path} has the answers of an interrupted rewrite of {self.cassette}. Continue in the mode "
                "'rewrite', or delete it"
            )
        self.goes_on = not self._digest or self.is_of_rewrite or begins_at == self._digest
        if not self.goes_on and not may_write:
            return (
                f"{self.path} has the answers of an interrupted recording, and {self.cassette} was changed since. The "
                "mode 'new' takes from it what the file lacks. Use that, or delete it"
            )
        return ""

    @property
    def answers_taken(self) -> int:
        """Return how many answers it took over."""
        return sum(line.startswith(RECORD_LINE) for line in BytesIO(self.taken))

    # Appending

    def begin(self, header: Header) -> None:
        """Begin a recording.

        :param header: what all its headers have in common.
        """
        self._allow = config.settings().cassette_allow
        note_environment(os.environ)
        self._header = header._replace(is_complete=False)
        self._settings = header.settings
        self._days = dict(header.days)

    def claim(self) -> None:
        """Make it, unless it is there, and keep other processes from it.

        If one has it, this one's answers stay in memory, and the one that ends later is told.
        """
        while self._file is None and not self._is_of_other:
            try:
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
            except OSError as error:
                self._tell(error)
                return
            is_free = try_lock(file)
            with suppress(OSError):
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    if not is_free or os.fstat(file).st_size:
                        os.close(file)
                        self._is_of_other = True
                        return
                    with suppress(OSError):  # before the content, which may be private
                        os.chmod(self.path, stat.S_IMODE(os.stat(self.cassette).st_mode))
                    self._file = file
                    return
            os.close(file)  # another process removed it meanwhile

    def check_header(self, taken: SettingsTaken) -> None:
        """Refuse settings that no header can hold, before an answer is paid for that would not be written.

        :param taken: returns the settings that a call's key depends on.
        :raises CacheError: if one looks like a credential, or the actor or scope of the run does.
        :raises ValueError: if one has a lone surrogate.
        """
        if taken is not self._checked:
            header_line(self._header._replace(settings=taken()), {}, self._allow)
            self._checked = taken

    def encoded(self, record: Record) -> Entry | None:
        """Return a record as lines; ``None`` if it cannot be written."""
        texts: dict[str, str] = {}
        credentials = used_credentials()
        if credentials != self._checked_for:
            self._checked_for, self._checked_texts = credentials, set()
        try:
            line = record_line(record, "", self._allow, self._checked_texts, texts)
        except (CacheError, TypeError, ValueError):
            return None
        lines = {digest: text_line(digest, text).encode() for digest, text in texts.items()}
        return Entry(line.encode(), lines)

    def append(self, record: Record, entry: Entry | None, settings: Mapping[str, Data]) -> bool:
        """Append a record; return whether it is there.

        :param record: what the run knows of it.
        :param entry: its lines, as a file that breaks off would have them.
        :param settings: those that entered the keys so far.
        """
        if entry is None or self._file is None:
            return False
        lines, days, served = [], self._days, self._served(record)
        if served:
            days = {**days, **{model: days for model, (days, _) in served.items()}}
        if served or settings != self._settings or not self._size:
            begins_at = OF_A_REWRITE if self._is_rewrite else self._digest
            header = self._header._replace(settings=settings)
            data = {model: listed for model, (_, listed) in served.items()}
            try:
                lines.append(header_line(header, data, self._allow, journal=begins_at).encode())
            except (CacheError, TypeError, ValueError):
                return False
        lines += (line for digest, line in entry.texts.items() if digest not in self._texts)
        if not self._write(b"".join([*lines, entry.line])):
            return False
        self._settings, self._days = settings, days
        self._texts.update(entry.texts)
        return True

    def _served(self, record: Record) -> dict[str, tuple[Days, dict[str, Data]]]:
        """Return what an answer adds to what a header says of its model: the model's days so far, and the entry of a
        further header; empty if it adds nothing.
        """
        model, days = model_of(record), record.noted_days
        known = self._days.get(model or "")
        joined = joined_days(known, days)
        if model is None or joined is None:
            return {}
        return {} if joined == known else {model: (joined, days_entry(joined))}

    def _write(self, data: bytes) -> bool:
        """Append lines, all or none; return whether they are there."""
        assert self._file is not None
        try:
            if self._is_torn:
                os.ftruncate(self._file, self._size)
                self._is_torn = False
            self._is_torn = True
            written = 0
            while written < len(data):
                written += write_at(self._file, data[written:], self._size + written)
        except OSError as error:
            self._tell(error)
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            return False
        self._is_torn = False
        self._size += len(data)
        return True

    def _tell(self, error: OSError) -> None:
        """Warn once that answers stay in memory."""
        if not self._is_told:
            self._is_told = True
            warn_once(
                f"{self.path} cannot be written ({error.strerror or error}): answers are kept in memory until the "
                "recording ends. Make room before then"
            )

    # The end

    def note_file(self, digest: bytes) -> None:
        """Note that the file is about to hold all of it: a process that is killed then leaves both.

        :param digest: of the file's new content.
        """
        if self._size:
            mark = header_line(NO_HEADER, {}, (), journal=WRITTEN + digest.hex())
            self._write(mark.encode())

    @property
    def has_answers(self) -> bool:
        """Return whether it has answers, of this recording or of one that broke off."""
        return self._size > 0

    @property
    def is_kept(self) -> bool:
        """Return whether the next opening finds it: its folder may be gone."""
        with suppress(OSError):
            return self._file is not None and os.path.samestat(
                os.fstat(self._file), os.stat(self.path)
            )
        return False

    def forget(self) -> None:
        """Remove what this recording appended."""
        self._size = len(self.taken)
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)

    def close(self) -> None:
        """Leave it as it is, to other processes; an empty one is removed."""
        if self._file is not None:
            if not os.fstat(self._file).st_size:
                self.remove()
                return
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Remove it."""
        if self._file is None:
            return
        with suppress(OSError):  # one that cannot be removed is empty
            os.ftruncate(self._file, 0)
        with suppress(OSError):
            os.unlink(self.path)
        os.close(self._file)
        self._file, self._size = None, 0


def _mark_of(line: bytes) -> str | None:
    """Return what a header in a journal goes on from; ``None`` for any other line."""
    with suppress(CacheError):
        return parse_line(line).get("journal")
    return None
