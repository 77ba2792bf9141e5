"""A request that is not recorded: the nearest record, what differs from it, why, and how to record it."""

from __future__ import annotations

import os
import shlex
import shutil
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..config import resolve as config
from ..errors import CacheError, CacheMissError
from ..requests.keys import ANEW
from ..text import counted, printable
from .causes import cause_of_sample, cause_of_scope, causes_of_differences, scope_words
from .differences import Difference, differences, masked
from .nearest import Nearest, conversation, nearest, said, split_sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..config.settings import Settings
    from ..types import Record, Request
    from .nearest import Source

__all__ = ["Miss", "explain", "missed"]

NARROWEST, WIDEST = 60, 120  # columns; between them, the terminal's
LABEL = 11  # columns before the text
UNLIKE = 2.0  # a distance from which on a record has little to do with a request
ELSEWHERE = 20  # records of the same question that are kept
SHORT = 12  # digits of a key
OPENING = 200  # characters of the question that are kept
LISTED = 3  # records elsewhere that are listed
CAUSES = 4  # that are named


class Miss(NamedTuple):
    """Explain why a request is not recorded; ``str()`` is the explanation in the width of the terminal.

    :param kind: ``"chat"``, ``"embedding"`` or ``"function"``.
    :param name: the model's or function's name.
    :param sample: which draw was asked for, or ``None``.
    :param cache_key: the request's key.
    :param opening: the first words of what was asked, and whose.
    :param looked_in: where it was sought, in words.
    :param nearest: the nearest record, or ``None`` where nothing of its kind is recorded.
    :param differences: what differs from that record, field by field, the sample first.
    :param elsewhere: records of the same messages: in another scope, as another draw, or of another model.
    :param causes: what is certain of why it is missing, beyond the differences.
    :param remedy: how to record it; a command stands on a line of its own.
    """

    kind: str
    name: str
    sample: str | None
    cache_key: str
    opening: str
    looked_in: str
    nearest: Record | None
    differences: tuple[Difference, ...]
    elsewhere: tuple[Record, ...]
    causes: tuple[str, ...]
    remedy: str

    @property
    def recorded(self) -> bool:
        """Return whether the request is recorded after all."""
        return self.nearest is not None and self.nearest.cache_key == self.cache_key

    def __str__(self) -> str:
        return self.text(min(max(shutil.get_terminal_size((100, 24)).columns, NARROWEST), WIDEST))

    def text(self, width: int) -> str:
        """Return the explanation.

        :param width: columns.
        """
        lines = [self._headline()]
        for label, paragraphs in self._parts(width - LABEL - 2):
            for index, line in enumerate(paragraphs):
                lines.append(f"  {'' if index else label:<{LABEL}}{line}".rstrip())
        return "\n".join(lines)

    def _headline(self) -> str:
        state = "is recorded" if self.recorded else "is not recorded"
        return f"this {self.kind} request to {self.name} {state} (key {self.cache_key[:SHORT]})"

    def _parts(self, width: int) -> list[tuple[str, list[str]]]:
        parts = [
            ("asked", [_cut(self.opening, width)]),
            ("scope", [scope_words(self.kind, self.sample)]),
            ("looked in", _wrapped([self.looked_in], width)),
        ]
        if self.recorded:
            return parts
        if self.nearest is not None:
            parts.append(("nearest", [self._nearest_words(width)]))
            parts.append(("differs", [line for each in self.differences for line in each.lines(width)]))
        parts.append(("elsewhere", self._elsewhere_words()))
        parts.append(("cause", _wrapped(self.causes, width)))
        *command, words = self.remedy.split("\n")
        parts.append(("to record", [*command, *_wrapped([words], width)]))
        return parts

    def _nearest_words(self, width: int) -> str:
        assert self.nearest is not None
        return _cut(f"{_words(self.nearest)}: {_opening(self.nearest.request)}", width)

    def _elsewhere_words(self) -> list[str]:
        others = [record for record in self.elsewhere if record != self.nearest]
        more = [f"… and {len(others) - LISTED} more"] if len(others) > LISTED else []
        return [*map(_words, others[:LISTED]), *more]

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def __repr__(self) -> str:
        return f"Miss(cache_key={self.cache_key!r}, causes={self.causes!r})"


def _words(record: Record) -> str:
    name = _name(record.kind, record.request)
    return f"{record.cache_key[:SHORT]}, {name}, {scope_words(record.kind, record.sample)}"


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    """Return texts as lines; a further line of a text is indented."""
    lines = []
    for text in texts:
        lines += textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines


def _name(kind: str, asked: Any) -> str:
    return printable(str(asked.get("function" if kind == "function" else "model", "?")))


def _opening(asked: Any) -> str:
    """Return whose the question is, and its first words."""
    if "function" in asked:
        given = ", ".join(f"{name}={value!r}" for name, value in asked.get("arguments", {}).items())
        return printable(masked(f"{asked['function']}({given})")[:OPENING])
    last = (conversation(dict(asked)) or [{}])[-1]
    words = printable(" ".join(masked(said(last)).split())[:OPENING])
    role = last.get("role") if isinstance(last, dict) else None
    return f"{role}: {words}" if role else words


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


class Recording(Protocol):
    """Be a cassette, as far as the way to record what is missing depends on it."""

    path: Path
    mode: str
    write_at_end: bool

    @property
    def asks(self) -> bool:
        """Return whether a request that is not recorded may be asked."""

    @property
    def stored(self) -> object:
        """Return the records of its file, or ``None`` where there is none."""


class Lookup(Protocol):
    """Be a cache that may have the answer although it was not asked."""

    @property
    def path(self) -> object:
        """Return its directory or address."""

    def lookup(self, cache_key: str) -> Record | None:
        """Return the record of a key, or ``None``."""


def missed(
    request: Request,
    source: Source | None,
    *,
    settings: Settings,
    cassette: Recording | None = None,
    aside: Lookup | None = None,
    past_cache: bool = False,
) -> CacheMissError:
    """Return the error of a request that is not recorded and may not be asked; it is explained when it is read.

    :param source: where it was looked for, or ``None`` where nothing may answer.
    :param settings: those that the request was made with.
    :param cassette: the cassette that is open, or ``None``.
    :param aside: the disk cache, where it was not asked.
    :param past_cache: whether the call goes past the disk cache.
    """
    remedy = _remedy(settings, cassette, past_cache=past_cache)
    return CacheMissError(
        f"no answer is recorded for this {request.kind} request to {_name(request.kind, request.asked)} "
        f"(key {request.cache_key[:SHORT]}, {scope_words(request.kind, request.sample)})",
        explain=lambda: _explained(request, source, settings, remedy, aside),
    )


def explain(request: Request, source: Source) -> Miss:
    """Return the nearest record to a request, and what differs. See :meth:`ResponseCache.explain`."""
    settings = config.settings()
    return _explained(request, source, settings, _remedy(settings, None, past_cache=False), None)


def _explained(request: Request, source: Source | None, settings: Settings, remedy: str, aside: Lookup | None) -> Miss:
    asked = dict(request.asked)
    search, looked_in, unread = _searched(request, asked, source)
    first = search.found[0].record if search.found else None
    found = () if first is None else _all_differences(first, asked, request.sample)
    causes = [unread] if unread else _causes(request, search, found, settings)
    return Miss(
        kind=request.kind,
        name=_name(request.kind, asked),
        sample=request.sample,
        cache_key=request.cache_key,
        opening=_opening(asked),
        looked_in=looked_in,
        nearest=first,
        differences=found,
        elsewhere=_elsewhere(search, asked, request.cache_key),
        causes=tuple([*_aside(request, aside), *causes][:CAUSES]),
        remedy=remedy,
    )


def _searched(request: Request, asked: dict[str, Any], source: Source | None) -> tuple[Nearest, str, str]:
    """Return what was found, where it was sought, and why nothing could be read, if that was so."""
    nothing = Nearest([], False, 0)
    if source is None:
        return nothing, "nothing", "cache=False goes past the disk cache, and no cassette is open: nothing may answer"
    try:
        where = f"{source.name()}: {counted(source.count(), 'record')}"
        return nearest(request.kind, asked, request.sample, source), where, ""
    except (CacheError, OSError) as error:
        return nothing, source.name(), str(error)


def _all_differences(record: Record, asked: dict[str, Any], sample: str | None) -> tuple[Difference, ...]:
    found = differences(record.request, asked)
    return found if record.sample == sample else (Difference("sample", record.sample, sample), *found)


def _elsewhere(search: Nearest, asked: dict[str, Any], key: str) -> tuple[Record, ...]:
    messages = conversation(asked)
    records = [each.record for each in search.found if conversation(each.record.request) == messages]
    return tuple(record for record in records if record.cache_key != key)[:ELSEWHERE]


def _aside(request: Request, cache: Lookup | None) -> list[str]:
    """Say where the disk cache, which was not asked, has the answer."""
    try:
        found = cache is not None and cache.lookup(request.cache_key) is not None
    except CacheError:
        found = False
    return [f"the cache {cache.path} has the answer, but was not asked"] if found and cache else []


def _causes(request: Request, search: Nearest, found: Sequence[Difference], settings: Settings) -> list[str]:
    records = [each.record for each in search.found]
    if not records:
        return [f"no {request.kind} request is recorded there at all"]
    same = [record for record in records if record.request == request.asked]
    if same and request.sample and request.sample.endswith(ANEW):
        return ["the recorded answer is none to this call, since it does not fit the call's own response_format"]
    if same:
        return [cause_of_sample(request.sample, same)]
    causes = []
    if request.sample and split_sample(request.sample)[0] and not search.in_scope:
        causes.append(cause_of_scope(request.sample, records))
    if search.found[0].distance >= UNLIKE:
        return [*causes, "no record is much like it"]
    inside = [each for each in found if each.place != "sample"]
    return [*causes, *causes_of_differences(inside, settings)]


def _remedy(settings: Settings, cassette: Recording | None, *, past_cache: bool) -> str:
    if cassette is not None and not cassette.asks:
        return _cassette_remedy(settings, cassette)
    if settings.cache_mode != "replay":
        return f"a call asks and records it: [Cache] MODE is {settings.cache_mode}"
    origin = settings.origin("cache_mode")
    ways = "LLMCALL_CACHE_MODE=auto" if "LLMCALL_CACHE_MODE" in origin else "cache_mode='auto' or [Cache] MODE = auto"
    keep = "without cache=False, " if past_cache else ""
    return f"run once {keep}with {ways}; replay, which never calls, is set by {_set_by(origin, 'cache_mode')}"


def _set_by(origin: str, name: str) -> str:
    return f"the argument {name}" if origin == "argument" else origin


def _cassette_remedy(settings: Settings, cassette: Recording) -> str:
    path = str(cassette.path)
    named = settings.cassette_path is not None and os.path.abspath(settings.cassette_path) == os.path.abspath(path)
    mode = "once" if cassette.stored is None else "new"
    if not cassette.write_at_end:
        way = f"pytest --llm-record={mode} {_running_test()}".rstrip()
    elif named:
        way = f"LLMCALL_CASSETTE_MODE={mode}"
    else:
        way = f"llmcall.cassette({path!r}, mode={mode!r})"
    return f"{way}\nadds what is missing (the mode is {cassette.mode!r}), and asks nothing that is recorded"


def _running_test() -> str:
    """Return the test that pytest runs, as its command line takes it."""
    running = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    return shlex.quote(running) if running else ""
