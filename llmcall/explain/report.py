"""A request that is not recorded: the nearest record, what differs from it, why, and how to record it."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import resolve as config
from ..errors import CacheError, CacheMissError
from ..requests.keys import ANEW
from ..text import counted, printable, shortened
from .differences import Difference, brief, differences, masked
from .nearest import Nearest, conversation, nearest, said, split_sample, title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..config.settings import Settings
    from ..types import Record, Request
    from .nearest import Source

__all__ = ["Miss", "cache_remedy", "explain", "missed"]

NARROWEST, WIDEST = 60, 120  # columns; between them, the terminal's
LABEL = 11  # columns before the text
UNLIKE = 2.0  # a distance from which on a record has little to do with a request
SHORT = 12  # digits of a key
OPENING = 200  # characters of the question that are kept
CAUSES = 4  # that are named
SCOPES = 4  # that are named
VALUE = 60  # characters of a value in a cause


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
    :param causes: what is certain of why it is missing, beyond the differences.
    :param remedy: how to record it; a command stands on a line of its own.

    >>> client = llmcall.client()
    >>> miss = client.cache.explain(client.build_request("Good evening!", max_tokens=16))
    >>> miss.kind, miss.name, miss.sample
    ('chat', 'SmolLM2-135M-Instruct.Q4_1', None)
    """

    kind: str
    name: str
    sample: str | None
    cache_key: str
    opening: str
    looked_in: str
    nearest: Record | None
    differences: tuple[Difference, ...]
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
        state = "is recorded" if self.recorded else "is not recorded"
        lines = [f"this {self.kind} request to {self.name} {state} (key {self.cache_key[:SHORT]})"]
        for label, paragraphs in self._parts(width - LABEL - 2):
            for index, line in enumerate(paragraphs):
                lines.append(f"  {'' if index else label:<{LABEL}}{line}".rstrip())
        return "\n".join(lines)

    def _parts(self, width: int) -> list[tuple[str, list[str]]]:
        parts = [
            ("asked", [shortened(self.opening, width)]),
            ("scope", [_scope_words(self.kind, self.sample)]),
            ("looked in", _wrapped([self.looked_in], width)),
        ]
        if self.recorded:
            return parts
        if self.nearest is not None:
            parts.append(("nearest", [shortened(_words(self.nearest), width)]))
            parts.append(("differs", [line for each in self.differences for line in each.lines(width)]))
        parts.append(("cause", _wrapped(self.causes, width)))
        *command, words = self.remedy.split("\n")
        parts.append(("to record", [*command, *_wrapped([words], width)]))
        return parts

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def __repr__(self) -> str:
        return f"Miss(cache_key={self.cache_key!r}, causes={self.causes!r})"


def _words(record: Record) -> str:
    name, scope = title_of(record.kind, record.request), _scope_words(record.kind, record.sample)
    return f"{record.cache_key[:SHORT]}, {name}, {scope}: {_opening(record.request)}"


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    """Return texts as lines; a further line of a text is indented."""
    lines = []
    for text in texts:
        lines += textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines


def _opening(asked: Any) -> str:
    """Return whose the question is, and its first words."""
    if "function" in asked:
        given = ", ".join(f"{name}={value!r}" for name, value in asked.get("arguments", {}).items())
        return printable(masked(f"{asked['function']}({given})")[:OPENING])
    body = asked.get("body")  # of another API
    last = (conversation(body if isinstance(body, dict) else asked) or [{}])[-1]
    words = printable(" ".join(masked(said(last)).split())[:OPENING])
    role = last.get("role") if isinstance(last, dict) else None
    return f"{role}: {words}" if role else words


def missed(
    request: Request, source: Source | None, settings: Settings, remedy: str, aside: Callable[[], str]
) -> CacheMissError:
    """Return the error of a request that is not recorded and may not be asked; it is explained when it is read.

    :param source: where it was looked for, or ``None`` where nothing may answer.
    :param settings: those that the request was made with.
    :param remedy: how to record it.
    :param aside: says what has the answer and was not asked; empty where nothing has.
    """
    return CacheMissError(
        f"no answer is recorded for this {request.kind} request to {title_of(request.kind, request.asked)} "
        f"(key {request.cache_key[:SHORT]}, {_scope_words(request.kind, request.sample)})",
        explain=lambda: _explained(request, source, settings, remedy, aside()),
    )


def explain(request: Request, source: Source) -> Miss:
    """Return the nearest record to a request, and what differs. See :meth:`ResponseCache.explain`."""
    settings = config.settings()
    return _explained(request, source, settings, cache_remedy(settings), "")


def _explained(request: Request, source: Source | None, settings: Settings, remedy: str, aside: str) -> Miss:
    asked = dict(request.asked)
    search, looked_in, unread = _searched(request, asked, source)
    first = search.records[0] if search.records else None
    found = () if first is None else differences(first.request, asked)
    if first is not None and first.sample != request.sample:
        found = (Difference("sample", first.sample, request.sample), *found)
    causes = [unread] if unread else _causes(request, search, found, settings)
    return Miss(
        kind=request.kind,
        name=title_of(request.kind, asked),
        sample=request.sample,
        cache_key=request.cache_key,
        opening=_opening(asked),
        looked_in=looked_in,
        nearest=first,
        differences=found,
        causes=tuple([aside, *causes] if aside else causes)[:CAUSES],
        remedy=remedy,
    )


def _searched(request: Request, asked: dict[str, Any], source: Source | None) -> tuple[Nearest, str, str]:
    """Return what was found, where it was sought, and why nothing could be read, if that was so."""
    if source is None:
        why = "cache=False goes past the disk cache, and no cassette is open: nothing may answer"
        return Nearest(), "nothing", why
    try:
        found = nearest(request.kind, asked, request.sample, source)
    except (CacheError, OSError) as error:
        return Nearest(), source.name, str(error)
    return found, f"{source.name}: {counted(found.searched, 'record')}", ""


def _causes(request: Request, search: Nearest, found: Sequence[Difference], settings: Settings) -> list[str]:
    if not search.records:
        return [f"no {request.kind} request is recorded there at all"]
    same = [record for record in search.records if record.request == request.asked]
    if same and request.sample and request.sample.endswith(ANEW):
        return ["the recorded answer is none to this call, since it does not fit the call's own response_format"]
    if same:
        return [_cause_of_sample(request.sample, same)]
    causes = []
    if request.sample and split_sample(request.sample)[0] and not search.in_scope:
        causes.append(_cause_of_scope(request.sample, search.records))
    if search.distance >= UNLIKE:
        return [*causes, "no record is much like it"]
    return [*causes, *dict.fromkeys(cause for each in found if (cause := _of_field(each, settings)))]


def cache_remedy(settings: Settings, *, past_cache: bool = False) -> str:
    """Say how to record what the disk cache lacks.

    :param settings: those that the request was made with.
    :param past_cache: whether the call goes past the disk cache.
    """
    if settings.cache_mode != "replay":
        return f"a call asks and records it: [Cache] MODE is {settings.cache_mode}"
    origin = settings.origin("cache_mode")
    ways = "LLMCALL_CACHE_MODE=auto" if "LLMCALL_CACHE_MODE" in origin else "cache_mode='auto' or [Cache] MODE = auto"
    keep = "without cache=False, " if past_cache else ""
    where = "the argument cache_mode" if origin == "argument" else origin
    return f"run once {keep}with {ways}; replay, which never calls, is set by {where}"


# Why it is missing, as far as that is certain: its scope and draw, its settings, or what nobody sees.


def _scope_words(kind: str, sample: str | None) -> str:
    """Return a sample in words; an embedding has none."""
    if kind == "embedding":
        return "the same in every scope"
    path, draw = split_sample(sample)
    if path is None:
        return "outside any scope"
    number = f"draw {draw}" if draw.isdecimal() else f"sample {draw!r}"
    return f"{printable(path) or 'outside any scope'}, {number}"


def _cause_of_sample(sample: str | None, same: Sequence[Record]) -> str:
    """Say how a sample differs from those under which the very same request is recorded.

    :param same: the records of the request, whatever their sample.
    """
    path, draw = split_sample(sample)
    samples = [(other or "", found) for other, found in (split_sample(record.sample) for record in same)]
    here = sorted((found for other, found in samples if other == (path or "")), key=lambda each: (len(each), each))
    if here:
        return _of_draws(f"in the scope {path!r}" if path else "outside any scope", draw, here)
    paths = sorted({other for other, _ in samples if other})
    if path:
        where = f"in {_named(paths)}" if paths else "outside any scope: what is asked in a scope is a draw of its own"
        return f"the call is made in the scope {path!r}, and the same request is recorded {where}"
    opened = ", ".join(f"llmcall.scope({name!r})" for name in paths[0].split("/"))
    return (
        f"the call is made outside any scope, and the same request is recorded in {_named(paths)}: "
        f"a scope is missing; open it by 'with {opened}:'"
    )


def _of_draws(where: str, draw: str, recorded: list[str]) -> str:
    if draw in recorded:
        return "the request is recorded under another key: 'llmcall cache rekey' makes the keys anew"
    if not (draw.isdecimal() and all(map(str.isdecimal, recorded))):
        asked, *others = (f"sample={each!r}" if each else "no sample" for each in (draw, *recorded[:SCOPES]))
        return f"the call is made {where} with {asked}, and the same request is recorded with {', '.join(others)}"
    are = "is" if len(recorded) == 1 else "are"
    numbers = f"draw {recorded[0]}" if len(recorded) == 1 else f"draws {recorded[0]} to {recorded[-1]}"
    return (
        f"draw {draw} of this request {where} is asked for, and {len(recorded)} {are} recorded ({numbers}): "
        "the same request is made more often than when it was recorded"
    )


def _named(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths[:SCOPES])) + (", …" if len(paths) > SCOPES else "")


def _cause_of_scope(sample: str | None, records: Sequence[Record]) -> str:
    """Say that nothing at all is recorded in a request's scope, and which scopes there are beside it."""
    path, _ = split_sample(sample)
    beside = sorted({other for record in records if (other := split_sample(record.sample)[0])} - {path})
    recorded = f"; there are records in {_named(beside)}" if beside else ""
    return f"nothing at all is recorded in the scope {path!r}{recorded}"


def _of_field(difference: Difference, settings: Settings) -> str:
    """Return what is known of a difference from the nearest record, beyond the difference itself; empty for nothing."""
    place, recorded, asked = difference.place, difference.recorded, difference.asked
    value = getattr(settings, place, None) if place.isidentifier() else None
    if place == "model" and recorded in settings.aliases:
        return f"{recorded} is an alias now: 'llmcall cache rekey' moves what was recorded before it was"
    if place == "namespace":
        origin = settings.origin("cache_namespace")
        return f"[Cache] NAMESPACE is another here ({origin}): 'llmcall cache rekey' moves a cache's records to it"
    if place == "function" and str(recorded).rpartition(".")[2] == str(asked).rpartition(".")[2]:
        return f"the function has another name: @llmcall.recorded(name={recorded!r}) finds what it recorded"
    if value is not None and value == asked:
        origin = settings.origin(place)
        own = place == "model" and origin.startswith("cassette ")
        why = "; the record's was named in code, or by a client of its own such as API_TYPE = local" if own else ""
        return f"the setting {place.upper()} says {brief(asked, VALUE)}: {origin}{why}"
    if difference.role == "assistant":
        return "an earlier answer is another: this run parted from the recorded one before this call"
    if difference.role == "tool":
        return "a tool's result is another: with the tool under @llmcall.recorded it is replayed as well"
    if not difference.passages or str(recorded).split() != str(asked).split():
        return ""
    if [line.strip() for line in str(recorded).splitlines()] == [line.strip() for line in str(asked).splitlines()]:
        return f"{place} differs only at the ends of its lines: dedent_messages=True removes a common indentation"
    return f"{place} differs only in its white space"
