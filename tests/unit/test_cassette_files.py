"""The files of cassettes: the same bytes again, in an order of their own, merged by git, and never half written."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs import ran, start

import llmcall
from llmcall import CacheCorruptError, CacheError, CacheMissError, cassette, recorded, scope
from llmcall.cache.cache import shared_cache
from llmcall.testing import ScriptedClient

PATH = Path("tape.jsonl")
HEADER = '{"llmcall": 1, "settings": {"embedding_model": "text-embedding-3-small", "model": "gpt-4o-mini"}}\n'


def echoing(**settings: Any) -> ScriptedClient:
    """Return a client that answers with the length and the last words of what it was asked."""
    return ScriptedClient(lambda messages: f"{len(messages)}: {messages[-1]['content'][-20:]}", **settings)


def sections(path: Path = PATH) -> list[Any]:
    """Return the lines of a file, parsed, without the header."""
    return [json.loads(line) for line in path.read_bytes().splitlines()][1:]


def test_the_whole_file() -> None:
    """The file is pinned: a header, then records with what was hashed, the response and the cost."""
    response = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "fp",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Zwei."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }  # fmt: skip
    client = ScriptedClient(prices={"gpt-4o-mini": (1.0, 2.0)})
    client.send = lambda request, timeout: response  # type: ignore[method-assign]
    with cassette(PATH):
        client.send_message("Wie viele Äpfel?", user="u", temperature=0.5)
        with scope("trial"), scope("lisa"):
            client.send_message("Wie viele Äpfel?", extra_headers={"x-a": "b"}, sample="a")
        recorded(name="clock", version=2)(lambda zone: 5.0)("UTC")
    chat = (
        '"response": {"choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", '
        '"content": "Zwei."}}], "model": "m", "object": "chat.completion", "usage": {"completion_tokens": 2, '
        '"prompt_tokens": 10, "total_tokens": 12}}, "cost": 1.4e-05}\n'
    )
    asked = '{"messages": [{"role": "user", "content": "Wie viele Äpfel?"}], "model": "gpt-4o-mini"'
    assert PATH.read_text(encoding="utf-8") == (
        HEADER
        + f'{{"kind": "chat", "request": {asked}, "temperature": 0.5}}, {chat}'
        + '{"kind": "function", "request": {"arguments": {"zone": "UTC"}, "function": "clock", "version": 2}, '
        + '"response": {"value": 5.0}}\n'
        + f'{{"kind": "chat", "sample": "trial/lisa#a", "request": {asked}}}, {chat}'
    )


def test_nothing_of_the_machine_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, host, header, path, time or version of the machine that recorded reaches the file."""
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-mine")
    monkeypatch.setenv("LLMCALL_BASE_URL", "http://host.of.mine/v1")
    llmcall.reset()
    with cassette(PATH):
        echoing().send_message("Hi", extra_headers={"x-secret": "header-of-mine"}, timeout=7)
        echoing().send_message("Hi", timeout=8, seed=1)
    written = PATH.read_text(encoding="utf-8")
    for trace in ("of-mine", "of.mine", str(Path.cwd()), llmcall.__version__, "scripted", "timeout", "time"):
        assert trace not in written


def play(client: ScriptedClient, seed: int = 0) -> None:
    """Have several actors ask models and functions, with growing histories and long texts, in one thread."""
    look = recorded(name="look")(lambda thing: {"seen": thing, "at": [1, 2.5]})
    for actor in ("oscar", "lisa", "ann-marie", "lisa"):
        with scope(actor):
            history: list[Any] = [{"role": "system", "content": f"You are {actor}. " + "A long rule. " * 60}]
            for turn in range(4):
                history.append({"role": "user", "content": f"Turn {turn}: {look(turn)}"})
                history.append(client.send_message(history))
            client.send_message("The same for all")
    client.send_message("Outside")
    ScriptedClient(lambda texts: [[float(len(text))] * 8 for text in texts]).get_embedding(["b", "a"])


def test_the_same_calls_twice_give_the_same_bytes() -> None:
    """Recording again in the same order gives the same bytes, whether models answer or the disk cache."""
    kept = []
    for mode in ("auto", "auto", "off"):
        with llmcall.configured(cache_mode=mode), cassette(PATH), scope("trial"):
            play(echoing(cache_mode=mode))
        kept.append(PATH.read_bytes())
        PATH.unlink()
    with cassette(PATH, mode="rewrite"), scope("trial"):
        play(echoing())
    assert kept == [PATH.read_bytes()] * 3 and len(kept[0]) > 5000


def test_another_hash_seed_gives_the_same_bytes() -> None:
    """Another process, with another order of sets and hashes, writes the same bytes."""
    program = """
        client = ScriptedClient(lambda messages: {"role": "assistant", "content": "x" * 600, "refusal": None})
        with llmcall.cassette("tape.jsonl", mode="rewrite"), llmcall.scope("trial"):
            for name in ("b", "a"):
                with llmcall.scope(name):
                    client.send_message("Hi", tools=[{"type": "function", "function": {"name": "f"}}], stop=["a", "b"])
    """
    files = []
    for seed in ("1", "2"):
        ran(program, PYTHONHASHSEED=seed)
        files.append(PATH.read_bytes())
    assert files[0] == files[1]


def in_threads(actors: list[Callable[[], None]], order: random.Random) -> None:
    """Run actors in a thread each; a baton decides at random who asks next."""
    order.shuffle(actors)
    with ThreadPoolExecutor(len(actors)) as executor:
        for each in [executor.submit(llmcall.bind(actor)) for actor in actors]:
            each.result(30)


class Shuffling(ScriptedClient):
    """Let calls that are under way at once go on in a random order."""

    def __init__(self, order: random.Random, workers: int) -> None:
        super().__init__(lambda messages: f"{len(messages)}: {messages[-1]['content']}")
        self._order = order
        self._turns = threading.Semaphore(0)
        self._workers = workers

    def send(self, request: Any, timeout: float | None) -> Any:
        """Answer after a while that is another one in each run."""
        for _ in range(self._order.randrange(4)):
            os.sched_yield() if hasattr(os, "sched_yield") else None
            threading.Event().wait(0.0005)
        return super().send(request, timeout)


def test_threads_with_a_scope_each_give_the_same_bytes() -> None:
    """However threads interleave, and whoever asks first for what they share, the file is the same."""
    embedder = ScriptedClient(lambda texts: [[float(len(text))] * 4 for text in texts])
    files = set()
    for seed in range(12):
        order = random.Random(seed)
        client = Shuffling(order, 5)

        def actor(name: str, client: ScriptedClient = client) -> None:
            history: list[Any] = []
            for turn in range(3):
                with scope(name):
                    embedder.get_embedding([f"shared {turn}", name])
                    history.append({"role": "user", "content": f"{turn}" * 300})
                    history.append(client.send_message(history))
                    client.send_message("All ask this")
                embedder.get_embedding(f"left over {turn}")

        with cassette(PATH, mode="rewrite"), scope("trial"):
            in_threads([lambda name=name: actor(name) for name in ("e", "d", "c", "b", "a")], order)  # type: ignore[misc]
        files.add(PATH.read_bytes())
    assert len(files) == 1
    samples = [section.get("sample") for section in sections() if "kind" in section]
    asked = [section["request"]["input"] for section in sections() if section.get("kind") == "embedding"]
    assert asked[:3] == ["left over 0", "left over 1", "left over 2"] and asked[3:5] == ["shared 0", "a"]
    assert samples[len(asked) :] == sorted(samples[len(asked) :], key=lambda sample: sample.partition("#")[0])


def test_records_stand_by_scope_path_and_then_as_called() -> None:
    """Records without a sample come first, then scope after scope; in each, in the order of the calls."""
    client = echoing()
    with cassette(PATH):
        for name in ("b", "a"):
            with scope(name):
                client.send_message("2")
                with scope("c"):
                    client.send_message("3")
                client.send_message("1")
        client.send_message("0")
    told = [(section.get("sample"), section["request"]["messages"][0]["content"]) for section in sections()]
    assert told == [
        (None, "0"), ("a#0", "2"), ("a#0", "1"), ("a/c#0", "3"), ("b#0", "2"), ("b#0", "1"), ("b/c#0", "3"),
    ]  # fmt: skip


def test_the_places_of_a_map() -> None:
    """Calls that are told their place stand there, whenever they are made: those of a map in the order of its items."""
    from llmcall.cassettes import cassette as cassettes

    client = echoing()
    with cassette(PATH) as tape:
        client.send_message("before")
        place = tape.place()
        client.send_message("after")
        for index in (2, 0, 1):
            with cassettes.at_position((*place, index)):
                client.send_message(f"item {index}")
                client.send_message(f"item {index}, again")
    asked = [section["request"]["messages"][0]["content"] for section in sections()]
    assert asked == ["before", *(f"item {n}{more}" for n in range(3) for more in ("", ", again")), "after"]


def test_growing_histories_stay_linear() -> None:
    """A history of 40 turns takes little more than its text; twice the turns take twice the room."""
    sizes = []
    for turns in (20, 40):
        client, history = echoing(), [{"role": "system", "content": "You trade at a market. " * 10}]
        with cassette(f"{turns}.jsonl"), scope("lisa"):
            for turn in range(turns):
                history.append({"role": "user", "content": f"Turn {turn}. " + "What do you do now? " * 10})
                history.append({**(client.send_message(history) or {}), "content": f"I wait for turn {turn + 1}. " * 8})
        text = sum(len(message["content"]) for message in history)
        sizes.append((Path(f"{turns}.jsonl").stat().st_size, text))
    assert sizes[1][0] < 4 * sizes[1][1] and sizes[1][0] < 2.2 * sizes[0][0]


def test_embeddings_are_compact() -> None:
    """A vector takes four bytes a number, as Base64: a fifth of what its numbers take as text."""
    vector = [random.Random(7).uniform(-1, 1) for _ in range(1536)]
    with cassette(PATH):
        live = ScriptedClient([vector]).get_embedding("a")
    with cassette(PATH, mode="none"):
        assert ScriptedClient().get_embedding("a") == live
    assert PATH.stat().st_size < 1536 * 4 * 4 / 3 + 400


def opened_is_refused(error: type[Exception], message: str) -> None:
    """Check that the cassette cannot be opened, and why."""
    with pytest.raises(error, match=message), cassette(PATH):
        pass


# Merging by git


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a repository of the test's own."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=False)


def commit(client: ScriptedClient, *texts: str, mode: str = "new") -> None:
    """Record a few calls and commit the cassette."""
    with cassette(PATH, mode=mode):
        for text in texts:
            with scope("trial"):
                client.send_message([{"role": "system", "content": "Long " * 200}, {"role": "user", "content": text}])
    git("add", "-A")
    assert git("commit", "-m", "record").returncode == 0


@pytest.fixture
def repository() -> None:
    """Make a repository with a cassette, and a branch that records more."""
    if subprocess.run(["git", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no git")
    git("init", "-b", "main")
    Path(".gitignore").write_text(".llmcall/\n.config/\n.cache/\n")
    commit(echoing(), "a", "b")
    git("checkout", "-b", "branch")
    commit(echoing(), "d", "shared", "c")
    git("checkout", "main")


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("union", [True, False])
def test_two_branches_recordings(union: bool) -> None:
    """git's union merge of two branches gives a cassette that replays both; without it, the markers are refused."""
    if union:
        Path(".gitattributes").write_text("*.jsonl merge=union\n")
    commit(echoing(), "shared", "e")
    merged = git("merge", "branch", "-m", "merge")
    assert (merged.returncode == 0) is union
    texts = ("a", "b", "c", "d", "e", "shared")
    if union:
        with cassette(PATH, mode="none") as tape:
            for text in texts:
                commit_free(echoing(), text)
        assert (tape.replayed, tape.unused()) == (6, [])
        before = PATH.read_bytes()
        with cassette(PATH, mode="new"):
            commit_free(echoing(), "f")
        assert len(PATH.read_bytes().splitlines()) == 9 and before != PATH.read_bytes()
    else:
        opened_is_refused(CacheCorruptError, r"tape\.jsonl:\d+: the line is a conflict marker")


def commit_free(client: ScriptedClient, text: str) -> None:
    """Ask as :func:`commit` does, under a cassette that is open."""
    with scope("trial"):
        client.send_message(
            [{"role": "system", "content": "Long " * 200}, {"role": "user", "content": text}], on_error="raise"
        )


@pytest.mark.usefixtures("repository")
def test_two_branches_with_two_answers() -> None:
    """Where two branches have another answer to one request, the merged file is refused, naming both lines."""
    Path(".gitattributes").write_text("*.jsonl merge=union\n")
    commit(ScriptedClient(lambda messages: "Another answer"), "shared")
    assert git("merge", "branch", "-m", "merge").returncode == 0
    opened_is_refused(CacheCorruptError, r"tape\.jsonl:\d+: line \d+ has another answer to the same request")


@pytest.mark.parametrize("name", ["model", "temperature"])
def test_branches_with_other_settings(name: str) -> None:
    """Two headers that differ are refused, naming the settings."""
    with cassette(PATH):
        echoing().send_message("Hi")
    other = HEADER.replace('"model": "gpt-4o-mini"', '"model": "gpt-4o"') if name == "model" else HEADER.replace(
        '"model"', '"temperature": 1, "model"'
    )  # fmt: skip
    PATH.write_text(PATH.read_text() + other)
    opened_is_refused(CacheCorruptError, rf"tape\.jsonl:3: this header differs from line 1 in {name}")


DAMAGE = {
    "half a line": (lambda text: text[:-20], "3: the line is not JSON, and seems cut off"),
    "an answer changed to another": (lambda text: text + text.splitlines()[2].replace("1: b", "2: b"), "4: line 3 has"),
    "no header": (lambda text: text.partition("\n")[2], "1: there is no header"),
    "blank": (lambda text: "\n", "1: there is no header"),
    "not UTF-8": (lambda text: text.replace("1: b", "\udcff"), "3: the line is not UTF-8"),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("mode", ["none", "once", "new"])
def test_a_damaged_file(what: str, mode: str) -> None:
    """A damaged file is refused by its line when it is opened, and left as it is; ``rewrite`` makes it anew."""
    with cassette(PATH):
        echoing().send_message("a")
        echoing().send_message("b")
    change, message = DAMAGE[what]
    PATH.write_text(change(PATH.read_text()), errors="surrogateescape")
    before = PATH.read_bytes()
    with pytest.raises(CacheCorruptError) as caught, cassette(PATH, mode=mode):
        pass
    assert f"tape.jsonl:{message}" in str(caught.value) and PATH.read_bytes() == before
    assert llmcall.settings().origin("MODEL") == "default"
    with cassette(PATH, mode="rewrite"):
        echoing().send_message("a")
    assert len(sections()) == 1


def test_a_newer_version() -> None:
    """A file of a later format is refused by its version."""
    PATH.write_text(HEADER.replace('"llmcall": 1', '"llmcall": 2'))
    opened_is_refused(CacheError, r"tape\.jsonl:1: the file is written in version 2 of the format, and this")


# Several processes, and processes that are killed

RECORD = """
client = ScriptedClient(lambda messages: sys.argv[1], cache_mode="auto", cache_path=sys.argv[1])
with llmcall.cassette("tape.jsonl", mode=sys.argv[2]):
    for number in range(20):
        client.send_message(f"{number}")
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("mode", ["once", "new", "rewrite"])
@pytest.mark.parametrize("exists", [False, True])
def test_two_processes_that_write_one_cassette(mode: str, exists: bool) -> None:
    """The second one to finish is told so, and the file is the first one's, whole."""
    if exists and mode != "once":
        with cassette(PATH):
            echoing().send_message("Hi")
    with start(RECORD, "one", mode) as one, start(RECORD, "other", mode) as other:
        for process in (one, other):
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert one.communicate("\n", timeout=60)[1] == ""
        before = PATH.read_bytes()
        complaints = other.communicate("\n", timeout=60)[1]
    assert (one.returncode, other.returncode, PATH.read_bytes()) == (0, 1, before)
    assert "CacheError: tape.jsonl was written by another process while it was being recorded here" in complaints
    assert b'"one"' in before and b'"other"' not in before


@pytest.mark.slow
def test_processes_that_finish_at_once() -> None:
    """Of processes that end in the same moment exactly one writes; nothing is mixed and nothing left over."""
    for _ in range(5):
        PATH.unlink(missing_ok=True)
        processes = [start(RECORD, f"p{number}", "once") for number in range(4)]
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
        assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
        with cassette(PATH, mode="none") as tape:
            answers = {record.response["choices"][0]["message"]["content"] for record in tape.stored or ()}
        assert (len(answers), tape.records) == (1, 20)
        assert [path.name for path in Path().glob(".tape*")] == []


def test_a_killed_recording() -> None:
    """A recording that is killed leaves no file, but its answers in the disk cache: the next run asks none again."""
    program = """
        client = ScriptedClient(lambda messages: f"{len(client.requests)}", cache_mode="auto")
        with llmcall.cassette("tape.jsonl"), llmcall.scope("trial"):
            for number in range(10):
                client.send_message("The same question")
                if number == 5 and sys.argv[1] == "killed":
                    print("ready", flush=True)
                    sys.stdin.readline()
        print(len(client.requests))
    """
    with start(program, "killed") as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    assert not PATH.exists()
    assert ran(program, "whole") == "4"
    assert [section["response"]["choices"][0]["message"]["content"] for section in sections()] == [
        "1", "2", "3", "4", "5", "6", "1", "2", "3", "4",
    ]  # fmt: skip
    assert ran(program, "again") == "0"


def test_credentials_are_refused() -> None:
    """A text that looks like a credential is refused with its place; nothing is written, and the answers are kept."""
    secret = "sk-" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"
    client = echoing(cache_mode="auto")

    def run() -> None:
        with cassette(PATH), scope("a"):
            client.send_message("Hi")
            client.send_message([{"role": "user", "content": "Hi"}, {"role": "user", "content": f"My key is {secret}"}])

    with pytest.raises(CacheError) as caught:
        run()
    message = str(caught.value)
    assert "record 2 (sample 'a#0'): request.messages[1].content holds what looks like" in message
    assert secret not in message and "[Cassette] ALLOW" in message and not PATH.exists()
    assert len(list(client.cache.records())) == 2
    with llmcall.configured(cassette_allow=("sk-a[A-Za-z0-9]+",)):
        run()
    assert secret in PATH.read_text() and len(client.requests) == 2


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """A cassette that cannot be written says so by the system's error; the answers are in the disk cache."""
    folder = tmp_path / "folder"
    client = echoing(cache_mode="auto")
    with pytest.raises(FileExistsError), cassette(folder / "tape.jsonl"):
        client.send_message("Hi")
        folder.write_text("a file")
    assert len(list(client.cache.records())) == 1


# Replaying on another machine

BLOCKED = """
import importlib.abc

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"openai", "pydantic", "httpx", "httpx2", "tiktoken", "diskcache", "tenacity"}:
            raise AssertionError(f"{name} is imported")

def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"):
        raise AssertionError(f"{event}: the network is used")

sys.meta_path.insert(0, Blocker())
sys.addaudithook(no_network)
"""


def test_a_replay_needs_nothing() -> None:
    """A replay in a new process uses no network, needs no key, and imports neither the SDK nor what belongs to it."""
    program = """
        import asyncio
        client = llmcall.OpenAIClient(on_error="raise")
        if sys.argv[1] == "record":
            client.transport = ScriptedClient(lambda messages: f"{messages[-1]['content']}!")
        clock = llmcall.recorded(name="clock")(lambda: 7)
        with llmcall.cassette("tape.jsonl"), llmcall.scope("trial"):
            messages = [{"role": "system", "content": "Long " * 200}, {"role": "user", "content": "Hi"}]
            for _ in range(3):
                messages += [client.send_message(messages), {"role": "user", "content": "And?"}]
            print(messages, clock())
            print("".join(client.stream_message("Hi")), asyncio.run(client.asend_message("Hi")))
    """
    live = ran(program, "record")
    assert ran(BLOCKED + "\n" + _dedented(program), "replay") == live


def _dedented(program: str) -> str:
    import textwrap

    return textwrap.dedent(program)


def test_many_records_are_all_found() -> None:
    """Each of a thousand records answers its own call, with histories and without, in any order."""
    client = echoing()
    texts = [f"Question {number}" for number in range(200)]

    def ask(number: int, asking: ScriptedClient) -> Any:
        with scope(f"agent-{number % 7}"):
            told: list[Any] = []
            for turn in range(5):
                told += [{"role": "user", "content": f"{texts[number]}, {turn}"}]
                told += [asking.send_message(told, on_error="raise")]
            return told

    with cassette(PATH):
        live = [ask(number, client) for number in range(200)]
    order = list(range(200))
    random.Random(3).shuffle(order)
    nobody = ScriptedClient()
    with cassette(PATH, mode="none") as tape:
        assert {number: ask(number, nobody) for number in order} == dict(enumerate(live))
    assert (tape.replayed, tape.unused()) == (1000, [])


def test_a_line_reformatted_by_hand_still_answers() -> None:
    """Another order of names, or other blanks, do not keep a line from answering."""
    with cassette(PATH), scope("a"):
        for text in ("a", "b"):
            echoing().send_message(text, temperature=0.5)
    first, *others = PATH.read_text().splitlines()
    respelt = [json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")) for line in others]
    PATH.write_text("\r\n".join([first, *reversed(respelt)]))
    with cassette(PATH, mode="none"), scope("a"):
        for text in ("a", "b"):
            assert echoing().send_message(text, temperature=0.5, on_error="raise").content == f"1: {text}"
        with pytest.raises(CacheMissError):
            echoing().send_message("a", temperature=0.6)


def test_the_disk_cache_and_the_cassette_know_the_same_keys() -> None:
    """What a cassette holds can be loaded into a cache, which then answers the same calls."""
    with cassette(PATH), scope("trial"):
        play(echoing())
    cache = shared_cache(llmcall.settings().cache_path)
    cache.clear()
    cache.load(PATH)
    nobody = ScriptedClient(cache_mode="replay", on_error="raise")
    with scope("trial"):
        for actor in ("oscar", "lisa", "ann-marie"):
            with scope(actor):
                assert nobody.send_message("The same for all") is not None
    assert asyncio.run(nobody.aget_embedding("a")) == [1.0] * 8
