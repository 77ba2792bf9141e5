"""Processes that can be killed at any instant, and what they do: each function below runs in one.

They are forked, within milliseconds, from one that has imported all they need: the nursery, which
runs one thread, so that forking it is safe. What a process did is in its journal, a file to which
each line is written in one go, and only after the caller had what the line says.
"""

from __future__ import annotations

import json
import logging
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import llmcall
from llmcall import ResponseCache
from llmcall.testing import ScriptedClient

HERE = Path(__file__).parent
SEED = "LLMCALL_FAULT_SEED"
# Looked up before the first test takes all of llmcall's variables out of the environment.
GIVEN_SEED = os.environ.get(SEED)
SECONDS = 120.0  # that something may take on a slow machine before a test gives up
LONGEST = 600.0  # that a process may take which works for a minute
KILLED = -signal.SIGKILL
SOON = 0.001

# Forks a process for each line that it reads: the name of a function of the module workers, its
# journal, its arguments.
NURSERY = """
import json, os, sys, warnings
sys.path.insert(0, sys.argv[1])
import diskcache, workers
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        status = os.waitpid(order["wait"], 0)[1]
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
        continue
    child = os.fork()
    if not child:
        workers.run(order["name"], order["journal"], order["arguments"])
    print(json.dumps(child), flush=True)
"""


def seeded() -> random.Random:
    """Return random numbers from the seed in LLMCALL_FAULT_SEED ("new": any), or always the same;
    it is printed.
    """
    seed = int.from_bytes(os.urandom(4), "big") if GIVEN_SEED == "new" else int(GIVEN_SEED or 1)
    print(f"{SEED}={seed}")
    return random.Random(seed)


def pause(seconds: float) -> None:
    """Wait: random instants are what is tried here."""
    threading.Event().wait(seconds)


class Worker:
    """One of the nursery's children.

    :ivar journal: the file that it writes to.
    """

    def __init__(self, nursery: Nursery, pid: int, journal: Path) -> None:
        self._nursery = nursery
        self.pid = pid
        self.journal = journal
        self.status: int | None = None

    def lines(self) -> list[Any]:
        """Return what it has written so far, parsed."""
        data = self.journal.read_bytes() if self.journal.exists() else b""
        # a kill may have cut the last one
        return [json.loads(line) for line in data.split(b"\n")[:-1]]

    def wait_for_lines(self, count: int) -> None:
        """Wait until it has written so many lines."""
        waited = 0.0
        while not self.journal.exists() or self.journal.read_bytes().count(b"\n") < count:
            pause(SOON)
            waited += SOON
            assert waited < SECONDS, f"{self.journal.name} has {self.lines()[-3:]}"

    def kill(self) -> None:
        """Kill it by SIGKILL; it may have ended already."""
        if self.status is None:  # until it is waited for, its number is its own
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Wait until it has ended; return its exit code, negative for a signal."""
        if self.status is None:
            self.status = self._nursery.order(wait=self.pid)
        assert self.status is not None
        return self.status

    def killed(self) -> int:
        """Kill it and wait for its end; what it came to before the kill must not have been an
        error.
        """
        self.kill()
        assert self.end() in (KILLED, 0), self.lines()[-1:]
        return self.end()

    def done(self) -> list[Any]:
        """Wait until it has ended well; return what it wrote."""
        assert self.end() == 0, self.lines()[-1:]
        return self.lines()


class Nursery:
    """Start processes quickly; a context manager, at whose end none is left.

    :param folder: where their journals lie.
    :param python: the interpreter; the running one, unless another is named.
    """

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        self._workers: list[Worker] = []
        self._process = subprocess.Popen(
            [python, "-c", NURSERY, str(HERE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def order(self, **order: Any) -> Any:
        """Send one line, and return the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], LONGEST)
        assert ready, f"{order} is not done after {LONGEST} seconds"
        answer = self._process.stdout.readline()
        assert answer, "the nursery has ended; what it said stands above"
        return json.loads(answer)

    def start(self, name: str, *arguments: Any) -> Worker:
        """Start a function of the module workers in a process of its own."""
        journal = self.folder / f"{name}-{len(self._workers)}-{os.urandom(4).hex()}.journal"
        plain_arguments = [
            str(argument) if isinstance(argument, Path) else argument for argument in arguments
        ]
        pid = self.order(name=name, journal=str(journal), arguments=plain_arguments)
        self._workers.append(Worker(self, pid, journal))
        return self._workers[-1]

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._process.kill()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()


LONG = 40_000  # characters: over ten pages of the database


def run(name: str, journal: str, arguments: list[Any]) -> None:
    """Run one of the functions here, and end the process without a way back."""
    warnings.simplefilter("error")
    journal_of = Journal(journal)
    handler = Complaining(journal_of)
    logging.getLogger("llmcall").addHandler(handler)
    status = 1
    try:
        globals()[name](journal_of, *arguments)
        status = 0
    except BaseException:  # noqa: BLE001 - it stands in the journal
        journal_of.write({"error": traceback.format_exc()})
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


class Journal:
    """Write lines to a file, each in one go."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *values: Any) -> None:
        """Write one line of JSON: what was given, or the list of it."""
        line = json.dumps(values[0] if len(values) == 1 else values) + "\n"
        os.write(self._handle, line.encode())


class Complaining(logging.Handler):
    """Write each warning of llmcall's to a journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Write it down, unless it tells of records that other workers left in a cassette or cache."""
        if not any(words in record.getMessage() for words in ("not used", "reused from")):
            self._journal.write({"warning": record.getMessage()})


def answer_to(question: str, writer: str) -> str:
    """Return an answer that tells its question and its writer, and whether it is whole; some are
    long.
    """
    head = f"{question}|{writer}|{os.urandom(8).hex()}"
    body = "x" * (LONG if question.endswith("7") else len(question))
    return f"{head}|{sha256(head.encode()).hexdigest()[:16]}|{body}"


def is_answer_to(question: str, answer: Any) -> bool:
    """Tell whether an answer is one to this question, and whole."""
    if not isinstance(answer, str) or answer.count("|") != 4:
        return False
    head, _, rest = answer.rpartition("|")[0].rpartition("|")
    size = LONG if question.endswith("7") else len(question)
    whole = (
        rest == sha256(head.encode()).hexdigest()[:16] and answer.rpartition("|")[2] == "x" * size
    )
    return whole and head.startswith(f"{question}|")


def digest(answer: str) -> str:
    """Return what a journal holds of an answer."""
    return sha256(answer.encode()).hexdigest()[:16]


def client_at(folder: str, writer: str, **settings: Any) -> ScriptedClient:
    """Return a client whose answers belong to their questions."""
    # looking for a package of prices is no part of what is tried
    known = {"prices": {"gpt-4o-mini": (0.15, 0.6)}}
    merged = {"cache_mode": "auto", "cache_path": folder, "on_error": "raise", **known, **settings}
    return ScriptedClient(lambda messages: answer_to(messages[-1]["content"], writer), **merged)


def fill(folder: Path, count: int) -> None:
    """Store some answers."""
    with client_at(str(folder), "before") as client:
        for number in range(count):
            client.send_message(f"question {number}")
        client.cache.close()


def ask(journal: Journal, folder: str, writer: str, begin: int) -> None:
    """Ask one question after the other until the process is killed; others may ask the same."""
    client = client_at(folder, writer)
    number = begin
    while True:
        question = f"question {number}"
        reply = client.send_message(question)
        journal.write(question, digest(reply["content"]))
        number += 1


def map_all(journal: Journal, folder: str, count: int) -> None:
    """Ask many questions in a map of four threads."""
    client = client_at(folder, "map")

    def one(number: int) -> None:
        reply = client.send_message(f"item {number}")
        journal.write(f"item {number}", digest(reply["content"]))

    llmcall.map(one, range(count), workers=4)
    journal.write("asked", len(client.requests))


def change(journal: Journal, folder: str, method: str, argument: str) -> None:
    """Export a cache to a file, or load one into it."""
    with ResponseCache(folder) as cache:
        journal.write("begin", len(cache))
        journal.write("end", getattr(cache, method)(argument))


def record(journal: Journal, folder: str, tape: str, begin: int, count: int) -> None:
    """Add answers to a cassette."""
    client = client_at(folder, "cassette")
    with llmcall.cassette(tape, mode="new"):
        for number in range(begin, begin + count):
            journal.write(
                f"line {number}", digest(client.send_message(f"line {number}")["content"])
            )
        journal.write("begin", len(client.requests))
    journal.write("end", count)


def play(journal: Journal, tape: str, log: str, mode: str, cache_mode: str, plot: str) -> None:
    """Record conversations. The model's log has each question before its answer; the journal each that got one.

    :param mode: the cassette's.
    :param plot: ``actors`` in threads; ``sharing`` ones, which ask for the same in one scope; or ``arms``.
    """
    asked = Journal(log)

    def answer(messages: Any) -> str:
        asked.write(messages[-1]["content"])
        pause(0.001)
        return f"{len(messages)}: {messages[-1]['content']} " * 3

    settings = {"cache_mode": cache_mode, "cache_path": f"{log}.cache", "on_error": "raise"}
    client = ScriptedClient(answer, **settings)

    def ask(question: str, history: Any = ()) -> Any:
        messages = [*history, {"role": "user", "content": question}]
        reply = client.send_message(messages)
        journal.write("got", question)
        return [*messages, reply]

    def act(actor: int) -> None:
        history: Any = [{"role": "system", "content": f"You are actor {actor}. " * 40}]
        for turn in range(8):  # each question twice: two draws
            history = ask(f"actor {actor}, turn {turn // 2}", history[: 1 + turn // 2 * 2])

    def share(_: int) -> None:
        for number in range(12):
            ask(f"Hello {number // 4}?")

    journal.write("begin")
    with llmcall.cassette(tape, mode=mode):
        if plot == "actors":
            llmcall.map(act, range(5), scope="town", workers=3, progress=False)
        elif plot == "sharing":
            with llmcall.scope("town"), ThreadPoolExecutor(3) as pool:
                [*pool.map(llmcall.bind(share), range(3))]
        else:
            with llmcall.scope("town"):
                for arm in ("control", "treated"):
                    with llmcall.arm(arm):
                        for number in range(12):
                            ask(f"{arm if number % 3 == 2 else 'both'}: {number // 2}?")
        ask("The end?")
    journal.write("end")


def create(journal: Journal, folder: str) -> None:
    """Store an answer in a cache that does not exist yet."""
    journal.write("begin", 0)
    journal.write("first", digest(client_at(folder, "first").send_message("first")["content"]))


# Kept questions are never deleted or overwritten, so that all callers of all processes must get the
# same answer; fresh ones are asked again by clients that refresh; gone ones are deleted again and
# again.
KINDS = ("kept", "kept", "fresh", "gone")


def contend(
    journal: Journal, folder: str, writer: str, seconds: float, threads: int, seed: int
) -> None:
    """Use a cache in many threads until the time is over, and fork in the middle of it.

    Without the interpreter lock it does not fork: the lock of a dict that a thread uses stays
    closed in the child. Written to the journal: each kept question with its answer's digest, once a
    thread, and how often each one asked.
    """
    ends = time.monotonic() + seconds
    errors: list[BaseException] = []
    # All that is imported is imported before: a fork while another thread imports something hangs
    # in Python itself.
    use(journal, folder, f"{writer}.first", 0.0, seed, [])
    started = [
        threading.Thread(
            target=use, args=(journal, folder, f"{writer}.{number}", ends, seed + number, errors)
        )
        for number in range(threads)
    ]
    for thread in started:
        thread.start()
    threading.Event().wait(max(0.0, ends - time.monotonic()) / 2)
    status = 0
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        with warnings.catch_warnings():
            # a fork beside threads, from Python 3.12 on
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            use(journal, folder, f"{writer}.child", ends, seed - 1, errors)
            os._exit(1 if errors else 0)
        status = os.waitpid(child, 0)[1]
    for thread in started:
        thread.join()
    for error in errors:
        raise error
    assert status == 0, f"the forked process ended with {status}"


def use(
    journal: Journal, folder: str, writer: str, ends: float, seed: int, errors: list[BaseException]
) -> None:
    """Use a cache in one thread until the time is over, but do each thing twice at least."""
    chance, begun, digests = random.Random(seed), time.monotonic(), dict[str, str]()
    clients = {
        mode: client_at(folder, writer, cache_mode=mode, temperature=0)
        for mode in ("auto", "refresh")
    }
    number = 0
    try:
        while time.monotonic() < ends or number < 2 * len(KINDS):
            kind = KINDS[number % len(KINDS)]
            number += 1
            # There are always new questions, which several ask at once.
            question = f"{kind} {chance.randrange(50 + int(20 * (time.monotonic() - begun)))}"
            client = clients["refresh" if kind == "fresh" and chance.random() < 0.3 else "auto"]
            if kind == "gone" and (number < 2 * len(KINDS) or chance.random() < 0.03):
                client.cache.delete(
                    where=lambda record, it=question: (
                        record.request["messages"][-1]["content"] == it
                    )
                )
                continue
            answer = client.send_message(question)["content"]
            assert is_answer_to(question, answer), f"{question}: {answer[:200]}"
            if kind == "kept" and digests.setdefault(question, digest(answer)) != digest(answer):
                raise AssertionError(f"{question} had another answer before")
        for question, answer_digest in digests.items():
            journal.write(question, answer_digest)
        journal.write("calls", number)
    except BaseException as error:  # noqa: BLE001 - it is raised where the threads are joined
        errors.append(error)
        journal.write({"error": traceback.format_exc()})


def version(journal: Journal) -> None:
    """Tell the version of Python."""
    journal.write(*sys.version_info[:2])
