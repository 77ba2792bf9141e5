"""The error for a request that is not recorded, and its report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...config.cassette_modes import MODES
from ...config.settings import Settings
from ...errors import CacheMissError
from ...keys.keys import short_key
from ...keys.request import Data, Request, messages_of, text_with_placeholders, title_of
from ...support.display import OUTSIDE_ANY_SCOPE, printable, shortened, wrapped
from ...support.secrets import masked
from ...support.system import unwatched
from ..differences import Difference
from ..record import Record
from .causes import NOTHING, Source, find_causes, needed_normalizers, search, split_sample

if TYPE_CHECKING:
    from ...core.calls import Call
    from ..cassettes.cassette import Cassette

LABEL_WIDTH = 11
WIDTH = 80 - LABEL_WIDTH - 2  # characters in a line behind its label
LONGEST_OPENING = 200  # characters of the question
MOST_CAUSES = 4
FIXED_ORDER = (
    "add them to the prompt in a fixed order, such as by actor, not as they arrive, and then record the "
    "run again. A call now would pay for this order, and the next run may miss again"
)

INCOMPLETE = (
    "the recording is incomplete: it lacks everything after the point where it was interrupted"
)
OTHER_PROGRAM = (
    "nothing that this run requested so far is in the file. If it belongs to another program, use "
    "a different file"
)


class Miss(NamedTuple):
    """The reason why a request is not recorded; ``str()`` is a report.

    :param kind: ``"chat"``, ``"embedding"``, ``"function"`` or ``"http"``.
    :param name: the model's or function's name.
    :param sample: the requested draw, or ``None``.
    :param cache_key: the request's key.
    :param opening: the first words of the question, with its role.
    :param looked_in: the place that was searched, in words.
    :param nearest: the nearest record of its kind, or ``None``.
    :param differences: the differences from that record, field by field, the sample first.
    :param causes: the certain causes, beyond the differences.
    :param remedy: how to record it; a command is on a separate line.
    :param recorded: ``True`` if the request is recorded after all.

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
    recorded: bool

    def __str__(self) -> str:
        if self.recorded:
            return self.comparison()
        paragraphs = {"cause": self.causes, "to record": self.remedy.split("\n")}
        return "\n".join([self.comparison(), *self._lines(paragraphs)])

    def comparison(self) -> str:
        """Return the beginning of the report: the request, and its differences from the nearest record."""
        state = "is recorded" if self.recorded else "is not recorded"
        headline = f"{self.kind} request to {self.name} {state} (key {short_key(self.cache_key)})"
        paragraphs: dict[str, Sequence[str]] = {
            "asked": [shortened(self.opening, WIDTH)],
            "scope": [sample_words(self.kind, self.sample)],
            "looked in": [self.looked_in],
        }
        if not self.recorded:
            nearest = [] if self.nearest is None else [shortened(_summary(self.nearest), WIDTH)]
            paragraphs |= {"nearest": nearest, "differs": [*map(str, self.differences)]}
        return "\n".join([headline, *self._lines(paragraphs)])

    def _lines(self, paragraphs: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """Yield the lines of some paragraphs, by their labels."""
        commands = self.remedy.split("\n")[:-1]  # stay on one line, to be copied
        for label, texts in paragraphs.items():
            for text in texts:
                for line in [text] if text in commands else wrapped(text, WIDTH).split("\n"):
                    yield f"  {label:<{LABEL_WIDTH}}{line}".rstrip()
                    label = ""

    def changes(self) -> str:
        """Return in one line what differs from the nearest record: changed words, else fields."""
        words = [word for change in self.differences for word in change.changed_words()]
        return "; ".join(words or map(str, self.differences))

    def __repr__(self) -> str:
        return f"Miss(cache_key={self.cache_key!r}, causes={self.causes!r})"


def _summary(record: Record) -> str:
    """Return a record in one line."""
    key = short_key(record.cache_key)
    name = title_of(record.kind, record.request)
    scope = sample_words(record.kind, record.sample)
    return f"{key}, {name}, {scope}: {_opening(record.request)}"


def _opening(fields: Mapping[str, Data]) -> str:
    """Return the first words of a request's question, with its role."""
    if "function" in fields:
        arguments = fields.get("arguments", {}).items()
        arguments_text = ", ".join(f"{name}={value!r}" for name, value in arguments)
        return printable(masked(f"{fields['function']}({arguments_text})")[:LONGEST_OPENING])
    last = (messages_of(fields) or [{}])[-1]
    words = " ".join(masked(text_with_placeholders(last)).split())
    opening = printable(words[:LONGEST_OPENING])
    role = last.get("role") if isinstance(last, dict) else None
    return f"{role}: {opening}" if role else opening


def sample_words(kind: str, sample: str | None) -> str:
    """Return a sample in words, such as ``trial/lisa, draw 2``."""
    if kind == "embedding":
        return "shared by all scopes"
    if sample is None:
        return OUTSIDE_ANY_SCOPE
    path, draw = split_sample(sample)
    number = f"draw {draw}" if draw.isdecimal() else f"sample {draw!r}"
    return f"{printable(path) or OUTSIDE_ANY_SCOPE}, {number}"


def headline(request: Request) -> str:
    """Return a one-line message for a request that is not recorded."""
    return (
        f"{request.kind} request to {title_of(request.kind, request.hashed)} is not recorded "
        f"(key {short_key(request.cache_key)}, {sample_words(request.kind, request.sample)})"
    )


@unwatched()
def explain(request: Request, source: Source, settings: Settings, remedy: str) -> Miss:
    """Return the nearest record to a request, and how it differs. See :meth:`ResponseCache.explain`.

    :param source: where to look.
    :param settings: the settings of the request.
    :param remedy: how to record it.
    """
    result = search(request, source)
    nearest = result.nearest
    found = find_causes(request, result, settings)
    is_found = nearest is not None and nearest.cache_key == request.cache_key
    names = needed_normalizers(result.differences, settings)
    causes: list[str] = []
    if not source.is_complete:
        causes.append(INCOMPLETE)
    # The same program may send it in another order or at another time.
    elif source.is_strange and not (names or result.is_reordered):
        messages = [] if nearest is None else messages_of(nearest.request)
        if not any(message in messages for message in messages_of(request.hashed)):
            causes.append(OTHER_PROGRAM)
    if names:
        remedy = _normalizing_remedy(names, source)
    elif result.is_reordered:
        remedy = FIXED_ORDER
    return Miss(
        kind=request.kind,
        name=title_of(request.kind, request.hashed),
        sample=request.sample,
        cache_key=request.cache_key,
        opening=_opening(request.hashed),
        looked_in=result.looked_in,
        nearest=nearest,
        differences=result.differences,
        causes=(*causes, *found)[:MOST_CAUSES],
        remedy=remedy,
        recorded=is_found,
    )


def _normalizing_remedy(names: Sequence[str], source: Source) -> str:
    """Return the command or the line of config.ini that keeps texts out of keys, and what to do after it."""
    if source.run:
        options = " ".join(f"--normalize {shlex.quote(name)}" for name in names)
        return f"{source.run} --mode rewrite {options} …\nrecords the run again, and leaves these out of the keys"
    written = "\n    ".join(names)
    return (
        f"NORMALIZE = {written}\n"
        "in the section [Cache] of config.ini leaves these out of the key. Record the run again with it"
    )


def cache_remedy(settings: Settings, *, bypasses_cache: bool = False) -> str:
    """Return how to record an answer that the disk cache lacks.

    :param settings: the settings of the request.
    :param bypasses_cache: ``True`` if the call bypasses the disk cache.
    """
    if settings.cache_mode != "replay":
        return f"a call is sent and its answer recorded: [Cache] MODE is {settings.cache_mode}"
    condition = "without cache=False, " if bypasses_cache else ""
    return (
        f"run once {condition}with cache_mode='auto', MODE = auto in [Cache] or LLMCALL_CACHE_MODE=auto; replay "
        f"mode, which never calls, is set by {settings.origin('cache_mode')}"
    )


@unwatched()
def miss_error(call: Call) -> CacheMissError:
    """Return the error for a call that is not recorded and may not be made. Its explanation is made at first read."""
    request, settings, cache, cassette = call.request, call.settings, call.cache, call.cassette
    bypasses_cache = call.options.cache is False
    source = NOTHING if bypasses_cache else cache.search_source()
    remedy = cache_remedy(settings, bypasses_cache=bypasses_cache)
    if cassette is not None:
        source = _search_source(cassette)
        remedy = remedy if cassette.may_record else cassette_remedy(cassette)

    return CacheMissError(
        headline(request), explain=lambda: explain(request, source, settings, remedy)
    )


def _search_source(cassette: Cassette) -> Source:
    """Return the records of a cassette's file as a source for a search."""
    stored = cassette.tape.stored
    state = "" if cassette.is_complete else "whose recording is incomplete"
    if not stored:
        state = "which is empty" if cassette.path.exists() else "which does not exist"
    name = f"the cassette {cassette.path}{state and f', {state}'}"
    is_strange = bool(stored) and not cassette.replayed
    command = "" if cassette.run is None else cassette.owner.command(cassette.path)
    is_used, is_complete = cassette.tape.log.has_used, cassette.is_complete
    return Source(name, stored, is_complete, is_used, is_strange, command)


def cassette_remedy(cassette: Cassette) -> str:
    """Return how to record missing answers: code or a command, and on the next line its effect."""
    # A changed program leaves records unused, and this mode moves them out.
    mode = "update" if cassette.path.exists() else "once"
    moves = ", moves unused ones to the disk cache" if MODES[mode].moves_unused else ""
    after = " after the recording" if MODES[cassette.mode].records else ""
    return (
        f"{cassette.owner.how_to_record(cassette.path, mode)}\nkeeps recorded answers{moves} and requests only "
        f"missing ones (mode {cassette.mode!r} allows no calls{after})"
    )
