"""llmcall report: one page of a run, or of two, that loads nothing, runs no text, and is used in a
browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import done
from conversations import HOSTILE, chat, conversation, written
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
    return str(written(path, records))


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


@pytest.mark.parametrize("taken", ["a.jsonl", "./b.jsonl"])
def test_a_page_replaces_no_run_that_it_shows(taken: str) -> None:
    """Neither the run nor the other one."""
    play("a.jsonl", agreed)
    play("b.jsonl", agreed)
    before = Path(taken).read_bytes()
    told = done("report", "a.jsonl", "--against", "b.jsonl", "-o", taken, code=2)
    assert "would replace the run in" in told
    assert Path(taken).read_bytes() == before


def test_a_credential_in_a_page_is_told() -> None:
    """A cache may hold one, though a cassette may not."""
    client = ScriptedClient(["Yes.", "No."], cache_mode="auto")
    with llmcall.scope("safe"):
        client.send_message("Bread?")
    with llmcall.scope("unsafe"):
        client.send_message("My key is sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vW7" + ".")
    for scope in ("safe", "unsafe"):
        told = done("report", ".llmcall/cache", "--scope", scope, "-o", "page.html")
        assert ("looks like an OpenAI API key (sk-p…)" in told) == (scope == "unsafe")


def test_a_page_says_what_the_run_is(page: str) -> None:
    """Its name, calls, actors, model and cost."""
    facts = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td dir="auto">(.*?)</td>', page))
    assert (facts["calls"], facts["actors"]) == ("12", "3")
    assert (facts["model"], facts["cost"]) == ("m", "$0.0002")
    assert '<h1 dir="auto">a.jsonl</h1>' in page


def test_a_page_holds_each_text_once(page: str) -> None:
    """However often the histories repeat it."""
    assert page.count("You are actor 1, a thrifty buyer.") == 1
    texts = data_of(page)["texts"]
    assert len(texts) == len(set(texts))


def test_a_page_of_one_run_holds_its_actors_and_calls(page: str) -> None:
    """It parts nowhere."""
    data = data_of(page)
    assert data["actors"] == ["actor-0", "actor-1", "actor-2"]
    assert len(data["calls"]["node"]) == 12
    assert not data["parted"]


@pytest.fixture
def failed_run() -> str:
    """The page of a recording that broke off, with an answer that was cut."""
    with pytest.raises(ZeroDivisionError), llmcall.cassette("a.jsonl"), llmcall.scope("lisa"):
        client = ScriptedClient(["Yes", "No"])
        client.send_message("Bread?", on_error="raise")
        client.send_message("Cheese?", on_error="raise")
        raise ZeroDivisionError
    text = Path("a.jsonl").read_text(encoding="utf-8")
    Path("a.jsonl").write_text(
        text.replace('"finish_reason": "stop"', '"finish_reason": "length"', 1), encoding="utf-8"
    )
    return report("a.jsonl")


def test_a_page_says_what_failed(failed_run: str) -> None:
    """How many answers were cut, and that the recording broke off."""
    said = '<td dir="auto">1 answer ended by length; the recording broke off</td>'
    assert said in failed_run


def test_a_page_says_that_a_cost_is_unknown(failed_run: str) -> None:
    """No price is known of a scripted answer."""
    assert '<td dir="auto">unknown</td>' in failed_run


def test_a_page_of_a_run_without_failures_does_not_speak_of_them(page: str) -> None:
    """There is no row of failures."""
    assert "failures" not in page


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
    """The call and the cause, and which calls differ."""
    data = data_of(page_of_two_runs)
    assert list(data["parted"]) == ["6"]
    assert data["parted"]["6"][0] == "the same request has different answers"
    assert "actor-1, call 3" in page_of_two_runs
    assert data["cells"]["status"].count("changed") == 2


def test_a_page_of_two_runs_holds_the_calls_of_both(page_of_two_runs: str) -> None:
    """Each call has its counterpart."""
    data = data_of(page_of_two_runs)
    assert len(data["calls"]["node"]) == 24
    assert min(data["cells"]["other"]) >= 0


@pytest.fixture
def twenty_calls() -> str:
    """A cassette of ten actors with two calls each."""
    return play("a.jsonl", agreed, actors=10, rounds=2)


def test_a_sample_has_actors_taken_evenly(twenty_calls: str) -> None:
    """As many of them as make up the number of calls."""
    data = data_of(report(twenty_calls, "--sample", "6"))
    assert data["actors"] == ["actor-0", "actor-3", "actor-6"]


def test_a_page_of_a_sample_says_so(twenty_calls: str) -> None:
    """The sums stay those of the whole run."""
    html = report(twenty_calls, "--sample", "6")
    assert "A sample: 6 of 20 calls, of 3 of 10 actors" in html
    assert ">20</td>" in html


def test_a_sample_may_be_smaller_than_an_actor(twenty_calls: str) -> None:
    """A single call is shown."""
    assert len(data_of(report(twenty_calls, "--sample", "1"))["calls"]["node"]) == 1


def test_a_sample_that_is_larger_than_the_run_is_none(twenty_calls: str) -> None:
    """All is shown, and nothing speaks of a sample."""
    assert "A sample" not in report(twenty_calls, "--sample", "100")


# Surveys


def survey(path: str, *, people: int = 24, framing: str = "plain") -> str:
    """Write down a survey: two draws for each person, of which some are cut, refused or asked
    again.
    """
    records: list[Record] = []
    for number in range(people):
        town, job = ("Cork", "Bergen")[number % 2], ("baker", "nurse", "driver")[number % 3]
        asked = [
            {"role": "system", "content": f"You are a {job} from {town}."},
            {"role": "user", "content": "Do you take the bus?"},
        ]
        for repeat in range(2):
            scope = f"village/{framing}/~{number:016x}" + (f"/~{repeat}" if repeat else "")
            answer = json.dumps({"bus": "yes" if town == "Cork" else "no", "sure": repeat + 1})
            refused = {"role": "assistant", "content": None, "refusal": "I cannot say."}
            messages = asked
            if (number, repeat) == (3, 0):
                records.append(chat(asked, "Never!", f"{scope}#0"))
                again = {"role": "user", "content": "I cannot use that answer: it is no JSON."}
                messages = [*asked, {"role": "assistant", "content": "Never!"}, again]
            record = chat(messages, refused if (number, repeat) == (5, 0) else answer, f"{scope}#0")
            if (number, repeat) == (7, 1):
                record.response["choices"][0]["finish_reason"] = "length"
            records.append(record)
    return str(written(path, records))


@pytest.fixture
def bus() -> dict[str, Any]:
    """What the page of a survey says of the answers in the field ``bus``."""
    found: dict[str, Any] = data_of(report(survey("a.jsonl")))["survey"][0]
    return found


def test_each_field_of_a_surveys_answers_has_a_distribution() -> None:
    """In the order of the answers."""
    data = data_of(report(survey("a.jsonl")))
    assert [each["field"] for each in data["survey"]] == ["bus", "sure"]


def test_a_distribution_counts_answers_that_hold(bus: dict[str, Any]) -> None:
    """Refusals are counted too; an answer that was asked again is not."""
    assert bus["values"] == ["yes", "no", "(refused)"]
    assert bus["rows"] == [["", [24, 23, 1]]]


def test_two_surveys_show_their_answers_side_by_side() -> None:
    """Each run is a group."""
    data = data_of(report(survey("a.jsonl"), "--against", survey("b.jsonl", framing="formal")))
    assert data["survey"][0]["rows"] == [
        ["this run", [24, 23, 1]],
        ["the other run", [24, 23, 1]],
    ]


def test_the_letters_of_a_closed_question_are_shown_as_its_options() -> None:
    """In another order, the same letter is another option. An answer of one token is none that is cut."""
    records = []
    for number in range(24):
        first, second = ("tax", "ban") if number % 2 else ("ban", "tax")
        asked = f"Town {number}?\n\nA. {first}\nB. {second}\n\nAnswer with one letter only."
        answer = "B." if number % 2 else "a"
        records.append(chat(asked, answer, f"survey/{number}#0", finish_reason="length"))
    [found] = data_of(report(str(written("a.jsonl", records))))["survey"]
    assert found["values"] == ["ban"]


def test_free_texts_have_no_distribution() -> None:
    """Every answer is another."""
    texts = [chat("Bread?", f"Well, {n} of them.", f"p-{n}#0") for n in range(60)]
    assert not data_of(report(str(written("a.jsonl", texts))))["survey"]


def test_a_simulation_has_no_distribution(page: str) -> None:
    """A few actors with many calls are no survey."""
    assert not data_of(page)["survey"]


def test_each_choice_of_an_answer_counts_in_a_survey() -> None:
    """One call with ``n=2`` gives two answers."""
    records = [chat("Bus?", "yes", f"p-{n}#0") for n in range(24)]
    for number, record in enumerate(records):
        [choice] = record.response["choices"]
        said = {"role": "assistant", "content": "yes" if number % 2 else "no"}
        record.response["choices"] = [choice, {**choice, "index": 1, "message": said}]
    [found] = data_of(report(str(written("c.jsonl", records))))["survey"]
    assert (found["values"], found["rows"]) == (["yes", "no"], [["", [36, 12]]])


def test_unknown_tokens_are_no_part_of_a_sum_without_a_word() -> None:
    """The page says how many answers do not tell theirs."""
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
    records = [chat("Bread?", "yes", f"p-{n}#0") for n in range(10)]
    records[0].response["usage"] = usage
    for record in records[1:]:
        record.response.pop("usage", None)
    assert "100, 9 unknown" in report(str(written("c.jsonl", records)))


def test_repeats_are_one_row() -> None:
    """The repeats of an item are in one row."""
    cells = data_of(report(survey("a.jsonl")))["cells"]
    assert len(cells["rows"]) == 24
    assert len(cells["row"]) == 49
    assert cells["columns"] == ["call 1", "call 2", "call 3"]


def test_a_page_says_which_answers_were_cut_refused_and_asked_again() -> None:
    """On top, and at each call."""
    html = report(survey("a.jsonl"))
    assert "1 answer ended by length; 1 answer refused; 1 answer asked again" in html
    marks = data_of(html)["calls"]["marks"]
    assert sorted(mark for each in marks for mark in each) == ["asked again", "cut", "refused"]


def test_a_scope_of_the_cache_makes_a_page() -> None:
    """Its recorded functions do no harm."""
    client = ScriptedClient(lambda messages: "Yes", cache_mode="auto")
    with llmcall.scope("rep-1"), llmcall.scope("lisa"):
        client.send_message("Bread?", temperature=1, on_error="raise")
        llmcall.recorded(name="price_of")(lambda: 3)()
    assert data_of(report("--scope", "rep-1"))["actors"] == ["rep-1/lisa"]


def test_a_file_that_cannot_be_read_makes_no_page() -> None:
    """The message names its line."""
    Path("broken.jsonl").write_text("{broken", encoding="utf-8")
    assert "broken.jsonl:1" in done("report", "broken.jsonl", "-o", "x.html", code=1)
    assert not Path("x.html").exists()


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_hostile_text_stays_text(text: str) -> None:
    """Whatever stands in a prompt, an answer or a scope makes no element, and hides nothing."""
    hostile = text + HOSTILE
    for path, prompt in (("a.jsonl", hostile), ("b.jsonl", f"{hostile} <img>")):
        client = ScriptedClient([hostile], model="<img>")
        with llmcall.cassette(path, mode="rewrite"), llmcall.scope(re.sub("[/#]", "", hostile)):
            client.send_message(prompt, on_error="raise")
    html = report("a.jsonl", "--against", "b.jsonl")
    assert (html.count("<script"), html.count("</script>")) == (2, 2)
    for forbidden in ("<img", "<!--", "\u202e", "\x1b", "\u200b"):
        assert forbidden not in html
    assert any(each.endswith("{{ 7*7 }}") for each in data_of(html)["texts"])


def test_a_page_names_no_address_to_load_from(page: str) -> None:
    """Its only link is to itself, and no script runs a text."""
    assert not re.search(
        r"\b(src|action|style|on\w+)=|url\(|@import|https?:|innerHTML|eval\(", page
    )
    assert re.findall(r'href="(.*?)"', page) == ["#calls"]


def test_the_policy_of_a_page_allows_its_own_style_and_script_alone(page: str) -> None:
    """By their digests."""
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;;")
    for name in ("style", "script"):
        *_, text = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src &#39;sha256-{digest}" in policy[1]


# In a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium; without one the tests of this part are skipped."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no Chromium here")
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


@pytest.fixture
def tab(page: str, open_page: Open) -> Any:
    """The tab in which the page of one run is open."""
    return open_page()


@pytest.fixture
def opened_call(tab: Any) -> Any:
    """The tab in which the keyboard alone opened the third call of the second actor."""
    tab.locator("[data-cell='0']").focus()
    press(tab, "ArrowDown", "ArrowRight", "ArrowRight", "Enter")
    return tab


def test_the_first_key_offers_to_skip_to_the_calls(tab: Any) -> None:
    """Whoever reads by keyboard need not go through the head of the page."""
    press(tab, "Tab")
    assert focused(tab, "textContent") == "Skip to the calls"


def test_the_keyboard_opens_a_call(opened_call: Any) -> None:
    """The arrows go through the grid, and the title of the opened call has the focus."""
    assert opened_call.locator("#title").text_content() == "actor-1 · call 3"
    assert focused(opened_call, "id") == "title"


def test_an_opened_call_shows_its_conversation_as_it_stood(opened_call: Any) -> None:
    """Earlier messages are folded; JSON is laid out."""
    assert opened_call.locator("summary").first.text_content() == "5 earlier messages"
    opened_call.locator("summary").first.click()
    messages = opened_call.locator("article .message")
    assert messages.count() == 7
    assert "a thrifty buyer" in messages.first.inner_text()
    assert '\n  "buy": false,' in messages.last.inner_text()


def test_the_next_call_of_an_actor_is_one_click_away(opened_call: Any) -> None:
    """The button opens it."""
    opened_call.locator("#next").click()
    assert opened_call.locator("#title").text_content() == "actor-1 · call 4"


def test_escape_closes_a_call_and_goes_back_to_its_cell(opened_call: Any) -> None:
    """That of the call that was read last."""
    opened_call.locator("#next").click()
    press(opened_call, "Escape")
    assert opened_call.locator("#conversation").is_hidden()
    assert focused(opened_call, "dataset.cell") == "7"


def search(tab: Any, query: str, found: str) -> None:
    """Search, and wait until so many calls are found."""
    tab.locator("#search").fill(query)
    tab.locator("#found", has_text=found).wait_for()


def test_words_phrases_and_scopes_are_found(tab: Any) -> None:
    """In what a call was first to say: histories that repeat it are not found."""
    for query, found in (
        ("coins SAYS", "12 calls of 12"),
        ('"for 3 coins" scope:actor-2', "1 call of 12"),
        ('"coins for"', "0 calls of 12"),
        ("thrifty", "3 calls of 12"),
    ):
        search(tab, query, found)


def test_the_key_slash_goes_to_the_search(tab: Any) -> None:
    """Escape leaves the search, and shows the grid."""
    press(tab, "/")
    assert focused(tab, "id") == "search"
    search(tab, "thrifty", "3 calls of 12")
    press(tab, "Escape")
    tab.locator("#rows[role=grid]").wait_for()


def test_enter_opens_what_is_found(tab: Any) -> None:
    """The words that were sought are marked in it."""
    search(tab, "for 3 scope:actor-1", "1 call of 12")
    press(tab, "Enter")
    assert tab.locator("#title").text_content() == "actor-1 · call 4"
    assert tab.locator("article mark").first.text_content() == "for"


def test_the_search_finds_what_the_page_says_of_calls(open_page: Open) -> None:
    """And phrases with quotes in them."""
    one = play("a.jsonl", lambda actor, number: f'Say "yes {number}" to actor {actor}')
    other = play(
        "b.jsonl", lambda actor, number: f'Say "yes {number}" to actor {actor}', word="generous"
    )
    report(one, "--against", other)
    tab = open_page()
    for query, found in (
        ('"the runs part"', "3 calls of 12"),
        ("[-thrifty-]", "3 calls of 12"),
        ('"say \\"yes 2\\" to"', "3 calls of 12"),
        ('"say "yes 2"', "3 calls of 12"),
        ('"say "no"', "0 calls of 12"),
    ):
        search(tab, query, found)


@pytest.fixture
def filtered(open_page: Open) -> Any:
    """The tab of two runs that differ in six calls, of which only those are to be shown."""
    one = play("a.jsonl", agreed)
    other = play(
        "b.jsonl",
        lambda actor, number: "No." if actor + number == 3 else agreed(actor, number),
    )
    report(one, "--against", other)
    tab = open_page()
    tab.locator("#only").select_option("differs")
    tab.locator("#found", has_text="6 calls of 12").wait_for()
    return tab


def test_a_filter_keeps_the_rows_and_columns_in_which_it_shows_a_call(filtered: Any) -> None:
    """Other calls in them are blank."""
    assert filtered.locator("#rows[role=grid] .row").count() == 3
    heads = filtered.locator("#head > div").all_text_contents()
    assert heads == ["actor", "call 2", "call 3", "call 4"]
    assert filtered.locator(".cell").count() == 9
    assert filtered.locator(".cell.filtered").count() == 3


def test_a_filter_that_would_show_nothing_is_not_offered(filtered: Any) -> None:
    """No call of the run was asked again."""
    assert "asked again" not in filtered.locator("#only").inner_text()


def test_filters_show_what_was_cut_refused_and_asked_again(open_page: Open) -> None:
    """Each shows its call."""
    report(survey("c.jsonl"))
    tab = open_page()
    for name in ("cut", "refused", "asked again"):
        tab.locator("#only").select_option(name)
        tab.locator("#found", has_text="1 call of 49").wait_for()


def test_a_link_opens_the_same_call_in_another_page_of_the_run(tab: Any) -> None:
    """It names the scope and the call, whatever its place there."""
    tab.locator("[data-cell='9']").click()
    assert tab.evaluate("location.hash") == "#actor-2:2"
    report("a.jsonl", "--scope", "actor-2")
    tab.reload()
    assert tab.locator("#title").text_content() == "actor-2 · call 2"
    assert tab.evaluate("document.querySelector('[aria-pressed=true]').dataset.cell") == "1"


def test_changed_words_are_marked_in_the_texts(open_page: Open) -> None:
    """Side by side, the words of each text that the other lacks are marked."""
    one = play("a.jsonl", lambda actor, number: "I buy two loaves.")
    other = play("b.jsonl", lambda actor, number: "I buy five loaves.", word="generous")
    report(one, "--against", other)
    tab = open_page()
    tab.locator("[data-cell='0']").click()
    assert tab.locator("article del").all_text_contents() == ["thrifty", "two"]
    assert tab.locator("article ins").all_text_contents() == ["generous", "five"]


def is_readable(tab: Any, width: int) -> bool:
    """Return whether nothing is wider than the window, and each text stands out in both schemes."""
    poor = []
    for scheme in ("dark", "light"):
        tab.emulate_media(color_scheme=scheme)
        poor += tab.evaluate(CONTRASTS)
    return tab.evaluate("document.documentElement.scrollWidth") <= width and not poor


def test_the_answers_of_a_survey_are_its_first_picture(open_page: Open) -> None:
    """The chart of costs is hidden."""
    report(survey("a.jsonl"))
    tab = open_page()
    assert tab.locator("#distributions h3").all_text_contents() == ["bus", "sure"]
    assert tab.locator("#costs").is_hidden()


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_of_a_survey_is_readable_in_a_narrow_window(open_page: Open, width: int) -> None:
    """And in a wide one, dark and light."""
    report(survey("a.jsonl"))
    tab = open_page(width)
    assert is_readable(tab, width)


def unreported() -> list[Record]:
    """Return three calls whose tokens and costs nobody knows."""
    records = [chat("Bread?", "Yes.", f"{name}#0") for name in ("lisa", "bart", "emma")]
    for record in records:
        record.response["usage"], record.cost = None, None
    return records


def test_without_any_known_cost_there_is_no_chart(open_page: Open) -> None:
    """What no server reported is no zero."""
    report(str(written("a.jsonl", unreported())))
    assert open_page().locator("#costs").is_hidden()


def test_an_unknown_cost_beside_known_ones_is_said_in_words(open_page: Open) -> None:
    """It makes no bar."""
    records = unreported()
    records[0].cost = 0.5
    report(str(written("a.jsonl", records)))
    tab = open_page()
    assert tab.locator("#bars td").all_inner_texts() == [" $0.5000", " unknown", " unknown"]


def test_a_sum_of_costs_counts_the_unknown_ones(open_page: Open) -> None:
    """A cost of which one part is unknown does not look like a whole one."""
    records = [
        each.replace(sample=each.sample.replace("#0", f"#{n}"))
        for n in (0, 1)
        for each in unreported()
    ]
    for record, cost in zip(records, (0.5, 0.25, 0.125), strict=False):
        record.cost = cost
    report(str(written("a.jsonl", records)))
    tab = open_page()
    assert tab.locator("#bars td").all_inner_texts()[0] == " $0.5000, 1 unknown"


def test_paper_has_all_calls(open_page: Open) -> None:
    """Of all actors that are shown, in their order, whatever is in sight on the screen."""
    report(play("a.jsonl", agreed, actors=30, rounds=12))
    tab = open_page(800)
    tab.evaluate("document.getElementById('box').scrollTop = 1000")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    names = tab.locator("#paper h3").all_text_contents()
    assert len(names) == 30
    assert names == sorted(names)
    assert tab.locator("#paper li").count() == 360
    assert "call 12" in tab.locator("#paper ol").last.inner_text()
    assert tab.locator("#box").is_hidden()
    tab.emulate_media(media="screen")


@pytest.fixture
def side_by_side(open_page: Open) -> Any:
    """The tab in which a call of two runs is open, in a narrow window; the texts are long."""
    one = play("a.jsonl", lambda actor, number: "سأشتري الخبز " + "long" * 80)
    other = play("b.jsonl", lambda actor, number: "No" + "o" * 400, word="generous")
    report(one, "--against", other)
    tab = open_page(400)
    tab.locator("[data-cell]").first.click()
    return tab


def test_an_opened_call_shows_both_runs_and_what_changed(side_by_side: Any) -> None:
    """Nothing lies over its title."""
    assert side_by_side.locator("article").count() == 2
    assert side_by_side.locator("#status ins").text_content() == "generous"
    assert side_by_side.evaluate(IS_SEEN, "#title"), "something lies over the title"


def test_an_answer_from_right_to_left_is_shown_so(side_by_side: Any) -> None:
    """By the letters of the text."""
    answer = side_by_side.locator("article .answer .text").first
    assert answer.evaluate("each => getComputedStyle(each).direction") == "rtl"


@pytest.mark.parametrize(("width", "is_beside"), [(400, False), (1400, True)])
def test_two_runs_stand_side_by_side_or_below_one_another(
    side_by_side: Any, width: int, is_beside: bool
) -> None:
    """As the window has room; nothing is wider than it, and all can be read."""
    side_by_side.set_viewport_size({"width": width, "height": 900})
    articles = side_by_side.locator("article")
    first, second = (articles.nth(number).bounding_box() for number in range(2))
    assert (first["y"] == second["y"]) == is_beside
    assert is_readable(side_by_side, width)


# Whether an element is what a click on its upper edge would meet.
IS_SEEN = """(name) => {
  const element = document.querySelector(name), box = element.getBoundingClientRect();
  return element.contains(document.elementFromPoint(box.left + 2, box.top + 2));
}"""
# Of each text in sight, its contrast with what is behind it (WCAG 2.1), where it is below AA's 4.5.
CONTRASTS = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = parts(color).map((each) => each / 255).map((each) => (each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if ((parts(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  return Array.from(document.querySelectorAll("body *")).filter((element) => element.checkVisibility() && !element.disabled
    && Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.data.trim())).map((element) => {
    const [high, low] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    return [element.className, element.textContent.slice(0, 20), (high + 0.05) / (low + 0.05)];
  }).filter(([, , contrast]) => contrast < 4.5);
}"""  # noqa: E501 - a script of the browser's


@pytest.fixture
def large_page(open_page: Open) -> Any:
    """The tab of a page of 20,000 calls."""
    html = report(play("a.jsonl", agreed, actors=4, rounds=5))
    data = data_of(html)
    times = 1000
    for name, values in data["calls"].items():
        data["calls"][name] = values * times
    data["cells"] = {
        "actor": [number for number in range(4 * times) for _ in range(5)],
        "row": [number for number in range(4 * times) for _ in range(5)],
        "column": list(range(5)) * 4 * times,
        "columns": data["cells"]["columns"],
        "call": ["1", "2", "3", "4", "5"] * 4 * times,
        "rows": [f"town-{number}/actor" for number in range(4 * times)],
        "one": list(range(20 * times)),
        "other": [-1] * 20 * times,
        "status": [""] * 20 * times,
    }
    data["actors"] = [f"town-{number}/actor" for number in range(4 * times)]
    texts = [
        f"{text} {number} {'and much more ' * 20}"
        for number in range(times)
        for text in data["texts"]
    ]
    data["texts"] += texts
    begin, end = html.index('id="data">') + 10, html.index("</script>", html.index('id="data">'))
    Path("page.html").write_text(html[:begin] + json.dumps(data) + html[end:], encoding="utf-8")
    return open_page()


def test_a_large_page_builds_only_the_rows_in_sight(large_page: Any) -> None:
    """A row far below is built when it is scrolled to, and the first one is gone then."""
    last, first = large_page.locator("[data-cell='19998']"), large_page.locator("[data-cell='0']")
    assert (first.count(), last.count()) == (1, 0)
    large_page.evaluate("document.getElementById('box').scrollTop = 1e9")
    last.wait_for()
    first.wait_for(state="detached")


def test_all_of_a_large_page_is_searched(large_page: Any) -> None:
    """Also what is not in sight."""
    search(large_page, "says 3", "of 20,000")
    large_page.evaluate("document.getElementById('box').scrollTop = 1e9")
    large_page.locator("[data-cell='19998']").wait_for()


def test_hostile_text_is_not_run(open_page: Open) -> None:
    """A real browser runs none of the texts, whatever is opened and searched."""
    report(play("a.jsonl", lambda actor, number: f"{HOSTILE} {number}", system=HOSTILE))
    tab = open_page()
    tab.locator("#search").fill("<img")
    tab.locator("#found", has_text="12 calls").wait_for()
    tab.locator("[data-cell]").nth(1).click()
    tab.locator("summary").first.click()
    assert "<img src=x onerror=alert(2)>" in tab.locator("article").inner_text()
    assert tab.locator("img").count() == 0
