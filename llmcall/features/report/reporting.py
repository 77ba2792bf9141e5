"""The reporting checklist of a run: GUIDE-LLM, filled from the recordings.

It has 14 items for a study with language models, and optional ones, two of which a recording knows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from ...review.conversations import RecordedCall
from ...scopes.position import without_repeats
from ...stores.records.header import days_words, via
from ...support.display import counted, one_line, printable, visible
from ...typed.notes import FORM
from .facts import (
    SYSTEM_PROMPT,
    SYSTEM_ROLES,
    USER_PROMPT,
    AskedCall,
    RunFacts,
    facts,
    new_text,
)

BLANK = "TO FILL IN:"
GUIDE = "GUIDE-LLM 1.1 (Nature Human Behaviour, 2026, doi:10.1038/s41562-026-02492-7)"
TITLE = "Reporting checklist (GUIDE-LLM 1.1)"
MAX_PROMPTS = 8  # of those that no template made
MAX_VALUES = 6  # of a parameter, each shown with its calls
VALUE_CHARACTERS = 80
STATE_FIELDS = ("previous_response_id", "conversation", "previous_interaction_id")
TOOL_FIELDS = (
    *("tools", "functions", "web_search_options"),
    *("search_parameters", "plugins", "mcp_servers"),  # xAI, OpenRouter, Messages
)
NOT_KNOWN = "Whether requests held {} was not recorded."


class ChecklistItem(NamedTuple):
    """One item of the checklist.

    :param title: its number and name.
    :param found: what the recordings show, a sentence each.
    :param texts: prompts, each below a line about it.
    :param blanks: what only the authors know.
    """

    title: str
    found: Sequence[str] = ()
    texts: Sequence[tuple[str, str]] = ()
    blanks: Sequence[str] = ()


def checklist(found: RunFacts, code: Sequence[str] = ()) -> list[ChecklistItem]:
    """Return the items.

    :param found: the run's facts.
    :param code: what is known about the code, a sentence each.
    """
    asked, spoken = found.asked, found.spoken
    conversed = [answer.call for answer in spoken]
    is_imported = bool(found.run.origin)  # then nothing found is nothing recorded
    questions, other_questions = _prompts(USER_PROMPT, found)
    instructions, other_instructions = _prompts(SYSTEM_PROMPT, found)
    return [
        ChecklistItem("A.1 Purpose", blanks=["what the model was used for, and why a model"]),
        ChecklistItem(
            "A.2 Human in the loop",
            blanks=["whether people checked or changed its work, and where"],
        ),
        ChecklistItem(
            "B.1 Model",
            list(_models(found)),
            blanks=[
                "why this model; its provider and size, where the names do not say them; a link to its pages"
            ],
        ),
        ChecklistItem(
            "B.2 Access",
            [*_access(asked), _turns(conversed)],
            blanks=[
                "where the model ran: on whose servers, in which country, or on your own machine",
                "whether the provider keeps requests and answers; a recording does not note it",
            ],
        ),
        ChecklistItem(
            "B.3 Parameters and number of runs",
            [*_parameters(asked), *_repetitions(spoken, found.named_draws)],
            blanks=["parameters that requests do not set: the API's defaults on these days"],
        ),
        ChecklistItem(
            "B.4 Customization",
            [_tools([each.call for each in asked], is_imported=is_imported)],
            blanks=[
                "fine-tuning: how a model was tuned, if one was",
                "retrieval: which documents entered prompts, and how they were chosen",
                "prompt optimization: how the wording was found",
                "agents: which steps a model chose by itself, and what ended its work",
            ],
        ),
        ChecklistItem(
            "B.5 State between calls",
            [_turns(conversed), _kept(conversed, is_imported=is_imported)],
            blanks=["memory of other kinds: summaries, notes, or words of others in later prompts"],
        ),
        ChecklistItem("C.1 Prompts", other_questions, questions),
        ChecklistItem(
            "C.2 Instructions for the whole system",
            [_instructed(conversed, is_imported=is_imported), *other_instructions],
            instructions,
            ["who is asked what, when, and how answers feed later prompts"],
        ),
        ChecklistItem(
            "D.1 Personal data",
            blanks=["whether prompts contain personal data, and the legal basis"],
        ),
        ChecklistItem(
            "E.1 Validation by humans", blanks=["how answers were compared with people's"]
        ),
        ChecklistItem(
            "E.2 Post-processing",
            [found.endings, *(f"{words}." for words in _not_by_a_model(found))],
            blanks=[
                "how answers became data, and what became of those that were cut, refused or unread"
            ],
        ),
        ChecklistItem("F.1 Code", code, blanks=() if code else ["where the code is"]),
        ChecklistItem("G.1 Funding", blanks=["who paid, and competing interests"]),
        ChecklistItem(
            "Optional: transcripts",
            [
                f"{counted(len(found.run.records), 'request')} with answers: the recording has each, whole."
            ],
        ),
        ChecklistItem(
            "Optional: calls, tokens, cost",
            [
                f"{label.capitalize()}: {words}."
                for label, words in facts(found).items()
                if label in ("calls", "tokens in", "tokens out", "cost")
            ],
        ),
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
        lines += [f"- **{BLANK}** {blank}" for blank in item.blanks]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join(parts) + "\n"


def _models(found: RunFacts) -> Iterator[str]:
    if found.run.origin:
        yield f"The answers were {found.run.origin}."
    yield f"Asked for: {', '.join(found.models) or 'no model'}."
    for model, days in found.served.items():
        if days is None:
            yield f"Answered by {model}, on days that were not recorded."
            continue
        prints = (
            f"; system fingerprints {', '.join(days.fingerprints)}" if days.fingerprints else ""
        )
        hosts = ", ".join(days.hosts) or "a host that was not recorded"
        yield f"Answered by {model}{via(days)} at {hosts}: {days_words(days)} (UTC){prints}."


def _not_by_a_model(found: RunFacts) -> Iterator[str]:
    """Describe the answers that are missing or come from elsewhere."""
    yield from (f"{word.capitalize()}: {words}" for word, words in found.given.items())
    if found.functions:
        yield f"Recorded functions, which are not models: {found.function_results}"
    yield from found.missing


def _access(answers: Sequence[AskedCall]) -> Iterator[str]:
    ways = Counter((answer.interface, _unit(answer), answer.way) for answer in answers)
    for (name, unit, way), count in ways.most_common():
        yield f"{counted(count, unit)} {way}: {name}."


def _unit(call: AskedCall) -> str:
    return "text" if call.is_embedding else "call"


def _parameters(answers: Sequence[AskedCall]) -> Iterator[str]:
    values: dict[tuple[str, str, str], Counter[str]] = {}
    for asked in answers:
        for name, value in asked.call.parameters:
            if name == "model":  # in the body of some APIs; B.1 names the models of all
                continue
            group = name, asked.model, _unit(asked)
            values.setdefault(group, Counter())[value] += 1
    has_several = len({asked.model for asked in answers}) > 1
    if not values and any(asked.record.header_notes for asked in answers):
        yield "Parameters were not recorded."
    for (name, model, unit), counts in sorted(values.items()):
        shown = [
            f"{one_line(value, VALUE_CHARACTERS)} ({counted(count, unit)})"
            for value, count in counts.most_common(MAX_VALUES)
        ]
        others = len(counts) - len(shown)
        more = f", and {counted(others, 'other value')}" if others else ""
        yield f"{name}{f' of {model}' if has_several else ''}: {', '.join(shown)}{more}."


def _repetitions(answers: Sequence[AskedCall], named_draws: str) -> Iterator[str]:
    by_model: dict[str, list[AskedCall]] = {}
    for answer in answers:
        by_model.setdefault(answer.model, []).append(answer)
    is_reordered = False
    for model, of_model in sorted(by_model.items()):
        runs = [answer for answer in of_model if not answer.is_asked_again]
        times = Counter(_questions_of(runs))
        is_reordered |= len(times) < len({answer.request for answer in runs})
        again = len(of_model) - len(runs)
        fewest, most = min(times.values(), default=0), max(times.values(), default=0)
        often = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
        yield (
            f"{f'{model}: ' if by_model.keys() != {model} else ''}{counted(len(runs), 'answer')} to "
            f"{counted(len(times), 'different request')}: {often} for each"
            f"{f'; {again:,} more when an LLMCall asked again' if again else ''}."
        )
    if is_reordered:
        yield "Repeats that list the options of a question in another order count as repeats of one request."
    if named_draws:
        yield f"{named_draws}."


def _questions_of(answers: Sequence[AskedCall]) -> Iterator[str]:
    """Yield what each answer is to: its request, or the question whose repeats differ, as in the order of options.

    Such a question has one form, one item of a ``map``, the same variables and parameters, and one request in
    each repeat.
    """
    requests: dict[tuple[str, tuple[int, ...]], str] = {}
    mixed: set[str] = set()  # questions with several requests in a repeat
    for answer in answers:
        if answer.question is not None:
            _, repeat = without_repeats(answer.record.scope)
            first = requests.setdefault((answer.question, repeat), answer.request)
            if first != answer.request:
                mixed.add(answer.question)
    for answer in answers:
        question = answer.question
        yield answer.request if question is None or question in mixed else question


def _tools(calls: Sequence[RecordedCall], *, is_imported: bool) -> str:
    counts = Counter(name for call in calls for name in _names(call) if name in TOOL_FIELDS)
    held = ", ".join(f"{name} ({counted(count, 'call')})" for name, count in counts.items())
    if held:
        return f"Requests hold tools: {held}."
    return (
        NOT_KNOWN.format("tools or a search")
        if is_imported
        else "No request contains tools or a search."
    )


def _names(call: RecordedCall) -> Iterator[str]:
    """Yield the names of the parameters, and of those that only the server knows."""
    for name, text in call.parameters:
        yield from json.loads(text) if name == "extra_body" else [name]


def _turns(calls: Sequence[RecordedCall]) -> str:
    """Return how many calls stand alone, and how many hold an assistant's turns."""
    holding = sum(any(message.is_answer for message in call.messages) for call in calls)
    return (
        f"{counted(len(calls) - holding, 'call')} stood alone; {holding:,} sent turns of an assistant: earlier "
        "answers of a conversation, or worked examples (C.1)."
    )


def _kept(calls: Sequence[RecordedCall], *, is_imported: bool) -> str:
    kept = sum(any(name in STATE_FIELDS for name, _ in call.parameters) for call in calls)
    if is_imported and not kept:
        return "Whether calls continued a conversation kept by the server was not recorded."
    return f"{counted(kept, 'call') if kept else 'No call'} continued a conversation kept by the server."


def _prompts(role: str, found: RunFacts) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the prompts of one role, each below a line about it, and what is not shown, in a sentence, if anything.

    Of each template or question that records name, the first is shown; of other calls, all if they are few, else those
    that together have the most different words.
    """
    named: dict[str, tuple[str, str]] = {}  # by a form's digest: its name, and the first prompt
    others: dict[str, None] = {}
    times: Counter[str] = Counter()  # by digest or text
    for asked in found.asked:
        text, form = new_text(asked.call, role), FORM.of(asked.record)
        if text and form:
            named.setdefault(form["digest"], (form["name"], text))
        elif text:
            others[text] = None
        times[form["digest"] if form else text] += 1
    shown = [*others] if len(others) <= MAX_PROMPTS else [*_covering(others)]
    forms = named.items()
    texts = [(_caption(role, name, times[digest]), text) for digest, (name, text) in forms]
    texts += [(_caption(role, "", times[text]), text) for text in shown]
    left = len(others) - len(shown)
    summary = (
        f"{counted(left, 'other prompt')} of calls without a template: in the report, with each call. These "
        f"{len(shown)} have the most different words."
    )
    return texts, [summary] if left else []


def _covering(texts: Collection[str]) -> Iterator[str]:
    """Yield the texts that together have the most different words: each adds most to those before."""
    left, words = [*texts], set[str]()
    for _ in range(MAX_PROMPTS):
        text = max(left, key=lambda text: len({*text.split()} - words))
        left.remove(text)
        words.update(text.split())
        yield text


def _caption(role: str, name: str, count: int) -> str:
    """Return the line about a prompt."""
    of_form = f' of "{printable(name)}"' if name else ""
    first = "; the first" if name and count > 1 else ""
    return f"A {role} prompt{of_form}, sent {counted(count, 'time')}{first}"


def _instructed(calls: Sequence[RecordedCall], *, is_imported: bool) -> str:
    count = sum(any(said.sender in SYSTEM_ROLES for said in call.messages) for call in calls)
    if is_imported and not count:
        return NOT_KNOWN.format("system messages")
    return f"{count:,} of {counted(len(calls), 'call')} contain system messages."
