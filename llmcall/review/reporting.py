"""The reporting checklist of a run: GUIDE-LLM, filled from the recordings.

GUIDE-LLM (Nature Human Behaviour, 2026) has 14 items for a study with language models.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from ..apis.decisions import is_decision
from ..apis.message import object_in, objects_in
from ..apis.token_usage import total_cost
from ..keys.keys import key_of
from ..stores.record import Record
from ..stores.records.served import served_by
from ..support.display import counted, money, one_line, printable, visible
from .conversations import ANSWERING_ROLE, RecordedCall, is_conversed
from .facts import RunFacts

BLANK = "TO FILL IN:"
TITLE = "Reporting checklist (GUIDE-LLM)"
PROMPTS = (
    "The most frequent prompts; of those of a template or question, the first. `report.html` or `llmcall report` "
    "shows all of them."
)
MAX_PROMPTS = 8
MAX_VALUES = 6  # of a parameter, each shown with its calls
VALUE_CHARACTERS = 80
STATE_FIELDS = ("previous_response_id", "conversation", "previous_interaction_id")
TOOL_FIELDS = (
    *("tools", "functions", "web_search_options"),
    *("search_parameters", "plugins", "mcp_servers"),  # xAI, OpenRouter, Messages
)
LOCAL = "local"  # what records of the small model hold instead of a host
SYSTEM_ROLES = ("system", "developer")


class ChecklistItem(NamedTuple):
    """One item of the checklist.

    :param title: its number and name.
    :param found: what the recordings show, a sentence each.
    :param texts: prompts, each below a line about it.
    :param blank: what only the authors know; empty if nothing is missing.
    """

    title: str
    found: Sequence[str] = ()
    texts: Sequence[tuple[str, str]] = ()
    blank: str = ""


def checklist(found: RunFacts, code: Sequence[str] = ()) -> list[ChecklistItem]:
    """Return the items.

    :param found: the run's facts.
    :param code: what is known about the code, a sentence each.
    """
    answers, asked = found.answers, found.asked
    # Each text of embeddings has a record of its own, however many were sent at once.
    spoken = [answer for answer in answers if not _is_embedding(answer)]
    conversed = list(filter(is_conversed, asked))
    return [
        ChecklistItem("A.1 Purpose", blank="what the model was used for, and why a model"),
        ChecklistItem(
            "A.2 Human in the loop", blank="whether and where people checked or changed its work"
        ),
        ChecklistItem(
            "B.1 Model",
            list(_models(found)),
            blank="why this model; its provider and size, where the names do not say them; a link to its pages",
        ),
        ChecklistItem(
            "B.2 Access",
            list(_access(answers)),
            blank="whether the provider keeps requests and answers (`store`), which a recording does not note",
        ),
        ChecklistItem(
            "B.3 Parameters and number of runs",
            [*_parameters(asked), *_repetitions(spoken), *_compute(answers)],
            blank="parameters that requests do not hold: the API's defaults on these days",
        ),
        ChecklistItem(
            "B.4 Fine-tuning, tools and search",
            [_fine_tuning(answers), _tools(asked)],
            blank="how a model was tuned, if one was",
        ),
        ChecklistItem("B.5 State between calls", list(_state(conversed))),
        ChecklistItem("C.1 Prompts", [PROMPTS], list(_prompts(asked, "user"))),
        ChecklistItem(
            "C.2 Instructions for the whole system",
            [_instructed(conversed)],
            list(_prompts(asked, "system")),
            blank="who asks what when, and how answers enter later prompts, beyond what the code shows",
        ),
        ChecklistItem(
            "D.1 Personal data", blank="whether prompts hold data of people, and on what ground"
        ),
        ChecklistItem(
            "E.1 Validation by humans", blank="how answers were compared with those of people"
        ),
        ChecklistItem(
            "E.2 Post-processing",
            [found.endings, *(f"{words}." for words in found.missing)],
            blank="how answers became data, and what became of those that were cut, refused or unread",
        ),
        ChecklistItem("F.1 Code", code, blank="" if code else "where the code is"),
        ChecklistItem("G.1 Funding", blank="who paid, and competing interests"),
    ]


def as_markdown(items: Sequence[ChecklistItem]) -> str:
    """Return the checklist as Markdown."""
    parts = []
    for item in items:
        lines = [f"## {item.title}", ""]
        lines += [f"- {printable(' '.join(sentence.split()))}" for sentence in item.found]
        for caption, text in item.texts:
            longest = max(map(len, re.findall("`+", text)), default=0)
            fence = "`" * max(3, longest + 1)
            lines += [f"- {caption}:", "", f"{fence}text", visible(text), fence, ""]
        if item.blank:
            lines.append(f"- **{BLANK}** {item.blank}")
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join(parts) + "\n"


def _models(found: RunFacts) -> Iterator[str]:
    if found.run.origin:
        yield f"The answers were {found.run.origin}."
    yield f"Asked for: {', '.join(found.models) or 'no model'}."
    for model, days in served_by(found.answers).items():
        if days is None:
            yield f"Answered by {model}, on days that were not recorded."
            continue
        prints = (
            f"; system fingerprints {', '.join(days.fingerprints)}" if days.fingerprints else ""
        )
        hosts = ", ".join(days.hosts) or "a host that was not recorded"
        yield f"Answered by {model} at {hosts}: {days} (first and last day, UTC){prints}."


def _access(answers: Sequence[Record]) -> Iterator[str]:
    ways = Counter((_interface(answer), _unit(answer), _way(answer)) for answer in answers)
    for (name, unit, way), count in ways.most_common():
        yield f"{counted(count, unit)} {way}: {name}."


def _way(answer: Record) -> str:
    if answer.imported is not None:
        return "imported"
    is_local = answer.days is not None and answer.days.hosts == (LOCAL,)
    return "to a local model" if is_local else "through the API"


def _is_embedding(record: Record) -> bool:
    return record.kind == "embedding"


def _unit(record: Record) -> str:
    return "text" if _is_embedding(record) else "call"


def _interface(record: Record) -> str:
    if record.kind == "http":
        return str(record.request.get("path"))
    if _is_embedding(record):
        return "embeddings"
    if is_decision(record.response):
        return "decisions"
    return "responses" if "output" in record.response else "chat completions"


def _parameters(calls: Sequence[RecordedCall]) -> Iterator[str]:
    values: dict[tuple[str, str], Counter[str]] = {}
    for call in calls:
        for name, value in call.parameters:
            if name == "model":  # in the body of some APIs; B.1 names the models of all
                continue
            values.setdefault((name, _unit(call.record)), Counter())[value] += 1
    for (name, unit), counts in sorted(values.items()):
        shown = [
            f"{one_line(value, VALUE_CHARACTERS)} ({counted(count, unit)})"
            for value, count in counts.most_common(MAX_VALUES)
        ]
        others = len(counts) - len(shown)
        more = f", and {counted(others, 'other value')}" if others else ""
        yield f"{name}: {', '.join(shown)}{more}."


def _repetitions(answers: Sequence[Record]) -> Iterator[str]:
    times = Counter(key_of(answer.kind, answer.request, None) for answer in answers)
    if times:
        yield (
            f"{counted(len(answers), 'answer')} to {counted(len(times), 'different request')}: "
            f"{_range(times.values())} for each."
        )


def _compute(answers: Sequence[Record]) -> Iterator[str]:
    by_scope: dict[str, list[Record]] = {}
    for answer in answers:
        if answer.scope:
            by_scope.setdefault(answer.scope, []).append(answer)
    cost = total_cost(answer.cost for answer in answers)
    unknown = sum(answer.usage.input_tokens is None for answer in answers)
    without = f" ({unknown:,} of the answers without a count of tokens)" if unknown else ""
    totals = ", ".join(f"{name} {sum(n):,}" for name, n in _amounts([answers]))
    yield f"Recorded: {totals}{without}; cost {'unknown' if cost is None else money(cost)}."
    if len(by_scope) > 1:
        each = ", ".join(f"{name} {_range(n)}" for name, n in _amounts(by_scope.values()))
        yield f"Under each of {counted(len(by_scope), 'name')} (scope): {each}."


def _amounts(groups: Collection[Sequence[Record]]) -> Iterator[tuple[str, list[int]]]:
    """Return what each group has, by what it is."""
    yield "answers", list(map(len, groups))
    for field in ("input_tokens", "output_tokens"):
        counts = [[getattr(answer.usage, field) for answer in group] for group in groups]
        if any(count is not None for group in counts for count in group):
            yield f"tokens {field.split('put')[0]}", [sum(filter(None, group)) for group in counts]


def _fine_tuning(answers: Sequence[Record]) -> str:
    tuned = {answer.model for answer in answers if answer.model and answer.model.startswith("ft:")}
    if tuned:
        return f"Fine-tuned: {', '.join(sorted(tuned))}."
    return "No model has the name of a fine-tuned one (`ft:`)."


def _tools(calls: Sequence[RecordedCall]) -> str:
    counts = Counter(
        name
        for call in calls
        for field, value in _fields(call)
        if field in TOOL_FIELDS
        for name in dict.fromkeys(_tool_names(field, value))
    )
    held = ", ".join(f"{name} ({counted(count, 'call')})" for name, count in counts.items())
    return f"Requests hold tools: {held}." if held else "No request holds tools or a search."


def _fields(call: RecordedCall) -> Iterator[tuple[str, object]]:
    """Yield the parameters, and those that only the server knows."""
    for field, text in call.parameters:
        value = json.loads(text)
        yield from value.items() if field == "extra_body" else [(field, value)]


def _tool_names(field: str, tools: object) -> Iterator[str]:
    named = objects_in(tools) if isinstance(tools, list) else []
    for tool in named:
        function = object_in(tool.get("function")) or tool
        yield str(function.get("name") or tool.get("type") or next(iter(tool), field))
    if not named:
        yield field


def _state(calls: Sequence[RecordedCall]) -> Iterator[str]:
    histories = sum(
        any(message.role.split(" ")[0] == ANSWERING_ROLE for message in call.messages)
        for call in calls
    )
    yield (
        f"{counted(len(calls) - histories, 'call')} asked without earlier answers; {histories:,} sent a "
        "conversation's earlier answers along."
    )
    kept = sum(any(name in STATE_FIELDS for name, _ in call.parameters) for call in calls)
    yield f"{counted(kept, 'call')} went on from what the server kept."


def _prompts(calls: Sequence[RecordedCall], role_shown: str) -> Iterator[tuple[str, str]]:
    """Yield the most frequent prompts of a role: of each template or question the first, others if they differ."""
    firsts: dict[object, tuple[str, str]] = {}
    times: Counter[object] = Counter()
    for call in calls:
        form = call.record.form
        for number, message in enumerate(call.messages):
            role = message.role.split(" ")[0]
            role = "system" if role in SYSTEM_ROLES else role
            is_new = number >= call.repeated  # a history's questions were counted with their calls
            if role == role_shown and (is_new or role == "system"):
                text = "\n".join(message.texts).strip()
                prompt = (form["digest"], number) if form else text
                times[prompt] += 1
                firsts.setdefault(prompt, (form["name"] if form else "", text))
    for group, count in times.most_common(MAX_PROMPTS):
        name, text = firsts[group]
        of_form = f' of "{printable(name)}"' if name else ""
        first = "; the first" if name and count > 1 else ""
        yield f"A {role_shown} prompt{of_form}, sent {counted(count, 'time')}{first}", text


def _instructed(calls: Sequence[RecordedCall]) -> str:
    count = sum(
        any(message.role.split(" ")[0] in SYSTEM_ROLES for message in call.messages)
        for call in calls
    )
    return f"{count:,} of {counted(len(calls), 'call')} hold system messages."


def _range(numbers: Collection[int]) -> str:
    fewest, most = min(numbers, default=0), max(numbers, default=0)
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
