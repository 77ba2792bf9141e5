"""The page for a reviewer: one file, nothing loaded, nothing of the texts run, and usable in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conversations import HOSTILE, chat, conversation, embedding, function
from hypothesis import given
from hypothesis import strategies as st

from llmcall.review.conversations import grouped
from llmcall.review.page import page
from llmcall.types import Record

TURNS = [("Bread for 3?", "Yes."), ("And for 5?", "No.")]
LONG = "A careful buyer. " * 100
ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "dl", "div", "dt", "dd", "input", "output",
    "button", "nav", "h2", "ul", "li", "a", "span", "main", "details", "summary", "article", "p", "script",
}  # fmt: skip
VOID = {"meta", "input", "img", "br", "hr", "link"}


class Parsed(HTMLParser):
    """Read a page: its elements with their attributes, its text, and whether its elements are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.inside: dict[str, str] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.inside[self.open[-1]] = data
        else:
            self.text += data

    def named(self, name: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of a name."""
        return [attributes for tag, attributes in self.elements if tag == name]


def made(records: list[Record], name: str = "market.jsonl", **settings: Any) -> Parsed:
    """Return the page of records, read."""
    return Parsed(page(name, settings, grouped(records)))


def test_all_is_in_it() -> None:
    """The page holds every question and answer once, the settings, the scopes and the sums."""
    parsed = made([*conversation("day/lisa#0", TURNS), embedding("bread", [0.5])], temperature=0.7)
    words = re.sub(r"\s+", " ", parsed.text)
    for text in ("market.jsonl", "temperature0.7", "records3", "tokens in40", "cost$0.000040", "Yes.", "And for 5?"):
        assert text in words
    assert words.count("You are Lisa.") == 1 and words.count("Bread for 3?") == 2  # the second names the first call
    assert len(parsed.named("article")) == 3 and not parsed.open
    assert "goes on from call 1, 3 messages" in words and "20 → 5 tokens · $0.000020" in words


@given(st.text(max_size=30))
def test_hostile_text_stays_text(text: str) -> None:
    """Whatever stands in a name, a setting, a scope, a question or an answer makes no element and no attribute."""
    hostile = text + HOSTILE
    names = [("model", hostile), (hostile, "x")]
    record = chat(
        [{"role": "user", "name": hostile, "content": hostile}], hostile, f"{hostile}#{hostile}", **dict(names)
    )
    record.request["model"] = hostile
    parsed = made([record, function(hostile, {hostile: hostile}, hostile)], hostile, **{hostile: hostile})
    assert not parsed.open and not parsed.named("img") and len(parsed.named("script")) == 1
    assert {name for name, _ in parsed.elements} <= ELEMENTS
    assert all(key and not key.startswith("on") for _, attributes in parsed.elements for key in attributes)
    assert "\x1b" not in parsed.text and parsed.text.count("{{ 7*7 }}") >= 8


def test_nothing_is_loaded() -> None:
    """No element names a file or an address, and the policy allows the page's own style and script alone."""
    parsed = made(conversation("s#0", TURNS))
    links = [attributes.get("href") or "" for _, attributes in parsed.elements if "href" in attributes]
    assert links and all(re.fullmatch(r"#[cs]\d+", link) for link in links)
    assert not any("src" in attributes or "style" in attributes for _, attributes in parsed.elements)
    assert "url(" not in parsed.inside["style"] and "@import" not in parsed.inside["style"]
    policy = next(each["content"] or "" for each in parsed.named("meta") if "http-equiv" in each)
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.inside[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")


def test_links_lead_somewhere() -> None:
    """Every link of the page leads to a call or a scope of it."""
    parsed = made([record for name in "ab" for record in conversation(f"{name}#0", TURNS, LONG)])
    ids = {attributes["id"] for _, attributes in parsed.elements if "id" in attributes}
    assert {(attributes["href"] or "")[1:] for attributes in parsed.named("a")} <= ids


def test_a_long_text_is_folded_and_stands_once() -> None:
    """A long text can be unfolded, and where it comes again there is a link to the first."""
    records = [record for name in "abc" for record in conversation(f"{name}#0", TURNS, LONG)]
    html = page("x", {}, grouped(records))
    assert html.count(LONG.strip()) == 1 and html.count(">as in call 1</a>") == 2
    assert '<details class="fold"><summary><span class="words">A careful buyer.' in html


def test_an_empty_file() -> None:
    """A file without records makes a page that says so."""
    parsed = made([])
    assert "No records." in parsed.text and not parsed.named("article")


def test_two_thousand_records_stay_small() -> None:
    """The page of 2,000 records in growing conversations is no more than a few times their words."""
    turns = [
        (f"Question {number} {'of many words ' * 10}", f"Answer {number} {'of many ' * 15}") for number in range(50)
    ]
    records = [record for actor in range(40) for record in conversation(f"day/actor-{actor}#0", turns, LONG)]
    html = page("x", {}, grouped(records))
    assert html.count("<article") == 2000
    assert len(html.encode()) < 5 * 40 * sum(len(part) for turn in turns for part in turn)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 2,000 records, all of them hostile."""
    turns = [(f"Question-{number} {HOSTILE}", f"Answer-{number} {HOSTILE}") for number in range(50)]
    records = [record for actor in range(40) for record in conversation(f"day/actor-{actor}#0", turns, HOSTILE)]
    file = tmp_path_factory.mktemp("hostile") / "page.html"
    file.write_text(page(HOSTILE, {HOSTILE: HOSTILE}, grouped(records)), encoding="utf-8")
    return file


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no Chromium here")
def test_in_a_browser(hostile_page: Path, tmp_path: Path) -> None:
    """A real browser runs the page's script, and none of the texts of 2,000 records."""
    address = f"{hostile_page.as_uri()}#c1500"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", profile, "--dump-dom", address]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    parsed = Parsed(dom)
    assert '<div class="tools">' in dom  # the script shows what only works with it
    assert not parsed.named("img") and len(parsed.named("script")) == 1 and len(parsed.named("article")) == 2000
    assert parsed.text.count("{{ 7*7 }}") >= 4000


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no Chromium here")
def test_a_reviewer_searches(hostile_page: Path) -> None:
    """In 2,000 hostile records a reviewer finds, follows links and unfolds; nothing else is loaded or run."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(60_000)
        addresses: list[str] = []
        complaints: list[str] = []
        tab.on("request", lambda request: addresses.append(request.url.partition("#")[0]))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        tab.goto(f"{hostile_page.as_uri()}#c1500")
        assert tab.locator("#c1500").is_visible()
        _search(tab)
        assert addresses == [hostile_page.as_uri()] and not complaints
        browser.close()


def _search(tab: Any) -> None:
    """Search by a word and a scope, leave the search by its key, and follow a link to a call that was filtered out."""
    tab.keyboard.press("/")
    tab.keyboard.type("answer-49 ACTOR-17")
    tab.locator("#found", has_text="1 of 2000").wait_for()
    assert tab.locator("article:visible").count() == 1 and tab.locator("details.scope:visible").count() == 1
    tab.locator("article:visible a", has_text="goes on from call 899").click()
    tab.locator("#found:empty").wait_for(state="attached")
    assert tab.locator("article:target").is_visible() and tab.locator("#search").input_value() == ""
    assert tab.locator("article:visible").count() == 2000
    tab.locator("#fold").click()
    assert tab.locator("article:visible").count() == 0
