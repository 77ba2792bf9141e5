"""One replay of a check: it delays answers by pseudorandom times, and notes what the program asked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...core.calls import answers_held_back
from ...link import programs
from ...stores.cassettes.current import open_current_cassette
from ...support.data import Data
from ...support.display import one_line
from ...support.listeners import CallListener, listen, stop_listening
from ...support.system import lock

if TYPE_CHECKING:
    from ...core.calls import Call
    from ...scopes.draw_numbers import Moved
    from ...stores.cassettes.cassette import Cassette
    from ...stores.record import Record

SHORTEST, LONGEST = 0.002, 0.050  # seconds
KEY = 16  # digits of a key in a note
WORDS = 60  # characters of a request's text in a message


class Plan(NamedTuple):
    """The plan of a replay.

    :param seed: the seed of the delays.
    :param note: the file in which the replay notes what it asked.
    """

    seed: int
    note: Path


class Note(NamedTuple):
    """A replay's notes.

    :param calls: the number of calls that were answered from recordings.
    :param moved: the number of those that may have another caller's answer.
    :param other: in words, the first call that differs from its caller's in the recording.
    :param missed: the first refusal, in words; empty without one.
    :param used: the beginnings of the keys of the records that it used.
    :param unused: the number of the records that it did not use.
    :param has_several_callers: ``True`` if more than one task, thread or process made calls.
    :param has_seed: ``True`` if the recording fixes the hash seed.
    :param is_whole: ``True`` if it is written at the replay's end; ``False`` if the program ended abruptly before.
    """

    calls: int = 0
    moved: int = 0
    other: str = ""
    missed: str = ""
    used: frozenset[str] = frozenset()
    unused: int = 0
    has_several_callers: bool = False
    has_seed: bool = False
    is_whole: bool = False

    @classmethod
    def read(cls, path: Path) -> Note:
        """Return what a replay noted."""
        if not path.exists():
            return cls()
        fields: dict[str, Data] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**fields, "used": frozenset(fields["used"])})

    def write(self, path: Path) -> None:
        """Write the note, in one step."""
        fields = {**self._asdict(), "used": sorted(self.used)}
        new = path.with_suffix(".new")
        new.write_text(json.dumps(fields), encoding="utf-8")
        new.replace(path)


class _Replay(CallListener):
    """A listener to the calls of a replay.

    :param plan: its seed, and the file of its notes.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process = os.getpid()
        self._open: list[Cassette] = []
        self._note = Note()
        self._callers: set[str | None] = set()
        if (cassette := open_current_cassette()) is not None:
            self.opened(cassette)

    def seconds(self, calls: Sequence[Call]) -> float:
        """Return the delay of the answers to calls, in seconds: the same for the same call and seed.

        Each second replay mirrors the delays of the one before it, so two answers that race come in both orders.
        """
        pair, is_mirrored = divmod(self._plan.seed + 1, 2)
        text = f"{pair}\n{calls[0].request.cache_key}"
        share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        delay = SHORTEST + (LONGEST - SHORTEST) * share
        return LONGEST + SHORTEST - delay if is_mirrored else delay

    def opened(self, cassette: Cassette) -> None:
        """Take up a cassette."""
        self._open.append(cassette)

    def closed(self, cassette: Cassette) -> None:
        """Note what a cassette answered."""
        if cassette in self._open:
            self._open.remove(cassette)
            tape, before = cassette.tape, self._note
            self._note = before._replace(
                calls=before.calls + cassette.counts.sums["replayed_calls"],
                moved=before.moved + tape.callers.calls,
                used=before.used | {key[:KEY] for key in tape.log.used_keys()},
                unused=before.unused + len(tape.log.unused()),
                has_seed=before.has_seed or (cassette.run or {}).get("seed") is not None,
            )

    def answered(self, call: Call, record: Record) -> None:
        """Note who made a call, and whether another caller made it in the recording."""
        position, cassette = call.position, call.cassette
        self._callers.add(position.caller)
        if cassette is None:
            with lock:
                self._note = self._note._replace(calls=self._note.calls + 1)
            return
        if self._note.other:
            return
        for moved in list(cassette.tape.callers.moved):
            place = moved.request[0], moved.number, moved.caller
            if place == (position.path, position.draw, position.caller):
                self._write(other=_words(moved, record))
                return

    def refused(self, call: Call | None, error: Exception) -> None:
        """Note the first refusal."""
        if not self._note.missed:
            self._write(missed=str(error))

    def end(self) -> None:
        """Write what was asked."""
        recorder = programs.innermost_recorder()
        if recorder is not None and recorder.first_error is not None:
            self.refused(None, recorder.first_error)
        for cassette in list(self._open):
            self.closed(cassette)
        self._write(is_whole=True)

    def _write(self, **found: Any) -> None:
        """Note what was found, and write all that is known so far: the program may end at any time."""
        if os.getpid() != self._process:
            return
        with lock:  # two threads may end calls at once, and write one file
            self._note = self._note._replace(**found, has_several_callers=len(self._callers) > 1)
            moved = sum(cassette.tape.callers.calls for cassette in self._open)
            self._note._replace(moved=self._note.moved + moved).write(self._plan.note)


def _words(moved: Moved, record: Record) -> str:
    """Say how a call differs from the recording."""
    call = f"{moved.caller} asks {one_line(record.prompt, WORDS)!r} in scope {moved.request[0]}"
    if moved.recorded == moved.caller:
        return f"{call} in a different order than in the recording"
    return f"{call}; in the recording, {moved.recorded or 'one caller alone'} did"


@contextmanager
def held_back(plan: Plan) -> Iterator[None]:
    """Delay the answers to calls in a block, and write a note about the calls at its end."""
    replay = _Replay(plan)
    listen(replay)
    answers_held_back.append(replay.seconds)
    try:
        yield
    finally:
        answers_held_back.remove(replay.seconds)
        stop_listening(replay)
        replay.end()
