"""The program's random numbers: nothing that llmcall does or imports moves them, live or replayed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from commands import ROOT, ran
from files import written
from pytest_httpserver import HTTPServer
from servers import OK, Answer, ScriptedServer, completion, refusal

pytestmark = pytest.mark.newest_only

# Each of these libraries draws a number as it is imported.
PREAMBLE = """
import random
import numpy

LIBRARIES = '''openai httpx httpx2 httpcore httpcore2 anyio h2 trio aiohttp truststore tenacity tqdm tiktoken bpe_openai
    pydantic pydantic_core genai_prices pandas scipy tabulate dotenv jinja2 diskcache redis jsonschema rich'''.split()
imported = []

class Drawing:
    def find_spec(self, name, path, target=None):
        if name in LIBRARIES:
            imported.append(name)
            random.random(), numpy.random.rand()

sys.meta_path.insert(0, Drawing())
client = llmcall.OpenAIClient(
    base_url=sys.argv[1], api_key="none", cache_path="cache", retry_waiting_time=0, model="gpt-4o-mini"
)
random.seed(1), numpy.random.seed(1)
"""
END = """
print(*imported)
print(random.random(), numpy.random.rand(), random.gauss(0, 1), numpy.random.randn())
"""
ROUTES = {
    "openai": 'client.send_message("Bread?")',
    "tenacity": 'client.send_message("a busy server?")',
    "genai_prices": """import asyncio; asyncio.run(client.asend_message("Bread?", model="gpt-4.1"))""",
    "jinja2": """llmcall.LLMCall(user="{{ item }}?", output_type=int, client=client)(item="Bread")""",
    "pydantic": """
def price(item: str) -> int: ...
client.send_message("Bread?", tools=[price])
""",
    "tqdm": """llmcall.LLMCall(user="Bread?", client=client).table([{}], progress=True)""",
    "tabulate": """client.send_message("Bread?"); str(client.usage)""",
    "redis": """
try:
    ResponseCache("redis://127.0.0.1:1").stats()
except llmcall.CacheError:
    client.send_message("Bread?")
""",
    "diskcache": """
with llmcall.budget(tokens=100_000), llmcall.cassette("a.jsonl", mode="once") as tape:
    client.send_message("Bread?")
str(llmcall.compare(tape, tape))
""",
}


@pytest.mark.ci
@pytest.mark.parametrize(
    "library",
    [
        pytest.param(
            name,
            marks=[pytest.mark.feature("redis")] if name == "redis" else [],
        )
        for name in ROUTES
    ],
)
def test_no_library_moves_the_programs_random_numbers(library: str, httpserver: HTTPServer) -> None:
    answers = [Answer(200, completion("3"))]
    if library == "tenacity":
        answers.insert(0, refusal(503))
    server = ScriptedServer(httpserver, *answers)
    live, replayed = (ran(PREAMBLE + ROUTES[library] + END, server.base_url) for _ in range(2))
    imported, _, numbers = live.partition("\n")
    assert library in imported.split()
    own, of_numpy = random.Random(1), numpy.random.RandomState(1)
    assert numbers == f"{own.random()} {of_numpy.rand()} {own.gauss(0, 1)} {of_numpy.randn()}"
    assert replayed.endswith(numbers)
    assert len(server.requests) == len(answers)


@pytest.fixture
def brotli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that httpx and httpx2 import where it is installed; it draws a number and makes a generator."""
    (tmp_path / "brotli").mkdir()
    program = "import random; random.getrandbits(24), random.Random()"
    (tmp_path / "brotli" / "__init__.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, ROOT))))


@pytest.mark.ci
@pytest.mark.usefixtures("brotli")
def test_a_first_call_leaves_the_random_numbers_where_the_http_library_draws_some(
    httpserver: HTTPServer,
) -> None:
    """The SDK imports it, which imports another; a replay imports neither."""
    server = ScriptedServer(httpserver, OK)
    program = """
        import random
        random.seed(1)
        client = llmcall.OpenAIClient(base_url=sys.argv[1], api_key="none", cache_path="cache")
        client.send_message("Bread?")
        print("brotli" in sys.modules, random.random())
    """
    path = os.environ["PYTHONPATH"]
    live, replayed = (ran(program, server.base_url, PYTHONPATH=path) for _ in range(2))
    number = random.Random(1).random()
    assert (live, replayed) == (f"True {number}", f"False {number}")


OF_A_LIBRARY = """
import llmcall, random, sys
client = llmcall.OpenAIClient(base_url=sys.argv[1], api_key="none", model="gpt-4o")
with llmcall.budget(tokens=1_000_000):
    client.send_message("Bread?")
print("brotli" in sys.modules, file=sys.stderr)
"""
OF_A_TRANSPORT = """
import random, sys, httpx

class Transport(httpx.HTTPTransport):
    def handle_request(self, request):
        random.Random()
        print("True", file=sys.stderr)
        return super().handle_request(request)

asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Bread?"}]}
httpx.Client(transport=Transport()).post(sys.argv[1] + "/chat/completions", json=asked)
"""


@pytest.mark.ci
@pytest.mark.usefixtures("brotli")
@pytest.mark.parametrize("program", [OF_A_LIBRARY, OF_A_TRANSPORT], ids=["library", "transport"])
def test_a_generator_that_a_sent_request_makes_moves_no_seed_of_a_run(
    program: str, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under ``--seed``, the generators that the program makes are counted. A replay sends nothing, so it makes none of
    these: that of a library which is imported, of the folder for temporary files (to count tokens), of a transport.
    """
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    server = ScriptedServer(httpserver, OK)
    script = written("program.py", f"{program}\nprint(random.Random().random())")
    command = [sys.executable, "-m", "llmcall", "run", "--cassette", "a.jsonl", "--seed", "1"]
    command += [script, server.base_url]
    live, replayed = (
        subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)
    )
    assert live.stdout == replayed.stdout
    assert "True" in live.stderr and "True" not in replayed.stderr
    assert len(server.requests) == 1
