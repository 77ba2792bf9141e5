"""Answers that others published, as a cassette: ``llmcall.import_answers`` and ``llmcall import``."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from commands import done, run
from files import written
from servers import completion

import llmcall
from llmcall.errors import CacheError
from llmcall.testing import ScriptedClient
from llmcall.types import Record

GAMES, MODEL = "games.jsonl", "gpt-4-0314"
MAY = 1684324800  # 17 May 2023


def user(text: str) -> dict[str, Any]:
    """Return a user's message."""
    return {"role": "user", "content": text}


def assistant(text: str | None = None) -> dict[str, Any]:
    """Return a turn of the assistant; without a text, its response says it."""
    return {"role": "assistant"} if text is None else {"role": "assistant", "content": text}


def response(text: str, **fields: Any) -> dict[str, Any]:
    """Return a raw answer of May 2023."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    return completion(text, **{"created": MAY, "model": MODEL, "usage": usage, **fields})


def legacy(text: str, **fields: Any) -> dict[str, Any]:
    """Return a raw answer of a legacy completion."""
    choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
    return {"object": "text_completion", "created": MAY, "choices": [{**choice, **fields}]}


def game(name: str, *answers: str, **fields: Any) -> dict[str, Any]:
    """Return a conversation of one or two turns."""
    messages = [part for text in answers for part in (user("How much?"), assistant(text))]
    return {"scope": (name,), "messages": messages, **fields}


def imported(*conversations: Any, to: str = GAMES, **options: Any) -> list[Record]:
    """Import conversations, and return the records of the file."""
    llmcall.import_answers(conversations, to, **{"model": MODEL, **options})
    return records(to)


def records(path: str = GAMES) -> list[Record]:
    """Return the records of a cassette, in its order."""
    cache = llmcall.ResponseCache(f"{path}.cache")
    cache.load(path)
    return list(cache.records())


def header(path: str = GAMES) -> dict[str, Any]:
    """Return the header of a cassette."""
    data: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8").split("\n")[0])
    return data


def replayed(*scope: str, ask: Any = "How much?", path: str = GAMES, **options: Any) -> str | None:
    """Return what a program gets that asks in a scope."""
    with llmcall.cassette(path, mode="none"), llmcall.scope("/".join(scope) or None):
        return llmcall.OpenAIClient().send_message(ask, **options).content


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import and replay without a key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_each_turn_of_the_assistant_replays_in_its_scope() -> None:
    """A record asks the messages before its turn, as a program asks them."""
    imported(game("ann", "5", "7"), game("ben", "2"))
    history = [user("How much?"), assistant("5"), user("How much?")]
    assert replayed("ann") == "5"
    assert replayed("ann", ask=history) == "7"
    assert replayed("ben") == "2"


@pytest.mark.parametrize("names", [("trial-1", "ann"), (1, 2.5)])
def test_an_imported_tuple_of_names_is_a_scope_path(names: tuple[Any, Any]) -> None:
    """Numbers are the names that a scope takes."""
    imported({**game("ann", "5"), "scope": names})
    with llmcall.cassette(GAMES, mode="none"), llmcall.scope(names[0]), llmcall.scope(names[1]):
        assert llmcall.OpenAIClient().send_message("How much?").content == "5"


def test_outside_any_scope_further_draws_have_numbers() -> None:
    """The first is what a call without a scope finds; ``sample=`` names the others."""
    imported(*({**game("ann", text), "scope": ()} for text in "56"))
    with llmcall.cassette(GAMES, mode="none"):
        client = llmcall.OpenAIClient()
        assert client.send_message("How much?").content == "5"
        assert client.send_message("How much?", sample=1).content == "6"


def test_parameters_and_models_are_those_that_were_asked_for() -> None:
    """Those of a conversation go before those of all."""
    both = imported(
        game("ann", "5"),
        game("ben", "2", model="gpt-3.5-turbo-0301", params={"temperature": 0, "stop": "\n"}),
        params={"temperature": 1},
    )
    assert [(record.model, record.request["temperature"]) for record in both] == [
        (MODEL, 1),
        ("gpt-3.5-turbo-0301", 0),
    ]
    assert replayed("ben", model="gpt-3.5-turbo-0301", temperature=0, stop=["\n"]) == "2"


def test_settings_of_the_reader_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header names the model and the defaults that entered the keys."""
    monkeypatch.setenv("LLMCALL_CACHE_NAMESPACE", "mine")
    monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.3")
    imported(game("ann", "5"), params={"temperature": 1})
    assert header()["settings"] == {"model": MODEL, "temperature": 1}
    assert replayed("ann") == "5"


def test_a_response_gives_days_tokens_and_cost() -> None:
    """The price is the model's on that day, whatever [Prices] says."""
    written("config.ini", f"[Prices]\n{MODEL} = 1, 1\n")
    [record] = imported(game("ann", "5", responses=[response("5")]))
    assert header()["served"] == {MODEL: {"first": "2023-05-17", "last": "2023-05-17"}}
    assert record.usage[:2] == (1000, 100)
    assert record.cost is not None and math.isclose(record.cost, 0.036)  # $30 and $60 a million


def test_an_answer_without_a_day_has_no_cost() -> None:
    """A price of today would not be its price."""
    [record] = imported(game("ann", "5", responses=[response("5", created=None)]))
    assert record.cost is None and "served" not in header()


def test_a_turn_without_a_response_is_the_answer() -> None:
    """Nothing is made up: neither a model that answered, nor an end, nor a day."""
    [record] = imported(game("ann", "5"))
    assert (record.answer, record.served, record.finish_reason, record.days) == (
        "5",
        None,
        None,
        None,
    )


def test_a_turn_without_a_content_says_what_its_response_says() -> None:
    """Later turns are asked after it."""
    turns = [user("How much?"), assistant(), user("And now?"), assistant()]
    imported({"messages": turns, "responses": [response("5"), response("7")]})
    assert replayed(ask=[user("How much?"), assistant("5"), user("And now?")]) == "7"


def test_a_legacy_completion_becomes_a_marked_chat() -> None:
    [record] = imported(game("ann", "5", responses=[legacy("5")]))
    assert record.response["converted"] is True
    assert replayed("ann") == "5"


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (game("x", ""), "the answer is empty"),
        (game("x", "5", responses=[response("")]), "the answer is empty"),
        (game("x", "5", responses=[response("6")]), 'the turn is "5", the response "6"'),
        (game("x", "5", responses=[]), "0 responses for 1 assistant turn"),
        (game("x", "5", responses=[None]), "no response"),
        (game("x", "5", responses=[{"error": {"message": "overloaded"}}]), "overloaded"),
        (game("x", "5", responses=[{"choices": "none"}]), "a malformed answer"),
        (game("x", "5", responses=["5"]), "it must be a dict"),
        ({"messages": [user("How much?")]}, "no assistant turn"),
        ({"messages": [assistant("5")]}, "no message precedes it"),
        ({"messages": [{"role": "bot", "content": "?"}, assistant("5")]}, "messages[0].role"),
        ({"scope": ("x",), "messages": "5"}, "no list of messages"),
        (
            {"prompt": "How much?", "anwser": "5"},
            "it has no column answer, and no messages, but prompt, anwser",
        ),
        ({**game("x", "5"), "scope": "trial/x"}, "a tuple of names"),
        ({**game("x", "5"), "scope": ("trial/x",)}, "without '/'"),
        (game("x", "5", params={"temprature": 1}), "temperature"),
        ("5", "must be a dict"),
    ],
)
def test_an_unreadable_entry_is_skipped_with_its_number_and_reason(
    conversation: Any, reason: str
) -> None:
    """All else is imported."""
    result = llmcall.import_answers([game("ann", "5"), conversation], GAMES, model=MODEL)
    [(number, found)] = result.skipped
    assert (result.records, result.conversations, number) == (1, 2, 2)
    assert reason in found
    assert f"2: {found}" in str(result)


def test_a_reason_names_the_turn_of_several() -> None:
    """The other turns of the conversation are imported."""
    conversation = game("ann", "5", "6", responses=[response("5"), response("0")])
    result = llmcall.import_answers([conversation], GAMES, model=MODEL)
    assert result.records == 1
    assert [reason.partition(":")[0] for _, reason in result.skipped] == ["turn 2"]


def test_an_existing_file_is_not_written_over() -> None:
    """Nothing is read, either."""

    def conversations() -> Iterator[Any]:
        pytest.fail("read")
        yield

    written(GAMES, "mine")
    with pytest.raises(ValueError, match="already exists"):
        llmcall.import_answers(conversations(), GAMES)
    assert Path(GAMES).read_text(encoding="utf-8") == "mine"


def test_nothing_is_written_where_no_answer_can_be_read() -> None:
    """The error has the first reason."""
    with pytest.raises(CacheError, match=r"no answer in 1 conversation.*empty"):
        llmcall.import_answers([game("ann", "")], GAMES)
    assert not os.path.exists(GAMES)


def test_the_same_input_gives_the_same_bytes() -> None:
    """Neither settings nor the order of a dict's fields count."""
    conversation = game("ann", "5", responses=[response("5")])
    imported(conversation, source={"address": "https://example.org", "licence": "MIT"})
    again = {name: conversation[name] for name in reversed(conversation)}
    source = {"licence": "MIT", "address": "https://example.org"}
    with llmcall.configured(temperature=0.5, aliases={MODEL: "other"}):
        imported(again, to="again.jsonl", source=source)
    assert Path(GAMES).read_bytes() == Path("again.jsonl").read_bytes()


SOURCE = "https://example.org/games (commit 1a2b, CC BY 4.0)"
ORIGIN = f"imported from {SOURCE}, not recorded by llmcall"


@pytest.mark.feature("report")
def test_show_and_the_report_name_the_source() -> None:
    """Nobody takes the answers for a recording of one's own."""
    imported(game("ann", "5"), source=SOURCE)
    assert header()["imported"] == SOURCE
    assert ORIGIN in done("show", GAMES)
    done("report", GAMES, "-o", "games.html")
    assert ORIGIN in Path("games.html").read_text(encoding="utf-8")


def test_a_source_may_have_fields_or_no_name() -> None:
    """In either case the file says that its answers are imported."""
    imported(game("ann", "5"), source={"licence": "MIT", "commit": "1a2b"})
    assert "imported from commit 1a2b, licence MIT, not recorded" in done("show", GAMES)
    imported(game("ann", "5"), to="nameless.jsonl")
    assert "imported from an unnamed source, not recorded" in done("show", "nameless.jsonl")


def test_a_cassette_that_goes_on_keeps_the_source() -> None:
    """So do a new recording in it, and a merge with itself."""
    imported(game("ann", "5"), source=SOURCE)
    client = ScriptedClient(["9"])
    with llmcall.cassette(GAMES, mode="new"), llmcall.scope("cleo"):
        client.send_message("How much?")
    done("cassette", "merge", GAMES, GAMES, "-o", "merged.jsonl")
    assert header()["imported"] == header("merged.jsonl")["imported"] == SOURCE


def test_answers_that_a_cache_loads_keep_their_source() -> None:
    """A copy of the cache, an export, and a cassette that the cache supplies name it."""
    imported(game("ann", "5"), game("ben", "2"), source=SOURCE)
    llmcall.ResponseCache("cache").load(GAMES)
    llmcall.ResponseCache("copy").load("cache")
    assert ORIGIN in done("show", "copy")
    llmcall.ResponseCache("copy").export("export.jsonl")
    client = ScriptedClient([], model=MODEL, cache_mode="auto", cache_path="copy")
    with llmcall.cassette("again.jsonl"), llmcall.scope("ann"):
        assert client.send_message("How much?").content == "5"
    assert header("export.jsonl")["imported"] == header("again.jsonl")["imported"] == SOURCE


def test_files_of_two_sources_are_not_merged() -> None:
    """The header could name but one."""
    imported(game("ann", "5"), source="one")
    imported(game("ben", "2"), to="other.jsonl", source="two")
    assert "imported ('one' and 'two')" in done(
        "cassette", "merge", GAMES, "other.jsonl", "-o", "merged.jsonl", code=1
    )


# The command and its layouts


def batch_input(**bodies: Any) -> str:
    """Write the input file of a batch, and return its path."""
    lines = [
        {
            "custom_id": name.replace("_", "/"),
            "method": "POST",
            "url": f"/v1/{'completions' if 'prompt' in body else 'chat/completions'}",
            "body": {"model": MODEL, **body},
        }
        for name, body in bodies.items()
    ]
    return written("input.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))


def batch_output(**bodies: Any) -> str:
    """Write the output file of a batch, and return its path; an error has no response."""
    lines = [
        {
            "id": "batch_req_1",
            "custom_id": name.replace("_", "/"),
            "response": {"status_code": 400 if "error" in body else 200, "body": body},
            "error": None,
        }
        for name, body in bodies.items()
    ]
    return written("output.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))


def test_a_batch_is_imported_at_half_the_price() -> None:
    """The id of a request is its scope; the order is that of the input."""
    asked = {"messages": [user("How much?")], "temperature": 1, "max_tokens": 5}
    sent = batch_input(trial_ann=asked, trial_ben=asked)
    got = batch_output(trial_ben=response("2"), trial_ann=response("5"))
    assert "2 records of 2 conversations" in done("import", sent, got, "-o", GAMES)
    assert [(record.scope, record.answer) for record in records()] == [
        ("trial/ann", "5"),
        ("trial/ben", "2"),
    ]
    assert records()[0].request["max_tokens"] == 5
    cost = records()[0].cost
    assert cost is not None and math.isclose(cost, 0.018)


def test_a_batch_of_legacy_completions_is_what_the_sdk_asks() -> None:
    """At OpenAI's address; the id is the scope."""
    openai = pytest.importorskip("openai")
    sent = batch_input(ann={"prompt": "How much?", "best_of": 2})
    done("import", sent, batch_output(ann=legacy("5")), "--to", GAMES)
    with llmcall.cassette(GAMES, mode="none"), llmcall.scope("ann"):
        answer = openai.OpenAI(api_key="none").completions.create(
            model=MODEL, prompt="How much?", best_of=2
        )
    assert answer.choices[0].text == "5"


def test_a_request_of_a_batch_without_an_answer_is_skipped() -> None:
    """So is an answer of which the input does not hold the question."""
    asked = {"messages": [user("How much?")]}
    sent = batch_input(ann=asked, ben=asked, cleo=asked)
    got = batch_output(ann=response("5"), ben={"error": {"message": "too long"}}, dan=response("1"))
    printed = done("import", sent, got, "--to", GAMES)
    assert "1 record of 4 conversations" in printed
    assert f"2: {sent}:2: 400: too long" in printed
    assert f"3: {sent}:3: the output has no such id" in printed
    assert f"4: {got}:3: no input file has" in printed


@pytest.mark.parametrize("half", ["input", "output"])
def test_half_a_batch_is_an_error(half: str) -> None:
    """The message names the file and the one that is missing."""
    sent = batch_input(ann={"messages": [user("How much?")]})
    got = batch_output(ann=response("5"))
    path = sent if half == "input" else got
    printed = done("import", path, "--to", GAMES, code=1)
    assert f"{path} is the {half} of a batch" in printed
    assert not os.path.exists(GAMES)


def test_a_table_of_prompts_and_answers_is_imported() -> None:
    """A scope's levels are separated by slashes; a byte order mark does no harm."""
    table = 'scope,prompt,answer,model,age\ntrial/ann,"How much,\nthen?",5,gpt-4,9\n,Why?,"so",,\n'
    path = written("games.csv", b"\xef\xbb\xbf" + table.encode())
    done("import", path, "--to", GAMES, "-m", MODEL, "--source", "a thesis")
    assert [(record.scope, record.model, record.prompt, record.answer) for record in records()] == [
        ("", MODEL, "Why?", "so"),
        ("trial/ann", "gpt-4", "How much,\nthen?", "5"),
    ]
    assert header()["imported"]["source"] == "a thesis"


def test_the_header_names_the_files_their_digests_and_what_failed() -> None:
    """With the options, so that the import can be repeated; a folder's files, if a layout reads it."""
    rows = [{"q": "How much?", "answer": text} for text in ("5", "", "7", "")]
    path = written("in/rows.jsonl", "\n".join(map(json.dumps, rows)))
    options = ("-m", MODEL, "--column", "prompt=q", "--params", "seed=3", "--source", "a thesis")
    done("import", path, "--to", GAMES, *options)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert header()["imported"] == {
        "source": "a thesis",
        "files": [{"name": "in/rows.jsonl", "sha256": digest}],
        "model": MODEL,
        "params": {"seed": "3"},
        "columns": {"prompt": "q"},
        "skipped": ANY,
    }
    assert [*header()["imported"]["skipped"].values()] == [2]
    row = {"prompt": "How much?", "answer": "5"}
    written("folder_layout.py", f"def rows(path):\n    return [{row!r}]\n")
    done("import", "in", "--to", "b.jsonl", "-m", MODEL, "--layout", "folder_layout:rows")
    assert header("b.jsonl")["imported"] == {
        "source": {},
        "files": [{"name": "in/rows.jsonl", "sha256": digest}],
        "model": MODEL,
        "layout": "folder_layout:rows",
    }
    assert "Is a directory" in done("import", "in", "--to", "c.jsonl", code=1)


def test_lines_of_prompts_and_answers_are_imported() -> None:
    """A scope may be a list of names, and a prompt a list of messages."""
    rows = [
        {"prompt": "How much?", "answer": 5, "model": MODEL, "scope": ["trial", "ann"]},
        {"prompt": [user("Why?")], "answer": "so", "model": MODEL},
    ]
    path = written("rows.jsonl", "\n\n".join(map(json.dumps, rows)))
    done("import", path, "--to", GAMES)
    assert [(record.scope, record.answer) for record in records()] == [
        ("", "so"),
        ("trial/ann", "5"),
    ]


def test_conversations_are_imported_from_lines() -> None:
    """As for fine-tuning."""
    entries = [{"messages": [user("How much?"), assistant(text)]} for text in "56"]
    path = written("chats.json", "\n".join(map(json.dumps, entries)))
    done("import", path, "--to", GAMES, "--model", MODEL)
    assert [record.sample for record in records()] == [None, "#1"]


ANN, BEN = "You are Ann, a nurse.", 'You are Ben.\r\nYou sell "boats"; cheap, too.'
PERSONAS = [
    {"id": 1, "system": ANN, "temperature": 0.5, "max_tokens": 9, "stop": "END", "text": "I care."},
    {
        "id": 2,
        "system": BEN,
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": "END",
        "text": "I\nsell;",
    },
    {"id": 3, "system": ANN, "temperature": 1.0, "max_tokens": 9, "stop": "END", "text": "Né à 5"},
]


def personas(*, prompt: str, answer: str) -> list[dict[str, Any]]:
    """Return the rows of three answers to one question, with the names of two columns."""
    rows = [{prompt: "Who are you?", **row} for row in PERSONAS]
    return [{answer if name == "text" else name: row[name] for name in row} for row in rows]


def csv_by_pandas(rows: list[dict[str, Any]], **options: Any) -> str:
    """Write rows as pandas does, with an empty cell in a column of whole numbers."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([*rows, {**dict.fromkeys(rows[0], "x"), "max_tokens": None}])
    frame.iloc[:-1].to_csv("rows.csv", index=False, **options)
    return "rows.csv"


def csv_by_csv(rows: list[dict[str, Any]], **options: Any) -> str:
    """Write rows as the module csv does."""
    with open("rows.csv", "w", encoding=options.pop("encoding", "utf-8"), newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return "rows.csv"


def json_lines(rows: list[dict[str, Any]]) -> str:
    """Write rows as JSON Lines."""
    return written("rows.jsonl", "\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (csv_by_pandas, {}),
        (csv_by_pandas, {"sep": ";", "encoding": "utf-8-sig"}),
        (csv_by_pandas, {"sep": "\t", "quoting": csv.QUOTE_ALL}),
        (csv_by_csv, {}),
        (csv_by_csv, {"delimiter": ";", "lineterminator": "\n"}),
        (csv_by_csv, {"quoting": csv.QUOTE_ALL, "encoding": "utf-8-sig"}),
        (json_lines, {}),
    ],
)
def test_a_program_replays_the_rows_of_a_file(write: Any, options: dict[str, Any]) -> None:
    """System messages and parameters are those of their columns, however the file was written."""
    path = write(personas(prompt="prompt", answer="answer"), **options)
    printed = done("import", path, "--to", GAMES, "--model", MODEL, "--params", "top_p=0.5")
    assert "3 records of 3 conversations" in printed
    assert "columns that were not used: id\n" in f"{printed}\n"
    parameters = ("temperature", "max_tokens", "stop")
    with llmcall.cassette(GAMES, mode="none"), llmcall.configured(model=MODEL, top_p=0.5):
        for row in PERSONAS:
            call = llmcall.LLMCall(
                system="{{ persona }}",
                user="Who are you?",
                **{name: row[name] for name in parameters},
            )
            assert call.call(persona=row["system"]) == row["text"]


def test_a_cell_may_be_longer_than_the_csv_module_reads_by_itself() -> None:
    """The limit is the program's own again."""
    limit, answer = csv.field_size_limit(), "5, or 6. " * 20_000
    path = written("rows.tsv", f'prompt\tanswer\nHow much?\t"{answer}"\n')
    done("import", path, "--to", GAMES, "--model", MODEL)
    assert (replayed(), csv.field_size_limit()) == (answer, limit)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("prediction", ["left", "right"]),
        ("logprobs", [-0.25, -1.5]),
        ("top_logprobs", [{"5": -0.1}, {"7": -0.2}]),
        ("moderation", ["flagged", 0.1]),
        ("response_format", ["text", "text"]),
    ],
)
def test_a_column_that_only_shares_the_name_of_a_parameter_is_not_used(
    name: str, values: list[Any]
) -> None:
    """Its values are of another type than OpenAI's SDK gives the parameter. It is listed."""
    rows = [{"prompt": "How much?", "answer": "5", name: value} for value in values]
    printed = done("import", json_lines(rows), "--to", GAMES, "--model", MODEL)
    assert f"columns that were not used: {name}" in printed
    assert len(records()) == 2
    assert replayed() == "5"


def test_a_parameter_of_several_fields_is_read_from_a_cell() -> None:
    form = {"type": "json_object"}
    rows = [{"prompt": "How much?", "answer": "{}", "response_format": json.dumps(form)}]
    printed = done("import", csv_by_csv(rows), "--to", GAMES, "--model", MODEL)
    assert "not used" not in printed
    assert replayed(response_format=form) == "{}"


def test_columns_of_other_names_are_mapped() -> None:
    """By ``--column``; the column that is called like a mapped field is not used."""
    rows = personas(prompt="Question text", answer="Reply")
    path = csv_by_csv([{"answer": "gold", **row} for row in rows])
    names = ("--column", "prompt=Question text", "--column", "answer=Reply")
    printed = done("import", path, "--to", GAMES, "--model", MODEL, *names)
    assert "columns that were not used: answer, id\n" in f"{printed}\n"
    assert [record.answer for record in records()] == [row["text"] for row in PERSONAS]
    missing = done("import", path, "--to", "b", *names, "--column", "system=Persona", code=1)
    assert "has the column 'Persona' that --column names" in missing
    assert not os.path.exists("b")


@pytest.mark.parametrize("text", ["temperature=hot", "temprature=1", "seed=0.5"])
def test_a_parameter_for_all_that_is_wrong_is_wrong_usage(text: str) -> None:
    """It is named, and nothing is written."""
    path = written("rows.csv", "prompt,answer\nHow much?,5\n")
    printed = done("import", path, "--to", GAMES, "--params", text, code=2)
    assert "Error: Invalid value for --params: " in printed
    assert text.partition("=")[0] in printed
    assert not os.path.exists(GAMES)


def test_two_columns_that_may_be_the_answer_are_an_error() -> None:
    """It names how to choose."""
    path = written("rows.csv", "prompt,answer,response\nHow much?,5,6\n")
    assert "--column answer=" in done("import", path, "--to", GAMES, code=1)
    done("import", path, "--to", GAMES, "--column", "answer=response")
    assert [record.answer for record in records()] == ["6"]


def test_rows_without_a_scope_that_repeat_a_prompt_are_counted_as_draws() -> None:
    """The message says how many; those of a scope are meant."""
    rows = [{"prompt": "How much?", "answer": text, "model": MODEL} for text in "567"]
    path = json_lines([*rows, *({**row, "scope": "ann"} for row in rows)])
    printed = done("import", path, "--to", GAMES)
    assert "without a scope, 2 further draws of earlier requests" in printed
    assert [record.sample for record in records()][:3] == [None, "#1", "#2"]


def test_rows_of_a_function_are_those_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python function, a layout and a file give the same records; NaN is an empty cell."""
    rows = personas(prompt="prompt", answer="completion")
    frame = [{**row, "model": MODEL, "seed": math.nan, "top_p": None} for row in rows]
    result = llmcall.import_answers(frame, "function.jsonl")
    assert result.unused == ("id",) and result.records == 3
    written("rows_layout.py", f"def rows(path):\n    return {rows!r}\n")
    path = json_lines(rows)
    done("import", path, "--to", "file.jsonl", "-m", MODEL)
    done("import", path, "--to", "layout.jsonl", "-m", MODEL, "--layout", "rows_layout:rows")
    texts = {name: Path(f"{name}.jsonl").read_text() for name in ("function", "file", "layout")}
    files = {name: text.partition("\n")[2] for name, text in texts.items()}
    assert files["function"] == files["file"] == files["layout"]


def test_the_choices_of_a_response_are_draws() -> None:
    """The cost and tokens of all three stand at the first."""
    choices = [
        {"index": index, "message": assistant(text), "finish_reason": "stop"}
        for index, text in enumerate("567")
    ]
    raw = response("", choices=choices)
    row = {"prompt": "How much?", "response": raw, "n": 3, "scope": "ann"}
    three = imported(row, params={"n": 3})
    with llmcall.cassette(GAMES, mode="none"), llmcall.scope("ann"):
        client = llmcall.OpenAIClient()
        assert [client.send_message("How much?").content for _ in range(3)] == ["5", "6", "7"]
    [one] = imported(game("ann", "5", responses=[response("5")]), to="one.jsonl")
    assert sum(record.cost or 0.0 for record in three) == one.cost
    assert three[0].usage == one.usage and three[1].usage.input_tokens is None


# Raw answers of APIs that are none
ERRORS: list[tuple[Any, str]] = [
    ({"error": {"message": "Rate limit reached", "code": 429}}, "429: Rate limit reached"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "busy"),
    ({"error": "model 'x' not found"}, "model 'x' not found"),
    ({"promptFeedback": {"blockReason": "SAFETY"}}, "blockReason SAFETY"),
    (
        {"candidates": [{"finishReason": "SAFETY"}], "promptFeedback": {}},
        "the provider filtered the answer",
    ),
]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("temperature", "warm", "temperature is 'warm'; it must be a number"),
        ("temperature", "0,7", "temperature is '0,7'; it must be a number"),
        ("max_tokens", "1.5", "max_tokens is 1.5; it must be a whole number"),
        ("prompt", "", "its prompt is empty"),
        ("answer", "", "the answer is empty"),
        *(
            (
                "scope",
                name,
                "its scope has the name",
            )  # no name is cut: participants would be draws of one
            for name in ("Participant #1", "#1", "a//b", "/Ann", "Ann/")
        ),
        *(("answer", json.dumps(raw), words) for raw, words in ERRORS),
    ],
)
def test_a_row_with_a_cell_that_cannot_be_read_is_skipped_with_its_line(
    column: str, value: str, words: str
) -> None:
    """All other rows are imported."""
    good = {
        "scope": "Ann",
        "prompt": "How much?",
        "answer": "5\n6",
        "temperature": 1,
        "max_tokens": 5,
    }
    path = csv_by_csv([good, {**good, column: value}, good])
    printed = done("import", path, "--to", GAMES, "-m", MODEL)
    assert f"  2: {path}:4: " in printed and words in printed
    assert [(record.sample, record.answer) for record in records()] == [
        ("Ann#0", "5\n6"),
        ("Ann#1", "5\n6"),
    ]


def test_a_row_with_examples_in_its_prompt_is_one_record() -> None:
    """The turns of the assistant in it were given, not asked for; in CSV the prompt is JSON."""
    shot = [user("1 + 1?"), assistant("2"), user("How much?")]
    for write, prompt in ((json_lines, shot), (csv_by_csv, json.dumps(shot))):
        to = f"{write.__name__}.jsonl"
        path = write([{"prompt": prompt, "response": "5"}])
        assert "1 record of 1 conversation" in done("import", path, "--to", to, "-m", MODEL)
        assert replayed(ask=shot, path=to) == "5"


RAW = {
    "openai": response("5"),
    "responses": {
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "5"}]}],
        "usage": {"input_tokens": 1000, "output_tokens": 100},
    },
    "claude": {
        "type": "message",
        "content": [{"type": "text", "text": "5"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1000, "output_tokens": 100},
    },
    "gemini": {
        "candidates": [{"content": {"parts": [{"text": "5"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 100},
    },
    "ollama": {
        "message": {"role": "assistant", "content": "5"},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 1000,
        "eval_count": 100,
    },
    "interactions": {
        "object": "interaction",
        "status": "completed",
        "steps": [{"type": "model_output", "content": [{"type": "text", "text": "5"}]}],
    },
    "message": assistant("5"),
}


@pytest.mark.parametrize("write", [json_lines, csv_by_csv])
@pytest.mark.parametrize("api", RAW)
def test_a_raw_answer_in_a_row_is_read_by_the_reader_of_its_api(api: str, write: Any) -> None:
    """In CSV it is JSON text."""
    raw = RAW[api] if write is json_lines else json.dumps(RAW[api])
    done("import", write([{"prompt": "How much?", "response": raw}]), "--to", GAMES, "-m", MODEL)
    [record] = records()
    assert replayed() == record.answer == "5"
    tokens = (None, None) if api in ("message", "interactions") else (1000, 100)
    assert record.usage[:2] == tokens


@pytest.mark.parametrize(
    "answer",
    [
        '{"choices": ["bread", "boats"]}',
        '{"error": "none", "value": 5}',
        '{"message": "Hello"}',
        "[1]",
    ],
)
def test_what_a_model_wrote_in_json_is_a_text(answer: str) -> None:
    """Even if it has a field that an API's answers have."""
    [record] = imported({"prompt": "How much?", "answer": answer})
    assert record.answer == answer


def test_records_without_a_model_are_named() -> None:
    """No call finds them, and the output says what to do."""
    path = written("rows.csv", "prompt,answer\nHow much?,5\n")
    printed = done("import", path, "--to", GAMES)
    assert "1 record without the name of a model" in printed and "--model" in printed
    assert [record.answer for record in records()] == ["5"]


def test_a_function_reads_any_other_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets each file's path, and gives conversations."""
    written(
        "thesis_layout.py",
        "def games(path):\n"
        "    with open(path) as file:\n"
        "        lines = file.readlines()\n"
        "    for line in lines:\n"
        "        name, answer = line.split()\n"
        "        turns = [{'role': 'user', 'content': '?'}, {'role': 'assistant', 'content': answer}]\n"
        "        yield {'scope': (name,), 'messages': turns, 'model': 'gpt-4'}\n",
    )
    path = written("games.txt", "ann 5\nben 2\n")
    done("import", path, "--to", GAMES, "--layout", "thesis_layout:games")
    assert [(record.scope, record.answer) for record in records()] == [("ann", "5"), ("ben", "2")]
    broken = written("broken.txt", "ann 5\nben\n")
    printed = done("import", broken, "--to", "b.jsonl", "--layout", "thesis_layout:games", code=1)
    assert f"{broken}: the layout thesis_layout:games failed after 1 conversation;" in printed
    assert not os.path.exists("b.jsonl")


# As the providers' pages on the results of batches show them
BEDROCK = b'{"recordId": "3223593EFGH", "modelInput": {"inputText": "Roses"}, "modelOutput": {"results": []}}'
VERTEX = b'{"status": "", "processed_time": "2024-11-01T18:13:16", "request": {"contents": []}, "response": {}}'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "prompt,answer\nWhy?,so\nCafé?,ja\n".encode("latin-1"), "a.csv: the text is not UTF-8 (byte 0xe9)"),
        ("a.csv", b"question,answer\nWhy?,so\n", "no column prompt, and no messages, but question, answer"),
        ("a.csv", b'prompt,answer\nWhy?,"so\n', "after line 1: unexpected end of data"),
        ("a.csv", b'prompt,answer\n"Why\nso?",so\nWhy?,so,so\n', "a.csv:4: the row has more or fewer cells"),
        ("a.csv", b"prompt,answer\n\n\nWhy?,so,so\n", "a.csv:4: the row has more or fewer cells"),
        ("a.csv", b"prompt;answer\nWhy?\n", "a.csv:2: the row has more or fewer cells"),
        ("a.csv", b"prompt,answer,x,x\nWhy?,so,,\n", "it has several columns 'x'"),
        ("a.csv", b"", "no column prompt and answer, and no messages, but nothing"),
        ("a.csv", "prompt,answer\nWhy?,so\n".encode("utf-16"), "a.csv: the text is not UTF-8 (byte 0xff)"),
        ("a.jsonl", b'{"prompt": "?", "answer": "5"}\n{"prompt": ', "a.jsonl:2: it is not JSON"),
        ("a.jsonl", '{"prompt": "Café"}\n'.encode("latin-1"), "a.jsonl: the text is not UTF-8"),
        ("a.jsonl", b'{"question": "?"}\n', "no column prompt and answer, and no messages"),
        ("a.jsonl", b"[1]", "a.jsonl:1: it is not a JSON object"),
        ("a.json", b'[\n{"prompt": "?", "answer": "5"}\n]', "those of a list: jq -c '.[]'"),
        ("a.jsonl", b'{\n  "prompt": "?",\n  "answer": "5"\n}\n{\n}\n', "jq -c . FILE > FILE.jsonl"),
        ("a.json", b'{\n  "rows": []\n}\n', "a.json: it has no column prompt and answer, and no messages"),
        ("a.ipynb", b'{\n "cells": [],\n "nbformat": 4\n}\n', "no messages, but cells"),
        ("a.jsonl", BEDROCK, "a.jsonl: it is a batch of Amazon Bedrock; to read it, give a layout"),
        ("a.jsonl", VERTEX, "a.jsonl: it is the output of a batch of Vertex AI; to read it, give a layout"),
        ("a.yml", b'{"http_interactions": []}', "a.yml: it is a cassette of Ruby's or R's VCR; to read it"),
        ("a.json", b'{"http_interactions": []}', "a.json: it is a cassette of Ruby's or R's VCR; to read it"),
        ("a.har", b'{"log": {"version": "1.2", "entries": []}}', "a.har: it is a HAR file, a browser's log; to read"),
        ("a.csv", b"PK\x03\x04\x14\x00", "a.csv is a binary file, not text; save its rows as CSV"),
        ("a.xlsx", b"PK\x03\x04\x14\x00\x00\x00\x08\x00\xe2\xd4", "save the rows of a spreadsheet as CSV"),
        ("a.jsonl", b"\x80\x04\x95\x00", "a.jsonl: the text is not UTF-8"),
        ("a.jsonl", gzip.compress(b'{}', mtime=0)[:-9], "a.jsonl: its compressed data is damaged"),
        ("a.json", b"[" * 9_000, "a.json: it is not JSON"),
        ("a.yaml", b"[" * 9_000, "a.yaml: it is not YAML"),
        ("a.yaml", b"a: [", "a.yaml: it is not YAML"),
        ("a.yaml", b"a: 1", "it has no list of interactions"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_an_error_with_its_place(
    name: str, content: bytes, words: str
) -> None:
    """Nothing is written."""
    if name.endswith(("yaml", "yml")):
        pytest.importorskip("yaml")
    result = run("import", written(name, content), "--to", GAMES, "-m", MODEL)
    assert result.exit_code == 1
    assert words in result.output
    assert not os.path.exists(GAMES)


def test_a_file_is_imported_once() -> None:
    """Named twice, it would give each request a second draw. A pipe can be read once alone."""
    os.mkfifo("pipe")
    assert "pipe is a pipe or a device" in done("import", "pipe", "--to", GAMES, code=2)
    path = written("a.csv", "prompt,answer\nWhy?,so\n")
    printed = done("import", "a.csv", path, "--to", GAMES, "-m", MODEL, code=2)
    assert f"a.csv and {path} are the same file; name it once" in printed


def test_a_published_file_in_place_of_a_cassette_names_the_import() -> None:
    """The error of a command that wants a cassette names ``llmcall import``."""
    path = batch_output(ann=response("5"))
    assert "with 'llmcall import'" in done("cassette", "check", path, code=1)


def test_importing_what_looks_like_a_credential_is_refused() -> None:
    """As in a recording, with its place; nothing is written."""
    with pytest.raises(CacheError, match=r"record 1 .*credential|looks like"):
        imported(game("ann", "sk-proj-" + "a1B2c3D4" * 8))
    assert not os.path.exists(GAMES)


def test_the_published_data_set_is_the_same_in_each_layout() -> None:
    """Its files hold the same five answers."""
    pytest.importorskip("yaml")
    folder = Path(__file__).resolve().parents[3] / "examples" / "published"
    files = [["input.jsonl", "output.jsonl"], ["market.csv"], ["chats.jsonl"], ["run.yaml"]]
    answers = []
    for number, names in enumerate(files):
        to = f"{number}.jsonl"
        done("import", *(folder / name for name in names), "--to", to, "-m", "SmolLM2")
        answers.append([record.answer for record in records(to)])
    assert len(answers[0]) == 5 and answers == [answers[0]] * 4


def test_a_program_on_an_old_sdk_replays() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "howto" / "published.rst"
    shown = page.read_text(encoding="utf-8").split(".. code-block:: text")[-1]
    written("shim.py", textwrap.dedent(shown))
    written(
        "analysis.py",
        "import openai\n"
        "openai.api_key = 'none'\n"
        "for _ in range(2):\n"
        f"    answer = openai.ChatCompletion.create(model={MODEL!r}, temperature=1, request_timeout=9,\n"
        "        messages=[{'role': 'user', 'content': 'How much?'}])\n"
        "    print(answer.choices[0].message.content, answer['choices'][0]['message']['content'])\n",
    )
    imported(*(game("run", text, params={"temperature": 1}) for text in "56"))
    printed = subprocess.run(
        [sys.executable, "shim.py"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert printed == "5 5\n6 6\n"


@pytest.mark.parametrize("conversations", [None, 5, "answers.csv"])
def test_what_is_no_list_of_conversations_is_refused_by_its_value(conversations: Any) -> None:
    """The path of a file is for the command."""
    with pytest.raises(TypeError, match=r"conversations is .*; it must be a list of dicts"):
        llmcall.import_answers(conversations, "out.jsonl")
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize("answer", ["5", {"role": "assistant", "content": "5"}, response("5")])
@pytest.mark.parametrize("as_text", [False, True])
def test_messages_without_a_last_turn_are_answered_by_the_response_beside_them(
    answer: Any, as_text: bool
) -> None:
    """As an object, or as its JSON text; earlier turns of the assistant are no answers."""
    history = [user("Hello"), assistant("Hi"), user("How much?")]
    cell = json.dumps(answer) if as_text and not isinstance(answer, str) else answer
    messages = json.dumps(history) if as_text else history
    row = {"scope": "Ann", "messages": messages, "response": cell}
    done("import", written("rows.jsonl", json.dumps(row)), "--to", GAMES, "--model", MODEL)
    assert replayed("Ann", ask=history) == "5"
    assert len(records()) == 1


def test_the_path_of_the_cassette_may_begin_with_a_tilde() -> None:
    """In code and on the command line, where a shell leaves it after an equals sign."""
    written("a.csv", "prompt,answer\nBread?,Two coins.\n")
    done("import", "a.csv", "--params", "model=m", "--to=~/a.jsonl")
    llmcall.import_answers([game("ann", "5")], "~/b.jsonl", model="m")
    assert sorted(path.name for path in Path.home().glob("*.jsonl")) == ["a.jsonl", "b.jsonl"]
    assert not Path("~").exists()
