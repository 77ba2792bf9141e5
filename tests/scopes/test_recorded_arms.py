"""Records name the arms that used them: on cassettes, in caches, and where a reader sees them."""

from __future__ import annotations

import json
import re
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from commands import done
from files import chat, write_cassette
from map_functions import samples
from servers import RedisProcess

import llmcall
from llmcall.testing import ScriptedClient
from llmcall.types import Record

pytestmark = pytest.mark.newest_only

GIVEN = {"control": 0, "treated": 15, "placebo": 0}


@pytest.fixture
def client() -> ScriptedClient:
    """A client that answers all chats alike."""
    return ScriptedClient(lambda messages: "No.", cache_mode="auto")


def play(client: ScriptedClient, subsidy: int) -> None:
    """Ask two households; what one of them is asked depends on the arm."""
    with llmcall.scope("bob"):
        client.send_message("Do you heat with gas?", temperature=1)
    with llmcall.scope("ann"):
        client.send_message(f"A heat pump, with {subsidy} % off?", temperature=1)


def study(client: ScriptedClient, *names: str) -> None:
    """Play arms, by default two."""
    with llmcall.configured(cache_mode="auto"), llmcall.scope("app"):
        for name in names or ("control", "treated"):
            with llmcall.scope(0), llmcall.arm(name):
                play(client, GIVEN[name])


def arms_in(path: str) -> list[tuple[str, list[str] | None]]:
    """Return the words that each record of a file asks, and its arms."""
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [
        (line["request"]["messages"][-1]["content"], line.get("arms"))
        for line in lines
        if "kind" in line
    ]


def arms_of(records: Any) -> dict[str, tuple[str, ...]]:
    """Return the arms of records by what they ask."""
    return {record.prompt: record.arms for record in records}


TWO = [
    ("A heat pump, with 0 % off?", ["control"]),
    ("A heat pump, with 15 % off?", ["treated"]),
    ("Do you heat with gas?", ["control", "treated"]),
]

# On cassettes


def test_a_line_names_the_arms_beside_the_key() -> None:
    """After the sample; a record that no arm used has no such field, and no key knows of arms."""
    record = chat("Hi", "Yes.", "r/ann#0")
    path = write_cassette("a.jsonl", [record, chat("Ho", "No.", "r/ann#0").with_arms(("b", "a"))])
    first, second = path.read_text(encoding="utf-8").splitlines()[1:]
    assert first.startswith('{"kind": "chat", "sample": "r/ann#0", "request": {')
    assert second.startswith(
        '{"kind": "chat", "sample": "r/ann#0", "arms": ["b", "a"], "request": {'
    )
    assert record.with_arms(("a",)).cache_key == record.cache_key


def test_a_record_names_arms_in_the_order_of_their_first_calls(client: ScriptedClient) -> None:
    """What is asked outside arms has none."""
    with llmcall.cassette("a.jsonl"):
        study(client)
        client.send_message("Outside?", temperature=1)
    assert arms_in("a.jsonl") == [("Outside?", None), *TWO]


def test_an_arm_that_is_entered_by_hand_is_named_too() -> None:
    """For embeddings and recorded functions as well."""
    client = ScriptedClient(lambda texts: [[0.5]] * len(texts), cache_mode="auto")
    coin = llmcall.recorded(name="coin", shared=True)(lambda: 1)
    with (
        llmcall.configured(cache_mode="auto"),
        llmcall.cassette("a.jsonl") as tape,
        llmcall.scope("r"),
    ):
        for name in ("a", "b"):
            with llmcall.arm(name):
                coin()
                client.get_embedding("gas")
        assert [record.arms for record in tape.all_records()] == [("a", "b")] * 2
    assert Path("a.jsonl").read_text(encoding="utf-8").count('"arms": ["a", "b"]') == 2


@pytest.mark.feature("executors")
def test_an_arms_calls_in_other_processes_are_named() -> None:
    """A map brings them home."""
    with (
        llmcall.configured(cache_mode="auto"),
        llmcall.cassette("a.jsonl"),
        ProcessPoolExecutor(1) as pool,
        llmcall.scope("r"),
        llmcall.arm("a"),
    ):
        llmcall.map(samples, [1], executor=pool)
    assert [arms for _, arms in arms_in("a.jsonl")] == [["a"]] * 3


@pytest.mark.parametrize(
    ("first", "mode", "again", "named"),
    [
        *(("ct", mode, "ct", "c t ct") for mode in ("none", "once", "new", "update")),
        ("ct", "none", "ctp", "c t ct"),
        ("ct", "once", "ctp", "c t ct"),
        pytest.param("ct", "update", "ctp", "cp t ctp", id="update: it asks nothing new"),
        pytest.param("c", "new", "t", "c t ct", id="new: another run used the records, too"),
        pytest.param("ct", "update", "t", " t t", id="update: the others are gone"),
        pytest.param("ct", "update", "t!", "c t ct", id="update: it failed before the others"),
    ],
)
def test_a_mode_decides_which_arms_are_named(
    client: ScriptedClient, first: str, mode: str, again: str, named: str
) -> None:
    """Of the control, treated and placebo arms; no other line of the file changes."""
    names = {name[0]: name for name in GIVEN}
    with llmcall.cassette("a.jsonl"):
        study(client, *(names[it] for it in first))
    before = Path("a.jsonl").read_bytes()
    with suppress(ZeroDivisionError), llmcall.cassette("a.jsonl", mode=mode):
        study(client, *(names[it] for it in again.strip("!")))
        if "!" in again:
            raise ZeroDivisionError
    arms = [[names[it] for it in used] for used in named.split(" ")]
    pairs = zip((text for text, _ in TWO), arms, strict=True)
    assert sorted(arms_in("a.jsonl")) == [(text, used) for text, used in pairs if used]
    assert first != again or Path("a.jsonl").read_bytes() == before


def test_a_recording_that_broke_off_names_arms_like_an_undisturbed_one(
    client: ScriptedClient,
) -> None:
    """In the order of the program, though another arm had come first."""
    with llmcall.cassette("whole.jsonl"):
        study(client)
    with pytest.raises(ZeroDivisionError), llmcall.cassette("broken.jsonl"):
        study(client, "treated")
        raise ZeroDivisionError
    with llmcall.cassette("broken.jsonl"):
        study(client)
    assert arms_in("broken.jsonl") == arms_in("whole.jsonl")


def test_a_resumed_recording_names_the_arm_whose_function_it_does_not_run_again(
    client: ScriptedClient,
) -> None:
    """In the function's place among the arms: its calls are not made again."""

    @llmcall.recorded
    def haggle() -> str:
        return client.send_message("Bread?", on_error="raise").content

    def bargain(*names: str) -> None:
        with llmcall.scope("app"):
            for name in names:
                with llmcall.arm(name):
                    haggle()

    def orders() -> list[Any]:
        lines = map(json.loads, Path("a.jsonl").read_text(encoding="utf-8").splitlines()[1:])
        return [(line["kind"], line.get("arms")) for line in lines]

    with pytest.raises(ZeroDivisionError), llmcall.cassette("a.jsonl"):
        bargain("control")
        raise ZeroDivisionError
    with llmcall.cassette("a.jsonl"):
        bargain("control", "treated")
    assert orders() == [
        ("function", ["control"]),
        ("function", ["treated"]),
        ("chat", ["control", "treated"]),
    ]


def test_records_from_the_cache_have_the_arms_of_this_run_alone(client: ScriptedClient) -> None:
    """The cache may know of other arms."""
    study(client, "treated", "control")
    with llmcall.cassette("a.jsonl"):
        study(client, "placebo")
    assert arms_in("a.jsonl") == [(text, ["placebo"]) for text, _ in (TWO[0], TWO[2])]


# Files joined


def test_equal_lines_with_other_arms_are_one_record_of_all_arms() -> None:
    one, other = (chat("Hi", "Yes.", "r#0").with_arms((name,)) for name in "ab")
    lines = [
        line
        for number, record in enumerate((one, other))
        for line in write_cassette(f"{number}.jsonl", [record]).read_text("utf-8").splitlines()
    ]
    Path("both.jsonl").write_text("\n".join(dict.fromkeys(lines)) + "\n", "utf-8")
    [record] = llmcall.cassette("both.jsonl").all_records()
    assert record.arms == ("a", "b")
    cache = llmcall.ResponseCache("cache")
    cache.load("both.jsonl")
    assert arms_of(cache.records()) == {"Hi": ("a", "b")}
    done("cassette", "merge", "0.jsonl", "1.jsonl", "-o", "merged.jsonl")
    assert arms_in("merged.jsonl") == [("Hi", ["a", "b"])]


# In caches


def test_a_cache_names_the_arms_in_their_alphabets_order(client: ScriptedClient) -> None:
    """It knows no order of calls; a replay without a cassette notes nothing."""
    study(client, "treated", "control")
    assert arms_of(client.cache.records()) == {text: tuple(arms) for text, arms in TWO}
    with llmcall.configured(cache_mode="replay"):
        again = ScriptedClient(cache_mode="replay")
        with llmcall.scope("app"), llmcall.scope(0), llmcall.arm("placebo"):
            play(again, 0)
    assert arms_of(client.cache.records()) == {text: tuple(arms) for text, arms in TWO}


def test_a_cache_in_redis_names_the_arms_too(redis_process: RedisProcess) -> None:
    with redis_process.client() as server:
        server.flushall()
    with llmcall.configured(cache_path=redis_process.url):
        client = ScriptedClient(lambda messages: "No.", cache_mode="auto")
        study(client)
        assert arms_of(client.cache.records()) == {text: tuple(arms) for text, arms in TWO}


def test_noting_an_arm_changes_nothing_else(client: ScriptedClient) -> None:
    """The answer, its time and its order stay."""
    study(client, "control")
    before = list(client.cache.records())
    study(client, "placebo")
    after = list(client.cache.records())
    assert [record.arms for record in after] == [("control", "placebo")] * 2
    assert [record.replace(arms=("control",)) for record in after] == before


def test_export_and_load_keep_the_arms(client: ScriptedClient) -> None:
    study(client)
    client.cache.export("a.jsonl")
    assert sorted(arms_in("a.jsonl")) == TWO
    other = llmcall.ResponseCache("other")
    other.load("a.jsonl")
    assert arms_of(other.records()) == arms_of(client.cache.records())


def test_a_cache_that_cannot_be_written_still_answers_in_an_arm(
    client: ScriptedClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says once that its records do not name the arm."""
    study(client, "control")

    def refuse(_: object) -> int:
        raise OSError("the disk is full")

    monkeypatch.setattr(client.cache.storage, "write", refuse)
    study(client, "placebo")
    warnings = [entry.getMessage() for entry in caplog.records if "name the arms" in entry.message]
    assert len(warnings) == 1 and warnings[0].endswith("the disk is full")


# Where they are shown


@pytest.fixture
def path(client: ScriptedClient) -> str:
    """Record a study of two arms."""
    with llmcall.cassette("a.jsonl"):
        study(client)
    return "a.jsonl"


def test_show_names_the_arms_of_each_call(path: str) -> None:
    """At the end of the call's line."""
    heads = [line for line in done("show", path).splitlines() if line.startswith("---")]
    assert [re.findall(r"in arms? .*", line) for line in heads] == [
        ["in arm control"],
        ["in arm treated"],
        ["in arms control, treated"],
    ]
    assert [record["arms"] for record in json.loads(done("show", path, "--json"))] == [
        ["control"],
        ["treated"],
        ["control", "treated"],
    ]


@pytest.mark.feature("report")
def test_a_report_shows_the_design() -> None:
    """Each arm with its calls, and those that several share."""
    records = [
        chat("Hi", "Yes.", f"r/{name}#0", temperature=level).with_arms(arms)
        for name, level, arms in (
            ("ann", 0, ("control", "treated")),
            ("bob", 1, ("control",)),
            ("cem", 1, ("treated",)),
        )
    ]
    done("report", write_cassette("a.jsonl", records), "-o", "a.html")
    page = Path("a.html").read_text(encoding="utf-8")
    facts = dict(re.findall(r'<th scope="row">(.*?)</th><td dir="auto">(.*?)</td>', page))
    assert facts["arms"] == "control (2), treated (2); 1 shared"
    assert "arms control, treated" in page


def test_frames_have_a_column_of_arms_where_there_are_some(path: str) -> None:
    frame = llmcall.cassette(path).to_frame(levels=["app", "repeat", "household"])
    assert list(frame.columns[:6]) == ["scope", "app", "repeat", "household", "draw", "arms"]
    assert list(frame["arms"]) == [tuple(arms or ()) for _, arms in TWO]
    cache = llmcall.ResponseCache("other")
    cache.load(path)
    assert list(cache.to_frame()["arms"]) == list(frame["arms"])
    records: list[Record] = [chat("Hi", "Yes.")]
    assert "arms" not in llmcall.cassette(write_cassette("b.jsonl", records)).to_frame()
