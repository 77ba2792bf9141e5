"""``llmcall serve``: the server for programs that one starts oneself, asked by plain HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST, PRICED, RunningProgram, done, run
from pytest_httpserver import HTTPServer
from servers import NumberedServer, chunk, completion, event
from werkzeug import Response

A = "--cassette", "a.jsonl"
NONE = *A, "--mode", "none"
JSON = {"content-type": "application/json"}
SOON = 15  # seconds; the answers under way have 30
SEVERAL_MEGABYTES = 10_000_000


@pytest.fixture
def model(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> NumberedServer:
    """A model's server."""
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    return NumberedServer(httpserver)


class Serving:
    """A running ``llmcall serve``.

    :ivar process: it.
    :ivar exports: the addresses that it printed, by variable.
    :ivar reported: what it said at its end.
    """

    def __init__(self, process: RunningProgram) -> None:
        self.process = process
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        found = [re.fullmatch(r"export (\w+)=(\S+)\n", line) for line in lines]
        assert all(found), lines
        self.exports = {match[1]: match[2] for match in found if match is not None}
        self.reported = ""

    @property
    def address(self) -> str:
        return self.exports["OPENAI_BASE_URL"]

    def ask(self, question: str = "Bread?", **headers: str) -> tuple[int, Any]:
        """Ask by the address that it printed, and return the status and the answer or the error."""
        messages = [{"role": "user", "content": question}]
        content = json.dumps({"model": "gpt-4o-mini", "messages": messages}).encode()
        status, body = self.post(content, **{**JSON, **headers})
        data = json.loads(body)
        if status != 200:
            return status, data["error"]["message"]
        return status, data["choices"][0]["message"]["content"]

    def post(self, content: bytes, address: str = "", **headers: str) -> tuple[int, bytes]:
        """Post a body to a path below an address; return the status and the body of the response."""
        url = urllib.parse.urlsplit(address or f"{self.address}/chat/completions")
        with closing(http.client.HTTPConnection(url.netloc, timeout=LONGEST)) as connection:
            connection.request("POST", url.path, content, headers)
            response = connection.getresponse()
            return response.status, response.read()


@contextmanager
def serving(*options: str, code: int = 0) -> Iterator[Serving]:
    """Serve during a block, and end it as a service manager does."""
    command = [sys.executable, "-m", "llmcall", "serve", *options]
    with RunningProgram(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        server = Serving(process)
        yield server
        process.send_signal(signal.SIGTERM)
        _, server.reported = process.communicate(timeout=LONGEST)
    assert process.returncode == code, server.reported


@pytest.mark.ci
def test_what_it_records_it_replays_and_run_and_a_cassette_do_too(model: NumberedServer) -> None:
    """Equal requests are draws of the scope that the header names, or of the scope run."""
    ada = {"x-llmcall-scope": "trial-1/Ada"}
    with serving(*A, "--to", model.address) as server:
        live = [server.ask(), server.ask(), server.ask(**ada), server.ask(**ada)]
    assert live == [(200, f"answer {number}") for number in range(4)]
    assert server.reported == "4 asked (60 tokens, <$0.0001): a.jsonl\n"
    with serving(*NONE) as server:
        replayed = [server.ask(**ada), server.ask(), server.ask(**ada), server.ask()]
    assert replayed == [live[2], live[0], live[3], live[1]]
    assert server.reported == "4 calls replayed from a.jsonl\n"
    program = f"""
import httpx, llmcall
def ask():
    body = {{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": "Bread?"}}]}}
    response = httpx.post("{model.address}/chat/completions", json=body)
    print(response.json()["choices"][0]["message"]["content"])
ask(); ask()
with llmcall.scope("trial-1"), llmcall.scope("Ada"):
    ask(); ask()
"""
    Path("program.py").write_text(program, encoding="utf-8")
    expected = "".join(f"answer {number}\n" for number in range(4))
    run = [sys.executable, "-m", "llmcall", "run", *NONE, "program.py"]
    assert subprocess.check_output(run, text=True, timeout=LONGEST) == expected
    assert len(model.asked) == 4


@pytest.mark.ci
def test_a_miss_is_an_error_and_the_exit_code_is_1(model: NumberedServer) -> None:
    """Nothing is sent."""
    with serving(*A, "--to", model.address) as server:
        server.ask()
    with serving(*NONE, code=1) as server:
        status, message = server.ask("Milk?")
    assert status == 409
    assert "[-Bread-] {+Milk+}" in " ".join(message.split())
    assert "1 refused: a.jsonl" in server.reported
    assert model.asked == ["Bread?"]


@pytest.mark.ci
def test_a_finished_recording_refuses_what_llmcall_does_not_record_and_says_so(
    model: NumberedServer,
) -> None:
    """So it is in the mode once, which only reads such a file, as in none."""
    with serving(*A, "--to", model.address) as server:
        server.ask()
    with serving(*A, code=1) as server:
        status, _ = server.post(b'{"input": "Bread."}', f"{server.address}/audio/speech", **JSON)
    assert status == 409
    assert "/audio/speech was refused: llmcall records JSON" in server.reported


def test_the_scope_of_a_header_is_not_sent_on(httpserver: HTTPServer) -> None:
    """Nor is it recorded; a name that cannot be a scope is an error."""
    seen: list[dict[str, str]] = []

    def answer(request: Any) -> Any:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return Response(json.dumps(completion()), content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    with serving(*A, "--to", httpserver.url_for("/v1")) as server:
        assert server.ask(**{"x-llmcall-scope": "Ad%C3%A8le"})[0] == 200
        status, message = server.ask(**{"x-llmcall-scope": "trial#1"})
    assert (status, "trial#1" in message) == (400, True)
    assert "x-llmcall-scope" not in seen[0]
    assert '"Ad\\u00e8le#0"' in Path("a.jsonl").read_text() or "Adèle#0" in Path(
        "a.jsonl"
    ).read_text(encoding="utf-8")


def test_strangers_get_no_answer_and_web_pages_cannot_read_one(model: NumberedServer) -> None:
    """A program's own host and origin are no reason to refuse behind the token."""
    with serving(*A, "--to", model.address) as server:
        url = urllib.parse.urlsplit(server.address)
        token = url.path.split("/")[1]
        assert len(token) >= 22  # 16 bytes
        for wrong in ("x" * len(token), "", "%C3%A9"):
            address = server.address.replace(token, wrong) + "/chat/completions"
            assert server.post(b"{}", address, **JSON)[0] == 404
        assert not model.asked
        own = {"Host": "api.example.com", "Origin": "https://page.example"}
        assert server.ask(**own) == (200, "answer 0")
        with closing(http.client.HTTPConnection(url.netloc, timeout=LONGEST)) as connection:
            connection.request("GET", "/", headers=own)
            headers = connection.getresponse().headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["Access-Control-Allow-Origin"] is None


def test_it_forwards_to_models_alone(model: NumberedServer, httpserver: HTTPServer) -> None:
    """With the token, too. Its exit code then says that a call was refused."""
    with serving(*A, "--to", "http://models.example/v1", code=1) as server:
        base = server.address.removesuffix("/openai/v1")
        other = urllib.parse.urlsplit(model.address).netloc
        status, body = server.post(b"{}", f"{base}/to/http/{other}/v1/chat/completions", **JSON)
    assert (status, "--to" in json.loads(body)["error"]["message"]) == (403, True)
    assert not httpserver.log


@pytest.mark.ci
def test_a_compressed_body_is_an_error_of_its_sender(model: NumberedServer) -> None:
    """Others are answered as before."""
    with serving(*A, "--to", model.address) as server:
        status, _ = server.post(b"{}", **{**JSON, "content-encoding": "gzip"})
        assert status == 415
        assert server.ask() == (200, "answer 0")


@pytest.mark.ci
def test_a_body_of_several_megabytes_passes(model: NumberedServer) -> None:
    """In both directions of a replay, too."""
    question = "Bread?" * (SEVERAL_MEGABYTES // 6)
    with serving(*A, "--to", model.address) as server:
        assert server.ask(question) == (200, "answer 0")
    with serving(*NONE) as server:
        assert server.ask(question) == (200, "answer 0")


@pytest.mark.ci
def test_a_port_and_a_token_that_are_written_down_make_an_address_that_stays(
    model: NumberedServer,
) -> None:
    """The token comes from a file: all users of the machine can list command lines."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    token = "a-token-of-the-user_1"
    Path("token.txt").write_text(f"{token}\n", encoding="utf-8")
    fixed = ("--port", str(port), "--token", "@token.txt")
    with serving(*A, "--to", model.address, *fixed) as server:
        assert server.address == f"http://127.0.0.1:{port}/{token}/openai/v1"
        assert server.ask() == (200, "answer 0")
        taken = done("serve", *A, "--port", str(port), code=1)
    assert "Address already in use" in taken
    with pytest.raises(ConnectionRefusedError):
        server.ask()


@pytest.mark.ci
def test_without_a_target_the_names_are_where_the_environment_points(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base URL that a program would have used."""
    monkeypatch.setenv("OPENAI_BASE_URL", model.address)
    with serving(*A) as server:
        assert server.ask() == (200, "answer 0")
        assert server.exports["ANTHROPIC_BASE_URL"].endswith("/anthropic")
        assert server.exports["GOOGLE_GEMINI_BASE_URL"].endswith("/gemini")


def served(*options: str, question: str, code: str) -> tuple[int, str]:
    """Serve a command that asks a question; return the exit code, and what was printed."""
    asked = '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "$QUESTION"}]}'
    Path("ask.sh").write_text(
        f"""curl -s $OPENAI_BASE_URL/chat/completions -H 'content-type: application/json' -d @- <<END
{asked}
END
exit $CODE
""",
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, "-m", "llmcall", "serve", *options, "--", "sh", "ask.sh"],
        env={**os.environ, "QUESTION": question, "CODE": code},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_it_runs_a_command_and_ends_with_its_exit_code(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", model.address)
    code, printed = served(*A, question="Bread?", code="3")
    assert (code, "answer 0" in printed) == (3, True)


@pytest.mark.ci
@pytest.mark.parametrize("has_target", [False, True])
def test_a_call_of_a_python_command_is_one_call(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch, has_target: bool
) -> None:
    """Its own client sends it, and not the server, too."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9" if has_target else model.address)
    ask = "import os, httpx; httpx.post(os.environ['OPENAI_BASE_URL'] + '/chat/completions', json="
    ask += "{'model': 'gpt-4o-mini', 'messages': [{'role': 'user', 'content': 'Bread?'}]})"
    options = ["--to", model.address] if has_target else []
    done = subprocess.run(
        [sys.executable, "-m", "llmcall", "serve", *A, *options, "--", sys.executable, "-c", ask],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=True,
    )
    assert (done.stderr.split(" (")[0], model.asked) == ("1 asked", ["Bread?"])


@pytest.mark.ci
def test_a_command_of_which_a_call_was_refused_ends_with_1(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of 0."""
    monkeypatch.setenv("OPENAI_BASE_URL", model.address)
    for mode in (A, NONE):
        code, printed = served(*mode, question="Bread?", code="0")
        assert (code, "answer 0" in printed) == (0, True)
    assert served(*NONE, question="Milk?", code="0")[0] == 1
    assert model.asked == ["Bread?"]


def test_what_it_says_is_in_the_encoding_of_its_output() -> None:
    """Other characters are escaped, as Python or, where both outputs are one, as JSON does."""
    command = "serve", "--cassette", "café.jsonl", "--", "./no-such-café"
    ended = run(*command, charset="ascii")
    assert ended.exit_code == 127
    assert len(re.findall(r"caf\\(?:xe9|u00e9)", ended.output)) == 2


@pytest.mark.parametrize(
    "command, code", [([], 1), (["--", "sh", "-c", "curl -s $OPENAI_BASE_URL/models; exit 3"], 3)]
)
def test_without_its_extra_it_is_named(
    monkeypatch: pytest.MonkeyPatch, command: list[str], code: int
) -> None:
    """At once, before it makes a file; with a command, where this needed it, whatever its exit code is."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    said = "needs uvicorn: pip install 'llmcall-sim[serve]'"
    assert said in done("serve", "--cassette", "a.jsonl", *command, code=code)
    assert not Path("a.jsonl").exists()


def test_streams_go_out_piece_by_piece(httpserver: HTTPServer) -> None:
    """The first piece is there before the last one is sent."""
    has_come = threading.Event()

    def answer(request: Any) -> Any:
        def body() -> Iterator[bytes]:
            yield event(chunk("Two "))
            assert has_come.wait(LONGEST)
            yield event(chunk("coins.")) + event(chunk(None, "stop")) + b"data: [DONE]\n\n"

        return Response(body(), content_type="text/event-stream")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    with serving(*A, "--to", httpserver.url_for("/v1")) as server:
        url = urllib.parse.urlsplit(f"{server.address}/chat/completions")
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Bread?"}]}
        with closing(http.client.HTTPConnection(url.netloc, timeout=LONGEST)) as connection:
            connection.request("POST", url.path, json.dumps(body), JSON)
            response = connection.getresponse()
            assert response.readline().startswith(b"data: ")
            has_come.set()
            assert b"[DONE]" in response.read()
    assert "Two coins." in Path("a.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--to", "localhost"], 2, "an address like https://host/v1"),
        (["--mode", "none", "--cassette", "missing.jsonl"], 1, "does not exist"),
        (["--cassette", "a.jsonl", "--", "no-such-command"], 127, "no-such-command"),
        (["--port", "0"], 2, "--port"),
        (["--token", "short"], 2, "at least 16"),
        (["--token", "@missing"], 2, "missing"),
    ],
)
def test_a_wrong_option_is_a_clear_error(options: list[str], code: int, words: str) -> None:
    """Before anything is served."""
    assert words in done("serve", *options, code=code)
