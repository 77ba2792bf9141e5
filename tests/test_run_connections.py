"""``llmcall run``: connections that no recorded client makes, and child processes."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from programs import ASK, LONGEST, PAUSED_IMPORT, PRICED
from pytest_httpserver import HTTPServer
from servers import NumberedServer

import llmcall

pytestmark = pytest.mark.newest_only

PREAMBLE = f"""
import json, multiprocessing, subprocess, urllib.request
{ASK}
def ask_by_sdk(text):
    import openai
    client = openai.OpenAI(api_key="none", base_url=os.environ["MODEL_AT"], max_retries=0)
    messages = [{{"role": "user", "content": text}}]
    made = client.chat.completions.create(model="gpt-4o-mini", messages=messages, temperature=1)
    return made.choices[0].message.content
def post(text, path="/chat/completions"):
    body = {{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": text}}]}}
    headers = {{"content-type": "application/json"}}
    request = urllib.request.Request(os.environ["MODEL_AT"] + path, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
def tried(function, text):
    try:
        return function(text)
    except Exception as error:
        return type(error).__name__
"""


@pytest.fixture
def model(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> NumberedServer:
    """A model's server, which the programs of a test find."""
    made = NumberedServer(httpserver)
    monkeypatch.setenv("MODEL_AT", made.address)
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    return made


def ran(program: str, *options: str, code: int = 0) -> tuple[str, str]:
    """Run a program under ``llmcall run``; return what it printed, and what was said."""
    Path("program.py").write_text(PREAMBLE + textwrap.dedent(program), encoding="utf-8")
    command = [sys.executable, "-m", "llmcall", "run", "--cassette", "run.jsonl", *options]
    done = subprocess.run(
        [*command, "program.py"], capture_output=True, text=True, check=False, timeout=LONGEST
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def bread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cassette with the answer to ``Bread?``."""
    folder = tmp_path_factory.mktemp("bread")
    with HTTPServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MODEL_AT", NumberedServer(server).address)
        monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
        monkeypatch.chdir(folder)
        ran("print(ask('Bread?'))")
    return folder / "run.jsonl"


@pytest.fixture
def recorded(bread: Path, model: NumberedServer) -> NumberedServer:
    """A model's server that no program has asked, beside a copy of the cassette."""
    shutil.copy(bread, Path.cwd())
    return model


# Connections


def test_what_no_recorded_client_asks_is_told(model: NumberedServer) -> None:
    """A request by ``urllib`` goes to the model while recording; host and module are said at the end."""
    printed, said = ran("print(post('Bread?'))")
    assert printed == "answer 0\n"
    assert "program.py sent requests to localhost that are not recorded" in said


@pytest.mark.newest_only
def test_what_is_asked_by_googles_paths_is_told(model: NumberedServer) -> None:
    """A request with a path of Google's API is known as a model's, whatever the host."""
    _, said = ran(
        "print(tried(lambda text: post(text, '/models/gemini:generateContent'), 'Bread?'))"
    )
    assert "program.py sent requests to localhost that are not recorded" in said


UNRECORDABLE = """
    import httpx
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Salt?"}]})
    print(httpx.post(os.environ["MODEL_AT"] + "/chat/completions", content=body).status_code)
"""


def test_a_body_that_cannot_be_recorded_is_told(model: NumberedServer) -> None:
    """A request without the media type of JSON is sent while recording, and told."""
    printed, said = ran(UNRECORDABLE)
    assert printed == "415\n"
    assert "POST /v1/chat/completions is sent but not recorded" in said


def test_none_refuses_a_body_that_cannot_be_recorded(
    recorded: NumberedServer, httpserver: HTTPServer
) -> None:
    """It is answered with the status 409 in mode ``none``, and the exit code is 1."""
    httpserver.clear_log()
    printed, said = ran(f"{UNRECORDABLE}    ask('Bread?')", "--mode", "none", code=1)
    assert printed == "409\n"
    assert "POST /v1/chat/completions was not recorded" in said
    assert not httpserver.log


def test_none_refuses_what_no_recorded_client_asks(recorded: NumberedServer) -> None:
    """In mode ``none`` it is refused, known by its path, by its host, or by what was recorded before."""
    printed, said = ran(
        """
        print(tried(post, 'Salt?'))  # known by its path
        print(ask('Bread?'))
        print(tried(lambda text: post(text, '/elsewhere'), 'Salt?'))  # by what was recorded
        """,
        "--mode",
        "none",
        code=1,
    )
    assert printed.splitlines() == ["URLError", "answer 0", "URLError"]
    assert "--mode none refused a request from program.py to localhost" in said
    assert not recorded.asked


def test_none_refuses_the_address_of_the_settings(
    recorded: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket to the address in ``OPENAI_BASE_URL`` is refused, whatever library opens it."""
    monkeypatch.setenv("OPENAI_BASE_URL", os.environ["MODEL_AT"])
    program = """
        import socket, urllib.parse
        url = urllib.parse.urlsplit(os.environ["MODEL_AT"])
        try:
            socket.create_connection((url.hostname, url.port))
        except ConnectionRefusedError as error:
            print(error.strerror)
    """
    printed, _ = ran(program, "--mode", "none", code=1)
    assert printed == "llmcall run refuses the connection to localhost: a replay sends nothing\n"


@pytest.mark.newest_only
def test_none_refuses_a_models_host_in_capital_letters(recorded: NumberedServer) -> None:
    """A host's name is the same in capital and in small letters."""
    assert "//localhost:" in recorded.address
    program = """
        print(ask('Bread?'))
        os.environ["MODEL_AT"] = os.environ["MODEL_AT"].replace("localhost", "LocalHost")
        print(tried(lambda text: post(text, '/elsewhere'), 'Salt?'))
    """
    printed, said = ran(program, "--mode", "none", code=1)
    assert printed.splitlines() == ["answer 0", "URLError"]
    assert "--mode none refused a request from program.py to localhost" in said


def test_none_allows_other_connections(recorded: NumberedServer, httpserver: HTTPServer) -> None:
    """A program's own server is no model: it is reached in mode ``none``."""
    program = """
        import socket
        server = socket.create_server(("127.0.0.1", 0))
        reader = socket.create_connection(server.getsockname())
        server.accept()[0].sendall(b"a row")
        print(reader.recv(5), ask('Bread?'))
    """
    printed, said = ran(program, "--mode", "none")
    assert printed == "b'a row' answer 0\n"
    assert "refused" not in said.replace("0 refused", "")


def test_what_recorded_clients_ask_is_not_told(model: NumberedServer) -> None:
    """Their connections are their own business, asynchronous ones too."""
    program = """
        import asyncio, openai, requests
        async def aask(text):
            client = openai.AsyncOpenAI(api_key="none", base_url=os.environ["MODEL_AT"])
            messages = [{"role": "user", "content": text}]
            made = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
            return made.choices[0].message.content
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "by requests"}]}
        requests.post(os.environ["MODEL_AT"] + "/chat/completions", json=body)
        print(ask("Bread?"), asyncio.run(aask("Salt?")))
    """
    printed, said = ran(program)
    assert printed == "answer 1 answer 2\n"
    assert "not recorded" not in said


BY_LLMCALL = {
    "without a cassette": "print(client.send_message('Salt?', model='gpt-4o-mini').content)",
    "with its own": """with llmcall.cassette("own.jsonl", mode="new"):
            print(client.send_message("Salt?", model="gpt-4o-mini").content)
    """,
}


@pytest.mark.newest_only
@pytest.mark.parametrize("way", BY_LLMCALL)
def test_none_refuses_what_the_program_asks_by_llmcall(model: NumberedServer, way: str) -> None:
    """A program that uses llmcall itself sends nothing either, whatever cassette it opens."""
    program = f"""
        import llmcall
        client = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
        {BY_LLMCALL[way]}
    """
    Path("program.py").write_text(PREAMBLE + textwrap.dedent(program), encoding="utf-8")
    command = [sys.executable, "-m", "llmcall", "run", "--mode", "none", "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert done.returncode == 1
    assert "no answer is recorded" in done.stderr
    assert "run the program without --mode none to record it" in done.stderr
    assert not model.asked


BY_AIOHTTP = """
    import aiohttp, asyncio
    async def send():
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Salt?"}]}
        async with aiohttp.ClientSession() as session:
            async with session.post(os.environ["MODEL_AT"] + "/chat/completions", json=body) as response:
                return response.status
    print(tried(lambda text: asyncio.run(send()), ""))
"""


def test_what_aiohttp_asks_is_told(model: NumberedServer) -> None:
    """A request by aiohttp is known by its path."""
    pytest.importorskip("aiohttp")
    printed, said = ran(BY_AIOHTTP)
    assert printed == "200\n"
    assert "program.py sent requests to localhost that are not recorded" in said


def test_none_refuses_what_aiohttp_asks(recorded: NumberedServer) -> None:
    """In mode ``none`` it is refused, and the exit code is 1."""
    pytest.importorskip("aiohttp")
    printed, said = ran(f"{BY_AIOHTTP}    ask('Bread?')", "--mode", "none", code=1)
    assert printed == "ClientOSError\n"
    assert "--mode none refused a request from program.py to localhost" in said
    assert not recorded.asked


def test_none_refuses_a_channel_of_grpc_to_a_model(recorded: NumberedServer) -> None:
    """It is known by the host, before anything is sent."""
    pytest.importorskip("grpc")
    program = """
        import grpc
        target = "dns:///generativelanguage.googleapis.com:443"
        credentials = grpc.ssl_channel_credentials()
        print(tried(lambda text: grpc.secure_channel(target, credentials), ""))
        ask('Bread?')
    """
    printed, said = ran(program, "--mode", "none", code=1)
    assert printed == "ConnectionRefusedError\n"
    assert (
        "--mode none refused a request from program.py to generativelanguage.googleapis.com" in said
    )


# Child processes

CHILDREN = {
    "fork": "multiprocessing.get_context('fork').Pool(1).map",
    "spawn": "multiprocessing.get_context('spawn').Pool(1).map",
    "forkserver": "multiprocessing.get_context('forkserver').Pool(1).map",
    "subprocess": "by_subprocess",
}
IN_CHILDREN = """
    def by_subprocess(function, texts):
        code = f"import program; print(program.{{function.__name__}}({{texts[0]!r}}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        sys.stderr.write(done.stderr)
        if done.returncode:
            raise ValueError("the child process failed")
        return [done.stdout.strip()]
    if __name__ == "__main__":
        print(ask("Bread?"))
        try:
            print({how}({function}, ["from a child"]))
        except Exception as error:
            print(type(error).__name__)
"""


def in_a_child(kind: str, function: str) -> str:
    """Return a program that asks from its own process, and from a child process."""
    return IN_CHILDREN.format(how=CHILDREN[kind], function=function)


@pytest.mark.newest_only
@pytest.mark.parametrize("kind", CHILDREN)
def test_calls_of_child_processes_pass_while_recording(model: NumberedServer, kind: str) -> None:
    """They are sent, said at once and at the end, and the exit code is 1: a replay lacks them."""
    printed, said = ran(in_a_child(kind, "ask"), code=1)
    assert printed.splitlines() == ["answer 0", "['answer 1']"]
    assert "llmcall run: the requests of child process " in said
    assert "are sent, but not recorded" in said
    assert "The requests of 1 child process were sent, but not recorded" in said


IMPORTS_MEANWHILE = """
    import importlib
    def ask_meanwhile(text):
        thread = begin(lambda: importlib.import_module({module!r}), {pause!r}, 30)
        try:
            return post(text)
        finally:
            is_asked.set()
            thread.join()
"""


@pytest.mark.parametrize(
    ("module", "pause"),
    [
        ("llmcall.clients.sdk_transport", "llmcall.clients.sdk_clients"),
        ("llmcall.programs.calls", "llmcall.programs.http_counter"),
        ("openai", "openai._client"),
    ],
)
def test_a_child_process_may_ask_while_another_of_its_threads_imports(
    model: NumberedServer, module: str, pause: str
) -> None:
    """Its request passes, also if the import is of llmcall or of the SDK."""
    meanwhile = textwrap.indent(PAUSED_IMPORT, "    ")
    meanwhile += IMPORTS_MEANWHILE.format(module=module, pause=pause)
    printed, _ = ran(meanwhile + in_a_child("subprocess", "ask_meanwhile"), code=1)
    assert printed.splitlines() == ["answer 0", "['answer 1']"]


@pytest.mark.parametrize("kind", CHILDREN)
def test_none_refuses_calls_of_child_processes(recorded: NumberedServer, kind: str) -> None:
    """They are refused with a line on standard error, no pool hangs, and the exit code is 1."""
    printed, said = ran(in_a_child(kind, "ask_by_sdk"), "--mode", "none", code=1)
    first, second = printed.splitlines()
    assert first == "answer 0"
    assert second in ("ConflictError", "APIConnectionError", "ValueError")
    assert "llmcall run: the requests of child process " in said
    assert "were refused" in said
    assert "The requests of 1 child process were refused" in said
    assert not recorded.asked


ONLY_IN_A_CHILD = """
    code = "import program; print(program.tried(program.ask, 'from a child'))"
    if __name__ == "__main__":
        print(subprocess.run([sys.executable, "-c", code], capture_output=True).stdout)
"""


def test_what_only_a_child_process_asks_is_told(model: NumberedServer) -> None:
    """A child process knows a model by the path, even if the program itself asked none."""
    printed, said = ran(ONLY_IN_A_CHILD, code=1)
    assert printed == "b'answer 0\\n'\n"
    assert "The requests of 1 child process were sent, but not recorded" in said


@pytest.mark.newest_only
def test_none_refuses_what_only_a_child_process_asks(recorded: NumberedServer) -> None:
    """It is refused in mode ``none``, though no recorded request went to that address."""
    printed, said = ran(ONLY_IN_A_CHILD, "--mode", "none", code=1)
    assert printed == "b'ConnectError\\n'\n"
    assert "The requests of 1 child process were refused" in said
    assert not recorded.asked


@pytest.mark.newest_only
def test_every_replay_refuses_calls_of_child_processes(recorded: NumberedServer) -> None:
    """A cassette that is whole only replays in mode ``once`` too, and pays for nothing."""
    printed, said = ran(in_a_child("fork", "ask_by_sdk"), code=1)
    assert printed.splitlines() == ["answer 0", "ConflictError"]
    assert "The requests of 1 child process were refused" in said
    assert not recorded.asked


@pytest.mark.newest_only
def test_child_processes_that_ask_no_model_are_not_told(model: NumberedServer) -> None:
    """Neither they nor their results change."""
    program = """
        print(subprocess.run([sys.executable, "-c", "print('done')"], capture_output=True).stdout)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(abs, [-1, -2]))
    """
    printed, said = ran(program)
    assert printed == "b'done\\n'\n[1, 2]\n"
    assert "child process" not in said


def test_none_names_child_processes_that_nobody_can_watch(recorded: NumberedServer) -> None:
    """Programs that are not Python's might send anything; they are named at the end."""
    program = """
        subprocess.run(["true"])
        subprocess.run([sys.executable, "-c", ""])
        subprocess.run([sys.executable, "-I", "-c", ""])
    """
    _, said = ran(program, "--mode", "none")
    named = said.partition("llmcall could not watch what these child processes sent: ")[2]
    assert named.startswith(f"true, {Path(sys.executable).name}\n")


def test_child_processes_that_describe_the_machine_are_not_named(recorded: NumberedServer) -> None:
    """The standard library starts some to learn what it runs on; they send nothing."""
    program = """
        import platform
        platform.processor()
        subprocess.run(["true"])
    """
    _, said = ran(program, "--mode", "none")
    assert "what these child processes sent: true\n" in said


def test_a_sitecustomize_of_ones_own_is_still_imported(model: NumberedServer) -> None:
    """The module by which child processes are watched hides no other of its name."""
    Path("own").mkdir()
    Path("own/sitecustomize.py").write_text("print('mine')", encoding="utf-8")
    program = """
        os.environ["PYTHONPATH"] += os.pathsep + "own"
        print(subprocess.run([sys.executable, "-c", ""], capture_output=True).stdout)
    """
    assert ran(program)[0] == "b'mine\\n'\n"


# Errors that leave a process


@pytest.mark.parametrize(
    "error",
    [
        llmcall.LLMCallError("words"),
        llmcall.ConfigError("words"),
        llmcall.APIError("words", status_code=500, request_id="r", attempts=2, endpoint="e"),
        llmcall.InvalidRequestError("words", status_code=400),
        llmcall.ContextLengthError("words", prompt_tokens=9, context_window=8, status_code=400),
        llmcall.AuthenticationError("words", status_code=401),
        llmcall.RateLimitError("words", status_code=429, retry_after=1.5),
        llmcall.QuotaExceededError("words", status_code=429),
        llmcall.ServiceError("words", status_code=500),
        llmcall.RequestTimeoutError("words"),
        llmcall.ContentFilterError("words"),
        llmcall.EmptyAnswerError("words"),
        llmcall.CacheError("words"),
        llmcall.CacheMissError("words"),
        llmcall.CacheCorruptError("words"),
        llmcall.ScopeError("words"),
        llmcall.BudgetExceededError("words"),
        llmcall.TemplateError("words"),
        llmcall.OutputError("words", text="three", expected="int"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: Exception) -> None:
    """Each error has the same message and attributes after it left a process pool."""
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
