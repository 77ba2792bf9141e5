"""A request that is not recorded: the nearest record, what differs from it, why, and how to record
it.

Not every record is unpickled to be judged. Pieces of the request's texts, its probes, are sought in
the bytes of all of them, and only the records that hold the most are read and compared: a hundred
thousand within a second or two. Requests are compared field by field and word by word.
"""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from contextlib import suppress
from difflib import SequenceMatcher
from functools import lru_cache
from heapq import nlargest
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from . import secrets as credentials
from .errors import CacheError
from .requests.arguments import CONFIGURED
from .requests.keys import ANEW, NORMALIZERS, is_same, normalizer
from .text import OUTSIDE, counted, printable, shortened, shown_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .config.settings import Settings
    from .types import Data, Record, Request

# A miss

NARROWEST, WIDEST = 60, 120  # columns; between them, the terminal's
LABEL = 11  # columns before the text
UNLIKE = 2.0  # a distance from which on a record has little to do with a request
SHORT = 12  # digits of a key
OPENING = 200  # characters of the question that are kept
CAUSES = 4  # that are named
REORDERED = (
    "the same is recorded in another order: what arrived first decided it. Give each actor a scope of its own, or "
    "sort what a prompt holds"
)
SCOPES = 4  # that are named
VALUE = 60  # characters of a value in a cause


class Miss(NamedTuple):
    """Explain why a request is not recorded; ``str()`` is the explanation in the width of the
    terminal.

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
        room = width - LABEL - 2
        parts = {
            "asked": [shortened(self.opening, room)],
            "scope": [_scope_words(self.kind, self.sample)],
            "looked in": _wrapped([self.looked_in], room),
        }
        if not self.recorded:
            if (record := self.nearest) is not None:
                name, scope = (
                    title_of(record.kind, record.request),
                    _scope_words(record.kind, record.sample),
                )
                words = f"{record.cache_key[:SHORT]}, {name}, {scope}: {_opening(record.request)}"
                parts["nearest"] = [shortened(words, room)]
                parts["differs"] = [line for each in self.differences for line in each.lines(room)]
            parts["cause"] = _wrapped(self.causes, room)
            *command, effect = self.remedy.split("\n")
            parts["to record"] = [*command, *_wrapped([effect], room)]
        state = "is recorded" if self.recorded else "is not recorded"
        lines = [f"this {self.kind} request to {self.name} {state} (key {self.cache_key[:SHORT]})"]
        for label, paragraphs in parts.items():
            for index, line in enumerate(paragraphs):
                lines.append(f"  {'' if index else label:<{LABEL}}{line}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def __repr__(self) -> str:
        return f"Miss(cache_key={self.cache_key!r}, causes={self.causes!r})"


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    """Return texts as lines; a further line of a text is indented."""
    lines = []
    for text in texts:
        lines += textwrap.wrap(
            text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
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


def headline(request: Request) -> str:
    """Return in one line that a request is not recorded."""
    return (
        f"no answer is recorded for this {request.kind} request to {title_of(request.kind, request.asked)} "
        f"(key {request.cache_key[:SHORT]}, {_scope_words(request.kind, request.sample)})"
    )


def explain(
    request: Request, source: Source | None, settings: Settings, remedy: str, aside: str = ""
) -> Miss:
    """Return the nearest record to a request, and what differs. See :meth:`ResponseCache.explain`.

    :param source: where it was looked for, or ``None`` where nothing may answer.
    :param settings: those that the request was made with.
    :param remedy: how to record it.
    :param aside: says what has the answer and was not asked; empty where nothing has.
    """
    search = nearest(request, source)
    first = search.records[0] if search.records else None
    found = () if first is None else differences(first.request, request.asked)
    if first is not None and first.sample != request.sample:
        found = (Difference("sample", first.sample, request.sample), *found)
    causes = [search.unread] if search.unread else _causes(request, search, found, settings)
    names = _normalizing(found, settings)
    if source is not None and names:
        line = f"NORMALIZE = {', '.join(names)}"
        remedy = (
            f"{line}\nbelow [Cache] in config.ini leaves this out of the key. Then '{source.rekey}' gives what is "
            "recorded its new key, at no cost; or record it anew"
        )
    return Miss(
        kind=request.kind,
        name=title_of(request.kind, request.asked),
        sample=request.sample,
        cache_key=request.cache_key,
        opening=_opening(request.asked),
        looked_in=search.place,
        nearest=first,
        differences=found,
        causes=tuple([aside, *causes] if aside else causes)[:CAUSES],
        remedy=remedy,
    )


def _causes(
    request: Request, search: Nearest, found: Sequence[Difference], settings: Settings
) -> list[str]:
    if not search.records:
        return [f"no {request.kind} request is recorded there at all"]
    same = [record for record in search.records if record.request == request.asked]
    if same and request.sample and request.sample.endswith(ANEW):
        return [
            "the recorded answer is none to this call, since it does not fit the call's own response_format"
        ]
    if same:
        return [_cause_of_sample(request.sample, same)]
    causes = []
    if any(_is_reordered(request.asked, record.request) for record in search.records):
        causes.append(REORDERED)
    path = _split(request.sample)[0]
    if path and not search.in_scope:
        beside = sorted({record.scope for record in search.records} - {"", path})
        recorded = f"; there are records in {_named(beside)}" if beside else ""
        causes.append(f"nothing at all is recorded in the scope {path!r}{recorded}")
    if search.distance >= UNLIKE:
        return [*causes, *_of_format(found), *([] if causes else ["no similar record found"])]
    return [
        *causes,
        *dict.fromkeys(cause for each in found if (cause := _of_field(each, settings))),
    ]


def _normalizing(found: Sequence[Difference], settings: Settings) -> tuple[str, ...]:
    """Return the normalizers under which a request and the nearest record are the same; empty if
    more differs than they leave out.
    """
    differing = [each for each in found if each.place != "sample"]
    present, names = settings.cache_normalize, dict.fromkeys(settings.cache_normalize)
    for each in differing:
        needed = _names_for(each, present)
        if not needed:
            return ()
        names |= dict.fromkeys(needed)
    return tuple(names) if differing else ()


def _names_for(difference: Difference, present: tuple[str, ...]) -> list[str]:
    """Return the normalizers that leave out all that differs in a text."""
    recorded, asked = difference.recorded, difference.asked
    if not (isinstance(recorded, str) and isinstance(asked, str)):
        return []

    def is_same_under(names: Sequence[str]) -> bool:
        replace = normalizer((*present, *names))
        return replace is not None and replace(recorded) == replace(asked)

    names = list(NORMALIZERS)
    if not is_same_under(names):
        return []
    for name in NORMALIZERS:
        without = [each for each in names if each != name]
        names = without if is_same_under(without) else names
    return names


def _is_reordered(asked: Mapping[str, Data], recorded: Mapping[str, Data]) -> bool:
    """Tell whether two requests hold the same messages, or the same lines of one, in another order."""
    one, other = ([dumped(each) for each in conversation(each)] for each in (asked, recorded))
    if one == other or len(one) != len(other):
        return False
    if sorted(one) == sorted(other):
        return True
    return all(
        sorted(said(mine).splitlines()) == sorted(said(its).splitlines())
        for mine, its in zip(conversation(asked), conversation(recorded), strict=True)
    )


def dumped(data: Data) -> str:
    """Return plain data as a text that is the same for equal data."""
    return json.dumps(data, sort_keys=True, default=repr)


def _of_format(found: Sequence[Difference]) -> list[str]:
    """Say that a setting decides whether a request has a schema, if one of two requests has one."""
    return [
        f"one of them has a schema of the answer: [Model …] STRUCTURED_OUTPUT decides that "
        f"(response_format: {_side('recorded', each.recorded, VALUE)}, {_side('asked', each.asked, VALUE)})"
        for each in found
        if each.place == "response_format" and None in (each.recorded, each.asked)
    ]


def cache_remedy(settings: Settings, *, past_cache: bool = False) -> str:
    """Say how to record what the disk cache lacks.

    :param settings: those that the request was made with.
    :param past_cache: whether the call goes past the disk cache.
    """
    if settings.cache_mode != "replay":
        return f"a call asks and records it: [Cache] MODE is {settings.cache_mode}"
    origin = settings.origin("cache_mode")
    ways = (
        "LLMCALL_CACHE_MODE=auto"
        if "LLMCALL_CACHE_MODE" in origin
        else "cache_mode='auto' or [Cache] MODE = auto"
    )
    keep = "without cache=False, " if past_cache else ""
    where = "the argument cache_mode" if origin == "argument" else origin
    return f"run once {keep}with {ways}; replay, which never calls, is set by {where}"


# Why it is missing, as far as that is certain: its scope and draw, its settings, or what nobody
# sees.


def _scope_words(kind: str, sample: str | None) -> str:
    """Return a sample in words; an embedding has none."""
    if kind == "embedding":
        return "the same in every scope"
    if sample is None:
        return OUTSIDE
    path, draw = _split(sample)
    number = f"draw {draw}" if draw.isdecimal() else f"sample {draw!r}"
    return f"{printable(path) or OUTSIDE}, {number}"


def _split(sample: str | None) -> tuple[str, str]:
    """Return the scope path and the draw of a sample; a given draw may hold another ``#``."""
    path, _, draw = (sample or "").partition("#")
    return path, draw


def _cause_of_sample(sample: str | None, same: Sequence[Record]) -> str:
    """Say how a sample differs from those under which the very same request is recorded.

    :param same: the records of the request, whatever their sample.
    """
    path, draw = _split(sample)
    samples = [_split(record.sample) for record in same]
    here = sorted(
        (found for other, found in samples if other == path), key=lambda each: (len(each), each)
    )
    if here:
        return _of_draws(f"in the scope {path!r}" if path else "outside any scope", draw, here)
    paths = sorted({other for other, _ in samples if other})
    if path:
        where = (
            f"in {_named(paths)}"
            if paths
            else "outside any scope: what is asked in a scope is a draw of its own"
        )
        return f"the call is made in the scope {path!r}, and the same request is recorded {where}"
    opened = ", ".join(f"llmcall.scope({name!r})" for name in paths[0].split("/"))
    return (
        f"the call is made outside any scope, and the same request is recorded in {_named(paths)}: "
        f"a scope is missing; open it by 'with {opened}:'"
    )


def _of_draws(where: str, draw: str, recorded: list[str]) -> str:
    if draw in recorded:
        return (
            "the request is recorded under another key: 'llmcall cache rekey' makes the keys anew"
        )
    if not (draw.isdecimal() and all(map(str.isdecimal, recorded))):
        asked, *others = (
            f"sample={each!r}" if each else "no sample" for each in (draw, *recorded[:SCOPES])
        )
        return f"the call is made {where} with {asked}, and the same request is recorded with {', '.join(others)}"
    are = "is" if len(recorded) == 1 else "are"
    numbers = (
        f"draw {recorded[0]}" if len(recorded) == 1 else f"draws {recorded[0]} to {recorded[-1]}"
    )
    return (
        f"draw {draw} of this request {where} is asked for, and {len(recorded)} {are} recorded ({numbers}): "
        "the same request is made more often than when it was recorded"
    )


def _listed(names: Sequence[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _named(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths[:SCOPES])) + (", …" if len(paths) > SCOPES else "")


def _of_field(difference: Difference, settings: Settings) -> str:
    """Return what is known of a difference from the nearest record, beyond the difference itself;
    empty for nothing.
    """
    place, recorded, asked = difference.place, difference.recorded, difference.asked
    value = getattr(settings, place, None) if place.isidentifier() else None
    if place == "model" and recorded in settings.aliases:
        return f"{recorded} is an alias now: 'llmcall cache rekey' moves what was recorded before it was"
    if place == "namespace":
        origin = settings.origin("cache_namespace")
        return f"[Cache] NAMESPACE is another here ({origin}): 'llmcall cache rekey' moves a cache's records to it"
    if place == "function" and str(recorded).rpartition(".")[2] == str(asked).rpartition(".")[2]:
        return f"the function has another name: @llmcall.recorded(name={recorded!r}) finds what it recorded"
    if place == "response_format" and None in (recorded, asked):
        return _of_format([difference])[0]
    if place in CONFIGURED and asked is None and value is None:
        line = f"{place.upper()} = {brief(recorded, VALUE)}"
        return f"no setting gives {place} here; if one did when it was recorded, write {line}"
    if value is not None and value == asked:
        origin = settings.origin(place)
        own = place == "model" and origin.startswith("cassette ")
        why = (
            "; the record's was named in code, or by a client of its own such as API_TYPE = local"
            if own
            else ""
        )
        return f"the setting {place.upper()} says {brief(asked, VALUE)}: {origin}{why}"
    if names := _names_for(difference, settings.cache_normalize):
        return f"only {_listed(names)} differ in {place}"
    if difference.role == "assistant":
        return (
            "an earlier answer is another: this run parted from the recorded one before this call"
        )
    if difference.role == "tool":
        return "a tool's result is another: with the tool under @llmcall.recorded it is replayed as well"
    if difference.passages and str(recorded).split() == str(asked).split():
        return f"{place} differs only in its white space; dedent_messages=True removes a common indentation"
    return ""


# The nearest records

PIECE = re.compile(r"[^\x00-\x1f'\"\\]{4,}")  # what JSON, Python's repr and pickles write alike
PROBE_CHARACTERS = 32
SHORT_CHARACTERS = 200  # of a text that is searched by its words as well
PROBES = 12
READ = 300  # records that are read and compared
FIELD = 1.0  # a parameter that differs
MESSAGE, MESSAGES = 0.8, 1.6  # a message more or less, and however many
LAST_MESSAGE = 2.5  # times what another message counts: it is the question
OTHER_SCOPE, OTHER_DRAW = 0.6, 0.2


class Source(NamedTuple):
    """Be a collection of records that is searched.

    :param name: what messages call it.
    :param rows: of each record, its own part and those it shares with others, which are searched,
        and what reads it.
    :param rekey: the command that makes the keys of the records anew.
    """

    name: str
    rows: Iterable[tuple[Sequence[bytes], Callable[[], Record]]]
    rekey: str = "llmcall cache rekey"


# How near it is


def strings_in(data: Data) -> Iterator[str]:
    """Yield the texts in plain data, names apart, in order."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, (dict, list)):
        for item in data.values() if isinstance(data, dict) else data:
            yield from strings_in(item)


def conversation(asked: Mapping[str, Data]) -> list[Data]:
    """Return a request's messages; an embedding's text or a function's arguments count as one."""
    messages = asked.get("messages")
    if isinstance(messages, list):
        return messages
    return [{name: asked[name]} for name in ("input", "arguments") if name in asked]


def title_of(kind: str, asked: Mapping[str, Data]) -> str:
    """Return what is asked, in one line: the model's or function's name, or a method and path."""
    if kind == "http":
        return printable(f"{asked.get('method')} {asked.get('path')}")
    return printable(str(asked.get("function" if kind == "function" else "model", "?")))


def said(message: Data) -> str:
    """Return the text of a message; an image or a sound is its type in brackets."""
    content = message.get("content", message) if isinstance(message, dict) else message
    if not isinstance(content, list):
        return next(strings_in(content), "")
    parts = [part if isinstance(part, dict) else {} for part in content]
    return " ".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)


def distance(request: Request, record: Record) -> float:
    """Return 0 for the request itself, the more the less it has in common with a record."""
    asked, recorded = request.asked, record.request
    names = (asked.keys() | recorded.keys()) - {"messages", "input", "arguments"}
    fields = FIELD * len([name for name in names if asked.get(name) != recorded.get(name)])
    is_near = _split(request.sample)[0] == record.scope
    draw = 0.0 if request.sample == record.sample else OTHER_DRAW if is_near else OTHER_SCOPE
    return fields + draw + _of_messages(conversation(asked), conversation(recorded))


def _of_messages(one: list[Data], other: list[Data]) -> float:
    begin, _ = _common(one, other)
    one, other = one[begin:], other[begin:]
    total = min(MESSAGE * abs(len(one) - len(other)), MESSAGES)
    for back, (left, right) in enumerate(zip(reversed(one), reversed(other), strict=False)):
        total += _of_texts(left, right) * (1.0 if back else LAST_MESSAGE)
    return total


def _of_texts(one: Data, other: Data) -> float:
    """Return 0 for equal data and up to 1 for texts without a common word."""
    if one == other:
        return 0.0
    words, other_words = (
        [word for text in strings_in(data) for word in text.split()] for data in (one, other)
    )
    return 0.02 + 0.98 * (
        1 - SequenceMatcher(None, words, other_words, autojunk=False).quick_ratio()
    )


# The search


class Nearest(NamedTuple):
    """Be what a search found.

    :param place: where was searched, in words.
    :param unread: why nothing could be read there, if that was so.
    :param records: the nearest records, the nearest first.
    :param distance: how far the nearest one is from the request.
    :param in_scope: whether anything at all is recorded in the request's scope path.
    """

    place: str
    unread: str = ""
    records: Sequence[Record] = ()
    distance: float = 0.0
    in_scope: bool = False


def nearest(request: Request, source: Source | None) -> Nearest:
    """Return the records nearest to a request."""
    if source is None:
        return Nearest(
            "nothing",
            "cache=False goes past the disk cache, and no cassette is open: nothing may answer",
        )
    probes = _probes(request.asked)
    scope = _bytes(_split(request.sample)[0] + "#")
    if request.sample:
        probes += [scope, _bytes(request.sample)]
    searched, in_scope = 0, False

    def found_in(part: bytes) -> set[bytes]:
        return {probe for probe in probes if probe in part}

    # a text to which many records refer is searched once
    found_in_shared = lru_cache(4096)(found_in)

    def held(row: tuple[Sequence[bytes], object]) -> int:
        """Return how many probes a record holds."""
        nonlocal searched, in_scope
        own, *shared = row[0]
        there = found_in(own).union(*map(found_in_shared, shared))
        searched, in_scope = searched + 1, in_scope or scope in there
        return len(there)

    found = []
    try:
        rows = nlargest(READ, source.rows, key=held)
    except (CacheError, OSError) as error:
        return Nearest(source.name, str(error))
    for _, read in rows:
        with suppress(CacheError):
            record = read()
            if record.kind == request.kind:
                found.append((distance(request, record), record))
    found.sort(key=lambda each: each[0])
    records, nearness = [record for _, record in found], found[0][0] if found else 0.0
    return Nearest(f"{source.name}: {counted(searched, 'record')}", "", records, nearness, in_scope)


def _probes(asked: Mapping[str, Data]) -> list[bytes]:
    """Return pieces of what was said: of the last text the most, and from its whole length."""
    *before, last = list(dict.fromkeys(strings_in(conversation(asked)))) or [""]
    asked_last, earlier = _pieces(last), [piece for text in before for piece in _pieces(text)]
    chosen = _spread(asked_last, PROBES * 2 // 3)
    return list(dict.fromkeys(map(_bytes, chosen + _spread(earlier, PROBES - len(chosen)))))


def _spread(pieces: list[str], most: int) -> list[str]:
    """Return some of the pieces, at equal distances."""
    return pieces[:: max(1, -(-len(pieces) // most))]


def _pieces(text: str) -> list[str]:
    pieces = []
    for run in PIECE.findall(text):
        pieces += [run[at : at + PROBE_CHARACTERS] for at in range(0, len(run), PROBE_CHARACTERS)]
        if len(text) <= SHORT_CHARACTERS:
            pieces += run.split(" ")
    return [piece for piece in pieces if len(piece) > 3]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


# What differs

# the fields that hold what was said; the parameters come before them
LAST = (
    "messages",
    "input",
    "arguments",
)
SHOWN_PASSAGES = 3
WHOLE = 40  # characters of a parameter that is shown whole
INDENT = "  "
# A word with what joins it (2026-11-04, 0.30000000000000004, /tmp/x, Lisa's), blanks, or one other
# character.
TOKEN = re.compile(r"\s+|[\w'’.:/@+\\-]{0,200}\w|.", re.DOTALL)
LARGEST = 250_000  # pairs of lines or words that are compared; what is larger is taken whole
GAP = 3  # characters between two changes that are shown as one
LABELS = ("recorded  ", "asked     ")
MARKS = (("[-", "-]"), ("{+", "+}"))  # as git diff --word-diff has them
PIECE_SHARE = 0.6  # of a line that a changed piece may take


# Fields


class Difference(NamedTuple):
    """Say how one field of a request differs from that of a record.

    :param place: the field, such as ``temperature`` or ``messages[1].content``.
    :param recorded: its value in the record, or ``None`` where it is not there.
    :param asked: its value in the request, likewise.
    :param role: of a message's field, the message's role.
    """

    place: str
    recorded: Data
    asked: Data
    role: str = ""

    @property
    def field(self) -> str:
        """Return the name of the request's own field in which it lies."""
        return re.split(r"[.\[]", self.place)[0]

    @property
    def passages(self) -> tuple[Passage, ...]:
        """Return where two texts differ; of short parameters, which are shown whole, nothing."""
        recorded, asked = self.recorded, self.asked
        if not (isinstance(recorded, str) and isinstance(asked, str)):
            return ()
        is_said = self.role or self.field in LAST
        return (
            passages(recorded, asked) if is_said or max(len(recorded), len(asked)) > WHOLE else ()
        )

    def lines(self, width: int) -> list[str]:
        """Return the difference as lines for a terminal.

        :param width: characters of a line.
        """
        name = f"{self.place} ({self.role})" if self.role else self.place
        found = self.passages
        if not found:
            sides = 1 if self.recorded is None or self.asked is None else 2
            room = max(20, (width - len(name) - len(": recorded , not asked")) // sides)
            return [
                f"{name}: {_side('recorded', self.recorded, room)}, {_side('asked', self.asked, room)}"
            ]
        lines = [f"{name}:"]
        for passage in found[:SHOWN_PASSAGES]:
            lines += [
                INDENT + line
                for line in shown(passage, self.recorded, self.asked, width - len(INDENT))
            ]
        more = len(found) - SHOWN_PASSAGES
        return [*lines, f"{INDENT}… and {more} more"] if more > 0 else lines

    def __str__(self) -> str:
        return "\n".join(self.lines(100))

    def __repr__(self) -> str:
        return f"Difference({self.place!r}: {brief(self.recorded, 40)} → {brief(self.asked, 40)})"


def _side(name: str, value: Data, width: int) -> str:
    return f"not {name}" if value is None else f"{name} {brief(value, width)}"


def brief(value: Data, width: int) -> str:
    """Return a value in one line of at most a width, without credentials."""
    value = said(value) if isinstance(value, dict) and "role" in value else value
    text = value if isinstance(value, str) else shown_data(value)
    shortening = shortened(printable(masked(text)), width - 2)
    return f'"{shortening}"' if isinstance(value, str) else shortening


def differences(recorded: Mapping[str, Data], asked: Mapping[str, Data]) -> tuple[Difference, ...]:
    """Return the fields in which a stored request and another one differ: parameters first, then
    messages.
    """
    names = sorted(
        recorded.keys() | asked.keys(), key=lambda name: (name in LAST, name != "model", name)
    )
    return tuple(
        found
        for name in names
        for found in _compared(name, recorded.get(name), asked.get(name), "")
    )


def _compared(place: str, recorded: Data, asked: Data, role: str) -> Iterator[Difference]:
    if is_same(recorded, asked):
        return
    role = role or _role(recorded, asked)
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in sorted(recorded.keys() | asked.keys()):
            yield from _compared(f"{place}.{name}", recorded.get(name), asked.get(name), role)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for index, one, other in _aligned(recorded, asked):
            yield from _compared(f"{place}[{index}]", one, other, role)
    else:
        yield Difference(place, recorded, asked, role)


def _role(*items: Data) -> str:
    return next(
        (str(item["role"]) for item in items if isinstance(item, dict) and "role" in item), ""
    )


def _aligned(recorded: Sequence[Data], asked: Sequence[Data]) -> Iterator[tuple[int, Data, Data]]:
    """Yield index, recorded and asked item of each pair that differs; ``None`` stands for a missing
    one.

    The index is that in the request, and of an item that only the record has, that in the record.
    """
    one, other = (
        [json.dumps(item, sort_keys=True, default=repr) for item in items]
        for items in (recorded, asked)
    )
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    for kind, begin, end, asked_begin, asked_end in matcher.get_opcodes():
        gone, new = end - begin, asked_end - asked_begin
        # The last ones belong together: a conversation grows before its end.
        for back in range(max(gone, new) if kind != "equal" else 0, 0, -1):
            here = recorded[end - back] if back <= gone else None
            there = asked[asked_end - back] if back <= new else None
            yield (asked_end if back <= new else end) - back, here, there


# Words


class Passage(NamedTuple):
    """Say where one text differs from another: the pieces ``recorded[begin:end]`` and
    ``asked[asked_begin:asked_end]``.

    Each may be empty.
    """

    begin: int
    end: int
    asked_begin: int
    asked_end: int


def passages(recorded: str, asked: str) -> tuple[Passage, ...]:
    """Return where two texts differ, in order; changes that are close to one another are one."""
    found: list[Passage] = []
    for lines in _passages_of(recorded.splitlines(keepends=True), asked.splitlines(keepends=True)):
        one, other = pieces(lines, recorded, asked)
        for words in _passages_of(
            TOKEN.findall(one), TOKEN.findall(other), lines.begin, lines.asked_begin
        ):
            if found and words.begin - found[-1].end <= GAP:
                found[-1] = found[-1]._replace(end=words.end, asked_end=words.asked_end)
            else:
                found.append(words)
    return tuple(found)


def pieces(passage: Passage, recorded: str, asked: str) -> tuple[str, str]:
    """Return the two pieces of a passage."""
    return recorded[passage.begin : passage.end], asked[passage.asked_begin : passage.asked_end]


def _common(one: Sequence[Data], other: Sequence[Data]) -> tuple[int, int]:
    """Return how many items two sequences begin with together, and of the rest, how many they end
    with.
    """
    most = min(len(one), len(other))
    begin = next((index for index in range(most) if one[index] != other[index]), most)
    most -= begin
    end = next((index for index in range(most) if one[-1 - index] != other[-1 - index]), most)
    return begin, end


def _passages_of(
    one: Sequence[str], other: Sequence[str], at: int = 0, asked_at: int = 0
) -> Iterator[Passage]:
    """Yield where two sequences of pieces of text differ.

    :param at: where the first piece begins.
    :param asked_at: where that of the other sequence does.
    """
    same, ending = _common(one, other)
    inside, other_inside = one[same : len(one) - ending], other[same : len(other) - ending]
    before = sum(map(len, one[:same]))
    places = list(accumulate(map(len, inside), initial=at + before))
    other_places = list(accumulate(map(len, other_inside), initial=asked_at + before))
    if len(inside) * len(other_inside) > LARGEST:
        yield Passage(places[0], places[-1], other_places[0], other_places[-1])
        return
    matcher = SequenceMatcher(str.isspace, inside, other_inside, autojunk=False)
    for kind, begin, end, asked_begin, asked_end in matcher.get_opcodes():
        if kind != "equal":
            yield Passage(
                places[begin], places[end], other_places[asked_begin], other_places[asked_end]
            )


def masked(text: str) -> str:
    """Return a text of the same length in which what looks like a credential is asterisks."""
    while match := credentials.find(text):
        text = text[: match.start] + "*" * (match.end - match.start) + text[match.end :]
    return text


def shown(passage: Passage, recorded: str, asked: str, width: int) -> list[str]:
    """Return a passage as two lines, with as much of what stands around it as fits.

    :param width: characters of a line.
    """
    one, other = pieces(passage, recorded, asked)
    # What is cut at its end is shown from where it differs: a path may do so in its last characters
    # alone.
    same = _common(one, other)[0] if max(len(one), len(other)) > int(width * PIECE_SHARE) else 0
    sides: Any = (
        (recorded, passage.begin + same, passage.end),
        (asked, passage.asked_begin + same, passage.asked_end),
    )
    return [
        label + _line(masked(text), begin, end, marks, width - len(label))
        for label, (text, begin, end), marks in zip(LABELS, sides, MARKS, strict=True)
    ]


def _line(text: str, begin: int, end: int, marks: tuple[str, str], width: int) -> str:
    piece = shortened(printable(text[begin:end]), int(width * PIECE_SHARE))
    room = width - len(piece) - sum(map(len, marks))
    before, after = (
        printable(text[max(0, begin - width) : begin]),
        printable(text[end : end + width]),
    )
    left = max(room // 2, room - len(after))
    if len(before) > left:
        before = "…" + before[len(before) - left + 1 :]
    return (
        before
        + (marks[0] + piece + marks[1] if piece else "")
        + shortened(after, room - len(before))
    )
