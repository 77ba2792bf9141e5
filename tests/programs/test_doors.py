"""What one way to record a program recorded, every other one replays: the same answers to the same callers.

The model numbers its answers as questions come in, and each question waits for a random time first. So a
replay that mixed up two calls would give other numbers.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST
from files import written
from servers import NumberedServer

import llmcall

pytest.importorskip("pandas")
pytestmark = pytest.mark.usefixtures("model")

TAPE = "a.jsonl"
NOWHERE = "http://127.0.0.1:9/v1"
Play = Callable[[], dict[str, Any]]

# Ways to ask outside any scope, and one in scopes of the program's own. The items of a map run in threads.
ASKING = """
import functools, json, multiprocessing, os, random, sys, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import httpx
import llmcall

MODEL_AT = os.environ["MODEL_AT"]
client = httpx.Client(base_url=MODEL_AT, timeout=60)
own_client = llmcall.OpenAIClient(api_key="none", base_url=MODEL_AT, model="gpt-4o-mini", temperature=1)
rate = llmcall.LLMCall(user="{{ question }} {{ age }}?", client=own_client)
PEOPLE = [{"age": 30, "question": "Rent"}, {"age": 40, "question": "Rent"}, {"age": 30, "question": "Rent"}]

def by_sdk(question, *system):
    time.sleep(random.random() / 50)
    messages = [*system, {"role": "user", "content": question}]
    body = {"model": "gpt-4o-mini", "messages": messages, "temperature": 1}
    response = client.post("/chat/completions", json=body).raise_for_status()
    return response.json()["choices"][0]["message"]["content"]

def by_llmcall(question):
    time.sleep(random.random() / 50)
    return own_client.send_message(question, on_error="raise").content

def item(ask, question, number):
    return ask(question)

def asking(ask, question):
    "Return a function of an item that asks the same about each."
    return functools.partial(item, ask, question)

def both(number):
    return [by_llmcall("Tea?"), by_sdk("Tea?"), by_llmcall("Tea?")]

def inner_map(number):
    return llmcall.map(asking(by_sdk, "Salt?"), [1, 2])

def in_scope(number):
    with llmcall.scope(f"person {number}"):
        return [by_llmcall("Fish?"), by_sdk("Fish?"), by_llmcall("Fish?")]

@llmcall.recorded(name="market.price")
def price(item):
    return [by_llmcall("Price?"), by_sdk("Price?")]

def varied():
    table = rate.table(PEOPLE, vary={"temperature": [0.5, 1]}, repeats=2)
    return table["value"].tolist()

def in_pool():
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(asking(by_llmcall, "Milk?"), range(3)))

WAYS = {
    "loop": lambda: [by_llmcall("Bread?"), by_sdk("Bread?"), by_llmcall("Bread?"), by_sdk("Bread?")],
    "map of an SDK": lambda: llmcall.map(asking(by_sdk, "Eggs?"), [1, 1, 2]),
    "map of llmcall": lambda: llmcall.map(asking(by_llmcall, "Oil?"), [1, 1, 2]),
    "map of questions": lambda: llmcall.map(by_llmcall, ["One?", "Two?", "Two?"]),
    "map of both": lambda: llmcall.map(both, [1, 1, 2]),
    "map in a map": lambda: llmcall.map(inner_map, [1, 1]),
    "map of scopes": lambda: llmcall.map(in_scope, [1, 2]),
    "repeats of an SDK": lambda: llmcall.map(asking(by_sdk, "Rice?"), [1, 1], repeats=2),
    "repeats of llmcall": lambda: llmcall.map(asking(by_llmcall, "Figs?"), [1, 1], repeats=2),
    "imap": lambda: sorted(llmcall.imap(asking(by_sdk, "Corn?"), [1, 1])),
    "rows": lambda: rate.map(PEOPLE),
    "varied rows": varied,
    "recorded functions": lambda: llmcall.map(price, [1, 1, 2]),
    "pool": in_pool,
}

def play():
    return json.loads(json.dumps({name: way() for name, way in WAYS.items()}))

def play_in_one_scope():
    with llmcall.scope("inn"), ThreadPoolExecutor(6) as pool:
        return list(pool.map(llmcall.bind(asking(by_llmcall, "Bed?")), range(6)))

def play_as_actors():
    def played(name):
        with llmcall.scope("inn"):
            system = {"role": "system", "content": name}
            return [by_sdk("Beer?", system), by_sdk("Beer?", system), by_llmcall("Wine?")]
    return [played("Ann"), played("Ben"), llmcall.map(by_llmcall, ["Ale?"] * 2), by_sdk("Ale?")]

def ask_and_divide(number):
    return [by_sdk("Jam?"), 1 / number][0]

def in_scope_of_workers(in_workers):
    with llmcall.scope("town"):
        return in_workers(asking(by_sdk, "Leek?"))

def play_in_processes():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        def in_workers(function, **options):
            return llmcall.map(function, [1, 1, 2], executor=executor, **options)
        return {
            "an SDK": in_workers(asking(by_sdk, "Nuts?"), repeats=2),
            "llmcall": in_workers(asking(by_llmcall, "Peas?"), repeats=2),
            "a scope": in_workers(asking(by_sdk, "Kale?"), scope="survey"),
            "maps": in_workers(inner_map),
            "items below a scope": in_scope_of_workers(in_workers),
            "recorded functions": in_workers(price),
        }

if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
"""


def in_a_block(play: Play, mode: str) -> dict[str, Any]:
    """Play in a block."""
    with llmcall.cassette(TAPE, mode=mode):
        return play()


def decorated(play: Play, mode: str) -> dict[str, Any]:
    """Play as a decorated function."""
    return llmcall.cassette(TAPE, mode=mode)(play)()


def in_cells(play: Play, mode: str) -> dict[str, Any]:
    """Play between two cells of a notebook."""
    tape = llmcall.cassette(TAPE, mode=mode).open()
    answers = play()
    tape.close()
    return answers


def in_patched(play: Play, mode: str) -> dict[str, Any]:
    """Play in a block inside that of ``patched``."""
    with llmcall.patched(), llmcall.cassette(TAPE, mode=mode):
        return play()


def with_patched(play: Play, mode: str) -> dict[str, Any]:
    """Play in a block around that of ``patched``."""
    with llmcall.cassette(TAPE, mode=mode), llmcall.patched():
        return play()


def by_settings(play: Play, mode: str) -> dict[str, Any]:
    """Play with the cassette that the settings name."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LLMCALL_CASSETTE_PATH", TAPE)
        environment.setenv("LLMCALL_CASSETTE_MODE", mode)
        llmcall.reset()
        answers = play()
    llmcall.reset()
    return answers


BLOCKS = [in_a_block, decorated, in_cells, in_patched, with_patched, by_settings]


@pytest.fixture
def program(model: NumberedServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program, in this process."""
    monkeypatch.syspath_prepend(Path(written("asking.py", ASKING)).parent)
    monkeypatch.delitem(sys.modules, "asking", raising=False)
    return importlib.import_module("asking")


@pytest.fixture
def play(program: Any) -> Play:
    """All its ways to ask."""
    played: Play = program.play
    return played


def run(mode: str, play: str = "play", *options: str) -> Any:
    """Play under ``llmcall run``; where it only replays, without a model."""
    address = {"MODEL_AT": NOWHERE} if mode == "none" else {}
    command = "llmcall", "run", "--cassette", TAPE, "--mode", mode, *options, "asking.py", play
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        env={**os.environ, **address},
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.ci
def test_every_block_replays_what_run_recorded(play: Play, model: NumberedServer) -> None:
    """Llmcall's own calls outside any scope, and those of a map's items, are in the scope of the run there, too."""
    live, asked = run("once"), len(model.asked)
    for block in BLOCKS:
        assert block(play, "none") == live
    assert len(model.asked) == asked


@pytest.mark.ci
@pytest.mark.parametrize("block", BLOCKS)
def test_run_and_other_blocks_replay_what_a_block_recorded(
    block: Callable[[Play, str], dict[str, Any]], play: Play, model: NumberedServer
) -> None:
    live, asked = block(play, "once"), len(model.asked)
    assert run("none") == live
    assert in_a_block(play, "none") == live
    assert by_settings(play, "none") == live
    assert len(model.asked) == asked


@pytest.mark.ci
@pytest.mark.parametrize("recorded_by", [in_patched, with_patched])
def test_patched_and_run_give_threads_in_one_scope_what_patched_recorded_for_them(
    recorded_by: Callable[[Play, str], Any], program: Any, model: NumberedServer
) -> None:
    """Equal calls of llmcall's own have callers under ``patched`` and ``llmcall run``."""
    live = recorded_by(program.play_in_one_scope, "once")
    assert len(set(live)) == len(model.asked) == 6
    for _ in range(3):
        assert recorded_by(program.play_in_one_scope, "none") == live
    assert run("none", "play_in_one_scope") == live


@pytest.mark.ci
@pytest.mark.parametrize("options", [("--scope", "rep-1"), ("--actor", "system")])
def test_a_block_takes_the_scope_and_the_actor_of_a_run_from_the_recording(
    options: tuple[str, str], program: Any, model: NumberedServer
) -> None:
    """But for a cassette of the settings, which opens with llmcall's first call: other scopes are open then."""
    live, asked = run("once", "play_as_actors", *options), len(model.asked)
    for block in (in_a_block, decorated, in_cells):
        assert block(program.play_as_actors, "none") == live
    assert len(model.asked) == asked


@pytest.mark.ci
def test_a_block_in_a_scope_stays_there(program: Any) -> None:
    """Who opened the scope of a run before needs no second one."""
    live = run("once", "play_as_actors", "--scope", "rep-1")
    with llmcall.scope("rep-1", process=True):
        assert in_a_block(program.play_as_actors, "none") == live


# Maps in processes


def different(answers: Any) -> set[str]:
    """Return the answers in lists of lists."""
    if isinstance(answers, str):
        return {answers}
    return {text for answer in answers for text in different(answer)}


@pytest.mark.ci
@pytest.mark.feature("executors")
def test_blocks_and_runs_replay_one_anothers_maps_in_processes(
    program: Any, model: NumberedServer
) -> None:
    """In a block, equal calls of an SDK in workers are draws of the scope ``run``, as in threads."""
    play = program.play_in_processes
    live, asked = in_a_block(play, "once"), len(model.asked)
    assert len(different(live["an SDK"])) == 6
    assert len(different(live["maps"])) == 6
    assert in_a_block(play, "none") == live
    assert run("none", play.__name__) == live
    Path(TAPE).unlink()
    assert len(model.asked) == asked
    live, asked = run("once", play.__name__), len(model.asked)
    assert in_a_block(play, "none") == live
    assert run("none", play.__name__) == live
    assert len(model.asked) == asked


@pytest.mark.feature("executors")
def test_a_block_replays_a_map_in_processes_as_one_in_threads(
    program: Any, model: NumberedServer
) -> None:
    """Who asks is the item, wherever it runs."""
    question = program.asking(program.by_sdk, "Nuts?")
    with llmcall.cassette(TAPE), ProcessPoolExecutor(2, get_context("spawn")) as executor:
        live = llmcall.map(question, [1, 1, 2], executor=executor)
    with llmcall.cassette(TAPE, mode="none"):
        assert llmcall.map(question, [1, 1, 2]) == live
    assert len(set(live)) == len(model.asked) == 3


@pytest.mark.feature("arms")
def test_an_update_names_the_callers_that_a_fresh_recording_names(program: Any) -> None:
    """In an arm, llmcall's own call comes before equal ones of an SDK in threads: all have names."""

    def recorded(mode: str, first: str) -> dict[str | None, str | None]:
        def play() -> None:
            program.by_llmcall(first)
            program.by_llmcall("Tea?")
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(llmcall.bind(program.asking(program.by_sdk, "Tea?")), range(2)))

        with llmcall.cassette(TAPE, mode=mode):
            llmcall.arms(play, {"early": {}, "late": {}}, scope="inn", workers=1)
        records = llmcall.cassette(TAPE).all_records()
        return {record.sample: record.caller for record in records if record.prompt == "Tea?"}

    fresh = recorded("rewrite", "Milk?")
    assert [fresh["inn/0#0"], len({*fresh.values()})] == ["arm", 3]
    assert recorded("update", "Sugar?") == fresh


@pytest.mark.ci
@pytest.mark.feature("executors")
def test_a_map_in_processes_that_failed_gives_its_programs_draws_back(
    program: Any, model: NumberedServer
) -> None:
    """Running it again goes on from there."""
    with llmcall.cassette(TAPE), ProcessPoolExecutor(2, get_context("spawn")) as executor:
        with pytest.raises(ZeroDivisionError):
            llmcall.map(program.ask_and_divide, [1, 2, 0], executor=executor)
        asked = len(model.asked)
        answers = llmcall.map(program.ask_and_divide, [1, 2, 3], executor=executor)
    assert len(set(answers)) == 3
    assert len(model.asked) <= 3
    assert asked <= 3
    samples = {record.sample for record in llmcall.cassette(TAPE).all_records()}
    assert samples == {"run#0", "run#1", "run#2"}
