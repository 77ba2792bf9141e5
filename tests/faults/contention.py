"""What a process of many threads does with a cache that others use at the same time.

Questions are of three kinds: ``kept`` ones are never deleted or overwritten, so that all callers of all processes must
get the same answer; ``fresh`` ones are asked anew by clients that refresh; ``gone`` ones are deleted again and again.
"""

from __future__ import annotations

import os
import random
import threading
import time
import warnings
from typing import Any

from workers import Journal, client_at, digest, is_answer_to

from llmcall.cache.cache import ResponseCache
from llmcall.types import Record

MODES = ("auto", "refresh")
KINDS = ("kept", "kept", "fresh", "gone")
FIRST_QUESTIONS, NEW_QUESTIONS = 50, 20  # at the beginning; in each second
DELETED, REFRESHED = 0.03, 0.3  # the parts of the calls of their kinds


def contend(journal: Journal, folder: str, writer: str, seconds: float, threads: int, seed: int) -> None:
    """Use a cache in many threads until the time is over, and fork in the middle of it.

    Written to the journal: each kept question with its answer's digest, once a thread; the longest call; how many.
    """
    ends = time.monotonic() + seconds
    errors: list[BaseException] = []
    # All that is imported is imported before: a fork while another thread imports something hangs in Python itself.
    first = Contender(journal, folder, f"{writer}.first", ends, seed)
    first.use_all()
    workers = [Contender(journal, folder, f"{writer}.{number}", ends, seed + number) for number in range(threads)]
    started = [threading.Thread(target=each.run, args=(errors,)) for each in workers]
    for thread in started:
        thread.start()
    fork_in_the_middle(journal, folder, writer, ends, seed)
    for thread in started:
        thread.join()
    for error in errors:
        raise error
    journal.write("longest", max(each.longest for each in workers))
    journal.write("calls", sum(each.calls for each in workers))


def fork_in_the_middle(journal: Journal, folder: str, writer: str, ends: float, seed: int) -> None:
    """Fork while all threads are at work; the child uses the cache, too."""
    threading.Event().wait(max(0.0, ends - time.monotonic()) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, from Python 3.12 on
        child = os.fork()
    if not child:
        errors: list[BaseException] = []
        contender = Contender(journal, folder, f"{writer}.child", ends, seed - 1)
        contender.run(errors)
        journal.write("child", contender.calls, [repr(error) for error in errors])
        os._exit(0 if contender.calls and not errors else 1)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the forked process ended with {status}"


class Contender:
    """Use a cache in one thread.

    :ivar longest: the seconds that the longest call took.
    :ivar calls: how many there were.
    """

    def __init__(self, journal: Journal, folder: str, writer: str, ends: float, seed: int) -> None:
        self._journal = journal
        self._random = random.Random(seed)
        self._ends = ends
        self._begun = time.monotonic()
        self._folder = folder
        self._clients = {mode: client_at(folder, writer, cache_mode=mode, temperature=0) for mode in MODES}
        self._told: dict[str, str] = {}
        self.longest = 0.0
        self.calls = 0

    def run(self, errors: list[BaseException]) -> None:
        """Go on until the time is over, but do each thing once at least."""
        try:
            for number in range(10**9):
                if time.monotonic() > self._ends and number >= len(KINDS):
                    return
                begun = time.monotonic()
                self._use(KINDS[number % len(KINDS)])
                self.longest = max(self.longest, time.monotonic() - begun)
                self.calls += 1
        except BaseException as error:  # it is raised where the threads are joined
            errors.append(error)

    def use_all(self) -> None:
        """Do each thing once."""
        for mode in MODES:
            self._clients[mode].send_message(f"fresh {mode}")
        self._delete("gone 0")

    def _use(self, kind: str) -> None:
        question = f"{kind} {self._random.randrange(self._questions())}"
        if kind == "gone" and self._random.random() < DELETED:
            self._delete(question)
            return
        refreshing = kind == "fresh" and self._random.random() < REFRESHED
        reply: Any = self._clients["refresh" if refreshing else "auto"].send_message(question)
        assert is_answer_to(question, reply["content"]), f"{question}: {reply['content'][:200]}"
        if kind == "kept":
            self._tell(question, digest(reply["content"]))

    def _questions(self) -> int:
        """Return how many different questions there are by now: always new ones, which several ask at once."""
        return FIRST_QUESTIONS + int(NEW_QUESTIONS * (time.monotonic() - self._begun))

    def _delete(self, question: str) -> None:
        def is_it(record: Record) -> bool:
            return bool(record.request["messages"][-1]["content"] == question)

        with ResponseCache(self._folder) as cache:
            cache.delete(where=is_it)

    def _tell(self, question: str, said: str) -> None:
        if question not in self._told:
            self._told[question] = said
            self._journal.write(question, said)
        assert self._told[question] == said, f"{question} had another answer before"
