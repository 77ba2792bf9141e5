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
from click.testing import CliRunner
from commands import LONGEST, NEEDS_POSIX, cache, done, main, run
from files import in_database, written
from pytest_httpserver import HTTPServer
from servers import QUESTION, Answer, ScriptedServer, refusal, refusing

import llmcall
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only

SECRET = "sk-verysecret"
TOOLS = [{"id": "call_1", "type": "function", "function": {"name": "sell", "arguments": "{}"}}]
GROUPS = ("", "cache", "cassette")
Serve = Callable[[Answer], ScriptedServer]


def python_m(*arguments: str, folder: Path | None = None) -> tuple[int, str, str]:
    """Run ``python -m llmcall`` in a process of its own; return its exit code and both outputs."""
    command = [sys.executable, "-W", "error", "-m", "llmcall", *arguments]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=folder,
        timeout=LONGEST,
    )
    return ended.returncode, ended.stdout, ended.stderr


def contents(client: ScriptedClient) -> list[list[str]]:
    """Return what the messages of each request say."""
    return [[message["content"] for message in request.messages] for request in client.requests]


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


def names_of(group: str) -> list[str]:
    """Return the names of a group's commands; the group without a name has all of them."""
    context = click.Context(main)
    command = main.get_command(context, group) if group else main
    assert isinstance(command, click.Group)
    return command.list_commands(context)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_of_commands_lists_its_commands_in_whole_sentences(group: str) -> None:
    """The list names each command in its order, and shortens no sentence."""
    _, _, listed = done(*group.split(), "-h").partition("Commands:")
    assert re.findall(r"^  (\w+)  ", listed, flags=re.MULTILINE) == names_of(group)
    assert "..." not in listed


@pytest.mark.parametrize("group", GROUPS)
def test_every_command_has_a_help(group: str) -> None:
    """It begins with the command's usage."""
    for command in names_of(group):
        if command != "demo":
            path = f"{group} {command}".strip()
            assert done(*path.split(), "-h").startswith(f"Usage: main {path}")


@pytest.mark.parametrize(
    "arguments",
    [
        "nothing",
        "ask",
        "tokens",
        "config --yaml",
        "cache show",
        "run",
        "run missing.py",
        "show",
        "diff a",
        "cassette merge a",
        "cache ls --since yesterday",
        "run --scope a/b x.py",
        "run --actor user:[ x.py",
    ],
)
def test_wrong_usage_ends_with_2(arguments: str) -> None:
    """Exit code 2 is kept for a command line that cannot be understood."""
    written("x.py", "")
    written("x.jsonl", "")
    done(*arguments.split(), code=2)


@pytest.mark.parametrize("key", ["", "…"])
def test_an_empty_key_is_none(key: str) -> None:
    """Not the only one of a cache."""
    ScriptedClient(["Yes."], cache_mode="auto").send_message("Bread?")
    assert "'llmcall cache ls' shows the keys" in done("cache", "show", key, code=1)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("study.ipynb", 'tape = llmcall.cassette("study.jsonl"); tape.open()'),
        ("study.jsonl", "Give the program that was recorded"),
    ],
)
def test_run_says_how_a_notebook_is_recorded_and_a_recording_replayed(file: str, said: str) -> None:
    """A notebook by a cassette in its first cell."""
    assert said in done("run", "--check", written(file, "{}"), code=2)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("dif a b", "No such command 'dif'. Did you mean 'diff'?"),
        ("cache stat", "No such command 'stat'. Did you mean 'stats'?"),
        ("cassette chek a", "No such command 'chek'. Did you mean 'check'?"),
        ("show --bye a", "Did you mean"),
        ("compare a b", "Did you mean 'diff'?"),
        ("recording a.py", "Did you mean 'run'?"),
    ],
)
def test_a_misspelt_command_or_option_suggests_the_nearest(arguments: str, hint: str) -> None:
    """Also a command in a module of its own."""
    assert hint in done(*arguments.split(), code=2)


@pytest.mark.parametrize("fault", [TypeError, ValueError])
def test_a_fault_of_llmcall_does_not_exit_with_2(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the command with its traceback, so that Python ends with 1."""

    def fail(*_: Any, **__: Any) -> None:
        raise fault("a fault")

    monkeypatch.setattr(llmcall.ResponseCache, "records", fail)
    result = run("cache", "ls")
    assert (type(result.exception), result.exit_code) == (fault, 1)


def test_the_version_option_prints_name_and_version() -> None:
    """``--version`` prints one line."""
    assert python_m("--version") == (0, f"llmcall, version {llmcall.__version__}\n", "")


@pytest.mark.parametrize("command", ["config", "report {} -o report.html"])
def test_a_removed_working_directory_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command needs it elsewhere."""
    with llmcall.cassette("run.jsonl"):
        ScriptedClient(["Yes."]).send_message("Bread?")
    Path("gone").mkdir()
    monkeypatch.chdir("gone")
    (tmp_path / "gone").rmdir()
    code, _, complaint = python_m(*command.format(tmp_path / "run.jsonl").split())
    assert (code, "the working directory was removed" in complaint) == (1, True)


def test_a_missing_key_is_named_without_a_traceback() -> None:
    """The error names the variable that sets the key."""
    code, printed, errors = python_m("ask", "Hello")
    assert (code, printed) == (1, "")
    assert "OPENAI_API_KEY" in errors
    assert "Traceback" not in errors


# ask, tokens, config, demo, run


def streamed(*pieces: str) -> Answer:
    """Return an answer that a server streams in pieces."""
    events = [
        {"id": "c", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": piece}}]}
        for piece in pieces
    ]
    events[-1]["choices"][0]["finish_reason"] = "stop"  # type: ignore[index]
    lines = [*map(json.dumps, events), "[DONE]"]
    return Answer(200, "".join(f"data: {line}\n\n" for line in lines))


def test_ask_sends_model_system_message_and_question(serve: Serve) -> None:
    """The options say the model and the system message; the answer is streamed."""
    server = serve(streamed("Two ", "coins."))
    done("ask", "What do apples cost?", "-s", "You sell fruit.", "-m", "gpt-4o")
    (seen,) = server.requests
    assert seen.body["model"] == "gpt-4o"
    assert seen.body["messages"] == [{"role": "system", "content": "You sell fruit."}, *QUESTION]
    assert seen.body["stream"] is True


def test_ask_answers_a_repeated_question_from_the_record(serve: Serve) -> None:
    """The second command prints the same and sends nothing."""
    server = serve(streamed("Two ", "coins."))
    assert done("ask", "What do apples cost?") == done("ask", "What do apples cost?")
    assert len(server.requests) == 1


@pytest.mark.ci
def test_ask_reports_once_what_a_refusing_server_answers(serve: Serve) -> None:
    """The error has the server's words, what to do about it, and no key."""
    serve(refusal(401, f"Incorrect API key provided: {SECRET}"))
    code, _, errors = python_m("ask", "Hello")
    assert code == 1
    assert "Error: 401: Incorrect API key" in errors
    assert errors.count("Incorrect API key") == 1
    assert "call failed" not in errors
    assert "Check the API key; 'llmcall doctor'" in errors
    assert SECRET not in errors


@pytest.fixture
def local_model() -> Callable[..., ScriptedClient]:
    """Make the configured client the local one, with scripted answers."""

    def answering(*answers: Any) -> ScriptedClient:
        client = ScriptedClient(answers)
        llmcall.register_client("local", client)
        llmcall.configure(api_type="local")
        return client

    return answering


LocalModel = Callable[..., ScriptedClient]


def test_ask_reads_the_question_from_standard_input(local_model: LocalModel) -> None:
    """A minus sign stands for standard input."""
    client = local_model("Gut.")
    assert done("ask", "-", text="Wie geht’s?\n") == "Gut.\n"
    assert contents(client) == [["Wie geht’s?\n"]]


def test_ask_escapes_what_a_terminal_obeys(local_model: LocalModel) -> None:
    """A file gets the answer as it is."""
    answer = "\x1b[31mred\x1b[0m\a\n"
    local_model(answer, answer)
    assert done("ask", "Hello?") == f"{answer}\n"
    assert on_a_terminal("ask", "Hello again?") == ["\\x1b[31mred\\x1b[0m\\x07", ""]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", ["ask Hello?", "cache ls", "cache ls --json"])
def test_a_command_escapes_what_its_output_has_no_character_for(
    command: str, encoding: str, local_model: LocalModel
) -> None:
    """The rest stands there as it is, in the encoding of the terminal or pipe; JSON stays JSON."""
    answer = "5 € for a café 😀"
    local_model(answer)
    ScriptedClient([answer], cache_mode="auto").send_message("Hello?")
    ended = CliRunner(charset=encoding).invoke(main, command.split())
    assert ended.exit_code == 0
    printed = ended.stdout_bytes.decode(encoding)
    if command.endswith("--json"):
        assert json.loads(printed)[0]["answered"] == answer
    else:
        euro = "€" if encoding == "cp1252" else "\\u20ac"
        accent = "\\u00e9" if encoding == "ascii" else "é"
        assert f"5 {euro} for a caf{accent} \\ud83d\\ude00" in printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", ["demo", "-h", "run -h", "cache -h"])
def test_demo_and_help_need_no_unicode(command: str, encoding: str) -> None:
    """They print to their end on a terminal of ASCII."""
    assert CliRunner(charset=encoding).invoke(main, command.split()).exit_code == 0


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
IN_ASCII = {**C_LOCALE, "PYTHONIOENCODING": "ascii"}


@pytest.mark.ci
@NEEDS_POSIX
@pytest.mark.skipif(
    not __file__.isascii(),
    reason="the C locale reads only paths in ASCII: move the checkout to one",
)
@pytest.mark.parametrize(
    "environment",
    [C_LOCALE, pytest.param(IN_ASCII, marks=pytest.mark.ci)],
    ids=["C locale", "ascii"],
)
def test_ask_and_demo_print_to_a_pipe_that_lacks_their_characters(
    environment: dict[str, str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The characters are escaped, and a paid answer is recorded: it is asked for once."""
    server = serve(streamed("5 € for ", "a café"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "auto")
    for _ in range(2):
        code, printed, errors = python_m("ask", "Hello?", "-m", "gpt-4o")
        assert (code, printed, errors) == (0, "5 \\u20ac for a caf\\u00e9\n", "")
    assert len(server.requests) == 1
    code, printed, errors = python_m("demo")
    assert (code, errors) == (0, "")
    assert "Nothing else was asked again" in printed
    printed.encode("ascii")


def test_demo_runs_without_standard_output() -> None:
    """A shell's ``>&-`` leaves Python without one."""
    with contextlib.redirect_stdout(None):
        main(["demo"], standalone_mode=False)


def test_ask_records_a_paid_answer_whose_output_is_closed(serve: Serve) -> None:
    """The same question then costs nothing."""
    server = serve(streamed("Five ", "coins."))
    output = io.StringIO()
    output.close()
    with contextlib.redirect_stdout(output), pytest.raises(ValueError, match="closed file"):
        main(["ask", "Hello?", "-m", "gpt-4o"], standalone_mode=False)
    assert done("ask", "Hello?", "-m", "gpt-4o") == "Five coins.\n"
    assert len(server.requests) == 1


def reader_left(command: list[str]) -> int:
    """Run a command whose output nobody reads; return its exit code."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        return process.wait(LONGEST)


def full_disk(command: list[str]) -> int:
    """Run a command whose output goes to a full disk; return its exit code."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here: run it on Linux")
    with open("/dev/full", "wb") as output:
        return subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, check=False, timeout=LONGEST
        ).returncode


def closed_output(command: list[str]) -> int:
    """Run a command without a standard output; return its exit code."""
    shell = ["sh", "-c", '"$@" >&-', "sh", *command]
    return subprocess.run(shell, check=False, timeout=LONGEST).returncode


@pytest.mark.ci
@pytest.mark.parametrize(("unread", "code"), [(reader_left, 1), (full_disk, 1), (closed_output, 0)])
def test_ask_records_an_answer_that_it_cannot_print(
    unread: Callable[[list[str]], int], code: int, serve: Serve
) -> None:
    """It is paid for: asked again, it comes from the record."""
    server = serve(streamed("Two ", "coins."))
    assert unread([sys.executable, "-m", "llmcall", "ask", "What do apples cost?"]) == code
    assert done("ask", "What do apples cost?") == "Two coins.\n"
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [None, ""])
def test_ask_prints_a_refusal_of_the_model(content: str | None, local_model: LocalModel) -> None:
    """The words of the refusal stand in the answer's place."""
    local_model({"role": "assistant", "content": content, "refusal": "I will not."})
    assert done("ask", "Tell me!") == "I will not.\n"


def test_tokens_counts_files_and_marks_estimates() -> None:
    """A line has the count and the file's name; without a known tokenizer a tilde, and nothing counts 0."""
    written("a.txt", "Hello world")
    count = llmcall.count_tokens("Hello world")
    assert done("tokens", "a.txt").split() == [repr(count), "a.txt"]
    estimated = "-m", "no-such-model"
    shown = done("tokens", "a.txt", "-", *estimated, text="").splitlines()
    (one, _), _, (total, _) = (line.split() for line in shown)
    assert re.fullmatch(r"~[1-9]\d*", one)
    assert one == total
    (row,) = json.loads(done("tokens", "a.txt", *estimated, "--json"))
    assert row == {"file": "a.txt", "tokens": int(one.removeprefix("~")), "estimated": True}


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


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have settings in a file and in the environment."""
    monkeypatch.setenv("MY_KEY", SECRET)
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    written("config.ini", CONFIG)


@pytest.mark.usefixtures("configured")
def test_config_shows_what_is_set_and_where_it_comes_from() -> None:
    """What is set stands first, with its variable or file, else the word default; at the end, the file that was read.
    Each endpoint, price and model has its own lines, and no key or password is shown.
    """
    shown = done("config")
    assert shown.startswith("[OpenAI] MODEL")
    folder = Path.cwd()
    assert shown.endswith(f"read: {folder / 'config.ini'}; no .env in {folder}\n")
    lines = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert lines["[Cache] MODE"].endswith("environment variable LLMCALL_CACHE_MODE")
    assert lines["[Retry] MAX_ATTEMPTS"].endswith("default")
    assert "30.0, 60.0" in lines["[Prices] gpt-4"]
    assert "***" in lines["[Endpoint east] API_KEY"]
    assert "no" in lines["[Model my-*] STRUCTURED_OUTPUT"]
    assert SECRET not in shown and "password" not in shown


def test_config_as_json_has_every_value(configured: None) -> None:
    """Numbers are numbers, what is not set is null, and the sections are objects; no secret is shown."""
    shown = done("config", "--json")
    assert SECRET not in shown and "password" not in shown
    rows = json.loads(shown)
    values = {(row["section"], row["key"]): row["value"] for row in rows}
    assert values["Retry", "MAX_ATTEMPTS"] == 5
    assert values["OpenAI", "TEMPERATURE"] is None
    assert values["Prices", ""] == {"gpt-4": [30, 60]}
    assert values["Endpoint", ""][0]["models"] == ["gpt-4"]


def test_config_names_a_wrong_setting() -> None:
    """It ends with an error, as a run would."""
    written("config.ini", "[OpenAI]\nTIMEOUT = soon\n")
    assert "TIMEOUT" in done("config", code=1)


def test_demo_passes_all_options_to_its_script() -> None:
    """--help is the script's, too."""
    assert "--live" in done("demo", "--help") and "Usage: main" not in done("demo", "-h")


PROGRAM = """
import sys, llmcall.testing
client = llmcall.testing.ScriptedClient(["one", "two"])
print(__name__, sys.argv[1:], *(client.send_message("?").content for _ in range(2)))
sys.exit(int(sys.argv[1]))
"""


def test_run_records_a_program_and_replays_it_as_a_module() -> None:
    """Arguments after the program's name are its own, its exit code is kept, and a miss names the command that records
    what is missing.
    """
    tape = "--cassette", "run.jsonl"
    written("play.py", PROGRAM)
    assert python_m("run", *tape, "play.py", "3", "-h")[:2] == (3, "__main__ ['3', '-h'] one two\n")
    replay = "run", *tape, "--mode", "none", "-m", "play", "0"
    assert python_m(*replay)[:2] == (0, "__main__ ['0'] one two\n")
    written("play.py", PROGRAM.replace('"?"', '"And more?"'))
    code, _, errors = python_m(*replay)
    assert code == 1
    assert "llmcall run --cassette run.jsonl --mode update" in errors


# cache


@pytest.fixture
def keys() -> list[str]:
    """Record four answers, and return their keys in the order of storing."""

    def answer(messages: list[Any]) -> Any:
        selling = {"role": "assistant", "content": None, "tool_calls": TOOLS}
        if messages == ["apples"]:
            return [[0.5, 0.25]]
        return selling if "sell" in str(messages) else "Two\ncoins."

    client = ScriptedClient(answer, cache_mode="auto", model="gpt-4o", prices={"gpt-4o": (1, 2)})
    client.send_message("What do apples cost?")
    with llmcall.scope("trial-3"), llmcall.scope("lisa"):
        client.send_message("A bell:\a and \x1b[31mred")
    client.send_message("Please sell.", model="gpt-4", n=2)
    client.get_embedding("apples", "embedder")
    return [record.cache_key for record in client.cache.records()]


def test_stats_says_what_the_cache_holds(keys: list[str]) -> None:
    """It shows the place, the number of records, their age, models, tokens and cost; as JSON, bytes and seconds."""
    shown = cache("stats")
    assert shown.startswith(f"{Path.cwd() / '.llmcall' / 'cache'}: 4 records, ")
    assert "since 20" in shown
    assert "gpt-4o (2)" in shown
    assert shown.endswith(  # scripted answers name none; an embedding has no output
        "input tokens ?, output tokens ?, cost ?\n"
    )
    found = json.loads(cache("stats", "--json"))
    assert found["records"] == 4
    assert found["size"] > 0
    assert time.time() - found["since"] < 600
    assert found["models"] == {"gpt-4o": 2, "gpt-4": 1, "embedder": 1}


def test_ls_shows_scopes_tool_calls_and_embeddings(keys: list[str]) -> None:
    """A line has the sample, and in a few words what was asked and answered; nothing that a terminal obeys."""
    shown = cache("ls")
    _, _, in_scope, selling, embedding = shown.splitlines()
    assert not {"\x1b", "\a"} & {*shown}
    assert "trial-3/lisa#0" in in_scope
    assert "sell({})" in selling
    assert embedding.split()[-3:] == ["apples", "2", "numbers"]


def test_ls_as_json_has_the_whole_texts(keys: list[str]) -> None:
    """Each row has the kind of the record, its sample, and question and answer in full."""
    rows = json.loads(cache("ls", "--json"))
    assert [row["kind"] for row in rows] == ["chat", "chat", "chat", "embedding"]
    assert rows[0]["asked"] == "What do apples cost?"
    assert rows[0]["sample"] is None
    answers = [row["answered"] for row in rows]
    assert answers == ["Two\ncoins.", "Two\ncoins.", "sell({})", "2 numbers"]


def on_a_terminal(*arguments: str) -> list[str]:
    """Run a command on a terminal, and return the lines that it prints."""
    terminal: Any = io.StringIO()
    terminal.isatty = lambda: True
    with contextlib.redirect_stdout(terminal):
        assert not main(arguments, standalone_mode=False)
    return click.unstyle(terminal.getvalue()).splitlines()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--model gpt-4o", [0, 1]),
        ("--scope trial-3/*", [1]),
        ("--since 2999-12-31T23:59", []),
        ("--model gpt-4o --scope trial* --since 3d", [1]),
    ],
)
def test_selecting_options_together_select_what_fits_all_of_them(
    keys: list[str], options: str, expected: list[int]
) -> None:
    """--model, --scope, and --since can be combined."""
    rows = json.loads(cache("ls", "--json", *options.split()).partition("]\n")[0] + "]")
    assert [row["key"] for row in rows] == [keys[index] for index in expected]


def test_show_takes_a_key_or_its_beginning(keys: list[str]) -> None:
    """A key as ``ls`` prints it will do."""
    assert cache("show", keys[0]) == cache("show", keys[0][:8])
    assert cache("show", keys[0]) == cache("show", f"{keys[0][:12]}…")


def test_show_prints_a_record_in_full(keys: list[str]) -> None:
    """It has key, model, and each message with its role; the numbers of an embedding are in the JSON."""
    shown = cache("show", keys[0])
    assert keys[0] in shown
    assert "--- call 1  gpt-4o" in shown
    assert shown.endswith("\nuser\n    What do apples cost?\n→ assistant\n    Two\n    coins.\n")
    assert cache("show", keys[3]).endswith("\ntext\n    apples\n→ embedding\n    2 numbers\n")
    record = json.loads(cache("show", keys[3], "--json"))
    assert record["response"]["embedding"] == "0000003f0000803e"


def keys_of(path: str) -> list[str]:
    """Return the sorted keys that a cache holds."""
    return sorted(row["key"] for row in json.loads(cache("--path", path, "ls", "--json")))


def test_export_writes_the_selected_records(keys: list[str]) -> None:
    """It says how many, and into which file."""
    assert cache("export", "all.jsonl") == "4 records written to all.jsonl\n"
    assert cache("export", "some.jsonl", "--scope", "trial-3/*").startswith("1 record ")


@pytest.mark.parametrize("source", ["all.jsonl", ".llmcall/cache"])
def test_load_takes_a_file_or_another_cache(source: str, keys: list[str]) -> None:
    """All records are then in the cache that is named."""
    cache("export", "all.jsonl")
    assert cache("--path", "other", "load", source).startswith("4 records loaded into ")
    assert keys_of("other") == sorted(keys)


@pytest.mark.parametrize(
    ("options", "code", "answer"),
    [
        ([], 0, "coins"),
        (["--on-conflict", "raise"], 1, "coins"),
        (["--on-conflict", "replace"], 0, "dollars"),
    ],
)
def test_load_keeps_a_different_answer_unless_on_conflict_replaces_it(
    options: list[str], code: int, answer: str, keys: list[str]
) -> None:
    """--on-conflict decides between the cache's answer and the file's."""
    cache("export", "all.jsonl")
    text = Path("all.jsonl").read_text(encoding="utf-8").replace("coins", "dollars")
    printed = cache("load", written("theirs.jsonl", text), *options, code=code)
    assert answer in cache("show", keys[0])
    assert printed.startswith("0 records") or options


def test_delete_asks_before_it_deletes(keys: list[str]) -> None:
    """It says how many records would go; a no keeps them, a yes deletes them. It needs keys or a selection."""
    cache("delete", code=2)
    cache("delete", "nothing", "--yes", code=1)
    assert "Delete 2 of 4 records" in cache("delete", "--model", "gpt-4o", text="n\n", code=1)
    assert keys_of(".llmcall/cache") == sorted(keys)
    assert cache("delete", "--model", "gpt-4o", text="y\n").endswith("2 records deleted\n")
    assert keys_of(".llmcall/cache") == sorted(keys[2:])
    cache("clear", code=1)
    assert cache("clear", "--yes") == "2 records deleted\n"


def damage(key: str) -> None:
    """Make a record's text one that cannot be read."""
    in_database(".llmcall/cache", "UPDATE Cache SET value = X'00' || value WHERE key = ?", key)


def test_salvage_saves_the_sound_records(keys: list[str]) -> None:
    """The new cache has all others, and no damage."""
    damage(keys[1])
    assert "3 records" in cache("salvage", "saved")
    assert cache("--path", "saved", "export", "sound.jsonl") == "3 records written to sound.jsonl\n"


@pytest.mark.parametrize("command", ["stats", "export x.jsonl"])
def test_a_file_that_is_no_database_is_named(command: str) -> None:
    """Every command ends with a sentence about it."""
    written(".llmcall/cache/cache.db", b"no database at all" * 100)
    printed = cache(*command.split(), code=1)
    assert printed.startswith("Error: ")
    assert "cache.db is damaged" in printed


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


def test_the_doctor_marks_each_passed_check_ok(serve: Serve) -> None:
    """In their order; they cost nothing, and leave nothing behind."""
    server = serve(listing("gpt-4o", "gpt-6-luna"))
    lines = [line.split(maxsplit=2)[:2] for line in done("doctor").splitlines() if line[0] != " "]
    names = ["files", "settings", "key", "endpoint", "model", "cache", "tokenizer"]
    assert lines == [["ok", name] for name in names]
    assert [request.path for request in server.requests] == ["/v1/models"]
    assert not Path(".llmcall").exists()


def test_the_doctor_names_a_missing_key_and_the_ways_without_one() -> None:
    """It names the variable, and replay."""
    key = checks(code=1)["key"]
    assert not key["ok"]
    assert "OPENAI_API_KEY" in key["found"]
    assert "LLMCALL_CACHE_MODE=replay" in key["remedy"]


def test_the_doctor_sends_nobody_to_settings_that_cannot_be_shown() -> None:
    """A wrong value stops ``llmcall config``, too."""
    written("config.ini", "[OpenAI]\nTEMPERATURE = warm\n")
    done("config", code=1)
    printed = done("doctor", code=1)
    assert "[OpenAI] TEMPERATURE: 'warm' is not a number" in printed
    assert "llmcall config" not in printed


def test_the_doctor_needs_no_key_for_a_server_on_this_machine(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such servers rarely check one."""
    serve(listing("gpt-6-luna"))
    monkeypatch.delenv("OPENAI_API_KEY")
    assert checks()["key"]["found"] == "127.0.0.1: no API key is needed"


def test_the_doctor_does_not_look_for_an_endpoint_in_replay() -> None:
    """A replay sends nothing."""
    llmcall.configure(cache_mode="replay")
    assert "endpoint" not in checks()


@pytest.mark.parametrize(
    ("answer", "ok", "words", "remedy"),
    [
        (
            refusal(401, f"Incorrect API key provided: {SECRET}"),
            False,
            "/v1/models: 401",
            "llmcall config",
        ),
        (refusal(404, "no such route"), True, "/v1/models: 404: no such route", "/v1"),
        (Answer(502, "<html>Bad gateway</html>"), False, "/v1/models: 502", "llmcall config"),
        (None, False, "Is a server running at", "llmcall config"),
    ],
    ids=["401", "404", "502", "nobody"],
)
def test_the_doctor_reports_what_the_endpoint_answers(
    answer: Answer | None,
    ok: bool,
    words: str,
    remedy: str,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report has the address that was asked and the endpoint's words, without the key."""
    with contextlib.ExitStack() as around:
        if answer is not None:
            serve(answer)
        else:
            monkeypatch.setenv("OPENAI_API_KEY", SECRET)
            monkeypatch.setenv("OPENAI_BASE_URL", around.enter_context(refusing()))
        check = checks(code=0 if ok else 1)["endpoint"]
    assert check["ok"] is ok and words in check["found"] and remedy in check["remedy"]
    assert SECRET not in str(check)


@pytest.mark.parametrize("unusable", ["somewhere", "locked"])
def test_the_doctor_names_a_cache_that_cannot_be_used(unusable: str) -> None:
    """It is a file, or may not be written; another place is the remedy."""
    if unusable == "locked":
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere: run the tests as somebody else")
        Path(unusable).mkdir(0o500)
    else:
        written(unusable, "This is no database." * 100)
    llmcall.configure(cache_path=unusable, cache_mode="replay")
    check = checks(code=1)["cache"]
    assert unusable in check["found"] + check["remedy"]
    assert "set another PATH in [Cache] of config.ini" in check["remedy"]


def test_the_doctor_says_that_tokens_are_estimated() -> None:
    """That is no fault, and nothing has to be done."""
    llmcall.configure(model="my-model", cache_mode="replay")
    check = checks()["tokenizer"]
    assert check["found"] == "tokens of my-model are estimated"
    assert not check["remedy"]
