"""llmcall cache: looking at records, moving and deleting them."""

from __future__ import annotations

import inspect
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import llmcall
from llmcall.cli.main import main
from llmcall.testing import ScriptedClient

TOOLS = [{"id": "call_1", "type": "function", "function": {"name": "sell", "arguments": "{}"}}]
BELL = "A bell:\a and \x1b[31mred"


def run(*arguments: str, text: str | None = None) -> Result:
    """Run ``llmcall cache`` in this process."""
    return CliRunner().invoke(main, ["cache", *arguments], input=text)


def streams(*arguments: str) -> tuple[str, str, int]:
    """Run it likewise, and return standard output, standard error and the exit code apart."""
    # click 8.1 mixes the two unless told; 8.2 keeps them apart and takes no such argument.
    apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    done = CliRunner(**apart).invoke(main, ["cache", *arguments])  # type: ignore[arg-type]
    return done.stdout, done.stderr, done.exit_code


def answer(messages: list[Any]) -> Any:
    """Answer a chat, or embed (an embedding has no messages)."""
    return {"role": "assistant", "content": None, "tool_calls": TOOLS} if "sell" in str(messages) else "Two\ncoins."


@pytest.fixture
def keys() -> list[str]:
    """Record four answers, and return their keys in the order of storing."""
    client = ScriptedClient(answer, cache_mode="auto", model="gpt-4o", prices={"gpt-4o": (1, 2)})
    found = [client.send_message("What do apples cost?", on_error="raise").cache_key]
    with llmcall.scope("trial-3"), llmcall.scope("lisa"):
        found.append(client.send_message(BELL, on_error="raise").cache_key)
    found.append(client.send_message("Please sell.", model="gpt-4", n=2, on_error="raise").cache_key)
    llmcall.reset()
    embedder = ScriptedClient([[0.5, 0.25]], cache_mode="auto")
    embedder.get_embedding("apples", "embedder")
    found.append(list(embedder.cache.records())[-1].cache_key)
    return found


def test_stats(keys: list[str]) -> None:
    """stats says where the cache is, and how large."""
    assert run("stats").output.startswith(f"{Path.cwd() / '.llmcall' / 'cache'}: 4 records, ")
    found = json.loads(run("stats", "--json").output)
    assert found["records"] == 4 and found["size"] > 0 and found["path"].endswith("cache")
    assert found["models"] == {"gpt-4o": 2, "gpt-4": 1, "embedder": 1}
    assert [(name, each["records"]) for name, each in found["by_scope"].items()] == [("", 3), ("trial-3", 1)]
    assert found["cost"] == sum(row["cost"] or 0 for row in json.loads(run("ls", "--json").output))
    assert found["input_tokens"] >= 0 and time.time() - found["since"] < 600
    shown = run("stats").output
    assert "since 20" in shown and "gpt-4o (2)" in shown and "trial-3" in shown
    assert run("stats", "--scope", "trial-3/*").output.startswith(f"{found['path']}: 1 records, ")


def test_stats_of_nothing() -> None:
    """Looking at a cache that is not there makes none."""
    assert ": 0 records, 0.0 MB" in run("stats").output
    for command in (["ls"], ["show", "ab"]):
        assert f"the cache {Path.cwd() / '.llmcall' / 'cache'} is empty" in run(*command).output
    assert not Path(".llmcall").exists()


def test_ls(keys: list[str]) -> None:
    """A line for each record, oldest first, in a width that fits and without what a terminal obeys."""
    head, *lines = run("ls").output.splitlines()
    assert head.split() == ["key", "kind", "model", "sample", "age", "cost", "asked", "answered"]
    assert [line.split()[0] for line in lines] == [key[:12] for key in keys]
    assert lines[0].split()[4] in ("0s", "1s") and lines[0].endswith("Two coins.")
    assert "trial-3/lisa#0" in lines[1] and "\x1b" not in lines[1] and "\a" not in lines[1]
    assert "sell({})" in lines[2] and lines[3].split()[-3:] == ["apples", "2", "numbers"]


def test_ls_as_json(keys: list[str]) -> None:
    """As JSON, a row is an object."""
    rows = json.loads(run("ls", "--json").output)
    assert [row["kind"] for row in rows] == ["chat", "chat", "chat", "embedding"]
    assert rows[0]["asked"] == "What do apples cost?" and rows[0]["sample"] is None
    assert [row["answered"] for row in rows] == ["Two\ncoins.", "Two\ncoins.", "sell({})", "2 numbers"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--model", "gpt-4o"], [0, 1]),
        (["--model", "gpt"], []),
        (["--scope", "trial-3/*"], [1]),
        (["--scope", "trial-?/lisa"], [1]),
        (["--scope", "*"], [0, 1, 2, 3]),
        (["--since", "1h"], [0, 1, 2, 3]),
        (["--since", "2000-01-01"], [0, 1, 2, 3]),
        (["--since", "2999-12-31T23:59"], []),
        (["--model", "gpt-4o", "--scope", "trial*", "--since", "3d"], [1]),
        (["-n", "2"], [0, 1]),
        (["--limit", "0"], [0, 1, 2, 3]),
    ],
)
def test_selecting(keys: list[str], options: list[str], expected: list[int]) -> None:
    """--model, --scope, --since and --limit select, and together select what all do."""
    rows = json.loads(run("ls", "--json", *options).stdout)
    assert [row["key"] for row in rows] == [keys[index] for index in expected]


@pytest.mark.parametrize("since", ["yesterday", "5 parsecs", "2026-13-01", "-1h"])
def test_an_unreadable_moment(since: str) -> None:
    """A --since that is neither date nor age is wrong usage that shows both."""
    done = run("ls", f"--since={since}")
    assert done.exit_code == 2 and "2026-11-30" in done.output and "90m" in done.output


def test_ls_says_that_there_is_more(keys: list[str]) -> None:
    """A list that was cut says so, beside the list."""
    assert "--limit 0 shows all" in streams("ls", "-n", "2")[1]
    assert streams("ls", "-n", "4")[1] == ""


def test_show(keys: list[str]) -> None:
    """A record is shown in full, by its key or the beginning of one."""
    shown = run("show", keys[0]).output
    assert shown == run("show", keys[0][:8]).output == run("show", f"{keys[0][:12]}…").output
    assert keys[0] in shown and '"model": "gpt-4o"' in shown
    assert shown.endswith("\nuser\nWhat do apples cost?\n\nanswer\nTwo\ncoins.\n")
    assert "trial-3/lisa#0" in run("show", keys[1]).output
    assert run("show", keys[2]).output.endswith("\nanswer\nsell({})\n")
    assert run("show", keys[3]).output.endswith("\ninput\napples\n\nanswer\n2 numbers\n")


def test_show_as_json(keys: list[str]) -> None:
    """As JSON, a record is whole; bytes are hexadecimal digits."""
    record = json.loads(run("show", keys[3], "--json").output)
    assert record["cache_key"] == keys[3] and record["request"]["input"] == "apples"
    assert record["response"]["embedding"] == "0000003f0000803e"


@pytest.mark.parametrize(("key", "words"), [("zz", "no key begins with 'zz'"), ("", "4 keys begin with ''")])
def test_show_needs_one_key(keys: list[str], key: str, words: str) -> None:
    """A key that fits none or several fails, naming how many."""
    done = run("show", key)
    assert done.exit_code == 1 and words in done.output


def test_export_and_load(keys: list[str]) -> None:
    """What is exported and loaded elsewhere is the same; loading it twice adds nothing."""
    assert run("export", "all.jsonl").output == "4 records written to all.jsonl\n"
    assert run("export", "some.jsonl", "--scope", "trial-3/*").output.startswith("1 records")
    assert run("--path", "other", "load", "some.jsonl").output.startswith("1 records loaded into ")
    assert run("--path", "other", "load", "all.jsonl").output.startswith("3 records")
    assert run("--path", "other", "load", str(Path(".llmcall/cache"))).output.startswith("0 records")
    rows = [json.loads(run("--path", path, "ls", "--json").output) for path in (".llmcall/cache", "other")]
    assert sorted(row["key"] for row in rows[0]) == sorted(row["key"] for row in rows[1])


def test_load_conflicts(keys: list[str]) -> None:
    """--on-conflict says which of two answers to one key stays."""
    run("export", "mine.jsonl")
    theirs = Path("mine.jsonl").read_text(encoding="utf-8").replace("coins", "dollars")
    Path("theirs.jsonl").write_text(theirs, encoding="utf-8")
    assert run("load", "theirs.jsonl").output.startswith("0 records")
    assert "coins" in run("show", keys[0]).output
    assert run("load", "theirs.jsonl", "--on-conflict", "raise").exit_code == 1
    assert run("load", "theirs.jsonl", "--on-conflict", "replace").exit_code == 0
    assert "dollars" in run("show", keys[0]).output
    assert run("load", "theirs.jsonl", "--on-conflict", "guess").exit_code == 2


@pytest.mark.parametrize(("name", "code"), [("missing.jsonl", 2), ("broken.jsonl", 1)])
def test_load_of_nothing(name: str, code: int) -> None:
    """A file that is not there is wrong usage; a broken one fails with its line."""
    Path("broken.jsonl").write_text('{"llmcall": 1, "settings": {}}\n{"kind"', encoding="utf-8")
    done = run("load", name)
    assert done.exit_code == code and name in done.output
    assert (f"{name}:2" in done.output) is (code == 1)


def test_delete(keys: list[str]) -> None:
    """Nothing is deleted without a selection and a yes."""
    assert run("delete").exit_code == 2
    refused = run("delete", "--model", "gpt-4o", text="n\n")
    assert refused.exit_code == 1 and "Delete 2 of 4 records" in refused.output
    assert run("delete", "--model", "gpt-4o", text="y\n").output.endswith("2 records deleted\n")
    assert run("delete", "--since", "1h", "--yes").output == "2 records deleted\n"
    assert run("delete", "--since", "1h").output == "0 records deleted\n"


def test_delete_by_key(keys: list[str]) -> None:
    """Records named by their keys, or the beginnings of them, are deleted; a selection besides is wrong usage."""
    assert run("delete", keys[0], "--model", "gpt-4o", "--yes").exit_code == 2
    assert run("delete", "nothing", "--yes").exit_code == 1
    assert run("delete", keys[0], keys[1], keys[0], "--yes").output == "2 records deleted\n"
    assert "Delete 1 of 2 records" in run("delete", keys[2], text="n\n").output
    assert run("delete", keys[0], "--yes").exit_code == 1


def test_clear(keys: list[str]) -> None:
    """All is deleted after a yes."""
    assert run("clear").exit_code == 1
    assert run("clear", "--yes").output == "4 records deleted\n"
    assert run("clear").output == "0 records deleted\n"


def test_verify(keys: list[str]) -> None:
    """Sound records are counted; the key of a damaged one is printed, and the exit code is 1."""
    assert run("verify").output == "4 records, all sound\n"
    database = sqlite3.connect(".llmcall/cache/cache.db")
    with database:
        database.execute("UPDATE Cache SET value = X'00' || value WHERE key = ?", (keys[1],))
    database.close()
    listed, told, code = streams("verify")
    assert code == 1 and listed == f"{keys[1]}\n" and "1 of 4 records are damaged" in told


def test_a_damaged_database(keys: list[str]) -> None:
    """A file that is no database fails in words, in every command."""
    llmcall.reset()
    Path(".llmcall/cache/cache.db").write_bytes(b"no database at all" * 100)
    for command in (["stats"], ["ls"], ["show", "ab"], ["export", "x.jsonl"], ["verify"], ["clear", "--yes"]):
        done = run(*command)
        assert done.exit_code == 1 and "CacheCorruptError" in done.output and "cache.db" in done.output
