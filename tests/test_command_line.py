"""The command line: what each command prints, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from commands import cache, done, main, run, written
from disks import in_database
from pytest_httpserver import HTTPServer
from servers import QUESTION, Answer, ScriptedServer, refusal, refusing
from wcwidth import wcswidth

import llmcall
from llmcall.testing import ScriptedClient

SECRET = "sk-verysecret"
TOOLS = [{"id": "call_1", "type": "function", "function": {"name": "sell", "arguments": "{}"}}]
COMMANDS = {
    "": "ask cache cassette config demo diff doctor report run show tokens",
    "cache": "clear delete explain export load ls rekey salvage show stats verify",
    "cassette": "merge",
}
Serve = Callable[[Answer], ScriptedServer]


def python_m(*arguments: str) -> tuple[int, str, str]:
    """Run ``python -m llmcall`` in a process of its own; return its exit code and both outputs."""
    command = [sys.executable, "-W", "error", "-m", "llmcall", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture
def serve(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Start a server that gives one answer again and again, and name it and a key in the
    environment.
    """

    def start(answer: Answer) -> ScriptedServer:
        server = ScriptedServer(httpserver, answer)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        return server

    return start


# All commands


@pytest.mark.parametrize("group", COMMANDS)
def test_help(group: str) -> None:
    """Every command takes -h and --help; a list of commands has a whole sentence for each."""
    shown = done(*group.split(), "-h")
    assert shown == done(*group.split(), "--help") and "..." not in shown.partition("Commands:")[2]
    assert (
        "".join(name in shown and name + " " for name in COMMANDS[group].split()).split()
        == COMMANDS[group].split()
    )
    for command in set(COMMANDS[group].split()) - {"demo"}:
        path = [*group.split(), command]
        assert done(*path, "-h").startswith(f"Usage: {' '.join(['main', *path])}")


@pytest.mark.parametrize(
    "arguments",
    [
        "nothing",
        "ask",
        "tokens",
        "ask a b",
        "config --yaml",
        "cache show",
        "run",
        "run missing.py",
        "show",
        "diff a",
        "run --mode new x.py",
        "report a",
        "cassette merge a",
        "cache ls --since yesterday",
    ],
)
def test_wrong_usage(arguments: str) -> None:
    """Wrong usage ends with 2."""
    written("x.py", "")
    done(*arguments.split(), code=2)


def test_the_program() -> None:
    """--version says name and version; a missing key is named without a traceback, a closed pipe
    ends in silence.
    """
    assert python_m("--version") == (0, f"llmcall, version {llmcall.__version__}\n", "")
    code, printed, told = python_m("ask", "Hello")
    assert (code, printed) == (1, "") and "OPENAI_API_KEY" in told and "Traceback" not in told
    command = [sys.executable, "-m", "llmcall", "config"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


# ask, tokens, config, demo, run


def test_ask(serve: Serve) -> None:
    """A question is asked once, and answered from the record afterwards; the answer alone is on
    standard output.
    """
    chunks = [
        {"delta": {"content": "Two "}},
        {"delta": {"content": "coins."}, "finish_reason": "stop"},
    ]
    events = [
        json.dumps({"id": "c", "model": "gpt-4o", "choices": [{"index": 0, **chunk}]})
        for chunk in chunks
    ]
    server = serve(Answer(200, "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])))
    for _ in range(2):
        assert (
            done("ask", "What do apples cost?", "-s", "You sell fruit.", "-m", "gpt-4o")
            == "Two coins.\n"
        )
    (seen,) = server.requests
    assert seen.body["stream"] is True and seen.body["model"] == "gpt-4o"
    assert seen.body["messages"] == [{"role": "system", "content": "You sell fruit."}, *QUESTION]


def test_ask_of_a_refusing_server(serve: Serve) -> None:
    """What the server says is said once, with what to do about it, and the key is not."""
    serve(refusal(401, f"Incorrect API key provided: {SECRET}"))
    code, _, told = python_m("ask", "Hello")
    assert (
        (code, told.count("Incorrect API key")) == (1, 1)
        and SECRET not in told
        and "failed for good" not in told
    )
    assert "Error: 401: Incorrect API key" in told and "Check the API key; 'llmcall doctor'" in told


def test_what_is_asked() -> None:
    """A minus sign stands for standard input; nothing is no question; where the model refuses, its
    words are shown.

    The local model, being so small, gets a system message where none is given.
    """
    client = ScriptedClient(
        ["Gut.", {"role": "assistant", "content": None, "refusal": "I will not."}, "Yes.", "No."]
    )
    llmcall.register_client("local", client)
    llmcall.configure(api_type="local")
    assert "question is empty" in done("ask", "-", text=" \n", code=2)
    assert [done("ask", "-", text="Wie geht’s?\n"), done("ask", "Tell me!")] == [
        "Gut.\n",
        "I will not.\n",
    ]
    assert [done("ask", "--local", "Hello?", *options) for options in ([], ["-s", ""])] == [
        "Yes.\n",
        "No.\n",
    ]
    asked = [[message["content"] for message in request.messages] for request in client.requests]
    assert asked == [
        ["Wie geht’s?\n"],
        ["Tell me!"],
        ["You are a helpful assistant.", "Hello?"],
        ["Hello?"],
    ]


def test_tokens() -> None:
    """Each file has its count and several their sum; an estimate is marked; what is no text is
    named.
    """
    written("a.txt", "Hello world")
    count = llmcall.count_tokens("Hello world")
    assert done("tokens", "a.txt").split() == [repr(count), "a.txt"]
    lines = [
        line.split()
        for line in done("tokens", "a.txt", "-", "-m", "no-such-model", text="").splitlines()
    ]
    assert [name for _, name in lines] == ["a.txt", "<stdin>", "all"] and lines[0][0] == lines[2][
        0
    ] != "~0"
    (row,) = json.loads(done("tokens", "a.txt", "-m", "no-such-model", "--json"))
    assert row == {"file": "a.txt", "tokens": int(lines[0][0].removeprefix("~")), "estimated": True}
    Path("image.png").write_bytes(b"\x89PNG")
    for name in ("image.png", "missing.txt"):
        assert name in done("tokens", name, code=2)


CONFIG = """
[OpenAI]
MODEL = gpt-4
API_KEY = ${MY_KEY}
[Prices]
gpt-4 = 30, 60
[Endpoint east]
MODELS = gpt-4
API_KEY = ${MY_KEY}
BASE_URL = https://user:password@east.example.com/v1
[Model my-*]
STRUCTURED_OUTPUT = no
"""


def test_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is shown with its value and where it came from, also as JSON; no secret is."""
    assert done("config").startswith(
        "all settings have their default values: --all shows them\nno config.ini in "
    )
    monkeypatch.setenv("MY_KEY", SECRET)
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    written("config.ini", CONFIG)
    shown, everything, as_json = done("config"), done("config", "--all"), done("config", "--json")
    assert shown.startswith("[OpenAI] MODEL") and "[Retry] MAX_ATTEMPTS" not in shown
    assert f"read: {Path.cwd() / 'config.ini'}" in shown and "--all" in shown
    lines = {line.split("  ")[0]: line for line in everything.splitlines()}
    assert lines["[Cache] MODE"].endswith("environment variable LLMCALL_CACHE_MODE")
    assert (
        lines["[Retry] MAX_ATTEMPTS"].endswith("default")
        and "30.0, 60.0" in lines["[Prices] gpt-4"]
    )
    assert (
        "***" in lines["[Endpoint east] API_KEY"]
        and "no" in lines["[Model my-*] STRUCTURED_OUTPUT"]
    )
    rows = json.loads(as_json)
    assert len({row["name"] for row in rows}) == len(rows)
    values = {(row["section"], row["key"]): row["value"] for row in rows}
    assert values["Retry", "MAX_ATTEMPTS"] == 5 and values["OpenAI", "TEMPERATURE"] is None
    assert values["Prices", ""] == {"gpt-4": [30, 60]} and values["Endpoint", ""][0]["models"] == [
        "gpt-4"
    ]
    assert not [
        text for text in (shown, everything, as_json) if SECRET in text or "password" in text
    ]
    written("config.ini", "[OpenAI]\nTIMEOUT = soon\n")
    assert "TIMEOUT" in done("config", code=1)


def test_demo_gets_its_options() -> None:
    """The demo is run as a script, with all that follows."""
    assert "--live" in done("demo", "--help") and "Usage: main" not in done("demo", "-h")


PROGRAM = """
import sys, llmcall.testing
client = llmcall.testing.ScriptedClient(["one", "two"])
print(__name__, sys.argv[1:], *(client.send_message("?").content for _ in range(2)))
sys.exit(int(sys.argv[1]))
"""


def test_run() -> None:
    """A program gets its arguments and gives its exit code; scope, cassette and mode hold for it."""
    written("play.py", PROGRAM)
    options = ["--scope", "trial", "--cassette", "run.jsonl"]
    code, printed, _ = python_m("run", *options, "play.py", "3", "-h")
    assert (code, printed) == (3, "__main__ ['3', '-h'] one two\n")
    samples = [
        json.loads(line)["sample"] for line in Path("run.jsonl").read_text().splitlines()[1:]
    ]
    assert samples == ["trial#0", "trial#1"]
    code, printed, _ = python_m("run", *options, "--mode", "none", "-m", "play", "0")
    assert (code, printed) == (0, "__main__ ['0'] one two\n")
    written("more.py", PROGRAM.replace('"?"', '"And more?"'))
    code, _, told = python_m("run", "--mode", "none", "--cassette", "run.jsonl", "more.py", "0")
    assert code == 1
    assert "is not recorded" in told and "llmcall run --cassette run.jsonl --mode new" in told


@pytest.mark.parametrize("error", ["ValueError", "TypeError"])
def test_a_program_that_fails(error: str) -> None:
    """What leaves the program is shown as Python shows it, and ends with 1: it is no wrong usage of
    llmcall.
    """
    code, printed, told = python_m(
        "run", written("play.py", f"print('begins')\nraise {error}('mine')\n")
    )
    *traceback, summary = told.splitlines()
    assert (code, printed, traceback[0]) == (1, "begins\n", "Traceback (most recent call last):")
    assert traceback[-1] == f"{error}: mine"
    assert not any("llmcall" in line or "runpy" in line for line in traceback)
    assert summary.startswith("0 asked, 0 from the cache, 0 replayed, 0 refused: ")


# cache


@pytest.fixture
def keys() -> list[str]:
    """Record four answers, and return their keys in the order of storing."""

    def answer(messages: list[Any]) -> Any:
        selling = {"role": "assistant", "content": None, "tool_calls": TOOLS}
        return (
            [[0.5, 0.25]]
            if messages == ["apples"]
            else selling
            if "sell" in str(messages)
            else "Two\ncoins."
        )

    client = ScriptedClient(answer, cache_mode="auto", model="gpt-4o", prices={"gpt-4o": (1, 2)})
    client.send_message("What do apples cost?")
    with llmcall.scope("trial-3"), llmcall.scope("lisa"):
        client.send_message("A bell:\a and \x1b[31mred")
    client.send_message("Please sell.", model="gpt-4", n=2)
    client.get_embedding("apples", "embedder")
    return [record.cache_key for record in client.cache.records()]


def test_an_empty_cache() -> None:
    """Looking at a cache that is not there makes none."""
    assert ": 0 records, 0.0 MB" in cache("stats")
    for command in ["ls"], ["show", "ab"]:
        assert f"0 records in {Path.cwd() / '.llmcall' / 'cache'}" in run("cache", *command).output
    assert not Path(".llmcall").exists()


def test_stats(keys: list[str]) -> None:
    """It says where the cache is, how large, and what is in it."""
    shown, found = cache("stats"), json.loads(cache("stats", "--json"))
    assert shown.startswith(f"{Path.cwd() / '.llmcall' / 'cache'}: 4 records, ")
    assert "since 20" in shown and "gpt-4o (2)" in shown and "trial-3" in shown
    assert found["records"] == 4 and found["size"] > 0 and time.time() - found["since"] < 600
    assert found["models"] == {"gpt-4o": 2, "gpt-4": 1, "embedder": 1}
    assert [(name, each["records"]) for name, each in found["by_scope"].items()] == [
        ("", 3),
        ("trial-3", 1),
    ]
    assert ": 1 record, " in cache("stats", "--scope", "trial-3/*")
    cache("export", "some.jsonl", "--scope", "trial-3/*")
    text = Path("some.jsonl").read_text(encoding="utf-8").replace("trial-3/lisa", "counted")
    cache(
        "load",
        written(
            "counted.jsonl", text.replace('coins."}}]', 'coins."}}], "usage": {"prompt_tokens": 9}')
        ),
    )
    shown = cache("stats")
    assert re.search(r"all +5 +9 ", shown) and re.search(r"trial-3 +1 +\? ", shown), (
        "what is unknown is not 0"
    )


def test_ls(keys: list[str]) -> None:
    """A line for each record, oldest first, without what a terminal obeys; as JSON, whole; a cut
    list says so.
    """
    head, *lines = cache("ls").splitlines()
    assert head.split() == ["key", "model", "sample", "age", "cost", "asked", "answered"]
    assert [line.split()[0] for line in lines] == [key[:12] for key in keys]
    assert "trial-3/lisa#0" in lines[1] and "\x1b" not in lines[1] and "\a" not in lines[1]
    assert "sell({})" in lines[2] and lines[3].split()[-3:] == ["apples", "2", "numbers"]
    rows = json.loads(cache("ls", "--json"))
    assert [row["kind"] for row in rows] == ["chat", "chat", "chat", "embedding"]
    assert rows[0]["asked"] == "What do apples cost?" and rows[0]["sample"] is None
    assert [row["answered"] for row in rows] == [
        "Two\ncoins.",
        "Two\ncoins.",
        "sell({})",
        "2 numbers",
    ]
    assert "--limit 0 shows all" in cache("ls", "-n", "2") and "--limit" not in cache(
        "ls", "-n", "4"
    )
    hidden = "\x9b2J \x85 \u202e \x7f \U000e0041 é 🙂"
    ScriptedClient(["yes"], cache_mode="auto").send_message(hidden)
    assert json.loads(cache("ls", "--json"))[-1]["asked"] == hidden
    assert set(cache("ls", "--json")) & set(hidden) == {"2", "J", " ", "é", "🙂"}


def on_a_terminal(*arguments: str) -> list[str]:
    """Run a command on a terminal, and return the lines that it prints."""
    terminal: Any = io.StringIO()
    terminal.isatty = lambda: True
    with contextlib.redirect_stdout(terminal):
        assert not main(arguments, standalone_mode=False)
    return click.unstyle(terminal.getvalue()).splitlines()


@pytest.mark.parametrize("columns", [60, 120])
def test_tables_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as the terminal at most, wide characters count twice, and the columns line
    up.
    """
    monkeypatch.setenv("COLUMNS", str(columns))
    client = ScriptedClient(
        ["はい、買います。 Two loaves, please, and some of the cheese as well."] * 3,
        cache_mode="auto",
    )
    for name in ("lisa", "エマ・サトウ", "oscar"):
        with llmcall.scope("trial-1"), llmcall.scope(name):
            client.send_message(f"Would {name} buy bread for three coins, with two loaves at home?")
    for command in (["cache", "stats"], ["cache", "ls"], ["config", "--all"]):
        lines = [line for line in on_a_terminal(*command) if not line.endswith("MB")]
        # as the other, a line with a path
        lines = [line for line in lines if not line.startswith("no config.ini")]
        assert len(lines) > 3 and max(map(wcswidth, lines)) <= columns, command
    head, *rows = on_a_terminal("cache", "ls")
    assert {wcswidth(row[: row.index("はい")]) for row in rows} == {head.index("answer")}
    assert all("Would" in row for row in rows)
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")  # which needs no key
    checked = on_a_terminal("doctor")
    assert checked[0].split()[:2] == ["ok", "files"] and max(map(wcswidth, checked)) <= columns


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--model gpt-4o", [0, 1]),
        ("--scope trial-3/*", [1]),
        ("--since 1h", [0, 1, 2, 3]),
        ("--since 2000-01-01", [0, 1, 2, 3]),
        ("--since 2999-12-31T23:59", []),
        ("--model gpt-4o --scope trial* --since 3d", [1]),
        ("-n 2", [0, 1]),
    ],
)
def test_selecting(keys: list[str], options: str, expected: list[int]) -> None:
    """--model, --scope, --since and --limit select, and together select what all do."""
    rows = json.loads(cache("ls", "--json", *options.split()).partition("]\n")[0] + "]")
    assert [row["key"] for row in rows] == [keys[index] for index in expected]


def test_show_a_record(keys: list[str]) -> None:
    """A record is shown in full, by its key or the beginning of one; a key that fits none or
    several fails.
    """
    shown = cache("show", keys[0])
    assert shown == cache("show", keys[0][:8]) == cache("show", f"{keys[0][:12]}…")
    assert keys[0] in shown and "--- gpt-4o" in shown
    assert shown.endswith("\nuser\n    What do apples cost?\n→ assistant\n    Two\n    coins.\n")
    assert cache("show", keys[3]).endswith("\ntext\n    apples\n→ embedding\n    2 numbers\n")
    assert (
        json.loads(cache("show", keys[3], "--json"))["response"]["embedding"] == "0000003f0000803e"
    )
    assert cache("show", "zz", code=1).startswith("Error: no key begins with 'zz'")
    assert "4 keys begin with ''" in cache("show", "", code=1)


def test_export_and_load(keys: list[str]) -> None:
    """What is exported and loaded elsewhere is the same; loading it twice adds nothing;
    --on-conflict decides.
    """
    assert cache("export", "all.jsonl") == "4 records written to all.jsonl\n"
    assert cache("export", "some.jsonl", "--scope", "trial-3/*").startswith("1 record ")
    for source, count in (("some.jsonl", 1), ("all.jsonl", 3), (".llmcall/cache", 0)):
        assert cache("--path", "other", "load", source).startswith(
            f"{count} record{'' if count == 1 else 's'} loaded into "
        )
    assert sorted(
        row["key"] for row in json.loads(cache("--path", "other", "ls", "--json"))
    ) == sorted(keys)
    written(
        "theirs.jsonl", Path("all.jsonl").read_text(encoding="utf-8").replace("coins", "dollars")
    )
    assert cache("load", "theirs.jsonl").startswith("0 records") and "coins" in cache(
        "show", keys[0]
    )
    cache("load", "theirs.jsonl", "--on-conflict", "raise", code=1)
    cache("load", "theirs.jsonl", "--on-conflict", "replace")
    assert "dollars" in cache("show", keys[0])
    cache("load", "missing.jsonl", code=2)
    assert "broken.jsonl:2" in cache(
        "load", written("broken.jsonl", '{"llmcall": 1, "settings": {}}\n{"k"'), code=1
    )


def test_delete_and_clear(keys: list[str]) -> None:
    """Nothing is deleted without a selection, or keys, and a yes."""
    cache("delete", code=2)
    cache("delete", keys[0], "--model", "gpt-4o", "--yes", code=2)
    cache("delete", "nothing", "--yes", code=1)
    assert "Delete 2 of 4 records" in cache("delete", "--model", "gpt-4o", text="n\n", code=1)
    assert cache("delete", "--model", "gpt-4o", text="y\n").endswith("2 records deleted\n")
    assert cache("delete", keys[2], keys[2][:20], "--yes") == "1 record deleted\n"
    cache("clear", code=1)
    assert cache("clear", "--yes") == "1 record deleted\n"
    assert cache("clear") == cache("delete", "--since", "1h") == "0 records deleted\n"


def test_damage(keys: list[str]) -> None:
    """verify names damaged records and salvage saves the others; a file that is no database fails
    in words.
    """
    assert cache("verify") == "4 records, none damaged\n"
    in_database(".llmcall/cache", "UPDATE Cache SET value = X'00' || value WHERE key = ?", keys[1])
    told = cache("verify", code=1)
    assert f"{keys[1]}\n" in told and "1 of 4 records damaged" in told
    assert "3 records" in cache("salvage", "saved")
    assert cache("--path", "saved", "verify") == "3 records, none damaged\n"
    llmcall.reset()
    Path(".llmcall/cache/cache.db").write_bytes(b"no database at all" * 100)
    for command in ("stats", "ls", "show ab", "export x.jsonl", "verify", "clear --yes", "rekey"):
        told = cache(*command.split(), code=1)
        assert told.startswith("Error: ") and "cache.db is damaged" in told


# doctor


def checks(code: int = 0) -> dict[str, dict[str, Any]]:
    """Return what the doctor finds now, by what it checks; each is there once."""
    llmcall.configure()
    rows = json.loads(done("doctor", "--json", code=code))
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def listing(*models: str) -> Answer:
    """Return a list of models as OpenAI's API gives it."""
    return Answer(
        200, {"object": "list", "data": [{"id": model, "object": "model"} for model in models]}
    )


def test_all_is_well(serve: Serve) -> None:
    """Where all is well, each line says so, and nothing is made."""
    server = serve(listing("gpt-4o", "gpt-4o-mini"))
    shown = done("doctor")
    lines = [line.split(maxsplit=2)[:2] for line in shown.splitlines() if not line.startswith(" ")]
    names = ["files", "settings", "key", "endpoint", "model", "output", "cache", "tokenizer"]
    names.append("price")
    assert lines == [["ok", name] for name in names]
    assert "environment variable OPENAI_API_KEY" in shown and SECRET not in shown
    assert [request.path for request in server.requests] == ["/v1/models"] and not Path(
        ".llmcall"
    ).exists()


def test_keys(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is named by its variable, with the way to do without one; replay and the
    loopback need none.
    """
    key = checks(code=1)["key"]
    assert (
        not key["ok"]
        and "OPENAI_API_KEY" in key["found"]
        and "LLMCALL_CACHE_MODE=replay" in key["remedy"]
        and "LLMCALL_API_TYPE=local" in key["found"]
    )
    serve(listing("gpt-4o-mini"))
    monkeypatch.delenv("OPENAI_API_KEY")
    assert checks()["key"]["found"] == "127.0.0.1: no key is needed"
    llmcall.configure(cache_mode="replay")
    assert "endpoint" not in checks()
    llmcall.register_client("mine", ScriptedClient(["Hi."], model="mine-1"))
    llmcall.configure(cache_mode=None, api_type="mine")
    assert checks()["settings"]["found"].startswith("scripted, model mine-1")


@pytest.mark.parametrize(
    ("answer", "ok", "words", "remedy"),
    [
        (refusal(401, f"Incorrect API key provided: {SECRET}"), False, "401", "key is refused"),
        (refusal(429, "slow down"), False, "429", "status page"),
        (refusal(404, "no such route"), True, "no list of models", "/v1"),
        (Answer(502, "<html>Bad gateway</html>"), False, "127.0.0.1: HTTP 502", "status page"),
        (Answer(501, "Not implemented"), True, "no list of models (HTTP 501)", "/v1"),
        (
            Answer(200, "<html>It works!</html>"),
            True,
            "no list of models (/models is something else",
            "BASE_URL",
        ),
        (None, False, "Is the server at", "llmcall config"),
    ],
    ids=["401", "429", "404", "502", "501", "HTML", "nobody"],
)
def test_what_the_endpoint_answers(
    answer: Answer | None,
    ok: bool,
    words: str,
    remedy: str,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the endpoint answers is told without the key, with what to do about it."""
    with contextlib.ExitStack() as around:
        if answer is not None:
            serve(answer)
        else:
            monkeypatch.setenv("OPENAI_API_KEY", SECRET)
            monkeypatch.setenv("OPENAI_BASE_URL", around.enter_context(refusing()))
        check = checks(code=0 if ok else 1)["endpoint"]
    assert check["ok"] is ok and words in check["found"] and remedy in check["remedy"]
    assert SECRET not in str(check) and "<html>" not in check["found"]


@pytest.mark.parametrize("wrong", ["", "/", "/v1/chat/completions"])
def test_an_address_that_is_not_quite_right(wrong: str, httpserver: HTTPServer) -> None:
    """If nothing is found there, the address that was probably meant is tried, and named."""
    models = {"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model"}]}
    httpserver.expect_request("/v1/models").respond_with_json(models)
    httpserver.expect_request(re.compile(".*")).respond_with_data("not found", 404)
    right = f"http://127.0.0.1:{httpserver.port}/v1"
    llmcall.configure(base_url=right.removesuffix("/v1") + wrong)
    check = checks(code=1)["endpoint"]
    assert not check["ok"] and check["remedy"] == f"set BASE_URL to {right}"


def test_structured_output() -> None:
    """A model that llmcall does not know gets no structured output until its section says so."""
    llmcall.configure(model="my-model", cache_mode="replay")
    check = checks()["output"]
    assert check["ok"] and "my-model: structured output is not used" in check["found"]
    assert "STRUCTURED_OUTPUT = yes in [Model my-model]" in check["remedy"]
    written("config.ini", "[Model my-model]\nSTRUCTURED_OUTPUT = yes\n")
    llmcall.configure()
    assert not checks()["output"]["remedy"]


def test_models(serve: Serve) -> None:
    """The model that an alias stands for counts, at each endpoint of its pool; of others the
    nearest are told.
    """
    server = serve(listing("whisper-1", "gpt-4o", *(f"model-{index}" for index in range(50))))
    llmcall.configure(model="gpt-4p")
    check = checks(code=1)["model"]
    assert "gpt-4p" in check["found"] and check["remedy"].startswith(
        "set [OpenAI] MODEL to one of gpt-4o"
    )
    assert "whisper" not in check["remedy"]
    llmcall.configure(model="best", aliases={"best": "gpt-4o"})
    sections = [
        f"[Endpoint {name}]\nMODELS = gpt-4o\nBASE_URL = {server.base_url}\n"
        for name in ("east", "west")
    ]
    written("config.ini", sections[0] + "API_KEY = ${OPENAI_API_KEY}\n" + sections[1])
    llmcall.configure()
    found = done("doctor")
    assert "east: from [Endpoint east]" in found and "west: no key is needed" in found


def test_azure(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Azure needs and is not there is named by its variable; whether there is a deployment is
    left open.
    """
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    server = serve(listing("gpt-4o-mini-2024-07-18"))
    llmcall.configure(api_type="azure")
    for name, value in [
        ("AZURE_OPENAI_ENDPOINT", server.base_url.removesuffix("/v1")),
        ("OPENAI_API_VERSION", "2024-10-21"),
        ("AZURE_OPENAI_API_KEY", SECRET),
    ]:
        assert name in checks(code=1)["key"]["found"]
        monkeypatch.setenv(name, value)
    found = checks()
    assert found["endpoint"]["ok"] and "deployment gpt-4o-mini" in found["model"]["found"]
    assert server.requests[0].headers["api-key"] == SECRET


@pytest.mark.parametrize(
    "config", ["[OpenAI]\nAPI_TYPE = opnai\n", "[Aliases]\ngpt-4o-mini = gpt-4o-mini\n"]
)
def test_wrong_settings(config: str) -> None:
    """Settings that cannot be used are the first thing that is told, and the last."""
    written("config.ini", config)
    *_, check = checks(code=1).values()
    assert check["name"] == "settings" and not check["ok"]
    assert "did you mean 'openai'" in check["found"] or "form a cycle" in check["found"]


@pytest.mark.parametrize("place", ["somewhere", "somewhere/cache.db", "locked", "/proc/llmcall"])
def test_an_unusable_cache(place: str) -> None:
    """A cache that is a file, damaged, or cannot be written or made is told, with another place as
    the remedy.
    """
    path = place.removesuffix("/cache.db")
    if place == "locked":
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        Path(place).mkdir(0o500)
    elif place.startswith("somewhere"):
        written(place, "This is no database." * 100)
    llmcall.configure(cache_path=path, cache_mode="replay")
    check = checks(code=1)["cache"]
    assert path in check["found"] + check["remedy"] and "[Cache] PATH" in check["remedy"]


def test_tokenizer_and_price() -> None:
    """An estimate and an unknown price are no faults; what would better them is named, and where a
    price is from.
    """
    llmcall.configure(model="my-model", cache_mode="replay")
    found = checks()
    assert (
        found["tokenizer"]["found"] == "estimated for my-model" and not found["tokenizer"]["remedy"]
    )
    assert found["price"]["found"] == "my-model: unknown, so costs are shown as ?"
    assert (
        "my-model = IN, OUT in [Prices]" in found["price"]["remedy"]
        and "'prices'" in found["price"]["remedy"]
    )
    llmcall.configure(model="gpt-4o-mini", prices={"gpt-4o-mini": (0.15, 0.6)})
    said = "gpt-4o-mini: $0.15 in and $0.6 out per million tokens, according to [Prices]"
    assert checks()["price"] == {"name": "price", "ok": True, "found": said, "remedy": ""}
