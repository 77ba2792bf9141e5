"""Comparison of recorded answers, without the fields that are new in each, and runs that are read as one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from ...apis.bodies import HOLDERS, parse_objects
from ...apis.shapes import as_chat, choices_of
from ...keys.messages import ARGUMENTS, without_call_ids
from ...keys.request import Data
from ..record import Record

Conflict = tuple[Record, Record]  # two answers to one request
# The fields that are new in each answer, and the objects whose ids are. Tool calls keep their ids, since a
# program's next request names them.
VOLATILE_BODY_FIELDS = {
    *("created", "system_fingerprint"),
    *("created_at", "completed_at", "item_id", "obfuscation"),  # Responses
    *("createTime", "responseId"),  # Gemini
}
WITH_NEW_IDS = {"response", "message", "reasoning", "text_completion"}
# The fields of a whole answer, of an event, and of the answer in it, that are new in each. Deeper, they may be what the
# model wrote: the arguments of a tool call.
NEW_IN_ANSWERS = {
    *("id", "request_id"),
    *("updated", "event_id", "environment_id"),  # Interactions
    *("response_id", "generation_id"),  # Cohere
    *("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"),  # Ollama
    "metrics",  # Bedrock's Converse: its latency
}
# Fields about the usage of an answer, and its tier.
CIRCUMSTANCES = ("service_tier", "usage")
# Fields that an answer lacks if only its text was published.
UNPUBLISHED = ("model", "finish_reason")
# Fields that are new in each response; the last is llama.cpp's.
VOLATILE = ("id", "created", "system_fingerprint", "timings")


def stable_response(response: dict[str, Data]) -> dict[str, Data]:
    """Return a response without the fields that are new in each; a function's result stays whole."""
    if "value" in response:
        return response
    kept = without_volatile_fields(response) if "output" in response else response
    return {name: kept[name] for name in kept if name not in VOLATILE}


def answer_parts(record: Record) -> Data:
    """Return the content of a response, without the fields that are new in each, its usage, and the form
    of its API.
    """
    if record.kind == "http":
        return without_call_ids(stable_objects(record.response, CIRCUMSTANCES))
    if "value" in record.response:
        return record.response
    fields = {
        name: value
        for name, value in stable_response(dict(as_chat(record.response))).items()
        if name not in (*CIRCUMSTANCES, "object")
    }
    if "choices" in fields:
        fields["choices"] = [_without_empty(choice) for choice in choices_of(fields)]
    return without_call_ids(fields)


def shared_answer_parts(record: Record, other: Record) -> tuple[Data, Data]:
    """Return the parts of two answers, without a model or finish reason that only one has: published answers
    often lack them.
    """
    one, two = answer_parts(record), answer_parts(other)
    if record.kind == other.kind == "chat":
        return _shared(one, two), _shared(two, one)
    return one, two


def _shared(fields: dict[str, Data], others: dict[str, Data]) -> dict[str, Data]:
    shared = {name: fields[name] for name in fields if name in others or name not in UNPUBLISHED}
    choices, other_choices = (side.get("choices") or [] for side in (fields, others))
    if len(choices) == len(other_choices) > 0:
        shared["choices"] = list(map(_shared, choices, other_choices))
    return shared


def _without_empty(fields: dict[str, Data]) -> dict[str, Data]:
    """Return fields without null and empty values, which only one of two APIs gives."""
    return {
        name: _without_empty(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value not in (None, [], {})
    }


def same_answer(record: Record, other: Record) -> bool:
    """Return whether two records hold the same answer, apart from the fields that are new in each."""
    return record.response == other.response or _comparable(record) == _comparable(other)


def _comparable(record: Record) -> Data:
    if record.kind == "http":
        return without_call_ids(stable_objects(record.response))
    if "value" in record.response:  # a function's
        return record.response
    return without_call_ids(stable_response(record.response))


def stable_objects(response: Mapping[str, Data], also_omitted: Collection[str] = ()) -> Data:
    """Return a raw HTTP answer's objects without the fields that are new each time, or the whole response if
    it has no objects.

    :param also_omitted: further fields to leave out.
    """
    value = response.get("value")
    body = value.get("body") if isinstance(value, dict) else None
    objects = list(parse_objects(body)) if isinstance(body, str) else []
    return [_stable_answer(item, also_omitted) for item in objects] or response


def _stable_answer(answer: dict[str, Data], also_omitted: Collection[str]) -> dict[str, Data]:
    fields = without_volatile_fields(answer, also_omitted)
    kept = {name: fields[name] for name in fields if name not in NEW_IN_ANSWERS}
    for name in HOLDERS:
        if isinstance(inner := kept.get(name), dict):
            kept[name] = {field: inner[field] for field in inner if field not in NEW_IN_ANSWERS}
    return kept


def without_volatile_fields(value: Data, also_omitted: Collection[str] = ()) -> Data:
    """Return plain data of the Responses or the Messages API without the fields that are new in each
    answer.

    :param also_omitted: further fields to leave out.
    """
    if isinstance(value, list):
        return [without_volatile_fields(item, also_omitted) for item in value]
    if not isinstance(value, dict):
        return value
    omitted_names = {*VOLATILE_BODY_FIELDS, *also_omitted}
    if WITH_NEW_IDS & {str(value.get("type")), str(value.get("object"))}:
        omitted_names.add("id")
    return {
        name: item if name in ARGUMENTS else without_volatile_fields(item, also_omitted)
        for name, item in value.items()
        if name not in omitted_names
    }


Name = TypeVar("Name", str, tuple[int, int])

CONFLICTS = ("keep", "replace", "raise")  # what to do about it


def combine(
    first: Sequence[Record], second: Sequence[Record], on_conflict: str
) -> tuple[list[Record], list[Conflict]]:
    """Return the records of two recordings as one, each with the arms of both; and the conflicts.

    :param first: the records that keep their order.
    :param second: records that follow the shared record that they follow here, so that the calls of a
        scope stay in order.
    :param on_conflict: ``"keep"`` the first answer, or ``"replace"`` it by the later one.
    """
    chosen: dict[str, Record] = {}
    conflicts = []
    for record in chain(first, second):
        key = record.cache_key
        earlier = chosen.setdefault(key, record)
        if earlier is record:
            continue
        if same_answer(earlier, record):
            chosen[key] = earlier.with_arms(record.arms)
            continue
        conflicts.append((earlier, record))
        if on_conflict == "replace":
            chosen[key] = record
    order = merged_order(*([record.cache_key for record in side] for side in (first, second)))
    return [chosen[key] for key in order], conflicts


def merged_order(names: Iterable[Name], other_names: Iterable[Name]) -> list[Name]:
    """Return names in the order of the first ones. A name that only the others have follows the shared
    one that precedes it there.
    """
    order = {name: (number, 0) for number, name in enumerate(dict.fromkeys(names))}
    last = -1
    for number, name in enumerate(other_names, 1):
        last = order.setdefault(name, (last, number))[0]
    return sorted(order, key=order.__getitem__)
