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


def test_what_a_page_holds() -> None:
    """A page says what the run is, and holds each text once, however often the histories repeat it."""
    html = report(play("a.jsonl", agreed))
    facts = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td dir="auto">(.*?)</td>', html))
    assert (facts["calls"], facts["actors"], facts["model"], facts["cost"]) == (
        "12",
        "3",
        "m",
        "$0.0002",
    )
    assert (
        html.count("You are actor 1, a thrifty buyer.") == 1
        and '<h1 dir="auto">a.jsonl</h1>' in html
    )
    data = data_of(html)
    assert data["actors"] == ["actor-0", "actor-1", "actor-2"] and len(data["calls"]["node"]) == 12
    assert len(data["texts"]) == len(set(data["texts"])) and not data["parted"]


def test_failures() -> None:
    """A page says on top how many answers were cut, and that the recording broke off."""
    with pytest.raises(ZeroDivisionError), llmcall.cassette("a.jsonl"), llmcall.scope("lisa"):
        client = ScriptedClient(["Yes", "No"])
        client.send_message("Bread?", on_error="raise")
        client.send_message("Cheese?", on_error="raise")
        raise ZeroDivisionError
    text = Path("a.jsonl").read_text(encoding="utf-8")
    Path("a.jsonl").write_text(
        text.replace('"finish_reason": "stop"', '"finish_reason": "length"', 1), encoding="utf-8"
    )
    html = report("a.jsonl")
    assert '<td dir="auto">1 answer ended by length; the recording broke off</td>' in html
    assert '<td dir="auto">unknown</td>' in html  # what it cost
    assert "failures" not in report(play("b.jsonl", agreed))


def test_two_runs() -> None:
    """With --against, the page says where the runs part, and has the calls of both side by side."""
    one = play("a.jsonl", agreed)
    other = play(
        "b.jsonl",
        lambda actor, number: "No." if (actor, number) == (1, 2) else agreed(actor, number),
    )
    html = report(one, "--against", other)
    data = data_of(html)
    assert (
        list(data["parted"]) == ["6"]
        and data["parted"]["6"][0] == "the same request has different answers"
    )
    assert data["cells"]["status"].count("changed") == 2 and "actor-1, call 3" in html
    assert min(data["cells"]["other"]) >= 0 and len(data["calls"]["node"]) == 24


def test_draws_are_counted() -> None:
    """A request that was drawn several times is shown with its answers and how often each came."""
    answers = enumerate(['{"a": 1, "b": 2}', '{"b": 2, "a": 1}', "No"])
    written("a.jsonl", [chat("Bread?", answer, f"lisa#{draw}") for draw, answer in answers])
    data = data_of(report("a.jsonl"))
    [[drawn, counts]] = data["spread"]
    assert len(drawn) == 3 and [(data["texts"][text], count) for text, count in counts] == [
        ('{"a": 1, "b": 2}', 2),
        ("No", 1),
    ]


def test_a_sample() -> None:
    """--sample shows the calls of actors taken evenly, says so, and leaves the sums as they are."""
    html = report(play("a.jsonl", agreed, actors=10, rounds=2), "--sample", "6")
    assert data_of(html)["actors"] == ["actor-0", "actor-3", "actor-6"]
    assert "A sample: 6 of 20 calls, of 3 of 10 actors" in html and ">20</td>" in html
    assert len(data_of(report("a.jsonl", "--sample", "1"))["calls"]["node"]) == 1
    assert "A sample" not in report("a.jsonl", "--sample", "100")


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


def test_a_survey_shows_its_answers_by_what_tells_them_apart() -> None:
    """The page of a survey begins with the distribution of each field: by levels of the scope, and by
    the columns of the rows, which are found in the prompts.

    An answer that was asked again does not count.
    """
    data = data_of(report(survey("a.jsonl")))
    assert [each["field"] for each in data["survey"]] == ["bus", "sure"]
    bus = data["survey"][0]
    groups = dict(bus["groups"])
    assert bus["values"] == ["yes", "no", "(refused)"]
    assert dict(groups["all answers"]) == {"all": [24, 23, 1]}
    assert dict(groups["“from …”"]) == {"Bergen": [0, 23, 1], "Cork": [24, 0, 0]}
    assert set(dict(groups["“You are a …”"])) == {"baker", "driver", "nurse"}
    assert list(groups) == ["all answers", "“You are a …”", "“from …”"]
    both = survey("b.jsonl", framing="formal")
    lines = Path("a.jsonl").read_text(encoding="utf-8") + "\n".join(
        Path(both).read_text(encoding="utf-8").splitlines()[1:]
    )
    Path("c.jsonl").write_text(lines, encoding="utf-8")
    by_level = dict(data_of(report("c.jsonl"))["survey"][0]["groups"])["scope, level 2"]
    assert dict(by_level) == {"formal": [24, 23, 1], "plain": [24, 23, 1]}


def test_numbers_that_name_the_actors_show_no_answers() -> None:
    """Answers by ranges of them say nothing; other numbers are shown by ranges."""
    records = [
        chat(
            f"You are person {n}, {20 + 3 * n} years old. Bus?",
            "yes" if n % 2 else "no",
            f"v/{n}#0",
        )
        for n in range(24)
    ]
    [found] = data_of(report(str(written("a.jsonl", records))))["survey"]
    groups = dict(found["groups"])
    assert list(groups) == ["all answers", "“… years old. Bus?”"]
    ages = dict(groups["“… years old. Bus?”"])
    assert list(ages) == ["20 to 35", "38 to 53", "56 to 71", "74 to 89"]


def test_the_answers_of_two_surveys() -> None:
    """Two surveys that are compared show their answers side by side."""
    data = data_of(report(survey("a.jsonl"), "--against", survey("b.jsonl", framing="formal")))
    assert dict(dict(data["survey"][0]["groups"])["run"]) == {
        "this run": [24, 23, 1],
        "the other run": [24, 23, 1],
    }


def test_free_answers_and_simulations_are_no_distributions() -> None:
    """Free texts have no distribution, nor have the answers of a few actors with many calls."""
    texts = [chat("Bread?", f"Well, {n} of them.", f"p-{n}#0") for n in range(60)]
    assert not data_of(report(str(written("a.jsonl", texts))))["survey"]
    assert not data_of(report(play("b.jsonl", agreed)))["survey"]
    numbers = [chat("How much?", json.dumps({"sum": n}), f"p-{n}#0") for n in range(60)]
    [found] = data_of(report(str(written("c.jsonl", numbers))))["survey"]
    assert len(found["values"]) == 8 and sum(found["groups"][0][1][0][1]) == 60


def test_repeats_are_one_row() -> None:
    """The repeats of an item stand in one row, under headings that name them."""
    cells = data_of(report(survey("a.jsonl")))["cells"]
    assert len(cells["rows"]) == 24 and len(cells["row"]) == 49
    assert cells["columns"] == ["repeat 1, call 1", "repeat 1, call 2", "repeat 2, call 1"]


def test_what_became_of_answers() -> None:
    """A page says which answers were cut, refused, and asked again."""
    html = report(survey("a.jsonl"))
    assert "1 answer ended by length; 1 answer refused; 1 answer asked again" in html
    marks = data_of(html)["calls"]["marks"]
    assert sorted(mark for each in marks for mark in each) == ["asked again", "cut", "refused"]


def test_rounds_are_columns() -> None:
    """Rounds that are a level of the scope are the columns, and actors that sit out stay empty."""
    days = [(name, day) for name in ("lisa", "bart") for day in (1, 2, 10)]
    records = [
        chat(f"Day {day}?", f"{name} {day}", f"day-{day}/{name}#0")
        for name, day in days
        if (name, day) != ("bart", 2)
    ]
    cells = data_of(report(str(written("a.jsonl", records))))["cells"]
    assert cells["columns"] == ["day-1", "day-2", "day-10"]
    assert cells["rows"] == ["lisa", "bart"] or cells["rows"] == ["bart", "lisa"]
    bart = cells["rows"].index("bart")
    places = zip(cells["row"], cells["column"], cells["call"], strict=True)
    assert [place[1:] for place in places if place[0] == bart] == [(0, "1"), (2, "2")]
    named = data_of(report("a.jsonl", "--round", "2"))["cells"]
    assert named["columns"] == ["bart", "lisa"]


def test_what_a_message_quotes() -> None:
    """A page holds which earlier answers of others a message quotes, and in which calls."""
    said = "I will bring two loaves of bread to the river."
    records = [chat("Day 1?", said, "lisa#0"), chat("Day 1?", "Hm.", "bart#0")]
    records.append(chat(f"Day 2? Lisa said: {said}", "Good.", "bart#0"))
    data = data_of(report(str(written("a.jsonl", records))))
    [[quote]] = data["heard"].values()
    assert [data["actors"][quote[0]], *quote[1:3]] == ["lisa", 1, 0]
    assert data["texts"][quote[3]] == said.rstrip(".")


def test_what_a_report_may_be_of() -> None:
    """Embeddings, functions and a scope of the cache make a page; what cannot be read is a message."""
    client = ScriptedClient(lambda messages: "Yes", cache_mode="auto")
    with llmcall.scope("rep-1"), llmcall.scope("lisa"):
        client.send_message("Bread?", temperature=1, on_error="raise")
        llmcall.recorded(name="price_of")(lambda: 3)()
    assert data_of(report("--scope", "rep-1"))["actors"] == ["rep-1/lisa"]
    Path("broken.jsonl").write_text("{broken", encoding="utf-8")
    assert (
        "broken.jsonl:1" in done("report", "broken.jsonl", "-o", "x.html", code=1)
        and not Path("x.html").exists()
    )


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_hostile_text_stays_text(text: str) -> None:
    """Whatever stands in a prompt, an answer or a scope makes no element, ends no script, and hides
    nothing.
    """
    hostile = text + HOSTILE
    for path, prompt in (("a.jsonl", hostile), ("b.jsonl", f"{hostile} <img>")):
        client = ScriptedClient([hostile], model="<img>")
        with llmcall.cassette(path, mode="rewrite"), llmcall.scope(re.sub("[/#]", "", hostile)):
            client.send_message(prompt, on_error="raise")
    html = report("a.jsonl", "--against", "b.jsonl")
    assert (
        html.count("<script") == 2
        and html.count("</script>") == 2
        and "<img" not in html
        and "<!--" not in html
    )
    assert any(each.endswith("{{ 7*7 }}") for each in data_of(html)["texts"])
    assert "\u202e" not in html and "\x1b" not in html and "\u200b" not in html


def test_nothing_is_loaded() -> None:
    """No element names an address, and the policy allows the page's own style and script alone."""
    html = report(play("a.jsonl", agreed))
    assert not re.search(
        r"\b(src|action|style|on\w+)=|url\(|@import|https?:|innerHTML|eval\(", html
    )
    assert re.findall(r'href="(.*?)"', html) == ["#calls"]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', html)
    assert policy is not None and policy[1].startswith("default-src &#39;none&#39;;")
    for name in ("style", "script"):
        *_, text = re.findall(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)
        assert (
            f"{name}-src &#39;sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
            in policy[1]
        )


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


def test_reading_by_keyboard(open_page: Open) -> None:
    """The keyboard alone goes to a call, opens its conversation as it stood, reads on, and comes
    back.
    """
    report(play("a.jsonl", agreed))
    tab = open_page()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the calls"
    tab.locator("[data-cell='0']").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        tab.keyboard.press(key)
    assert tab.locator("#title").text_content() == "actor-1 · call 3"
    assert tab.evaluate("document.activeElement.id") == "title"
    assert tab.locator("summary").first.text_content() == "5 earlier messages"
    tab.locator("summary").first.click()
    conversation = tab.locator("article .message")
    assert conversation.count() == 7 and "a thrifty buyer" in conversation.first.inner_text()
    assert '\n  "buy": false,' in conversation.last.inner_text()
    tab.locator("#next").click()
    assert tab.locator("#title").text_content() == "actor-1 · call 4"
    tab.keyboard.press("Escape")
    assert tab.locator("#conversation").is_hidden()
    assert tab.evaluate("document.activeElement.dataset.cell") == "7"


def test_searching(open_page: Open) -> None:
    """Words, phrases and scopes are found, in what a call was first to say; what is found opens."""
    report(play("a.jsonl", agreed))
    tab = open_page()

    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "search"
    for query, found in (
        ("coins SAYS", "12 calls of 12"),
        ('"for 3 coins" scope:actor-2', "1 call of 12"),
        ('"coins for"', "0 calls of 12"),
        ("thrifty", "3 calls of 12"),
    ):
        tab.locator("#search").fill(query)
        tab.locator("#found", has_text=found).wait_for()
    tab.keyboard.press("Escape")
    tab.locator("#rows[role=grid]").wait_for()
    tab.locator("#search").fill("for 3 scope:actor-1")
    tab.locator("#found", has_text="1 call of 12").wait_for()
    tab.keyboard.press("Enter")
    assert tab.locator("#title").text_content() == "actor-1 · call 4"
    assert tab.locator("article mark").first.text_content() == "for"


def test_searching_what_the_page_says(open_page: Open) -> None:
    """The search finds what the page says of calls, and phrases with quotes in them."""
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
        tab.locator("#search").fill(query)
        tab.locator("#found", has_text=found).wait_for()


def test_filters_keep_the_grid(open_page: Open) -> None:
    """The filters keep the grid, with the rows and columns in which they show a call; in it, other
    calls are blank.
    """
    one = play("a.jsonl", agreed)
    other = play(
        "b.jsonl",
        lambda actor, number: "No." if actor + number == 3 else agreed(actor, number),
    )
    report(one, "--against", other)
    tab = open_page()
    tab.locator("#only").select_option("differs")
    tab.locator("#found", has_text="6 calls of 12").wait_for()
    assert tab.locator("#rows[role=grid] .row").count() == 3
    heads = tab.locator("#head > div").all_text_contents()
    assert heads == ["actor", "call 2", "call 3", "call 4"]
    assert tab.locator(".cell").count() == 9 and tab.locator(".cell.filtered").count() == 3
    assert "asked again" not in tab.locator("#only").inner_text()
    report(survey("c.jsonl"))
    tab = open_page()
    for name in ("cut", "refused", "asked again"):
        tab.locator("#only").select_option(name)
        tab.locator("#found", has_text="1 call of 49").wait_for()


def test_a_link_names_the_scope_and_the_call(open_page: Open) -> None:
    """A link opens the same call in another page of the run, whatever its place there."""
    report(play("a.jsonl", agreed))
    tab = open_page()
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


def test_the_strip_shows_every_call(open_page: Open) -> None:
    """The strip colours every call, says how many there are of each kind, and opens what is clicked."""
    one = play("a.jsonl", agreed)
    report(one, "--against", play("b.jsonl", lambda *_: "No."))
    tab = open_page()
    assert "the runs part (3)" in tab.locator("#strip-legend").inner_text()
    picture = tab.locator("#strip-svg")
    assert picture.get_attribute("aria-label") == "3 actors × 4 columns: 3 parted, 9 changed"
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] - 3, "y": box["height"] - 3})
    assert tab.locator("#title").text_content() == "actor-2 · call 4"


def test_the_answers_of_a_survey_as_a_picture(open_page: Open) -> None:
    """The first picture of a survey is its answers; they are shown by the column that is chosen, and
    nothing is wider than the window.
    """
    report(survey("a.jsonl"))
    for width in (1400, 390):
        tab = open_page(width)
        tab.locator("#by").select_option("“from …”")
        assert tab.locator("#distributions th").all_text_contents()[:2] == ["Bergen", "Cork"]
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("#strip").is_hidden() and tab.locator("#costs").is_hidden()
        for scheme in ("dark", "light"):
            tab.emulate_media(color_scheme=scheme)
            assert tab.evaluate(CONTRASTS) == []


def test_unknown_tokens_and_costs_make_no_bars(open_page: Open) -> None:
    """What no server reported is no zero: no chart if nothing is known, else the word."""
    records = [chat("Bread?", "Yes.", f"{name}#0") for name in ("lisa", "bart", "emma")]
    for record in records:
        record.response["usage"], record.cost = None, None
    report(str(written("a.jsonl", records)))
    assert open_page().locator("#costs").is_hidden()
    records[0].cost = 0.5
    report(str(written("a.jsonl", records)))
    tab = open_page()
    assert tab.locator("#bars td").all_inner_texts() == [" $0.5000", " unknown", " unknown"]


def test_whom_a_message_quotes_is_a_link(open_page: Open) -> None:
    """Below a message stands whom it quotes, with a link to that call."""
    said = "I will bring two loaves of bread to the river."
    records = [chat("Day 1?", said, "lisa#0"), chat("Day 1?", "Hm.", "bart#0")]
    report(str(written("a.jsonl", [*records, chat(f"Lisa said: {said}", "Good.", "bart#0")])))
    tab = open_page()
    tab.locator("[data-cell='1']").click()
    assert tab.locator(".quotes").inner_text().startswith("quotes lisa, call 1: “I will bring")
    tab.locator(".quotes a").click()
    assert tab.locator("#title").text_content() == "lisa · call 1"


def test_paper_has_all_calls(open_page: Open) -> None:
    """Printed are all calls of all actors that are shown, in their order, in colour."""
    report(play("a.jsonl", agreed, actors=30, rounds=12))
    tab = open_page(800)
    tab.evaluate("document.getElementById('box').scrollTop = 1000")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    names = tab.locator("#paper h3").all_text_contents()
    assert names == sorted(names) and len(names) == 30
    assert tab.locator("#paper li").count() == 360 and tab.locator("#box").is_hidden()
    assert "call 12" in tab.locator("#paper ol").last.inner_text()
    tab.emulate_media(media="screen")


def test_two_runs_side_by_side(open_page: Open) -> None:
    """Two runs stand side by side, or below one another; nothing is wider than the window, and all
    can be read.
    """
    one = play("a.jsonl", lambda actor, number: "سأشتري الخبز " + "long" * 80)
    other = play("b.jsonl", lambda actor, number: "No" + "o" * 400, word="generous")
    report(one, "--against", other)
    tab = open_page(400)
    tab.locator("[data-cell]").first.click()
    assert (
        tab.locator("article").count() == 2
        and tab.locator("#status ins").text_content() == "generous"
    )
    assert tab.evaluate(IS_SEEN, "#title"), "something lies over the title"
    assert (
        tab.locator("article .answer .text").first.evaluate(
            "each => getComputedStyle(each).direction"
        )
        == "rtl"
    )
    for width in (400, 1400):
        tab.set_viewport_size({"width": width, "height": 900})
        first, second = (tab.locator("article").nth(number).bounding_box() for number in range(2))
        assert (first["y"] == second["y"]) == (width == 1400)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for scheme in ("dark", "light"):
            tab.emulate_media(color_scheme=scheme)
            assert tab.evaluate(CONTRASTS) == []


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
}"""  # noqa: E501


def test_twenty_thousand_calls(open_page: Open) -> None:
    """A page of 20,000 calls builds only what is in sight, and all of it is searched."""
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
    tab = open_page()
    assert tab.evaluate("document.querySelectorAll('*').length") < 2000
    tab.locator("#search").fill("says 3")
    tab.locator("#found", has_text="of 20,000").wait_for()
    tab.evaluate("document.getElementById('box').scrollTop = 1e9")
    tab.locator("[data-cell='19998']").wait_for()


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
