"""Records that no reader can read, in files from other hands: refused with line and reason."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import commands
import pytest
from files import record_of
from hypothesis import example, given
from hypothesis import strategies as st

import llmcall
from llmcall import CacheCorruptError, ResponseCache
from llmcall.testing import ScriptedClient

HEADER = {"llmcall": 1, "settings": {"model": "m"}}
ASKED: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
REQUEST = {"model": "m", "messages": ASKED}
ANSWER = {"role": "assistant", "content": "Yes."}
RESPONSE = {"model": "m", "choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}]}
CALL = {"id": "1", "type": "function", "function": {"name": "buy", "arguments": "{}"}}


def message(**fields: Any) -> dict[str, Any]:
    """Return a response with such a message."""
    return {"choices": [{"message": fields}]}


UNREADABLE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "text for messages": ({"model": "m", "messages": "Hi"}, RESPONSE, "no list of messages"),
    "prompt": ({"model": "m", "prompt": "Hi"}, RESPONSE, "no list of messages"),
    "no message": ({"messages": ["Hi"]}, RESPONSE, r"messages\[0\] of this chat is not an object"),
    "content": ({"messages": [{"content": 3}]}, RESPONSE, "neither text nor a list of parts"),
    "legacy choice": (
        REQUEST,
        {"choices": [{"text": "Yes."}]},
        r"choices\[0\] .* is not an object",
    ),
    "text": (REQUEST, {"text": "Yes."}, "has no choices"),
    "no choices": (REQUEST, {"choices": []}, "has no choices"),
    "number": (REQUEST, message(content=3), "neither text nor a list of parts"),
    "refusal": (REQUEST, message(content=None, refusal=3), "a refusal that is not a string"),
    "calls": (REQUEST, message(tool_calls="buy"), "tool_calls that are not a list"),
    "call": (REQUEST, message(tool_calls=[{"function": "buy"}]), "a tool call that is not"),
    "reason": (REQUEST, {"choices": [{"message": ANSWER, "finish_reason": 3}]}, "finish_reason"),
}
EACH = pytest.mark.parametrize(
    ("request_fields", "response", "reason"), UNREADABLE.values(), ids=list(UNREADABLE)
)


def file_of(*records: dict[str, Any]) -> Path:
    """Write a file of records."""
    path = Path("others.jsonl")
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (HEADER, *records)), "utf-8")
    return path


def chat(request: Any, response: Any) -> dict[str, Any]:
    """Return the line of a chat."""
    key = record_of("chat", None, request, response).cache_key
    return {"kind": "chat", "request": request, "response": response, "key": key}


@EACH
def test_an_unreadable_chat_of_a_file_is_refused_with_its_line_and_the_reason(
    request_fields: dict[str, Any], response: dict[str, Any], reason: str
) -> None:
    """By ``load``, ``put``, ``cassette check``, every other command, and whoever reads it."""
    path = file_of(chat({**REQUEST, "seed": 1}, RESPONSE), chat(request_fields, response))
    expected = rf"others\.jsonl:3: .*{reason}.*; restore the line from version control"
    with ResponseCache("cache") as cache:
        with pytest.raises(CacheCorruptError, match=expected):
            cache.load(path)
        with pytest.raises(ValueError, match=reason):
            cache.put(
                ScriptedClient().build_request("Hi")._replace(hashed=request_fields), response
            )
        assert len(cache) == 0
    for command in (["cassette", "check"], ["cache", "load"], ["diff", path]):
        assert re.search(expected, commands.done(*command, path, code=1))
    assert re.search(expected, commands.done("show", path))  # which git uses, and shows it as it is
    with pytest.raises(CacheCorruptError, match=expected):
        llmcall.cassette(path).to_frame()


INCOMPLETE = {
    "the answer is empty": {"message": {"content": ""}, "finish_reason": "stop"},
    "the provider filtered the answer": {"message": ANSWER, "finish_reason": "content_filter"},
    "the answer broke off": {"message": ANSWER, "finish_reason": "abort"},
}


def test_a_cache_keeps_no_filtered_or_empty_answer(caplog: pytest.LogCaptureFixture) -> None:
    """``put`` refuses it; ``load`` leaves it out, and takes the rest."""
    responses = [{"choices": [choice]} for choice in INCOMPLETE.values()]
    path = file_of(
        chat(REQUEST, RESPONSE),
        *[chat({**REQUEST, "seed": seed}, response) for seed, response in enumerate(responses)],
    )
    with ResponseCache("cache") as cache:
        for reason, response in zip(INCOMPLETE, responses, strict=True):
            with pytest.raises(ValueError, match=reason):
                cache.put(ScriptedClient().build_request("Hi"), response)
        assert cache.load(path) == len(cache) == 1
    said = f"{path}: 3 answers that were filtered, broke off or are empty are left out"
    assert caplog.messages == [said]


def test_every_readable_form_of_a_chat_is_accepted() -> None:
    """Parts, tool calls and refusals, the Responses API, and a chat without messages."""
    parts = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "u"}}]
    responses = [
        RESPONSE,
        message(content=None, tool_calls=[CALL]),
        message(content=None, refusal="No."),
        message(content=[{"type": "text", "text": "Yes."}]),
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": "Yes."}]}]},
    ]
    lines = [
        chat({**REQUEST, "seed": seed, "messages": [{"role": "user", "content": parts}]}, response)
        for seed, response in enumerate(responses)
    ]
    path = file_of(*lines, chat({"messages": []}, RESPONSE))
    with ResponseCache("cache") as cache:
        assert cache.load(path) == len(lines) + 1
        for record in cache.records():
            assert isinstance(record.prompt + record.answer, str)


OUTPUT = [
    {"type": "message", "content": [{"type": "output_text", "text": "3", "logprobs": []}]},
    {"type": "function_call", "call_id": "1", "name": "buy", "arguments": "{}"},
    {"type": "web_search_call", "action": {"type": "search"}},
]
USED = {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}}
WHOLE: list[dict[str, Any]] = [
    chat(
        {
            **REQUEST,
            "temperature": 1,
            "tools": [{"type": "function", "function": {"name": "buy"}}],
            "messages": [
                *ASKED,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": "3"},
            ],
        },
        {
            "model": "m",
            "choices": [{"message": {**ANSWER, "tool_calls": [CALL]}, "finish_reason": "stop"}],
            "usage": USED,
        },
    ),
    chat(REQUEST, {"model": "m", "status": "completed", "output": OUTPUT, "created_at": 1.8e9}),
    {
        "kind": "http",
        "request": {"method": "POST", "path": "/messages", "body": {"model": "c", **REQUEST}},
        "response": {
            "value": {
                "content_type": "application/json",
                "body": {
                    "type": "message",
                    "model": "c",
                    "content": [{"type": "text", "text": "3"}],
                    "usage": {"input_tokens": 1, "output_tokens": 2},
                },
            }
        },
    },
    {
        "kind": "http",
        "request": {
            "method": "POST",
            "path": "/models/g:generateContent",
            "body": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
        },
        "response": {
            "value": {
                "content_type": "application/json",
                "body": {
                    "candidates": [
                        {
                            "content": {"parts": [{"text": "3"}]},
                            "finishReason": "STOP",
                            "groundingMetadata": {"webSearchQueries": ["bread"]},
                        }
                    ],
                    "modelVersion": "g",
                    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2},
                },
            }
        },
    },
]


def paths_in(data: Any, value_path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all that plain data holds."""
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    inner = [found for key, value in items for found in paths_in(value, (*value_path, key))]
    return [value_path, *inner] if value_path else inner


PATHS = [
    (number, value_path)
    for number, line in enumerate(WHOLE)
    for part in ("request", "response")
    for value_path in paths_in(line[part], (part,))
]
JUNK = [3, "x", None, [], {}, [3], {"a": 1}, [[]], [None], [{}], {"type": "text"}, True]


@example((0, ("request", "messages", 0, "role")), [3])
@example((0, ("request", "tools")), 3)
@given(st.sampled_from(PATHS), st.sampled_from(JUNK))
def test_no_command_ends_in_a_traceback_over_a_file(value_path: tuple[int, Any], junk: Any) -> None:
    """A record with any value anywhere is shown, or refused with its line."""
    lines = copy.deepcopy(WHOLE)
    number, (*outer, last) = value_path
    holder: Any = lines[number]
    for key in outer:
        holder = holder[key]
    holder[last] = junk
    for line in lines:
        value = line["response"].get("value") if isinstance(line["response"], dict) else None
        if isinstance(value, dict) and isinstance(value.get("body"), dict):
            value["body"] = json.dumps(value["body"])
    path = file_of(*lines)
    for command in (
        ["cassette", "check", path],
        ["show", path],
        ["diff", path, path],
        ["cache", "load", path],
        ["cache", "ls"],
    ):
        result = commands.run(*command)
        assert result.exception is None or isinstance(result.exception, SystemExit), command
