"""The causes of a miss, as far as they are certain."""

from __future__ import annotations

from collections.abc import Sequence

from ...config.settings import Settings
from ...keys.normalizers import NORMALIZERS, normalizer
from ...keys.parameters import CONFIGURED
from ...keys.request import Request
from ..differences import Difference, shown_value
from .search import SearchResult, split_sample

MOST_NAMES = 4  # scopes or samples that are listed
LONGEST_VALUE = 60  # characters

OTHER_ORDER = (
    "the same parts are recorded in another order: unless you changed the order yourself, it depends on "
    "which of them arrived first, or on a set, whose order 'llmcall run --seed N' (or PYTHONHASHSEED=N) fixes "
    "in a new recording"
)
RENAMED = (
    "the system message names the actor, so a changed message makes a new actor, without records"
)


def find_causes(
    request: Request,
    result: SearchResult,
    differences: Sequence[Difference],
    settings: Settings,
    *,
    rekey: str,
    is_renamed: bool,
) -> list[str]:
    """Return the certain causes of a miss, one sentence each.

    :param differences: the differences from the nearest record.
    :param settings: the settings of the request.
    :param rekey: the commands that give the records new keys.
    :param is_renamed: whether the system message changed, and names the actor.
    """
    if result.problem:
        return [result.problem]
    if result.nearest is None:
        return [f"no {request.kind} request is recorded in what was searched"]
    if result.samples:
        return [_cause_of_sample(request.sample, result.samples, rekey)]
    causes = [OTHER_ORDER] if result.reordered else []
    if is_renamed:
        return [*causes, RENAMED]
    path, _ = split_sample(request.sample)
    if result.all_used:
        causes.append(
            f"this run has used every {request.kind} record in the scope {path!r}, the nearest too: this call "
            "is one more"
        )
    if path and path not in result.scopes:
        others = [scope for scope in result.scopes if scope]
        listed = f"; there are records in {_listed(others)}" if others else ""
        causes.append(f"nothing is recorded in the scope {path!r}{listed}")
    are_settings = all(difference.place in CONFIGURED for difference in differences)
    for difference in differences:
        cause = _cause_of_field(difference, settings, rekey)
        if not cause and are_settings:
            cause = _cause_of_missing_setting(difference, settings)
        causes += [cause] if cause else []
    return list(dict.fromkeys(causes))


def _cause_of_sample(sample: str | None, recorded_samples: Sequence[str | None], rekey: str) -> str:
    """Return how a sample differs from the recorded samples of the same request."""
    path, draw = split_sample(sample)
    in_scope = f"in the scope {path!r}" if path else "outside any scope"
    samples = [split_sample(recorded) for recorded in recorded_samples]
    draws = [recorded for scope, recorded in samples if scope == path]
    if draw in draws:
        return f"the same request is recorded under an old key: run {rekey}"
    if draws and draw.isdecimal() and all(map(str.isdecimal, draws)):
        numbers = sorted(map(int, draws))
        recorded = f"only draw {numbers[0]} is recorded"
        if len(numbers) > 1:
            recorded = (
                f"only {len(numbers)} draws are recorded (draws {numbers[0]} to {numbers[-1]})"
            )
        reason = (
            "the request is made more often than in the recording"
            if int(draw) > numbers[-1]
            else "its call failed or was cut off in the recording, or other calls in this scope came before"
        )
        return f"this call is draw {draw} of the request {in_scope}, but {recorded}: {reason}"
    if draws:
        return f"the same request is recorded {in_scope} as another sample"
    paths = sorted({scope for scope, _ in samples if scope})
    where = f"in {_listed(paths)}" if paths else "outside any scope; each scope has its own draws"
    cause = f"this call is {in_scope}, but the same request is recorded {where}"
    if path:
        return cause
    scopes = ", ".join(f"llmcall.scope({name!r})" for name in paths[0].split("/"))
    return f"{cause}: a scope is missing; open it with 'with {scopes}:'"


def _listed(paths: Sequence[str]) -> str:
    text = ", ".join(map(repr, paths[:MOST_NAMES]))
    return f"{text}, …" if len(paths) > MOST_NAMES else text


def _cause_of_field(difference: Difference, settings: Settings, rekey: str) -> str:
    """Return the known cause of a difference, or an empty text."""
    field, recorded, asked = difference.place, difference.recorded, difference.asked
    if names := _normalizers_for(difference, settings.cache_normalize):
        return f"only {' and '.join(names).replace('_', ' ')} differ in {field}"
    if field == "model" and recorded in settings.aliases:
        return f"{recorded} is now an alias: to keep what was recorded before, run {rekey}"
    if field == "namespace":
        origin = settings.origin("cache_namespace")
        return f"[Cache] NAMESPACE is different here ({origin}): to move the records to it, run {rekey}"
    if field == "response_format" and None in (recorded, asked):
        return (
            "STRUCTURED_OUTPUT below [Model …] decides whether the schema of an output type is sent"
        )
    value = getattr(settings, field) if field in CONFIGURED else None
    if value is not None and value == asked:
        return f"the setting {field.upper()} is {shown_value(asked, LONGEST_VALUE)}: {settings.origin(field)}"
    return ""


def _cause_of_missing_setting(difference: Difference, settings: Settings) -> str:
    """Return the remedy for a parameter that is only in the recorded request, or an empty text."""
    field = difference.place
    if difference.asked is not None or getattr(settings, field) is not None:
        return ""
    line = f"{field.upper()} = {shown_value(difference.recorded, LONGEST_VALUE)}"
    return (
        f"no setting sets {field} here; if one did when this was recorded, write {line} below "
        "[OpenAI] in config.ini"
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
    recorded, asked = difference.recorded, difference.asked
    if not isinstance(recorded, str) or not isinstance(asked, str):
        return []

    def makes_equal(names: Sequence[str]) -> bool:
        normalize = normalizer((*configured, *names))
        return normalize is not None and normalize(recorded) == normalize(asked)

    needed = list(NORMALIZERS)
    if not makes_equal(needed):
        return []
    for name in NORMALIZERS:
        fewer = [other for other in needed if other != name]
        if makes_equal(fewer):
            needed = fewer
    return needed
