"""What packages for the same purpose were measured to do wrong, each as a test of what happens here instead."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs import ran, start

import llmcall
from llmcall import CacheMissError, bind, cassette, scope
from llmcall.testing import ScriptedClient

PATH = Path("tape.jsonl")
ACTORS = ("lisa", "oscar")


def numbered(**settings: Any) -> ScriptedClient:
    """Return a model whose answers are numbered, and whose client raises."""
    client = ScriptedClient(lambda messages: f"answer {len(client.requests)}", on_error="raise", **settings)
    return client


class Baton:
    """Let two threads make their calls in a given order.

    :param order: whose turn it is, call by call.
    """

    def __init__(self, order: list[str]) -> None:
        self._order = iter(order)
        self._changed = threading.Condition()
        self._turn = next(self._order)

    def take(self, name: str, act: Callable[[], Any]) -> Any:
        """Wait for one's turn, act, and pass the baton on."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._turn == name, 10)
            done = act()
            self._turn = next(self._order, "")
            self._changed.notify_all()
        return done


def converse(client: ScriptedClient, order: list[str], changed: str | None = None) -> dict[str, list[str]]:
    """Have two actors ask the same three questions, each in a thread, in a given order.

    :param changed: who asks a second question that nobody asked before.
    """
    baton = Baton(order)

    def act(name: str) -> list[str]:
        told = []
        with scope(name):
            for turn in range(3):
                text = "Something new?" if name == changed and turn == 1 else f"Question {turn}"
                told.append(baton.take(name, lambda text=text: client.send_message(text).content))  # type: ignore[misc]
        return told

    with ThreadPoolExecutor(2) as executor, scope("trial"):
        running = {name: executor.submit(bind(act), name) for name in ACTORS}
        return {name: each.result(30) for name, each in running.items()}


ALTERNATING = [*ACTORS] * 3


@pytest.mark.parametrize("order", [[*ACTORS[::-1]] * 3, ["oscar"] * 3 + ["lisa"] * 3, ["lisa"] * 3 + ["oscar"] * 3])
def test_another_interleaving_replays_each_actor_s_own_answers(order: list[str]) -> None:
    """Two threads that come in another order get what they got, where others hand out the other actor's answer."""
    with cassette(PATH):
        live = converse(numbered(), ALTERNATING)
    assert live["lisa"] == ["answer 1", "answer 3", "answer 5"] != live["oscar"]
    with cassette(PATH, mode="none"):
        assert converse(ScriptedClient(on_error="raise"), order) == live


def test_actors_that_ask_the_same_are_no_one_actor() -> None:
    """Nor does every actor get the same answer, which is how one of the others escapes."""
    with cassette(PATH):
        live = converse(numbered(), ALTERNATING)
    assert len({*live["lisa"], *live["oscar"]}) == 6


def test_a_changed_prompt_is_a_miss() -> None:
    """A question that was not asked when it was recorded is an error that shows it, and no next answer in the line."""
    with cassette(PATH):
        live = converse(numbered(), ALTERNATING)
    client = numbered()
    with cassette(PATH, mode="none"), pytest.raises(CacheMissError, match="Something new") as caught:
        alone(client, "lisa", ["Question 0", "Something new?"])
    assert "trial/lisa" in str(caught.value) and client.requests == []
    with cassette(PATH, mode="new"):
        told = converse(client, ALTERNATING, changed="oscar")
    assert told == {**live, "oscar": [live["oscar"][0], "answer 1", live["oscar"][2]]}


def alone(client: ScriptedClient, name: str, texts: list[str]) -> list[Any]:
    """Ask as one of the two actors."""
    with scope("trial"), scope(name):
        return [client.send_message(text).content for text in texts]


def test_a_call_left_out_moves_no_other() -> None:
    """A call that is not made any more leaves the others their answers."""
    with cassette(PATH):
        live = converse(numbered(), ALTERNATING)
    with cassette(PATH, mode="none"):
        assert alone(ScriptedClient(on_error="raise"), "lisa", ["Question 2", "Question 0"]) == live["lisa"][::-2]


def test_the_same_calls_twice_are_the_same_bytes() -> None:
    """A recording made again is the same file: no time, no identifier, no order of threads is in it."""
    files = set()
    for seed in range(6):
        order = random.Random(seed).sample(ALTERNATING, 6)
        client = ScriptedClient(lambda messages: messages[-1]["content"] + "!", on_error="raise")
        with cassette(PATH, mode="rewrite"):
            converse(client, order)
        files.add(PATH.read_bytes())
    assert len(files) == 1


def test_a_growing_history_takes_its_text_once() -> None:
    """A history of 40 turns takes less than three times its text, where others take 23 to 26 times."""
    replies = iter(range(40))
    client = ScriptedClient(lambda messages: f"In turn {next(replies)} I offer my bread for two coins. " * 4)
    history: list[Any] = [{"role": "system", "content": "You are Lisa, a baker at a market. " * 8}]
    with cassette(PATH), scope("lisa"):
        for turn in range(40):
            history.append({"role": "user", "content": f"Turn {turn}: what do you do? Somebody passes by. " * 4})
            history.append(client.send_message(history))
    text = sum(len(message["content"]) for message in history)
    assert text < PATH.stat().st_size < 3 * text


KILLED = """
    client = ScriptedClient(lambda messages: f"answer {len(client.requests)}", cache_mode="auto")
    with llmcall.cassette("tape.jsonl"), llmcall.scope("trial"):
        for number in range(5):
            print(client.send_message("Go on").content, flush=True)
            if number == 2 and sys.argv[1] == "stop":
                print("ready", flush=True)
                sys.stdin.readline()
    print(len(client.requests))
"""


def test_a_killed_recording_loses_nothing() -> None:
    """After SIGKILL in the middle, the next run has every answer that had come, and asks for the others alone."""
    with start(KILLED, "stop") as process:
        assert process.stdout is not None
        came = [process.stdout.readline().strip() for _ in range(3)]
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    assert not PATH.exists()
    *again, asked = ran(KILLED, "go on").splitlines()
    assert (again[:3], asked) == (came, "2")
    assert ran(KILLED, "replay").splitlines() == [*again, "0"]


FAILING_TEST = """
import llmcall, pytest
from llmcall.testing import ScriptedClient

@pytest.mark.llm
@pytest.mark.parametrize("price", [1, 2])
def test_haggling(price):
    client = ScriptedClient(lambda messages: "Two coins.", cache_mode="auto")
    assert client.send_message(f"For {price}?", on_error="raise").content == ("Two coins." if price == 1 else "No.")
"""


def test_a_failed_test_leaves_no_cassette_behind() -> None:
    """A test that fails writes no cassette; its answers are in the cache, so the next attempt pays for none again."""
    Path("test_market.py").write_text(FAILING_TEST)
    Path("pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--llm-record=once", "test_market.py"]
    plugin = [] if _is_installed() else ["-p", "llmcall.pytest_plugin"]
    done = subprocess.run([*command, *plugin], capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert [path.name for path in Path("cassettes").rglob("*.jsonl")] == ["test_haggling[1].jsonl"]
    with llmcall.ResponseCache(".llmcall/cache") as cache:
        assert len(cache) == 2


def _is_installed() -> bool:
    """Return whether pytest finds the plugin by itself."""
    from importlib.metadata import entry_points

    return any(point.value == "llmcall.pytest_plugin" for point in entry_points(group="pytest11"))
