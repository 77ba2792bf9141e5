"""Warnings when one recorded answer is silently given twice: outside any scope, or in a scope that starts again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..support.listeners import CallListener
from ..support.notices import warn_once
from ..support.system import ipython_shell, lock

if TYPE_CHECKING:
    from ..core.calls import Call
    from ..stores.cassettes.cassette import Cassette
    from ..stores.record import Record
    from .draws import Draw

MOST_REMEMBERED = 10_000  # answers, and draws: a mistake shows earlier

# The answers that were given outside any scope, each by the path of its cassette, or the name of its
# cache, and its key; None once the warning is out.
_given: set[tuple[object, str]] | None = set()
# The first draws in the cassette or cache that was used last: by path and key, the number of the
# outermost scope and the notebook's cell; None once the warning is out.
_first_draws: dict[tuple[str, str], tuple[int, int | None]] | None = {}
_store: object = None


class RepeatedAnswers(CallListener):
    """A listener that warns when one recorded answer is silently given twice."""

    def opened(self, cassette: Cassette) -> None:
        """Forget the answers of an earlier opening: this one replays them on purpose."""
        global _given
        with lock:
            if _given is not None:
                _given = {answer for answer in _given if answer[0] != cassette.path}

    def answered(self, call: Call, record: Record) -> None:
        """Warn of a recorded answer that was given before."""
        draw = call.draw
        if call.request.sample is None and record.kind == "chat":
            _warn_of_shared_answers(call, record)
        if draw is not None and call.shared_by is not None:
            _warn_of_restart(call, draw)


def _warn_of_shared_answers(call: Call, record: Record) -> None:
    """Warn once in a process if two requests outside any scope get one answer, except at a temperature of 0."""
    global _given
    if _given is None or call.request.hashed.get("temperature") == 0:
        return
    source = call.cache.storage.name if call.cassette is None else call.cassette.path
    answer = source, call.request.cache_key
    with lock:
        if _given is None:
            return
        if answer not in _given or not record.is_hit:
            if len(_given) < MOST_REMEMBERED:
                _given.add(answer)
            return
        _given = None
    remedy = (
        "Open one scope around the program (with llmcall.scope('run', process=True): …), or name its actors "
        "(actor=…)"
        if call.kind.is_programs  # a program on the SDK, which knows no scopes
        else "Open a scope per actor (with llmcall.scope(name): …), or pass sample=1, sample=2"
    )
    warn_once(
        f"identical requests outside any scope share one answer. {remedy}",
        about=_warn_of_shared_answers,
    )


def _warn_of_restart(call: Call, draw: Draw) -> None:
    """Warn once per process if an outermost scope starts again and repeats an answer, unless the temperature
    is 0 or a later notebook cell reran it.
    """
    global _first_draws, _store
    number = draw.draws.outermost_scope
    if (
        _first_draws is None
        or number is None
        or draw.number
        or call.request.hashed.get("temperature") == 0
    ):
        return
    this, store = (number, _notebook_cell()), call.cassette or call.cache
    with lock:
        if _first_draws is None:
            return
        if _store is not store:
            _store = store
            _first_draws.clear()
        if draw.request not in _first_draws and len(_first_draws) >= MOST_REMEMBERED:
            return
        earlier = _first_draws.setdefault(draw.request, this)
        if earlier[1] != this[1]:
            _first_draws[draw.request] = earlier = this
        if earlier == this:
            return
        _first_draws = None
    name = draw.request[0].partition("/")[0]
    warn_once(
        f"the scope {name!r} starts again and gets its earlier answers; if rounds are meant, put one scope around "
        "them",
        about=_warn_of_restart,
    )


def _notebook_cell() -> int | None:
    """Return the number of the notebook's cell that runs, or ``None`` outside notebooks."""
    shell = ipython_shell()
    return None if shell is None else int(shell.execution_count)


def forget_given_answers() -> None:
    """Forget which answers were given."""
    global _given, _first_draws
    with lock:
        _given = set()
        _first_draws = {}
