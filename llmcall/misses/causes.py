"""Why a request is not recorded, if that is certain: its scope or draw, a setting, or something
that is hard to see in a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config.settings import Settings
from ..differences.fields import CONTENTS, Difference, as_text, brief, side
from ..requests.normalizers import NORMALIZERS, normalizer
from ..requests.parameters import CONFIGURED
from ..requests.plain_data import map_texts
from ..scopes import without_repeats
from ..types import Data, Record, Request
from .distance import UNRELATED
from .samples import split_sample
from .search import SearchResult

MOST_NAMES = 4  # scopes or samples that are listed
LONGEST_VALUE = 60  # characters

OTHER_ORDER = (
    "the same messages or lines are recorded in another order: unless you changed the order yourself, "
    "it depends on which of them arrived first"
)


def causes_of(
    request: Request, result: SearchResult, differences: Sequence[Difference], settings: Settings
) -> list[str]:
    """Return the certain causes of a miss, one sentence each.

    :param differences: those from the nearest record.
    :param settings: the settings of the request.
    """
    if result.problem:
        return [result.problem]
    if not result.records:
        return [f"no {request.kind} request is recorded there at all"]
    equal_records = [record for record in result.records if record.request == request.asked]
    if equal_records:
        return [_cause_of_sample(request.sample, equal_records)]
    causes = []
    contents = _contents(request.asked)
    if any(_is_reordered(contents, _contents(record.request)) for record in result.records):
        causes.append(OTHER_ORDER)
    path, _ = split_sample(request.sample)
    if path and not result.is_scope_recorded:
        causes.append(_nothing_in_scope(path, result.records))
    if result.distance >= UNRELATED:
        formats = [_cause_of_format(each) for each in differences if _is_format(each)]
        causes += formats
        return causes or [
            "no similar request is recorded: even the nearest record has little in common with this one"
        ]
    causes += [cause for each in differences if (cause := _cause_of_field(each, settings))]
    return list(dict.fromkeys(causes))


# The order of messages


def is_only_reordered(request: Request, result: SearchResult) -> bool:
    """Return whether a request is recorded in its scope, but with its messages, or the lines of a
    message, in another order.
    """
    path, _ = split_sample(request.sample)
    return any(
        split_sample(record.sample)[0] == path and _is_reordered(request.asked, record.request)
        for record in result.records
    )


def _is_reordered(asked: Mapping[str, Data], recorded: Mapping[str, Data]) -> bool:
    """Return whether two requests differ only in the order of messages or of their lines."""
    return asked != recorded and _in_any_order(asked) == _in_any_order(recorded)


def _in_any_order(fields: Mapping[str, Data]) -> dict[str, Data]:
    """Return a request in a form that is the same for every order of its messages and their lines."""
    body = fields.get("body")  # of another API
    if isinstance(body, dict):
        return {**fields, "body": _in_any_order(body)}
    return {name: _sorted(item) if name in CONTENTS else item for name, item in fields.items()}


def _sorted(contents: Data) -> Data:
    contents = map_texts(contents, lambda text: "\n".join(sorted(text.split("\n"))))
    return sorted(contents, key=as_text) if isinstance(contents, list) else contents


def _contents(fields: Mapping[str, Data]) -> dict[str, Data]:
    """Return a request's messages without its parameters."""
    body = fields.get("body")
    fields = body if isinstance(body, dict) else fields
    return {name: fields[name] for name in CONTENTS if name in fields}


# The sample


def _nothing_in_scope(path: str, records: Sequence[Record]) -> str:
    other_paths = sorted({record.scope for record in records} - {"", path})
    cause = f"nothing is recorded in the scope {path!r}"
    if other_paths:
        cause += f"; there are records in {_listed_paths(other_paths)}"
    return cause


def _cause_of_sample(sample: str | None, records: Sequence[Record]) -> str:
    """Return how a sample differs from those under which the same request is recorded.

    :param records: the records of the request, whatever their sample.
    """
    path, draw = split_sample(sample)
    samples = [split_sample(record.sample) for record in records]
    draws = [recorded_draw for recorded_path, recorded_draw in samples if recorded_path == path]
    if draws:
        draws.sort(key=lambda recorded_draw: (len(recorded_draw), recorded_draw))
        return _cause_of_draw(path, draw, draws)
    paths = sorted({recorded_path for recorded_path, _ in samples if recorded_path})
    if not path:
        scopes = ", ".join(f"llmcall.scope({name!r})" for name in paths[0].split("/"))
        return (
            "this call is outside any scope, but the same request is recorded in "
            f"{_listed_paths(paths)}: a scope is missing; open it with 'with {scopes}:'"
        )
    base_path, repeat = without_repeats(path)
    repeats = sorted(
        recorded_repeat
        for recorded_base, recorded_repeat in map(without_repeats, paths)
        if recorded_base == base_path
    )
    if repeats and base_path:
        words = [_repeat_words(each) for each in repeats[:MOST_NAMES]]
        more = [f"{len(repeats) - MOST_NAMES} more"] if len(repeats) > MOST_NAMES else []
        return (
            f"{_repeat_words(repeat)} of {base_path!r} makes a request that is recorded in "
            f"{_listed_words([*words, *more])} of it, and not in this one"
        )
    this_call = f"this call is in the scope {path!r}, but the same request is recorded"
    if paths:
        return f"{this_call} in {_listed_paths(paths)}"
    return f"{this_call} outside any scope; each scope has its own draws"


def _repeat_words(repeat: tuple[int, ...]) -> str:
    """Return the numbers of a repeat in words; a path without any is the first one's."""
    return f"repeat {'/'.join(str(number) for number in repeat if number) or '0'}"


def _cause_of_draw(path: str, draw: str, recorded_draws: list[str]) -> str:
    """Return how a draw differs from those that are recorded in the same scope.

    :param recorded_draws: the recorded draws, at least one, in order.
    """
    in_scope = f"in the scope {path!r}" if path else "outside any scope"
    if draw in recorded_draws:
        return "the same request is recorded under an old key: 'llmcall cache rekey' updates it"
    if not (draw.isdecimal() and all(map(str.isdecimal, recorded_draws))):
        samples = ", ".join(map(_sample_argument, recorded_draws[:MOST_NAMES]))
        return (
            f"this call is made {in_scope} with {_sample_argument(draw)}, but the same request is "
            f"recorded with {samples}"
        )
    if len(recorded_draws) == 1:
        recorded = f"only draw {recorded_draws[0]} is recorded"
    else:
        first, last = recorded_draws[0], recorded_draws[-1]
        recorded = f"only {len(recorded_draws)} draws are recorded (draws {first} to {last})"
    reason = (
        "the request is made more often than in the recording"
        if int(draw) > int(recorded_draws[-1])
        else "its call failed or was cut off in the recording, or other calls in this scope came before"
    )
    return f"this call is draw {draw} of the request {in_scope}, but {recorded}: {reason}"


def _sample_argument(draw: str) -> str:
    return f"sample={draw!r}" if draw else "no sample"


def _listed_paths(paths: Sequence[str]) -> str:
    text = ", ".join(map(repr, paths[:MOST_NAMES]))
    return f"{text}, …" if len(paths) > MOST_NAMES else text


# A field


def _cause_of_field(difference: Difference, settings: Settings) -> str:
    """Return what is known about a difference beyond the difference itself; empty if nothing is."""
    if _is_format(difference):
        return _cause_of_format(difference)
    return _cause_in_settings(difference, settings) or _cause_in_text(difference, settings)


def _is_format(difference: Difference) -> bool:
    """Return whether only one of two requests has a ``response_format``."""
    sides = difference.recorded, difference.asked
    return difference.place == "response_format" and None in sides


def _cause_of_format(difference: Difference) -> str:
    recorded = side("recorded", difference.recorded, LONGEST_VALUE)
    asked = side("asked", difference.asked, LONGEST_VALUE)
    return (
        "only one of the two requests has a response schema: the output type differs, or STRUCTURED_OUTPUT below "
        f"[Model …], which decides whether a schema is sent (response_format: {recorded}, {asked})"
    )


def _cause_in_settings(difference: Difference, settings: Settings) -> str:
    """Return which setting, alias or name explains a difference; empty if none does."""
    parameter, recorded, asked = difference.place, difference.recorded, difference.asked
    if parameter == "model" and recorded in settings.aliases:
        return f"{recorded} is now an alias: 'llmcall cache rekey' updates what was recorded before"
    if parameter == "namespace":
        origin = settings.origin("cache_namespace")
        return (
            f"[Cache] NAMESPACE is different here ({origin}): 'llmcall cache rekey' moves a "
            "cache's records to it"
        )
    if parameter == "function" and _last_name(recorded) == _last_name(asked):
        return (
            "the function is recorded under another name: "
            f"@llmcall.recorded(name={recorded!r}) finds its records"
        )
    value = getattr(settings, parameter, None) if parameter.isidentifier() else None
    if parameter in CONFIGURED and asked is None and value is None:
        line = f"{parameter.upper()} = {brief(recorded, LONGEST_VALUE)}"
        return (
            f"no setting gives {parameter} here; if one did when this was recorded, "
            f"write {line} below [OpenAI] in config.ini"
        )
    if value is None or value != asked:
        return ""
    origin = settings.origin(parameter)
    cause = f"the setting {parameter.upper()} is {brief(asked, LONGEST_VALUE)}: {origin}"
    if parameter == "model" and origin.startswith("cassette "):
        cause += (
            "; the record's model was set in code, or by another client such as API_TYPE = local"
        )
    return cause


def _last_name(name: Data) -> str:
    return str(name).rpartition(".")[2]


def _cause_in_text(difference: Difference, settings: Settings) -> str:
    """Return what is typical about a difference between two texts; empty if nothing is."""
    field = difference.place
    names = _normalizers_for(difference, settings.cache_normalize)
    if names:
        return f"only {_listed_words(names)} differ in {field}"
    if difference.role == "assistant":
        return "an earlier answer differs: this run diverged from the recording before this call"
    if difference.role == "tool":
        return "a tool's result differs: put the tool under @llmcall.recorded to replay its results"
    is_text = bool(difference.passages)
    if is_text and str(difference.recorded).split() == str(difference.asked).split():
        return f"{field} differs only in whitespace; if it is common indentation, dedent_messages=True removes it"
    return ""


def _listed_words(names: Sequence[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


# Normalizers


def normalizing(differences: Sequence[Difference], settings: Settings) -> tuple[str, ...]:
    """Return the normalizers under which a request equals the nearest record, those already set
    included; empty if there are none.
    """
    differing = [each for each in differences if each.place != "sample"]
    configured = settings.cache_normalize
    names = list(configured)
    for each in differing:
        needed = _normalizers_for(each, configured)
        if not needed:
            return ()
        names += needed
    return tuple(dict.fromkeys(names)) if differing else ()


def _normalizers_for(difference: Difference, configured: tuple[str, ...]) -> list[str]:
    """Return the fewest normalizers that make two texts equal; none if that is impossible.

    :param configured: the normalizers that are set.
    """
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
        fewer = [each for each in needed if each != name]
        if makes_equal(fewer):
            needed = fewer
    return needed
