"""llmcall report: one page of a run, or of two, that loads nothing, runs no text, and is used in a
browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from commands import done
from files import HOSTILE, chat, conversation, embedding, function, write_cassette
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcall
from llmcall.testing import ScriptedClient
from llmcall.types import Record

pytestmark = pytest.mark.newest_only


def play(
    path: str,
    say: Any,
    *,
    actors: int = 3,
    rounds: int = 4,
    word: str = "thrifty",
    system: str = "",
) -> str:
    """Write down some rounds of conversations whose histories grow."""
    records: list[Record] = []
    for actor in range(actors):
        turns = [
            (f"Round {n}: does bread for {n} coins please?", say(actor, n)) for n in range(rounds)
        ]
        records += conversation(
            f"actor-{actor}#0", turns, system or f"You are actor {actor}, a {word} buyer."
        )
    return str(write_cassette(path, records))


def agreed(actor: int, number: int) -> str:
    """Answer as JSON, the same in every run."""
    return json.dumps({"buy": number < 2, "says": f"Actor {actor} says {number}"})


def report(*arguments: str) -> str:
    """Return the page that the command writes."""
    done("report", *arguments, "-o", "page.html")
    return Path("page.html").read_text(encoding="utf-8")


def data_of(html: str) -> dict[str, Any]:
    """Return the data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture
def page() -> str:
    """The page of a run of three actors and four rounds."""
    return report(play("a.jsonl", agreed))


# The file


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["a.jsonl"], "a.html"),
        (["a.jsonl", "--scope", "actor-*"], "actor.html"),
        (["a.jsonl", "--against", "b.jsonl"], "a-b.html"),
    ],
)
def test_a_page_has_the_name_of_its_run(arguments: list[str], name: str) -> None:
    play("a.jsonl", agreed)
    play("b.jsonl", agreed)
    for _ in range(2):  # a page takes the place of an earlier one
        assert done("report", *arguments) == f"written to {name}\n"
    assert Path(name).exists()


@pytest.mark.parametrize("taken", ["a.jsonl", "./b.jsonl", "other.html"])
def test_a_page_replaces_nothing_but_a_page(taken: str) -> None:
    """Neither the run, nor the other one, nor the page of another program."""
    Path("other.html").write_text("<!DOCTYPE html><title>notebook</title>", encoding="utf-8")
    play("a.jsonl", agreed)
    play("b.jsonl", agreed)
    before = Path(taken).read_bytes()
    printed = done("report", "a.jsonl", "--against", "b.jsonl", "-o", taken, code=1)
    assert "exists, and llmcall did not write it" in printed
    assert Path(taken).read_bytes() == before


def test_nothing_writes_over_a_device_or_a_pipe() -> None:
    """Reading a pipe would wait for its writer."""
    play("a.jsonl", agreed)
    os.mkfifo("pipe.jsonl")
    for path in (os.devnull, "pipe.jsonl"):
        commands: list[tuple[str, ...]] = [
            ("report", "a.jsonl", "-o", path),
            ("cassette", "merge", "a.jsonl", "a.jsonl", "-o", path),
            ("run", "--cassette", path, "-m", "this"),
        ]
        for command in commands:
            assert "is not a regular file" in done(*command, code=1), command
        with pytest.raises(llmcall.CacheError, match="not a regular file"):
            llmcall.cassette(path).open()


def test_a_run_that_cannot_be_read_makes_no_report() -> None:
    """The message names the line, or the place in which nothing is recorded."""
    Path("broken.jsonl").write_text("{broken", encoding="utf-8")
    assert "broken.jsonl:1" in done("report", "broken.jsonl", code=1)
    assert "nothing is recorded in" in done("report", ".", "-o", "page.html", code=1)
    assert not list(Path().glob("*.html"))


def test_a_credential_in_a_report_is_warned_of() -> None:
    """A cache may hold one, though a cassette may not."""
    client = ScriptedClient(["Yes.", "No."], cache_mode="auto")
    with llmcall.scope("safe"):
        client.send_message("Bread?")
    with llmcall.scope("unsafe"):
        client.send_message("My key is sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vW7" + ".")
    for scope in ("safe", "unsafe"):
        printed = done("report", ".llmcall/cache", "--scope", scope, "-o", "page.html")
        assert ("looks like an OpenAI API key (sk-p…)" in printed) == (scope == "unsafe")


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_html_in_prompts_answers_and_scopes_is_escaped(text: str) -> None:
    """No prompt, answer or scope makes an element, and none hides anything."""
    hostile = text + HOSTILE
    for path, prompt in (("a.jsonl", hostile), ("b.jsonl", f"{hostile} <img>")):
        client = ScriptedClient([hostile], model="<img>")
        with llmcall.cassette(path, mode="rewrite"), llmcall.scope(re.sub("[/#]", "", hostile)):
            client.send_message(prompt, on_error="raise")
    html = report("a.jsonl", "--against", "b.jsonl")
    assert (html.count("<script"), html.count("</script>")) == (2, 2)
    for forbidden in ("<img", "<!--", "\u202e", "\x1b", "\u200b"):
        assert forbidden not in html
    assert any(text.endswith("{{ 7*7 }}") for text in data_of(html)["texts"])


def test_a_page_names_no_address_to_load_from(page: str) -> None:
    """Its only link is to itself, and no script runs a text."""
    assert not re.search(
        r"\b(src|action|style|on\w+)=|url\(|@import|https?:|innerHTML|eval\(", page
    )
    assert re.findall(r'href="(.*?)"', page) == ["#calls"]


def test_the_policy_of_a_page_allows_its_own_style_and_script_alone(page: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;;")
    for name in ("style", "script"):
        *_, text = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src &#39;sha256-{digest}" in policy[1]


# What it says


def facts_of(html: str) -> dict[str, str]:
    """Return what is said of the run, by label."""
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td dir="auto">(.*?)</td>', html)
    return dict(rows) | dict(re.findall(r'"label">(.*?)</span> (.*?)</span>', html))


def test_a_page_summarizes_name_calls_actors_models_and_cost(page: str) -> None:
    """Its name, calls, actors, model and cost; of failures nothing, if there are none."""
    facts = facts_of(page)
    assert (facts["calls"], facts["actors"]) == ("12", "3")
    assert (facts["model"], facts["cost"]) == ("m", "$0.0002")
    assert "failures" not in facts
    assert '<h1 dir="auto">a.jsonl</h1>' in page


def test_a_page_holds_each_text_once(page: str) -> None:
    texts = data_of(page)["texts"]
    assert "You are actor 1, a thrifty buyer." in texts
    assert len(texts) == len(set(texts))


def test_a_page_says_what_failed_and_what_is_unknown() -> None:
    """It has the number of cut answers, and says that the recording broke off and that no price is
    known.
    """
    with pytest.raises(ZeroDivisionError), llmcall.cassette("a.jsonl"), llmcall.scope("lisa"):
        client = ScriptedClient(["Yes", "No"])
        client.send_message("Bread?", on_error="raise")
        client.send_message("Cheese?", on_error="raise")
        raise ZeroDivisionError
    text = Path("a.jsonl").read_text(encoding="utf-8")
    cut = text.replace('"finish_reason": "stop"', '"finish_reason": "length"', 1)
    Path("a.jsonl").write_text(cut, encoding="utf-8")
    facts = facts_of(report("a.jsonl"))
    assert facts["failures"] == "1 answer cut; the recording was interrupted"
    assert facts["cost"] == "not recorded"


@pytest.fixture
def page_of_two_runs() -> str:
    """The page of two runs, in which an actor's third answer differs."""
    one = play("a.jsonl", agreed)
    other = play(
        "b.jsonl",
        lambda actor, number: "No." if (actor, number) == (1, 2) else agreed(actor, number),
    )
    return report(one, "--against", other)


def test_a_page_of_two_runs_says_where_they_part(page_of_two_runs: str) -> None:
    """The call and the cause, and which calls differ; each call has its counterpart."""
    data = data_of(page_of_two_runs)
    assert list(data["divergences"]) == ["6"]
    assert data["divergences"]["6"].startswith("the same request has different answers: ")
    assert "actor-1, call 3" in page_of_two_runs
    assert data["cells"]["status"].count("changed") == 2
    assert len(data["calls"]["node"]) == 24
    assert min(data["cells"]["other"]) >= 0


def test_a_sample_has_actors_taken_evenly() -> None:
    """As many of them as make up the number of calls; the page says so, its sums are of the whole run."""
    run = play("a.jsonl", agreed, actors=10, rounds=2)
    html = report(run, "--sample", "6")
    assert data_of(html)["scopes"] == ["actor-0", "actor-3", "actor-6"]
    assert "A sample: 6 of 20 calls, from 3 of 10 actors" in html
    assert facts_of(html)["calls"] == "20"
    assert len(data_of(report(run, "--sample", "1"))["calls"]["node"]) == 1
    assert "A sample" not in report(run, "--sample", "100")


def test_a_scope_of_the_cache_makes_a_page() -> None:
    """Its recorded functions do no harm."""
    client = ScriptedClient(lambda messages: "Yes", cache_mode="auto")
    with llmcall.scope("rep-1"), llmcall.scope("lisa"):
        client.send_message("Bread?", temperature=1, on_error="raise")
        llmcall.recorded(name="price_of")(lambda: 3)()
    assert data_of(report(".llmcall/cache", "--scope", "rep-1"))["scopes"] == ["rep-1/lisa"]


# Surveys


def of_form(record: Record, name: str, /, **variables: str) -> Record:
    """Return a record that names the template that asked."""
    return record.replace(notes={"form": {"name": name, "digest": name, "variables": variables}})


def unread(record: Record) -> Record:
    """Return a record whose template could not read its answer."""
    return record.replace(notes={**record.notes, "unread": True})


def survey(path: str, *, people: int = 24, question: str = "Bus?") -> str:
    """Write down a survey: two draws for each person, of which some are cut, refused or asked
    again.
    """
    records: list[Record] = []
    for number in range(people):
        person = {"name": f"Person {number}", "trade": ("baker", "smith")[number % 2]}
        asked: list[Any] = [{"role": "user", "content": f"You are {person['name']}. {question}"}]
        for repeat in range(2):
            scope = f"village/~{number:016x}" + (f"/~{repeat}" if repeat else "")
            answer: Any = json.dumps({"bus": "no" if number % 2 else "yes", "sure": repeat + 1})
            if (number, repeat) == (5, 0):
                answer = {"role": "assistant", "content": None, "refusal": "I cannot say."}
            messages = asked
            if (number, repeat) == (3, 0):
                misfit = of_form(chat(asked, "Never!", f"{scope}#0"), question, **person)
                records.append(unread(misfit))
                again = {"role": "user", "content": "I cannot use that answer: it is no JSON."}
                messages = [*asked, {"role": "assistant", "content": "Never!"}, again]
            record = of_form(chat(messages, answer, f"{scope}#0"), question, **person)
            if (number, repeat) == (7, 1):
                record.response["choices"][0]["finish_reason"] = "length"
            records.append(record)
    return str(write_cassette(path, records))


def distributions(html: str) -> dict[str, list[tuple[str, ...]]]:
    """Return the distributions on a page: by question, each value and its counts."""
    tables = re.findall(r'<caption dir="auto">([^<]*).*?</caption>(.*?)</table>', html, re.DOTALL)
    return {
        unescape(name): [
            (unescape(value), *re.findall(r'"number">(.*?)<', rest))
            for value, rest in re.findall(r'auto">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
        ]
        for name, table in tables
    }


def test_a_survey_has_the_distribution_of_its_answers_by_question() -> None:
    """Of each field of the answers' JSON. Refusals are counted too; an answer that was asked again is
    not. A person's repeats are no other actors.
    """
    html = report(survey("a.jsonl"))
    assert distributions(html) == {
        "Bus? bus": [("yes", "24"), ("no", "23"), ("(refused)", "1")],
        "Bus? sure": [("1", "23"), ("2", "24"), ("(refused)", "1")],
    }
    assert facts_of(html)["actors"] == "24 (48 with repeats)"


def test_a_respondent_has_the_words_of_its_row() -> None:
    """The item of a map has a digest for a name."""
    assert data_of(report(survey("a.jsonl")))["rows"][:2] == [
        "village/Person 0, baker",
        "village/Person 1, smith",
    ]
    assert "=== village/~0000000000000001  (Person 1, smith)\n" in done("show", "a.jsonl")
    survey("b.jsonl", question="Tram?")
    lines = done("diff", "a.jsonl", "b.jsonl").splitlines()
    assert "(Person 0, baker; Person 1, smith; Person 2, baker; " in lines[1]
    rows = done("diff", "a.jsonl", "b.jsonl", "--markdown").splitlines()
    assert rows[8].startswith("| `Person 0, baker` | 1 | changed |")


def test_a_page_of_two_runs_counts_their_answers_side_by_side() -> None:
    """Each question in a column for each run; one in other words is another question."""
    survey("a.jsonl"), survey("b.jsonl", question="Tram?"), survey("c.jsonl", people=8)
    found = distributions(report("a.jsonl", "--against", "c.jsonl"))
    assert found["Bus? bus"][1:] == [("yes", "24", "8"), ("no", "23", "7"), ("(refused)", *"11")]
    other = distributions(report("a.jsonl", "--against", "b.jsonl"))
    assert {*other} == {"Bus? bus", "Bus? sure", "Tram? bus", "Tram? sure"}


def test_the_questions_of_a_survey_are_the_templates_and_functions_that_asked() -> None:
    """The answers to all their wordings, in all repeats; a call of no template is no question."""
    with llmcall.cassette("a.jsonl"):
        client = ScriptedClient(lambda messages: "x" if "A" in messages[-1]["content"] else "y")
        rows = [{"n": n, "of": "town" if n % 2 else "village"} for n in range(20)]
        asked = llmcall.LLMCall(user="A, number {{ n }}?", client=client)
        asked.map(rows, scope="s")

        @llmcall.llm(client=client)
        def second(of: str) -> str:
            """{{ of }}: B?"""
            raise NotImplementedError

        second.map(rows, scope="s", repeats=2)
        client.send_message("B?")
    found = distributions(report("a.jsonl"))
    assert found.pop("second, by of")[1:] == [("y", "20", "20")]
    assert found == {"A, number {{ n }}?": [("x", "20")], "second": [("y", "40")]}


def test_embeddings_and_recorded_functions_are_no_answers_to_a_survey() -> None:
    """Embeddings have no scope, and so no actor; half of the persons look at the clock first."""
    records = [embedding(f"Text {n}", [1.0]) for n in range(30)]
    records.append(function("begin", {}, "noon", None))
    for n in range(20):
        records += [function("clock", {"n": n}, "noon", f"p-{n}#0")] if n % 2 else []
        records.append(of_form(chat("A?", "x", f"p-{n}#0"), "A?"))
    html = report(str(write_cassette("a.jsonl", records)))
    assert distributions(html) == {"A?": [("x", "20")]}
    assert facts_of(html)["actors"] == "20"
    assert facts_of(html)["calls"] == "61 (30 embedding, 20 chat, 11 function)"
    assert "Tokens in: 400, and 30 not recorded." in html


def test_the_letters_of_a_closed_question_are_shown_as_its_options() -> None:
    """In another order, the same letter is another option. An answer of one token is none that is cut."""
    records = []
    for number in range(24):
        first, second = ("tax", "ban") if number % 2 else ("ban", "tax")
        asked = f"Town {number}?\n\nA. {first}\nB. {second}\n\nAnswer with one letter only."
        answer = "B." if number % 2 else "a"
        record = chat(asked, answer, f"survey/{number}#0", finish_reason="length")
        records.append(of_form(record, "Town?"))
    assert distributions(report(str(write_cassette("a.jsonl", records)))) == {
        "Town?": [("ban", "24")]
    }


def test_a_page_says_which_answers_were_cut_refused_and_asked_again() -> None:
    html = report(survey("a.jsonl"))
    assert "1 answer refused; 1 answer cut; 1 answer asked again" in html
    marks = data_of(html)["calls"]["marks"]
    assert sorted(mark for call_marks in marks for mark in call_marks) == [
        "asked again",
        "cut",
        "refused",
    ]


@pytest.mark.ci
def test_a_page_shows_at_most_10_000_calls_unless_it_is_told() -> None:
    """It says so; its sums are of the whole run."""
    run = play("a.jsonl", agreed, actors=10_001, rounds=1)
    html = report(run)
    assert len(data_of(html)["cells"]["call"]) == 10_000
    assert "A sample: 10,000 of 10,001 calls, from 10,000 of 10,001 actors" in html
    html = report(run, "--sample", "11000")
    assert len(data_of(html)["cells"]["call"]) == 10_001
    assert facts_of(html)["calls"] == "10,001"


# In a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium; without one the tests of this part are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium in PATH: apt install chromium")
    with (
        playwright.sync_playwright() as driver,
        driver.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser,
    ):
        yield browser


Open = Callable[..., Any]


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Open the page in a window of some width, and return its tab when its calls are there.

    The browser must have complained of nothing when a test ends, and the page have asked for
    nothing besides itself.
    """
    address = Path("page.html").resolve().as_uri()
    complaints: list[str] = []
    tab = chromium.new_page()
    tab.on(
        "request", lambda request: complaints.extend({request.url.partition("#")[0]} - {address})
    )
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))

    def opened(width: int = 1400) -> Any:
        tab.set_viewport_size({"width": width, "height": 900})
        tab.goto(address)
        tab.locator("#rows [data-cell]").first.wait_for()
        return tab

    yield opened
    tab.close()
    assert not complaints


def press(tab: Any, *keys: str) -> None:
    """Press keys one after the other."""
    for key in keys:
        tab.keyboard.press(key)


def focused(tab: Any, name: str) -> Any:
    """Return a property of the element that has the focus."""
    return tab.evaluate(f"document.activeElement.{name}")


def search(tab: Any, query: str, found: str) -> None:
    """Search, and wait until so many calls are found."""
    tab.locator("#search").fill(query)
    tab.locator("#found", has_text=found).wait_for()


@pytest.fixture
def tab(page: str, open_page: Open) -> Any:
    """The tab in which the page of one run is open."""
    return open_page()


@pytest.mark.ci
def test_a_survey_shows_what_its_rows_say_as_columns(open_page: Open) -> None:
    """The variables in which rows differ; one of few values counts the answers, too."""
    client = ScriptedClient(lambda messages: "yes" if "town" in messages[-1]["content"] else "no")
    ask = llmcall.LLMCall(user="{{ age }}, {{ home }}, {{ land }}: Bread?", client=client)
    rows = [
        {"age": age, "home": "town" if age < 40 else "village", "land": "Ely"}
        for age in range(30, 50)
    ]
    with llmcall.cassette("a.jsonl"):
        ask.map(rows, scope="s", key="age")
    html = report("a.jsonl")
    crossed = re.search(r"by home</caption>(.*?)</table>", html, re.DOTALL)
    assert crossed and re.findall(r'(?:auto|number)">(\w+)<', crossed[1]) == [
        *("town", "village"),
        *("yes", "10", "0"),
        *("no", "0", "10"),
    ]
    assert "by age" not in html and "by land" not in html
    tab = open_page()
    assert tab.locator("#head .field").all_inner_texts() == ["home"]
    assert tab.locator(".row .field").all_inner_texts()[0] == "town"
    assert open_page(500).locator(".field").count() == 0


def rumour(path: str, word: str, people: int = 4) -> str:
    """Write down how a rumour goes from each person to the next."""
    heard, records = f"You are {word}.", []
    for person in range(people):
        said = f"Number {person} heard that it is {word * 2}."
        records.append(chat(f"You hear: {heard}", said, f"person-{person:03}#0"))
        heard = said
    return str(write_cassette(path, records))


@pytest.mark.ci
def test_a_chosen_call_has_lines_to_those_that_may_have_followed_from_it(open_page: Open) -> None:
    """By click and by key; a call that led to nothing has none, nor one that led to hundreds."""
    report(rumour("a.jsonl", "rye"), "--against", rumour("b.jsonl", "oat"))
    tab = open_page()
    lines = tab.locator("#lines path")
    assert lines.count() == 0
    tab.locator("[data-cell='0']").click()
    assert lines.count() == 3
    assert tab.locator("#status").inner_text().endswith("3 calls may have followed from it")
    assert [words[0] for words in tab.locator(".words").all_inner_texts()] == ["◆", "◇", "◇", "◇"]
    press(tab, "Escape", "ArrowDown", "ArrowDown", "ArrowDown")
    assert lines.count() == 0
    press(tab, "ArrowUp", "ArrowUp", "ArrowUp")
    assert lines.count() == 3
    search(tab, "scope:person-000", "1 call of 4")
    assert lines.count() == 0
    report(rumour("a.jsonl", "rye", 400), "--against", rumour("b.jsonl", "oat", 400))
    tab.reload()
    tab.locator("[data-cell='0']").click()
    assert tab.locator("#status").inner_text().endswith("399 calls may have followed from it")
    assert lines.count() == 0


@pytest.mark.ci
def test_the_keyboard_opens_and_leaves_a_call(tab: Any) -> None:
    """The first key offers to skip to the calls, arrows go through the grid, Enter opens a call, whose
    title has the focus; Escape goes back.
    """
    press(tab, "Tab")
    assert focused(tab, "textContent") == "Skip to the calls"
    tab.locator("[data-cell='0']").focus()
    press(tab, "ArrowDown", "ArrowRight", "ArrowRight", "Enter")
    assert tab.locator("#title").text_content() == "actor-1 · call 3"
    assert focused(tab, "id") == "title"
    assert tab.locator("#conversation summary").first.text_content() == "5 earlier messages"
    tab.locator("#conversation summary").first.click()
    messages = tab.locator("article .message")
    assert messages.count() == 7
    assert "a thrifty buyer" in messages.first.inner_text()
    assert '\n  "buy": false,' in messages.last.inner_text()
    tab.locator("#next").click()
    assert tab.locator("#title").text_content() == "actor-1 · call 4"
    press(tab, "Escape")
    assert tab.locator("#conversation").is_hidden()
    assert focused(tab, "dataset.cell") == "7"


@pytest.mark.ci
def test_words_phrases_and_scopes_are_found(tab: Any) -> None:
    """In what a call was first to say: histories that repeat it are not found. Slash goes to the
    search, Enter opens the first call that is found, with the words marked, Escape shows all again.
    """
    for query, found in (
        ("coins SAYS", "12 calls of 12"),
        ('"for 3 coins" scope:actor-2', "1 call of 12"),
        ('"coins for"', "0 calls of 12"),
        ("thrifty", "3 calls of 12"),
    ):
        search(tab, query, found)
    tab.locator("#search").blur()
    press(tab, "/")
    search(tab, "for 3 scope:actor-1", "1 call of 12")
    press(tab, "Enter")
    assert tab.locator("#title").text_content() == "actor-1 · call 4"
    assert tab.locator("article mark").first.text_content() == "for"
    tab.locator("#search").focus()
    press(tab, "Escape")
    tab.locator("[data-cell]").nth(11).wait_for()


@pytest.mark.ci
def test_changed_words_are_marked_in_the_texts(open_page: Open) -> None:
    """Side by side, the words of each text that the other lacks are marked."""
    one = play("a.jsonl", lambda actor, number: "I buy two loaves.")
    other = play("b.jsonl", lambda actor, number: "I buy five loaves.", word="generous")
    report(one, "--against", other)
    tab = open_page()
    tab.locator("[data-cell='0']").click()
    assert tab.locator("article del").all_text_contents() == ["thrifty", "two"]
    assert tab.locator("article ins").all_text_contents() == ["generous", "five"]


@pytest.mark.ci
def test_html_in_prompts_and_answers_is_not_run_by_a_browser(open_page: Open) -> None:
    """A real browser runs none of the texts, whatever is opened and searched."""
    report(play("a.jsonl", lambda actor, number: f"{HOSTILE} {number}", system=HOSTILE))
    tab = open_page()
    search(tab, "<img", "12 calls")
    tab.locator("[data-cell]").nth(1).click()
    tab.locator("summary").first.click()
    assert "<img src=x onerror=alert(2)>" in tab.locator("article").inner_text()
    assert tab.locator("img").count() == 0
