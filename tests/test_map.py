"""Maps of items: what is drawn once is drawn once, whoever runs the items and however the map ends."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from typing import Any

import pytest

import llmcall
from llmcall.testing import ScriptedClient


def client() -> ScriptedClient:
    """Return a client that never answers the same twice."""
    number = count()
    return ScriptedClient(lambda messages: f"answer {next(number)}", cache_mode="auto")


def drawn(item: Any) -> str | None:
    """Return the sample of a question."""
    return ScriptedClient(lambda messages: "yes").send_message("Well?", on_error="raise").sample


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_repeats_in_other_processes_draw_on() -> None:
    """The second map over the same items in one scope draws anew, in processes as in threads."""
    found = []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        for executor in (None, pool):
            with llmcall.scope("trial"):
                found.append([llmcall.map(drawn, "abcd", key=str, repeats=2, executor=executor) for _ in range(3)])
    threads, processes = found
    assert processes == threads
    assert threads[2][0] == ["trial/a#2", "trial/a/~1#2"]


def test_repeats_share_no_scope_with_the_functions_own() -> None:
    """A function that numbers its rounds by scopes has them apart from its repeats."""

    def rounds(item: str) -> list[str | None]:
        samples = [drawn(item)]
        for number in range(3):
            with llmcall.scope(str(number)):
                samples.append(drawn(item))
        return samples

    found = llmcall.map(rounds, "a", key=str, repeats=3, scope="trial")
    samples = [sample for repeat in found[0] for sample in repeat]
    assert len(set(samples)) == 12 and {sample.partition("#")[2] for sample in samples} == {"0"}


def test_a_map_that_failed_goes_on_in_a_kept_scope() -> None:
    """What is finished is not asked again, and the exception says which item failed and how many are done."""
    asking, is_broken = client(), True
    trial = llmcall.scope("trial")

    def work(item: str) -> str | None:
        if is_broken and item == "c":
            raise ValueError("bad")
        return asking.send_message(item, on_error="raise").content

    with trial, pytest.raises(ValueError, match="bad") as caught:
        llmcall.map(work, "abcd", key=str, workers=1)
    done = [result for result in caught.value.results if result]  # type: ignore[attr-defined]
    if hasattr(caught.value, "__notes__"):
        assert caught.value.__notes__[0].startswith(f"item 2 of 4 (c): {len(done)} of 4 done")
    is_broken = False
    with trial:
        assert set(done) < set(llmcall.map(work, "abcd", key=str))
    assert len(asking.requests) == 4


def test_an_imap_left_early_gives_its_draws_back() -> None:
    """What was begun and not received is what the next one gets; what was received stays."""
    asking = client()
    with llmcall.scope("trial"):
        for _ in llmcall.imap(lambda item: asking.send_message(item).sample, "abcdef", key=str, workers=1):
            break
        found = llmcall.map(lambda item: asking.send_message(item).sample, "abcdef", key=str)
    assert found == ["trial/a#1", *(f"trial/{item}#0" for item in "bcdef")]
