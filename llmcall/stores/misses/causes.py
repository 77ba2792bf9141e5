"""The record nearest to a request, and the certain causes of a miss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ...apis.shapes import CONTENT_FIELDS
from ...config.settings import Settings
from ...errors import CacheError
from ...keys.parameters import CONFIGURED
from ...keys.request import Data, Request, messages_of, strings_in
from ...support.display import OUTSIDE_ANY_SCOPE, counted
from ...support.normalizers import NORMALIZERS, normalizer
from ..differences import (
    CONTENTS,
    Difference,
    canonical_text,
    common_ends,
    differences,
    have_same_parts,
    likeness,
    shown_value,
    sorted_parts,
)
from ..record import Record


class Source(NamedTuple):
    """A collection of records to search.

    :param name: its name in messages.
    :param records: its readable records.
    :param is_complete: ``True`` if the recording is complete.
    :param is_used: returns whether this run has used the record of a key.
    :param run: the command that recorded it, ``llmcall run --cassette FILE``; empty for any other recording.
    :param is_strange: ``True`` if none of this run's requests so far is recorded in it.
    :param problem: why it was not searched, or an empty text.
    """

    name: str
    records: Iterable[Record]
    is_complete: bool = True
    is_used: Callable[[str], bool] = lambda _: False
    is_strange: bool = False
    run: str = ""
    problem: str = ""


# Of a call that no record may answer
NOTHING = Source(
    "nothing", (), problem="cache=False bypasses the disk cache, and no cassette is open"
)


class SearchResult(NamedTuple):
    """The result of a search.

    :param looked_in: the place that was searched, in words.
    :param problem: why nothing could be read, or an empty text.
    :param nearest: the nearest record of the request's kind.
    :param differences: the differences from that record, the sample first.
    :param samples: the samples of the records of identical requests.
    :param scopes: the scope paths of all records, in order.
    :param is_reordered: ``True`` if the same request is recorded in another order.
    :param all_used: ``True`` if this run has used all records of the request's kind in its scope.
    """

    looked_in: str
    problem: str = ""
    nearest: Record | None = None
    differences: tuple[Difference, ...] = ()
    samples: Sequence[str | None] = ()
    scopes: Sequence[str] = ()
    is_reordered: bool = False
    all_used: bool = False


def search(request: Request, source: Source) -> SearchResult:
    """Return the record nearest to a request, and the records of identical requests.

    A record of the same scope is nearer than any other; of these, one that this run has not used, since
    the program still makes the other calls.
    """
    if source.problem:
        return SearchResult(source.name, source.problem)
    requested, (path, _) = request.hashed, split_sample(request.sample)
    size, order_free = _size(requested), _order_free(requested)
    count, least, is_reordered = 0, (True,) * 3, False
    nearest: list[Record] = []
    samples: list[str | None] = []
    scopes: set[str] = set()
    try:
        for record in source.records:
            count += 1
            scopes.add(record.scope)
            if record.kind != request.kind:
                continue
            fields = record.request
            if fields == requested:
                samples.append(record.sample)
            elif _size(fields) == size and _order_free(fields) == order_free:
                is_reordered = True
            rank = (fields != requested, record.scope != path, source.is_used(record.cache_key))
            if rank < least:
                nearest, least = [record], rank
            elif rank == least:
                nearest.append(record)
    except (CacheError, OSError) as error:
        return SearchResult(source.name, str(error))
    looked_in = f"{source.name}: {counted(count, 'record')}"
    if not nearest:
        return SearchResult(looked_in)
    record = min(nearest, key=lambda candidate: _distance(requested, candidate.request))
    changes = differences(record.request, requested)
    if all(str(change.recorded).split() == str(change.requested).split() for change in changes):
        is_reordered = False  # only blanks differ
    elif all(
        isinstance(difference.recorded, str)
        and isinstance(difference.requested, str)
        and have_same_parts(difference.recorded, difference.requested)
        for difference in changes
    ):
        is_reordered = True
    if record.sample != request.sample:
        changes = (Difference("sample", record.sample, request.sample), *changes)
    all_used = least == (True, False, True)
    return SearchResult(
        looked_in, "", record, changes, samples, sorted(scopes), is_reordered, all_used
    )


def split_sample(sample: str | None) -> tuple[str, str]:
    """Return a sample's scope path and draw; a draw that the user names may contain another ``#``."""
    path, _, draw = (sample or "").partition("#")
    return path, draw


def _order_free(data: Data) -> Data:
    """Return data with lists, and the parts of texts, sorted, so that their order does not matter."""
    if isinstance(data, dict):
        return {name: _order_free(item) for name, item in data.items()}
    if isinstance(data, list):
        return sorted(map(_order_free, data), key=canonical_text)
    return sorted_parts(data) if isinstance(data, str) else data


def _size(fields: Mapping[str, Data]) -> int:
    """Return the number of characters in a request's messages."""
    return sum(map(len, strings_in(messages_of(fields))))


def parameters_of(fields: Mapping[str, Data]) -> dict[str, Data]:
    """Return the parameters of a request: its fields without the contents."""
    body = fields.get("body")  # of another API
    if isinstance(body, dict):
        fields = {**fields, **body}
    left_out = {*CONTENTS, *CONTENT_FIELDS, "body"}
    return {name: value for name, value in fields.items() if name not in left_out}


def _distance(requested: Mapping[str, Data], recorded: Mapping[str, Data]) -> tuple[bool, float]:
    """Return whether the messages differ, and the number of differing parameters plus their unlikeness."""
    parameters, others = parameters_of(requested), parameters_of(recorded)
    names = parameters.keys() | others.keys()
    unlikeness = _unlikeness(requested, recorded)
    changed = sum(parameters.get(name) != others.get(name) for name in names)
    return unlikeness > 0, changed + unlikeness


def _unlikeness(requested: Mapping[str, Data], recorded: Mapping[str, Data]) -> float:
    """Return 0 for the same messages, up to 1 if they share no word after their common beginning."""
    messages, others = messages_of(requested), messages_of(recorded)
    if messages == others:
        return 0.0
    common, _ = common_ends(messages, others)
    words, other_words = (
        {word for text in strings_in(side[common:]) for word in text.split()}
        for side in (messages, others)
    )
    return 1 - likeness(words, other_words)


MOST_NAMES = 4  # scopes or samples that are listed
LONGEST_VALUE = 60  # characters

OTHER_ORDER = (
    "the same parts are recorded in another order: unless you changed the order yourself, it depends on "
    "which of them arrived first, or on a set, whose order 'llmcall run --seed N' (or PYTHONHASHSEED=N) fixes "
    "in a new recording"
)


def find_causes(request: Request, result: SearchResult, settings: Settings) -> list[str]:
    """Return the certain causes of a miss, one sentence each.

    :param settings: the settings of the request.
    """
    if result.problem:
        return [result.problem]
    if result.nearest is None:
        return [f"no {request.kind} request is recorded there"]
    if result.samples:
        return [_cause_of_sample(request.sample, result.samples)]
    causes = [OTHER_ORDER] if result.is_reordered else []
    path, _ = split_sample(request.sample)
    if result.all_used:
        causes.append(
            f"this run has used every {request.kind} record {_place(path)}, including the nearest: this call "
            "is one more"
        )
    if path and path not in result.scopes:
        others = [scope for scope in result.scopes if scope]
        listed = f"; there are records in {_listed(others)}" if others else ""
        causes.append(f"nothing is recorded in the scope {path!r}{listed}")
    are_settings = all(difference.place in CONFIGURED for difference in result.differences)
    for difference in result.differences:
        cause = _cause_of_field(difference, settings)
        if not cause and are_settings:
            cause = _cause_of_missing_setting(difference, settings)
        causes += [cause] if cause else []
    return list(dict.fromkeys(causes))


def _cause_of_sample(sample: str | None, recorded_samples: Sequence[str | None]) -> str:
    """Return how a sample differs from the recorded samples of the same request."""
    path, draw = split_sample(sample)
    in_scope = _place(path)
    samples = [split_sample(recorded) for recorded in recorded_samples]
    draws = [recorded for scope, recorded in samples if scope == path]
    if draw in draws:
        return "the same request is recorded under a key that no call has any more: record it again"
    if draws and draw.isdecimal() and all(map(str.isdecimal, draws)):
        numbers = sorted(map(int, draws))
        this_draw = f"this call is draw {draw} of the request {in_scope}"
        if int(draw) < numbers[-1]:
            return (
                f"{this_draw}, and a later one is recorded: its call failed, was cut off or forgotten, or other "
                "calls in this scope came before"
            )
        return (
            f"{this_draw}, but the recorded draws are {numbers[0]} to {numbers[-1]}: the request is made more often "
            "than in the recording"
        )
    if draws:
        return f"the same request is recorded {in_scope} as another sample"
    paths = sorted({scope for scope, _ in samples if scope})
    where = f"in {_listed(paths)}" if paths else "outside any scope; each scope has its own draws"
    cause = f"this call is {in_scope}, but the same request is recorded {where}"
    if path:
        return cause
    scopes = ", ".join(f"llmcall.scope({name!r})" for name in paths[0].split("/"))
    return f"{cause}: a scope is missing; open it with 'with {scopes}:'"


def _place(path: str) -> str:
    return f"in the scope {path!r}" if path else OUTSIDE_ANY_SCOPE


def _listed(paths: Sequence[str]) -> str:
    text = ", ".join(map(repr, paths[:MOST_NAMES]))
    return f"{text}, …" if len(paths) > MOST_NAMES else text


def _cause_of_field(difference: Difference, settings: Settings) -> str:
    """Return the known cause of a difference, or an empty text."""
    field, recorded, requested = difference.place, difference.recorded, difference.requested
    if names := _normalizers_for(difference, settings.cache_normalize):
        return f"only {' and '.join(names).replace('_', ' ')} differ in {field}"
    if field == "model" and recorded in settings.aliases:
        return f"{recorded} is now an alias of {settings.aliases[recorded]}, and was not when this was recorded"
    if field == "namespace":
        origin = settings.origin("cache_namespace")
        return f"[Cache] NAMESPACE is different here ({origin})"
    if field == "response_format" and None in (recorded, requested):
        return "STRUCTURED_OUTPUT in [Model …] decides whether the schema of an output type is sent"
    value = getattr(settings, field) if field in CONFIGURED else None
    if value is not None and value == requested:
        return f"the setting {field.upper()} is {shown_value(requested, LONGEST_VALUE)}: {settings.origin(field)}"
    return ""


def _cause_of_missing_setting(difference: Difference, settings: Settings) -> str:
    """Return the remedy for a parameter that is only in the recorded request, or an empty text."""
    field = difference.place
    if difference.requested is not None or getattr(settings, field) is not None:
        return ""
    line = f"{field.upper()} = {shown_value(difference.recorded, LONGEST_VALUE)}"
    return (
        f"no setting sets {field} here; if one did when this was recorded, write {line} in "
        "[OpenAI] of config.ini"
    )


def needed_normalizers(differences: Sequence[Difference], settings: Settings) -> tuple[str, ...]:
    """Return the normalizers, with the current ones, under which a request equals the nearest record;
    empty if none do.
    """
    configured = settings.cache_normalize
    needed = [
        _normalizers_for(difference, configured)
        for difference in differences
        if difference.place != "sample"
    ]
    if not needed or not all(needed):
        return ()
    return tuple(dict.fromkeys([*configured, *(name for names in needed for name in names)]))


def _normalizers_for(difference: Difference, configured: tuple[str, ...]) -> list[str]:
    """Return the fewest normalizers that make two texts equal; an empty list if that is impossible."""
    recorded, requested = difference.recorded, difference.requested
    if not isinstance(recorded, str) or not isinstance(requested, str):
        return []

    def makes_equal(names: Sequence[str]) -> bool:
        normalize = normalizer((*configured, *names))
        return normalize is not None and normalize(recorded) == normalize(requested)

    needed = list(NORMALIZERS)
    if not makes_equal(needed):
        return []
    for name in NORMALIZERS:
        fewer = [other for other in needed if other != name]
        if makes_equal(fewer):
            needed = fewer
    return needed
