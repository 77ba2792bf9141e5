"""Closed questions: their orders, what is read as an answer, and the table that keeps both."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from itertools import permutations
from pathlib import Path
from string import ascii_uppercase
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcall
from llmcall.testing import ScriptedClient

pytest.importorskip("pandas")

OPTIONS = ["tax", "ban", "label", "nothing"]
TOWNS = [{"town": "Rye"}, {"town": "Ely"}, {"town": "Wells"}]


def first(messages: list[Any]) -> str:
    """Answer with what stands first."""
    return "A"


def question(
    options: Any = OPTIONS,
    *,
    client: Any = first,
    text: str = "What should {{ town }} do?",
    **params: Any,
) -> llmcall.types.Choice:
    """Return a question that a script answers."""
    if not isinstance(client, ScriptedClient):
        client = ScriptedClient(client)
    return llmcall.choice(text, options, client=client, **params)


def answered(answer: Any, **params: Any) -> Any:
    """Return the value of a question that gets one answer."""
    return question(client=[answer], **params)(town="Rye")


def orders(choice: llmcall.types.Choice, rows: Any = TOWNS, **map_options: Any) -> dict[Any, Any]:
    """Return the order that each town reads in each repeat."""
    with llmcall.scope("survey"):
        table = choice.table(rows, key="town", **map_options)
    return {(row.town, row.repeat): read_order(row) for row in table.itertuples()}


def read_order(row: Any) -> tuple[str, ...]:
    """Return the options of a table's row as they were read."""
    return tuple(json.loads(row.order))


def orders_in(path: str, options: list[str], order: str) -> list[Any]:
    """Return the orders of three repeats for one respondent, whose scope has a path."""
    choice = question(options, order=order)
    scope, _, name = f"survey/{path}".rpartition("/")
    with llmcall.scope(scope):
        table = choice.table([{"town": "Rye"}], key=lambda _: name, repeats=3)
    return [*map(read_order, table.itertuples())]


def hashed(*lines: object) -> int:
    """Return the number that decides an order, computed apart from the code under test."""
    text = "\n".join(map(str, ("choice", *lines)))
    return int(hashlib.sha256(text.encode("utf-8")).hexdigest(), 16)


# What is sent


def test_the_options_are_listed_once_under_letters() -> None:
    """The prompt has the question, each option on a line under its letter, and no second list."""
    client = ScriptedClient(first)
    question(client=client, system="You advise {{ town }}.")(town="Rye")
    [request] = client.requests
    assert request.messages == [
        {"role": "system", "content": "You advise Rye."},
        {
            "role": "user",
            "content": "What should Rye do?\n\nA. tax\nB. ban\nC. label\nD. nothing\n\n"
            "Answer with one letter only.",
        },
    ]
    assert "response_format" not in request.body


PAIR = {"left": "{{ left }}", "right": "{{ right.rent }} euros"}
FLATS = [{"left": f"flat {rent}", "right": {"rent": rent, "plan": rent}} for rent in (400, 500)]


def test_an_option_is_a_template_that_is_rendered_with_the_row() -> None:
    """A conjoint experiment: each row has profiles of its own, and the value is the option's code."""
    client = ScriptedClient(lambda messages: "B")
    table = question(PAIR, client=client, text="Which flat?").table(FLATS)
    prompts = [request.messages[-1]["content"] for request in client.requests]
    assert sorted(prompts) == [
        f"Which flat?\n\nA. flat {rent}\nB. {rent} euros\n\nAnswer with one letter only."
        for rent in (400, 500)
    ]
    assert table["value"].tolist() == ["right", "right"]
    assert table["order"].tolist() == ['["left", "right"]'] * 2


def test_an_option_without_a_code_returns_its_rendered_text() -> None:
    """Also when the answer is that text."""
    choice = question(["{{ town }}", "none"], client=lambda messages: "Rye")
    table = choice.table(TOWNS[:1])
    assert (table["value"].tolist(), table["order"].tolist()) == (["Rye"], ['["Rye", "none"]'])
    assert question(["{{ town }}", "none"])(town="Rye") == "Rye"


def test_a_variable_that_only_options_use_counts_for_the_items_name() -> None:
    """Another profile is another item; a column that nothing uses is not."""

    def samples(rows: list[Any]) -> list[str | None]:
        client = ScriptedClient(first)
        with llmcall.scope("survey"):
            question(PAIR, client=client, text="Which flat?").map(rows)
        return sorted(str(request.sample) for request in client.requests)

    dearer = [{**row, "right": {**row["right"], "rent": 900}} for row in FLATS]
    seen = [{**row, "seen": True, "right": {**row["right"], "plan": 7}} for row in FLATS]
    assert samples(seen) == samples(FLATS)
    assert not {*samples(dearer)} & {*samples(FLATS)}


def test_the_order_comes_of_the_options_before_they_are_rendered() -> None:
    """So all pairs of a respondent are read in the order that the digest of the templates gives."""
    choice = question(PAIR, order="reverse", text="{{ town }}: which flat?")
    rows = [{**town, **flat} for town in TOWNS for flat in FLATS]
    with llmcall.scope("survey"):
        table = choice.table(rows, key=lambda row: f"{row['town']} {row['left']}")
    for row in table.itertuples():
        turned = hashed(f"survey/{row.town} {row.left}", *PAIR.values()) % 2
        assert read_order(row) == (("right", "left") if turned else ("left", "right"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"left": "none"}, "'none' and 'none' differ at most in case"),
        ({"left": "None."}, "differ at most in case"),
        ({"left": " "}, "is empty"),
        ({"left": "two\nlines"}, "more than one line"),
        ({"left": "B."}, "reads like the letter B"),
        ({}, "'left' is missing"),
    ],
)
def test_an_option_that_cannot_be_asked_is_an_error_of_its_row(row: Any, reason: str) -> None:
    """It names the row's variables; the other rows' answers stay."""
    choice = question(["{{ left }}", "none"], text="Which?")
    rows = [{"left": "tax"}, {**row, "other": 1}, {"left": "ban"}]
    first_value, error, last_value = choice.map(rows, on_error="return")
    assert (first_value, last_value) == ("tax", "ban")
    assert isinstance(error, llmcall.errors.TemplateError)
    assert reason in str(error)
    assert not row or f"rendered with {row!r}" in str(error)


def test_single_braces_in_an_option_are_refused() -> None:
    """The model would read them."""
    with pytest.raises(llmcall.errors.TemplateError, match=r"<option 1>.*write \{\{ left \}\}"):
        question(["{left}", "none"]).map([{"left": "tax", "town": "Rye"}])


# What is read


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "b",
        " B ",
        "B.",
        "(B)",
        "[b]",
        '"B"',
        "B. ban",
        "b) since it works",
        "B: it works",
        "B - ban",
        "B – it works",
        "ban",
        "Ban.",
        "BAN!",
        "“Ban”",
        "B。",
        "「ban」",
        "**B**",
        "**B.** It works.",
        "**B. ban**",
        "**ban**",
        "__B__",
        "__B.__ ban",
        "__Option B__",
        "Option B",
        "**Option B:** ban",
        "Answer: B",
        "**Answer:** B",
        "Answer: **option b**",
        "Answer: ban",
        "(B) ban",
        "(B): it works",
        "B\nThe tax would be dear.",
        "**B**\n\nI think it works, e.g. in D.C.",
        "B.\r\nIt works.",
        "B. A ban is what I would choose.",
        "B. ban\n\nAnswer: B",
    ],
)
def test_a_letter_or_a_whole_text_is_read(answer: str) -> None:
    """An answer is a letter, alone, before a mark and anything else or on a line before its reasons,
    or an option's whole text.
    """
    assert answered(answer) == "ban"


@pytest.mark.parametrize(
    "answer",
    [
        "A or B",
        "A, B",
        "E. none",
        "I would ban it",
        "B ban",
        "A good idea",
        "A.I. should decide",
        "(A) is too dear",
        "(A) tax or (B) ban",
        "The answer is B",
        "Option B is best",
        "Not A.",
        "A.B",
        "A. or b.",
        "A: B",
        "A - or B",
        "B: A or C",
        "**A** or **B**",
        "Option A or option B",
        "Answer: A\nAnswer: B",
        "A\nB",
        "A\n\nor\n\nB",
        "A. ban",
        "A. tax or ban",
        "A\nban",
        "A. tax\nB. ban\nC. label",
        "tax or ban",
        "tax\nban",
    ],
)
def test_an_answer_that_is_neither_letter_nor_option_is_not_read(answer: str) -> None:
    """Two letters, a letter of no option, or an option within a sentence: a call raises, and so does
    a map.
    """
    with pytest.raises(llmcall.OutputError, match="it names none of the options") as caught:
        answered(answer)
    assert (caught.value.text, caught.value.expected) == (answer, "Answer with one letter only.")
    with pytest.raises(llmcall.OutputError):
        question(client=[answer]).map(TOWNS[:1])


@given(
    pair=st.permutations(range(len(OPTIONS))),
    forms=st.tuples(
        *[st.sampled_from(["{letter}", "{text}", "{letter}. {text}", "({letter})"])] * 2
    ),
    wraps=st.tuples(*[st.sampled_from(["{}", "**{}**", '"{}"', "Option {}", "Answer: {}"])] * 2),
    marks=st.tuples(*[st.sampled_from(["", ".", ")", ":", " -"])] * 2),
    between=st.sampled_from([" ", ", ", "/", " or ", " and ", "\n", "\n\n", "; ", " versus "]),
)
@settings(max_examples=6 * settings.default.max_examples)
def test_an_answer_that_names_two_options_is_never_read(
    pair: list[int], forms: Any, wraps: Any, marks: Any, between: str
) -> None:
    """However it writes each of them."""
    first, second = (
        wrap.format(form.format(letter=ascii_uppercase[index], text=OPTIONS[index])) + mark
        for index, form, wrap, mark in zip(pair[:2], forms, wraps, marks, strict=True)
    )
    with pytest.raises(llmcall.OutputError):
        answered(first + between + second)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_option_matches_in_its_composed_form(form: Any) -> None:
    """A questionnaire from a Mac may hold an e and an accent, where a model writes one character."""
    options = [normalize(form, "Café"), "park"]
    for written in ("NFC", "NFD"):
        answer = normalize(written, "“CAFÉ”.")  # type: ignore[arg-type]
        assert answered(answer, options=options) == options[0]


@pytest.mark.parametrize("dash", "‐‑‒–—−")
def test_an_option_matches_with_any_dash(dash: str) -> None:
    """Models write a hyphen that does not break, or the dash of a range."""
    assert answered(f"25{dash}34", options=["18-24", "25-34"]) == "25-34"
    assert answered("25-34", options=["18-24", f"25{dash}34"]) == f"25{dash}34"


def test_a_letter_means_the_option_that_stood_under_it() -> None:
    """The letter is read by the order that was sent, not by the order given."""
    choice = question(order="rotate")
    with llmcall.scope("survey"):
        table = choice.table(TOWNS, repeats=4)
    assert [read_order(row)[0] for row in table.itertuples()] == list(table["value"])
    assert set(table["value"]) == set(OPTIONS)


def test_options_of_a_dict_return_their_codes() -> None:
    """Of a dict of codes and texts the model reads the texts, and the call returns the code."""
    client = ScriptedClient(["b", "Strongly agree"])
    scale = question({1: "agree", 2: "strongly agree"}, client=client)
    assert [scale(town="Rye"), scale(town="Rye")] == [2, 2]
    assert "A. agree\nB. strongly agree" in client.requests[0].messages[0]["content"]


def test_reasoning_before_the_answer_is_left_out() -> None:
    """Reasoning that a server leaves in the text is no part of the answer."""
    assert answered("<think>A is dear. C?</think>\n\nB") == "ban"


# Missing values


def missing_in(row: Any) -> set[str]:
    """Return which of a row's columns about its answer are missing values."""
    import pandas

    return {
        name for name in ("value", "unread", "refusal", "error") if pandas.isna(getattr(row, name))
    }


def test_an_answer_that_names_no_option_is_a_missing_value_with_its_text() -> None:
    """It raises nothing, is not asked again, and stands in the table."""
    client = ScriptedClient(["It depends."])
    table = question(client=client).table(TOWNS[:1])
    [row] = table.itertuples()
    assert missing_in(row) == {"value", "refusal", "error"} and row.unread == "It depends."
    assert row.tries == len(client.requests) == 1
    assert len(read_order(row)) == 4


def test_a_refusal_is_a_missing_value_with_its_text() -> None:
    """A single call raises it; the table has its text."""
    refusal = {"role": "assistant", "content": None, "refusal": "I take no sides."}
    with pytest.raises(llmcall.OutputError, match="refused"):
        answered(refusal)
    [row] = question(client=[refusal]).table(TOWNS[:1]).itertuples()
    assert missing_in(row) == {"value", "unread", "error"} and row.refusal == "I take no sides."


def test_a_line_counts_the_missing_values_of_a_table(caplog: pytest.LogCaptureFixture) -> None:
    """Those that name no option, and refusals; calls that failed have an error."""
    refusal = {"role": "assistant", "content": None, "refusal": "I take no sides."}
    answers = ["It depends.", "A", refusal, llmcall.AuthenticationError("no"), "Both.", "B"]
    client = ScriptedClient(answers)
    question(client=client).table(TOWNS, repeats=2, workers=1, on_error="return")
    [line] = caplog.messages
    assert line == (
        "missing values: 3 of 6 answers, with the text in 'refusal' (1) and 'unread' (2). "
        "To request one again, drop it by cache_key: llmcall cassette forget FILE KEY, "
        "or llmcall cache delete KEY"
    )


def test_no_line_counts_a_table_without_missing_values(caplog: pytest.LogCaptureFixture) -> None:
    answers = ["It depends.", "B", "A", "A"]  # the first one is asked again
    question(client=answers, output_retries=1).table(TOWNS, workers=1)
    assert not caplog.messages


def test_output_retries_asks_a_choice_again() -> None:
    """With ``output_retries`` a misfit is asked again; the options are not listed a second time."""
    client = ScriptedClient(["It depends.", "B"])
    [row] = question(client=client, output_retries=1).table(TOWNS[:1]).itertuples()
    assert (row.value, row.unread, row.tries) == ("ban", "It depends.", 2)
    again = client.requests[1].messages[-1]["content"]
    assert not any(option in again for option in OPTIONS)


def test_a_failed_call_follows_on_error() -> None:
    """An API's failure is an error and no missing value."""
    failure = llmcall.AuthenticationError("no")
    with pytest.raises(llmcall.AuthenticationError):
        answered(failure)
    [row] = question(client=[failure]).table(TOWNS[:1], on_error="return").itertuples()
    assert row.error == "AuthenticationError: no"


# Orders


@pytest.mark.parametrize(
    ("order", "rye", "ely"),
    [
        ("given", ["tbln", "tbln"], ["tbln", "tbln"]),
        ("reverse", ["nlbt", "nlbt"], ["tbln", "tbln"]),
        ("rotate", ["ntbl", "tbln"], ["tbln", "blnt"]),
        ("shuffle", ["lnbt", "lnbt"], ["lbnt", "lbtn"]),
    ],
)
def test_the_orders_are_the_same_in_every_version(
    order: str, rye: list[str], ely: list[str]
) -> None:
    """Orders of each kind, from the digests that ``sha256sum`` gives; options are shown by their first
    letters.
    """
    found = orders(question(order=order), TOWNS[:2], repeats=2)
    letters = {item: "".join(option[0] for option in read) for item, read in found.items()}
    assert [letters["Rye", 0], letters["Rye", 1]] == rye
    assert [letters["Ely", 0], letters["Ely", 1]] == ely


@given(path=st.text(ascii_uppercase, min_size=1, max_size=8), count=st.integers(2, 6))
@settings(max_examples=25)
def test_the_digest_of_a_respondent_decides_its_orders(path: str, count: int) -> None:
    """``rotate`` begins with the option at the digest's number plus the repeat, modulo the options' number;
    ``reverse`` turns by its last bit, in all repeats; ``shuffle`` has the lexicographic permutation of the number of
    each repeat's digest, modulo their count.
    """
    options = [f"option {number}" for number in range(count)]
    known = list(permutations(options))
    digest = hashed(f"survey/{path}", *options)
    for repeat, read in enumerate(orders_in(path, options, "rotate")):
        start = (digest + repeat) % count
        assert list(read) == options[start:] + options[:start]
    turned = options[::-1] if digest % 2 else options
    assert [list(read) for read in orders_in(path, options, "reverse")] == [turned] * 3
    for repeat, read in enumerate(orders_in(path, options, "shuffle")):
        assert read == known[hashed(f"survey/{path}", *options, repeat) % len(known)]


@pytest.mark.parametrize("order", ["reverse", "shuffle", "rotate"])
def test_options_of_last_stay_at_the_end(order: str) -> None:
    """Options of ``last`` stay at the end in their given order, and do not count as moving."""
    options = ["none", "tax", "ban", "unsure"]
    moving = orders(question(["tax", "ban"], order=order), repeats=3)
    read = orders(question(options, order=order, last=["unsure", "none"]), repeats=3)
    assert read == {item: (*order, "none", "unsure") for item, order in moving.items()}


@pytest.mark.newest_only
@given(
    rows=st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1),
    added=st.lists(st.sampled_from("ijklmnop"), unique=True),
    order=st.sampled_from(["reverse", "shuffle", "rotate"]),
    mixing=st.randoms(use_true_random=False),
    is_scoped=st.booleans(),
)
@settings(max_examples=12)
def test_added_and_sorted_rows_move_no_order(
    rows: list[str], added: list[str], order: str, mixing: Any, is_scoped: bool
) -> None:
    """A respondent's orders are the same whatever other rows there are, and wherever they stand."""
    choice = question(order=order)
    mixed = [*rows, *added]
    mixing.shuffle(mixed)
    with llmcall.scope("survey" if is_scoped else None):
        before = choice.table([{"town": name} for name in rows], repeats=2)
        after = choice.table([{"town": name, "new": 1} for name in mixed], repeats=3)
    read = {(row.town, row.repeat): row.order for row in after.itertuples()}
    assert all(read[row.town, row.repeat] == row.order for row in before.itertuples())


def test_another_framing_or_model_changes_nobodys_order() -> None:
    """The options keep their places."""
    other = question(text="Dear {{ town }}, what now?", order="shuffle", model="gpt-4o")
    assert orders(other, repeats=3) == orders(question(order="shuffle"), repeats=3)


def test_an_arm_changes_nobodys_order() -> None:
    """The treated read what the others read."""
    with llmcall.scope("survey"), llmcall.arm("treated"):
        table = question(order="shuffle").table(TOWNS, key="town", repeats=3)
    in_arm = {(row.town, row.repeat): read_order(row) for row in table.itertuples()}
    assert in_arm == orders(question(order="shuffle"), repeats=3)


def test_outside_a_scope_the_order_depends_on_the_item() -> None:
    """Outside any scope the item's name stands for the path."""
    table = question(order="rotate").table(TOWNS, repeats=2)
    for row in table.itertuples():
        text = f'{{"town":"{row.town}"}}'
        name = f"~{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        start = (hashed(name, *OPTIONS) + row.repeat) % 4
        assert read_order(row) == (*OPTIONS[start:], *OPTIONS[:start])


@pytest.mark.feature("plans")
@pytest.mark.parametrize("scope", ["survey", None])
def test_a_plan_counts_the_orders(scope: str | None, tmp_path: Path) -> None:
    """A dry run looks up the very requests: what is recorded is a hit, another order a miss."""
    client = ScriptedClient(first, cache_mode="auto", cache_path=tmp_path)
    choice = question(client=client, order="rotate")
    with llmcall.scope(scope):
        choice.table(TOWNS, repeats=2)
    with llmcall.scope(scope):
        plan = choice.map(TOWNS, repeats=4, dry_run=True)
    assert (plan.hits, plan.misses) == (6, 6)


# The table


def test_a_table_has_the_chosen_options_place_and_the_order_that_was_read() -> None:
    """The place is counted from 1. A database takes the table as it is."""
    with llmcall.scope("survey"):
        table = question(client=lambda _: "C", order="shuffle").table(TOWNS, repeats=2)
    assert list(table.columns[:5]) == ["town", "repeat", "value", "position", "order"]
    assert set(table["position"]) == {3}
    assert [read_order(row)[row.position - 1] for row in table.itertuples()] == list(table["value"])
    with closing(sqlite3.connect(":memory:")) as database:
        assert table.to_sql("answers", database) == 6


# Bad input


@pytest.mark.parametrize(
    ("options", "params", "words"),
    [
        (["tax"], {}, "a question needs 2 to 26 options, not 1"),
        ([], {}, "a question needs 2 to 26 options, not 0"),
        (
            [f"option {number}" for number in range(27)],
            {},
            "a question needs 2 to 26 options, not 27",
        ),
        (["tax", "ban", "tax"], {}, "'tax' and 'tax' differ at most in case"),
        (["tax", "Tax."], {}, "'tax' and 'Tax.' differ at most in case"),
        ([normalize("NFC", "Café"), normalize("NFD", "Café")], {}, "cannot tell them apart"),
        (["tax", " "], {}, "' ' is empty"),
        (["tax", "ban\nall"], {}, "more than one line"),
        (["tax", "ban"], {"last": ["none"]}, "not in tuple"),
        (["tax", "ban"], {"order": "random"}, "order is 'random'"),
        (["B", "A"], {}, "'B' reads like the letter B"),
        (["A", "B"], {"order": "shuffle"}, "'A' reads like the letter A"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(
    options: Any, params: dict[str, Any], words: str
) -> None:
    """The error names what is wrong."""
    with pytest.raises(ValueError, match=re.escape(words)):
        llmcall.choice("What?", options, **params)


def test_a_set_of_options_is_refused() -> None:
    """It has another order in each process."""
    with pytest.raises(
        TypeError, match="it must be a list of strings, or a dict from code to text"
    ):
        llmcall.choice("Which?", {"tax", "ban"})


def test_framings_of_a_choice_share_its_order() -> None:
    """Each respondent reads the options in one order, whatever varies."""
    client = ScriptedClient(lambda messages: "A", cache_mode="auto")
    policy = llmcall.choice("{{ name }}?", ["tax", "ban", "wait"], order="shuffle", client=client)
    vary = {"user": {"plain": "{{ name }}?", "formal": "Dear {{ name }}?"}}
    table = policy.table(
        [{"name": str(number)} for number in range(4)], vary=vary, scope="s", key="name"
    )
    assert table["order"].tolist()[:4] == table["order"].tolist()[4:]
    assert len({*table["order"]}) > 1


@pytest.mark.parametrize(("text", "option"), [("{{ wage }}?", "tea"), ("What?", "{{ wage }}")])
def test_a_missing_cell_is_refused_before_anything_is_asked(text: str, option: str) -> None:
    """Whether the question or an option needs it."""
    pandas = pytest.importorskip("pandas")
    client = ScriptedClient([])
    question = llmcall.choice(text, ["milk", option], client=client)
    with pytest.raises(llmcall.TemplateError, match="'wage' holds nothing in row"):
        question.table(pandas.DataFrame({"wage": [1.0, float("nan")]}))
    assert not client.requests


def test_what_is_no_list_of_rows_is_refused() -> None:
    """As of any call."""
    question = llmcall.choice("{{ name }}?", ["tea", "milk"], client=ScriptedClient([]))
    with pytest.raises(TypeError):
        question.table({"name": "Ann"})
    with pytest.raises(TypeError, match="system is 3; it must be a string or None"):
        llmcall.choice("Which?", ["a", "b"], system=3)  # type: ignore[arg-type]
