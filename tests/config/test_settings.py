"""Settings: where they come from, which of them win, what is refused, and that no key is ever
shown.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import json
import logging
import os
import pickle
import re
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import openai
import pytest
from files import written
from servers import completion

import llmcall
from llmcall import ConfigError
from llmcall.config.sources import KEYS
from llmcall.testing import ScriptedClient
from llmcall.types import Endpoint, Settings

SECRET = "sk-very-secret"


def read(text: str) -> Settings:
    """Read a text as the project's config.ini."""
    written("config.ini", text)
    llmcall.reset()
    return llmcall.settings()


@contextmanager
def recorded_with(**settings: Any) -> Iterator[None]:
    """Open a cassette in whose header some settings stand."""
    name = f"{'-'.join(settings)}.jsonl"
    written(name, json.dumps({"llmcall": 1, "settings": settings}) + "\n")
    with llmcall.cassette(name, mode="none"):
        yield


# Layers.


def test_each_layer_is_above_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value and its origin are those of the highest layer that says something."""

    def decides(value: str, origin: str, found: Settings | None = None) -> None:
        found = found or llmcall.settings()
        assert (found.cache_namespace, found.origin("CACHE_NAMESPACE")) == (value, origin)

    decides("", "default")
    path = written("config.ini", "[Cache]\nNAMESPACE = file\n")
    decides("file", f"{path}, [Cache] NAMESPACE")
    path = written(".env", "LLMCALL_CACHE_NAMESPACE=.env\n")
    decides(".env", f"{path}, LLMCALL_CACHE_NAMESPACE")
    monkeypatch.setenv("LLMCALL_CACHE_NAMESPACE", "environment")
    decides("environment", "environment variable LLMCALL_CACHE_NAMESPACE")
    with recorded_with(cache_namespace="cassette"):
        with recorded_with(cache_namespace="inner", model="a"):
            decides("inner", "cassette cache_namespace-model.jsonl")
        llmcall.reset()
        decides("cassette", "cassette cache_namespace.jsonl")
        llmcall.configure(cache_namespace="configure")
        decides("configure", "configure()")
        decides("argument", "argument", llmcall.OpenAIClient(cache_namespace="argument").settings)


def now() -> tuple[str, float, float | None]:
    """Return the settings that the tests of blocks change."""
    found = llmcall.settings()
    return found.model, found.timeout, found.temperature


DEFAULTS = ("gpt-6-luna", 600, None)


def test_configuring_none_withdraws_a_setting() -> None:
    """Inside a block for the block, else for good."""
    llmcall.configure(model="a", timeout=5)
    with llmcall.configured(timeout=None):
        assert now() == ("a", 600, None)
    llmcall.configure(model=None)
    assert now() == ("gpt-6-luna", 5, None)


def test_configured_blocks_nest() -> None:
    """An inner block stands above the outer one, until it ends."""
    with llmcall.configured(model="a", timeout=5):
        with llmcall.configured(model="c"):
            assert now() == ("c", 5, None)
        assert now() == ("a", 5, None)
    assert now() == DEFAULTS


def test_an_exception_ends_a_configured_block() -> None:
    """Settings configured inside it hold for the process, below the block."""
    with pytest.raises(KeyError), llmcall.configured(model="c"):
        llmcall.configure(model="d", temperature=1)
        assert now() == ("c", 600, 1)
        raise KeyError
    assert now() == ("d", 600, 1)


def test_configured_blocks_of_several_threads_do_not_meet() -> None:
    """Blocks of several threads or tasks do not meet; a client of one's own sees the block, too."""
    together = threading.Barrier(2)
    client = ScriptedClient(["Hello."])

    def play(model: str) -> tuple[str, str]:
        """Open a block while the other thread has one open."""
        with llmcall.configured(model=model):
            together.wait(30)
            asked = client.build_request("Hello").model
            together.wait(30)
            return asked, llmcall.settings().model

    async def main() -> list[str]:
        async def play(model: str) -> str:
            with llmcall.configured(model=model):
                await asyncio.sleep(0.01)
                return client.build_request("Hello").model

        return await asyncio.gather(play("a"), play("b"))

    assert llmcall.map(play, ["a", "b"], workers=2) == [("a", "a"), ("b", "b")]
    assert asyncio.run(main()) == ["a", "b"]


def test_a_call_keeps_what_it_resolved_when_it_began() -> None:
    """What is configured while it is under way is for the next one."""
    sent_to = []

    class Placed(llmcall.LLMClient):
        """A client whose endpoint follows from a setting; the first send fails, and changes that setting."""

        def endpoints(self, model: str) -> list[Endpoint]:
            return [Endpoint(self.settings.organization or "")]

        def make_transport(self, endpoint: Endpoint) -> Any:
            return types.SimpleNamespace(send=functools.partial(self.send_to, endpoint.name))

        def send_to(self, name: str, request: Any, timeout: float | None) -> Any:
            sent_to.append(name)
            if len(sent_to) == 1:
                llmcall.configure(organization="second")
                raise llmcall.ServiceError("busy")
            return completion("Hello")

    llmcall.configure(organization="first")
    client = Placed(model="m", cache_mode="off", retry_waiting_time=0, on_error="raise")
    for name in ("first", "second"):
        assert client.send_message("Hello").endpoint == name
    assert sent_to == ["first", "first", "second"]


def test_a_configured_block_holds_in_threads_of_map_and_not_in_plain_ones() -> None:
    """``map`` hands on the context; a plain thread begins without one."""
    with llmcall.configured(model="a"), ThreadPoolExecutor(1) as pool:
        assert llmcall.map(lambda _: llmcall.settings().model, range(3)) == ["a"] * 3
        outside = pool.submit(contextvars.Context().run, llmcall.settings).result()
    assert outside.model == "gpt-6-luna"


@pytest.mark.parametrize(
    ("below", "forced", "mode"),
    [
        ("auto", True, "auto"),
        ("off", True, "auto"),
        ("replay", True, "replay"),
        ("replay", False, "off"),
        ("replay", None, "replay"),
    ],
)
def test_force_api_cache_turns_the_cache_on_and_off(
    below: str, forced: bool | None, mode: str
) -> None:
    """On turns ``off`` into ``auto``, and leaves ``replay`` as it is, also that of a client's argument or
    settings; None leaves the mode.
    """
    llmcall.force_api_cache(forced)
    assert ScriptedClient([], cache_mode=below).settings.cache_mode == mode
    given = llmcall.settings().replace(cache_mode=below)
    assert llmcall.OpenAIClient(given).settings.cache_mode == mode
    llmcall.configure(cache_mode=below)
    assert llmcall.settings().cache_mode == mode


def test_force_api_cache_takes_a_path(tmp_path: Path) -> None:
    """The path of a pickle is that of a directory beside it; without a path it is the usual one."""
    llmcall.force_api_cache(True, "openai_api_cache.pickle")
    assert llmcall.settings().cache_path == str(tmp_path / "openai_api_cache.cache")
    llmcall.force_api_cache(True, tmp_path / "x")
    assert llmcall.settings().cache_path == str(tmp_path / "x")
    llmcall.force_api_cache(True)
    assert llmcall.settings().cache_path == str(tmp_path / ".llmcall" / "cache")


# When changes are seen.


@pytest.mark.parametrize(
    ("path", "text"), [("config.ini", "[OpenAI]\nTIMEOUT = {}"), (".env", "LLMCALL_TIMEOUT={}")]
)
def test_a_changed_config_file_is_read_again(path: str, text: str) -> None:
    """At each look, when it is made and whenever it changes."""
    llmcall.settings()
    for timeout in (10, 11):
        written(path, text.format(timeout))
        assert llmcall.settings().timeout == timeout


def test_a_changed_working_directory_changes_the_files_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another project the file of the first does not count."""
    written("config.ini", "[OpenAI]\nMODEL = b\n")
    assert llmcall.settings().model == "b"
    written("other/.llmcall/x", "")
    monkeypatch.chdir(tmp_path / "other")
    assert llmcall.settings().model == "gpt-6-luna"


def test_a_clients_relative_cache_path_starts_where_the_client_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed working directory does not move it, even if the settings are read again."""
    start = Path.cwd()
    client = ScriptedClient(["one"], cache_path="answers")
    monkeypatch.chdir(tmp_path.parent)
    llmcall.configure(temperature=1)
    assert client.cache.path == start / "answers"


def test_a_clients_own_argument_stays_above_what_is_configured_later() -> None:
    """Other settings of a client that is already made follow."""
    own = ScriptedClient(lambda messages: "yes", model="own")
    llmcall.configure(model="b", temperature=0.5)
    own.send_message("Hello")
    assert own.requests[0].model == "own"
    assert own.requests[0].body["temperature"] == 0.5


# Places.


@pytest.fixture
def nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Make the project ``a`` inside another one, with a marker; work in its folder ``b/c``, and
    return the path of ``a``.
    """

    def make(marker: str) -> Path:
        written("config.ini", "[OpenAI]\nTIMEOUT = 5\n")
        written(f"a/{marker}", "")
        written("a/.env", "LLMCALL_MODEL=far\nLLMCALL_TEMPERATURE=1\n")
        written("a/b/.env", "LLMCALL_MODEL=near\nLLMCALL_TEMPLATES_PATH=mine\n")
        (tmp_path / "a/b/c/.env").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "a/b/c")
        return tmp_path / "a"

    return make


MARKERS = ["config.ini", ".llmcall/x", "pyproject.toml", ".git/x"]


@pytest.mark.parametrize("marker", MARKERS)
def test_the_root_is_the_nearest_marked_folder(marker: str, nested: Callable[[str], Path]) -> None:
    """The cache stands in the root, and a config.ini above the root does not count."""
    root = nested(marker)
    found = llmcall.settings()
    assert found.timeout == 600
    assert found.cache_path == str(root / ".llmcall/cache")


def test_dotenv_overrides_no_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is above it."""
    written(".env", "OPENAI_API_KEY=of.dotenv\n")
    assert llmcall.settings().api_key == "of.dotenv"
    monkeypatch.setenv("OPENAI_API_KEY", "of.the.environment")
    assert llmcall.settings().api_key == "of.the.environment"


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_sets_nothing(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment, in .env and in config.ini, what is below it counts."""
    written("config.ini", f"[OpenAI]\nMODEL = of.file\nTIMEOUT ={empty}\n[Cache]\nMODE = refresh\n")
    written(".env", f"LLMCALL_CACHE_MODE=replay\nOPENAI_API_KEY=of.dotenv\nLLMCALL_MODEL={empty}\n")
    for name in ("LLMCALL_CACHE_MODE", "OPENAI_API_KEY", "LLMCALL_MODEL", "LLMCALL_SCOPE"):
        monkeypatch.setenv(name, empty)
    found = llmcall.settings()
    assert (found.cache_mode, found.api_key) == ("replay", "of.dotenv")
    assert (found.model, found.timeout) == ("of.file", 600)


def test_the_nearest_dotenv_counts_alone(nested: Callable[[str], Path]) -> None:
    """It is sought upward from the working directory; a folder of that name is no file."""
    nested("pyproject.toml")
    found = llmcall.settings()
    assert (found.model, found.temperature) == ("near", None)


@pytest.fixture(params=["environment", ".env"])
def named_file(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A file that LLMCALL_CONFIG names, beside a config.ini."""
    written("config.ini", "[OpenAI]\nMODEL = found\n")
    written("other/mine.ini", "[OpenAI]\nTIMEOUT = 5\n[Cache]\nPATH = answers\n")
    if request.param == "environment":
        monkeypatch.setenv("LLMCALL_CONFIG", "other/mine.ini")
    else:
        written(".env", "LLMCALL_CONFIG=other/mine.ini\n")
    return tmp_path / "other/mine.ini"


def test_a_named_file_is_read_in_place_of_config_ini(named_file: Path) -> None:
    """Its values have its name as their origin."""
    found = llmcall.settings()
    assert (found.model, found.timeout) == ("gpt-6-luna", 5)
    assert found.origin("TIMEOUT") == f"{named_file}, [OpenAI] TIMEOUT"


def test_a_named_file_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says who names it."""
    monkeypatch.setenv("LLMCALL_CONFIG", "missing.ini")
    with pytest.raises(ConfigError, match="environment variable LLMCALL_CONFIG: there is no file"):
        llmcall.settings()


@pytest.mark.parametrize("present", ["pyproject.toml", "config.ini", ".env"])
def test_a_missing_key_says_where_files_were_sought(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, present: str
) -> None:
    """The message has the files, the working directory and the project's root."""
    written("pyproject.toml", "")
    written(present, "")
    folder = Path(written("deep/down/x", "")).parent
    monkeypatch.chdir(folder)
    absent = " or ".join(name for name in ("config.ini", ".env") if name != present)
    sought = f"no {absent} in {folder} or above it, up to the project's root {tmp_path}"
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        llmcall.client().send_message("Hello")
    assert sought in str(caught.value)


# Variables.


def test_the_value_none_takes_away_what_a_file_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is the setting's origin."""
    written("config.ini", "[OpenAI]\nDEADLINE = 30\n")
    monkeypatch.setenv("LLMCALL_DEADLINE", "none")
    found = llmcall.settings()
    assert found.deadline is None
    assert found.origin("DEADLINE") == "environment variable LLMCALL_DEADLINE"


def test_an_unknown_variable_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has the nearest name; variables of llmcall that are no settings are known."""
    for name in ("LLMCALL_MODLE", "LLMCALL_SCOPE"):
        monkeypatch.setenv(name, "none")
    for _ in range(2):
        llmcall.settings()
    warning = "unknown setting LLMCALL_MODLE (environment variable). Did you mean 'LLMCALL_MODEL'?"
    assert caplog.record_tuples == [("llmcall", logging.WARNING, warning)]


# config.ini.


@pytest.fixture
def shown() -> str:
    """The text of the top-level config.ini."""
    return (Path(__file__).parents[2] / "config.ini").read_text(encoding="utf-8")


def test_the_top_level_config_ini_shows_every_setting_with_a_comment(shown: str) -> None:
    """Of sections that may have any name, an example; no other settings."""
    found: set[tuple[str, str]] = set()
    section = before = ""
    for line in shown.splitlines()[5:]:
        text = line.removeprefix("# ")
        if match := re.match(r"\[(\w+)", text):
            section = match[1]
        elif match := re.match(r"([A-Z_]+) =", text):
            assert before.startswith("# ")
            found.add((section, match[1]))
        before = line
    known = {(row.section, row.key) for rows in KEYS.values() for row in rows.values() if row.key}
    assert found == known


def test_the_top_level_config_ini_changes_no_default(
    shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Read as it is, every setting has its default, and nothing is warned of."""
    bare = [(row.name, value) for row, value, _ in llmcall.settings().items()]
    assert [(row.name, value) for row, value, _ in read(shown).items()] == bare
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("[Retry]\nMAX_ATTEMPTS = 5.0", "retry_max_attempts", 5),
        ("MODEL = a#b", "model", "a#b"),
        ("model = a", "model", "a"),
        ("model = a=50%  ; b", "model", "a=50%"),
        ("MODEL = a ${NAME}-${OTHER} $$ b", "model", "a value-$x $$ b"),
        ("MODEL = $${NAME}$", "model", "${NAME}$"),
        (
            "[CACHE]\nnormalize =\n    times, uuids\n    # a comment\n    [0-9]+, x ; y",
            "cache_normalize",
            ("times", "uuids", "[0-9]+, x"),
        ),
        (
            "[Simulation]\ntwice = 1\ntwice = 2\nno value\n  but more\n = x\n[Logging]\nLOGLEVEL=ERROR\n[OpenAI]\n"
            "MODEL = a\n[Simulation]\n[DEFAULT]\nMODEL = b\n[Model]\nlayers = 3",
            "model",
            "a",
        ),
        ("[Cache]\nNORMALIZE = none", "cache_normalize", ()),
        ("[Cassette]\nMODE = NONE", "cassette_mode", "none"),
        ("REASONING_EFFORT = none", "reasoning_effort", "none"),
        ("BASE_URL = https://bücher_1.test/a?b=c", "base_url", "https://bücher_1.test/a?b=c"),
        (
            "[Prices]\ngemma3:1b = 0, 0 ; free\nb = 0.15, 0.60, 0.075",
            "prices",
            {"gemma3:1b": (0, 0), "b": (0.15, 0.6, 0.075)},
        ),
        ("[Fallbacks]\na = b, c", "fallbacks", {"a": ("b", "c")}),
        (
            "[Model my*]\nCONTEXT_WINDOW = 8192\nREASONING = yes\nREFUSED_PARAMETERS = top_p, stop\nENCODING =",
            "models",
            {
                "my*": {
                    "context_window": 8192,
                    "reasoning": True,
                    "refused_parameters": ("top_p", "stop"),
                }
            },
        ),
        (
            "[endpoint  East One]\nModels = a, b:1\nAZURE_ENDPOINT = https://east/",
            "endpoints",
            (Endpoint("East One", ("a", "b:1"), "azure", azure_endpoint="https://east/"),),
        ),
    ],
)
def test_the_syntax_of_config_ini_is_read_as_documented(
    text: str,
    name: str,
    value: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Comments, references, lists and tables, also in a file from Windows; other programs' sections
    are neither errors nor warnings.
    """
    monkeypatch.setenv("NAME", "value")
    monkeypatch.setenv("OTHER", "$x")
    text = text if text.startswith("[") else "[OpenAI] ; ours\n" + text
    assert getattr(read(text), name) == value
    assert getattr(read("\ufeff" + text.replace("\n", "\r\n")), name) == value
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[OpenAI]\nMODLE = a\n",
            "unknown setting [OpenAI] MODLE (",
        ),
        (
            "[Cache]\nTEMPERATURE = 0\n",
            "config.ini). It belongs in [OpenAI]",
        ),
        (
            "[Endpoint a]\nMODELS = m\nAPIKEY = x\n",
            "config.ini). Did you mean",
        ),
        (
            "[Endpoint a]\nBASE_URL = http://h/v1\n",
            "[Endpoint a]: without MODELS this endpoint is never used",
        ),
        (
            "[Cache]\nNORMALIZE = time\n",
            "'time' is read as one regular expression. Did you mean 'times'?",
        ),
        (
            "[Limit]\nREQUESTS_PER_MINUTE = 1\n",
            "[Limit]: this section is ignored. Did you mean 'Limits'?",
        ),
        ("[OpneAI]\nMODEL = a\n", "[OpneAI]: this section is ignored. Did you mean 'OpenAI'?"),
        (
            "[Endpoint]\nMODELS = m\n",
            "[Endpoint]: this section is ignored. Give the endpoint a name: [Endpoint NAME]",
        ),
    ],
)
def test_a_probable_mistake_in_config_ini_is_one_warning(
    text: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It names file, section and key, and the nearest right one."""
    read(text)
    llmcall.settings()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert message in caplog.text
    assert str(Path.cwd() / "config.ini") in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL = sk-secret\n[OpenAI]\n", r"line 1: this line is above the first \[Section\]"),
        (
            "[Mine]\nno value\n[OpenAI]\nMODEL = a\nsk-secret\n",
            r"line 5: neither \[Section\] nor NAME = value",
        ),
        ("[OpenAI]\nMODEL = a\nMODEL = sk-secret\n", "line 3: MODEL occurs twice"),
        ("[OpenAI]\n[Cache]\n[OpenAI]\nMODEL = a\n", r"line 3: \[OpenAI\] occurs twice"),
        ("[OpenAI]\n[openai] # again\nMODEL = a\n", r"line 2: \[OpenAI\] occurs twice"),
        ("[Other]\na = 1\na = 2\n[OpenAI]\nMODEL = a\nMODEL = b\n", "line 6: MODEL occurs twice"),
        (b"[OpenAI]\n# \xe4\n", r"line 2: not UTF-8"),
        (
            "[Prices]\na = 1, -2\n",
            r"\[Prices\] a: '1, -2' is not two or three numbers of at least 0",
        ),
        (
            "[Endpoint a]\nMODELS = m\nAPI_TYPE = azur\nAZURE_ENDPOINT = https://east/\n",
            r"\[Endpoint a\] API_TYPE: 'azur' is not one of openai, azure, ollama",
        ),
        (
            "[Model a]\nCONTEXT_WINDOW = big\n",
            r"\[Model a\] CONTEXT_WINDOW: 'big' is not a whole number of at least 1",
        ),
        (
            "[Endpoint a]\nBASE_URL = localhost:8000/v1\n",
            r"\[Endpoint a\] BASE_URL: 'localhost:8000/v1' is not",
        ),
        (
            "[OpenAI]\nMODEL = ${NO_SUCH}\n",
            r"\[OpenAI\] MODEL: the environment variable NO_SUCH is not set",
        ),
        ("[OpenAI]\nMODEL = a\n  TIMEOUT = 5\n", r"\[OpenAI\] MODEL: .* is not one line of text"),
    ],
)
def test_a_broken_file_is_an_error_that_shows_no_key(text: str | bytes, message: str) -> None:
    """The error has the path, and the line or key, and not what may be a credential."""
    written("config.ini", text)
    with pytest.raises(ConfigError, match=message) as caught:
        llmcall.settings()
    assert str(Path.cwd() / "config.ini") in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


# Values.


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", "-0.1", "is not a number of at least 0"),
        ("timeout", 1e12, "is not a number of seconds above 0, at most 2000000"),
        ("cache_normalize", "(", "is not a regular expression"),
        ("cassette_allow", "(a", "is not a regular expression"),
        ("models", {"a": {"window": 1}}, "[Model a]: unknown setting 'window'"),
        ("endpoints", [Endpoint("a"), Endpoint("a")], "there are two endpoints 'a'"),
        (
            "endpoints",
            [{"name": "a", "apikey": SECRET}],
            "[Endpoint a]: unknown setting 'apikey'. Did you mean 'api_key'?",
        ),
        ("api_key", "sk-very secret", "not an API key or token: one word of text, or a function"),
        ("base_url", "Bearer very-secret", "is not an address"),
        ("base_url", "https://good.example\\@evil.example", "is not an address"),
        ("cache_mode", "very-secret" * 9, "is not one of auto"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_what_is_allowed(
    name: str, value: Any, expected: str
) -> None:
    """Of the wrong type or range; the error names the place, and shows no secret."""
    with pytest.raises(ConfigError, match=rf"configure\(\), {name}") as caught:
        llmcall.configure(**{name: value})
    assert expected in str(caught.value)
    assert "secr" not in str(caught.value)


# Keys.


KEY_VARIABLES = ["OPENAI_API_KEY", "LLMCALL_ORGANIZATION"]


@pytest.mark.parametrize("variable", KEY_VARIABLES)
@pytest.mark.parametrize("value", [f"{SECRET}ü", f"{SECRET}\n{SECRET}"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(
    value: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for an organization."""
    monkeypatch.setenv(variable, value)
    wrong = f"environment variable {variable}: not an (API key|organization)"
    with pytest.raises(ConfigError, match=wrong) as caught:
        llmcall.settings()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("api_type", "key"), [("openai", "openai"), ("azure", "azure"), ("mine", "openai")]
)
def test_the_client_decides_which_of_the_sdks_variables_counts(
    api_type: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Azure or of OpenAI; it stands above the file. A variable of llmcall stands above both in the same
    layer: among the variables, and in .env.
    """
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    monkeypatch.setenv("AZURE_OPENAI_KEY", "old")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure")
    written("config.ini", "[OpenAI]\nAPI_KEY = file\n")
    llmcall.configure(api_type=api_type)
    assert llmcall.settings().api_key == key
    monkeypatch.setenv("LLMCALL_API_KEY", "ours")
    written(".env", "OPENAI_BASE_URL=https://sdk/v1\nLLMCALL_BASE_URL=https://ours/v1\n")
    assert llmcall.settings().api_key == "ours"
    assert llmcall.settings().base_url == "https://ours/v1"


EAST_KEY = "[Endpoint east]\nMODELS = a\nAPI_KEY = ${EAST_KEY}\n"


def test_a_variable_with_a_key_may_be_missing_until_the_key_is_used() -> None:
    """The error then names the endpoint and the variable."""
    endpoint = read(EAST_KEY).endpoints[0]
    missing = r"\[Endpoint east\] API_KEY: the environment variable EAST_KEY is not set"
    with pytest.raises(ConfigError, match=missing):
        endpoint.key()


def test_a_key_that_a_file_refers_to_may_stand_in_dotenv() -> None:
    """It is read like a variable, and no repr shows it."""
    written(".env", "EAST_KEY=from.env\n")
    endpoint = read(EAST_KEY).endpoints[0]
    assert endpoint.key() == "from.env"
    assert "from.env" not in repr(endpoint.api_key)


def answered(settings: Settings | None = None, **overrides: Any) -> None:
    """Make one call that an HTTP client in this process answers, wherever it goes."""
    body = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hi."},
            }
        ]
    }
    # or httpx2
    httpx = importlib.import_module(
        openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]
    )
    http = httpx.Client(
        transport=httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    )
    kind = llmcall.AzureClient if llmcall.settings().api_type == "azure" else llmcall.OpenAIClient
    assert kind(settings, http_client=http, cache_mode="off", **overrides).send_message(
        "Hello", on_error="raise"
    )


URL = "[OpenAI]\nBASE_URL = https://Strange.example/v1\n"
EAST = "[Endpoint east]\nMODELS = gpt-6-luna\nBASE_URL = https://strange.example/v1\n"
AZURE = "[OpenAI]\nAPI_TYPE = azure\nAZURE_ENDPOINT = https://strange.example\nAZURE_API_VERSION = 2024-10-21\n"


@pytest.mark.parametrize("dotenv", [False, True])
@pytest.mark.parametrize(
    ("text", "variable", "overrides", "is_announced"),
    [
        (URL, "OPENAI_API_KEY", {}, True),
        (URL + "API_KEY = ${MY_KEY}\n", "MY_KEY", {}, True),
        (EAST + "API_KEY = ${MY_KEY}\n", "MY_KEY", {}, True),
        (AZURE, "AZURE_OPENAI_API_KEY", {}, True),
        (URL.replace("Strange.example", "127.0.0.1"), "OPENAI_API_KEY", {}, False),
        (EAST + "API_KEY = sk-other\n", "OPENAI_API_KEY", {}, False),
        (URL, "OPENAI_API_KEY", {"api_key": "sk-other"}, False),
        (URL, "OPENAI_API_KEY", {"base_url": "https://chosen.example/v1"}, False),
        (URL, "OPENAI_API_KEY LLMCALL_CONFIG", {}, False),
    ],
)
def test_a_strange_host_is_announced_once(
    text: str,
    variable: str,
    overrides: dict[str, str],
    is_announced: bool,
    dotenv: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A key of the environment or .env for a host that a found config.ini names is one warning,
    without the key.

    Nothing is said where the user named the host, the key or the file, or the key stays on this
    machine.
    """
    path = written("config.ini", text)
    name, *others = variable.split()
    if dotenv:
        written(".env", f"{name}={SECRET}\n")
    else:
        monkeypatch.setenv(name, SECRET)
    if others:
        monkeypatch.setenv(others[0], path)
    for _ in range(2):
        answered(**overrides)
    lines = [record.getMessage() for record in caplog.records]
    destination = f"is sent to the host strange.example, which {path}"
    assert [name in line and destination in line for line in lines] == [True] * is_announced
    assert SECRET not in caplog.text


@pytest.mark.parametrize("beside", [False, True])
def test_a_host_that_a_dotenv_names_is_announced_unless_the_key_stands_beside_it(
    beside: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file may be a stranger's, and the key the shell's."""
    text = "OPENAI_BASE_URL=https://strange.example/v1\n"
    if not beside:
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    path = written(".env", text + f"OPENAI_API_KEY={SECRET}\n" * beside)
    answered()
    destination = f"is sent to the host strange.example, which {path}"
    assert [destination in record.getMessage() for record in caplog.records] == [True] * (
        not beside
    )


@pytest.mark.parametrize(
    ("host", "needs"),
    [
        ("localhost:8000", False),
        ("127.1.2.3:1", False),
        ("[::1]:8000", False),
        ("127.0.0.1.strange.example", True),
        ("localhost@strange.example", True),
    ],
)
def test_only_loopback_needs_no_key(host: str, needs: bool) -> None:
    """Only addresses of this machine are loopback, whatever stands around them."""
    with (
        pytest.raises(ConfigError, match=r"no API key for .*strange\.example")
        if needs
        else nullcontext()
    ):
        answered(base_url=f"http://{host}/v1")


# The value.


@pytest.fixture
def secretive(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Settings:
    """Settings that have a secret wherever one can be."""
    caplog.set_level(0)
    llmcall.configure(models={"m": {"reasoning": True}}, prices={"m": (1, 2)})
    llmcall.force_api_type("azure")
    written(
        "config.ini",
        f"[OpenAI]\nBASE_URL = https://user:{SECRET}@host/v1?api_key={SECRET}&v=2\nAPI_KEY = ${{MY_KEY}}\n"
        f"[Cache]\nPATH = redis://:{SECRET}@host/0?password={SECRET}\n"
        f"[Endpoint a]\nMODELS = m\nAPI_KEY = {SECRET}\nBASE_URL = http://u:{SECRET}@h/v1\n"
        "[Endpoint b]\nMODELS = m\nAPI_KEY = ${MY_KEY}\n",
    )
    for name in (
        "MY_KEY",
        "OPENAI_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
        "LLMCALL_API_KEY",
    ):
        monkeypatch.setenv(name, SECRET)
    return llmcall.settings()


def test_secrets_are_masked_in_every_text(
    secretive: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """No repr, table or log line that is made of settings holds a secret."""
    texts = [
        repr(secretive),
        str(secretive),
        repr(secretive.endpoints),
        *map(str, secretive.items()),
        *(record.getMessage() for record in caplog.get_records("setup")),
    ]
    assert not [text for text in texts if SECRET in text]


def test_a_worker_gets_all_settings_and_their_secrets(secretive: Settings) -> None:
    """Pickled settings are whole, and can be changed as before."""
    unpickled = pickle.loads(pickle.dumps(secretive))
    assert list(unpickled.items()) == list(secretive.items())
    assert unpickled.api_key == SECRET
    assert [endpoint.key() for endpoint in unpickled.endpoints] == [SECRET, SECRET]
    assert unpickled.replace(api_type="openai").api_type == "azure"


def test_settings_are_frozen() -> None:
    """Neither a setting nor a table in one can be changed; the error says what can be done."""
    llmcall.configure(aliases={"a": "b"}, models={"a": {"reasoning": True}}, prices={"a": (1, 2)})
    found: Any = llmcall.settings()
    with pytest.raises(AttributeError, match=r"settings are frozen: use configure\(model=…\)"):
        found.model = "a"
    for table in (found.aliases, found.models["a"], found.prices):
        with pytest.raises(TypeError, match="frozen"):
            table["x"] = "y"


def test_an_unknown_setting_is_an_error_with_the_nearest_name() -> None:
    """When it is asked for, and when it is set."""
    with pytest.raises(ValueError, match=r"unknown setting 'MODLE'\. Did you mean 'model'\?"):
        llmcall.settings().origin("MODLE")
    with pytest.raises(TypeError, match=r"has no setting 'modle'\. Did you mean 'model'\?"):
        llmcall.configure(modle="a")


def test_a_named_pipe_is_read_once_as_dotenv() -> None:
    """A password manager asks its user at each reading."""
    os.mkfifo(".env")
    writer = threading.Thread(target=written, args=(".env", "OPENAI_API_KEY=piped\n"))
    writer.start()
    for _ in range(2):
        assert llmcall.settings().api_key == "piped"
        llmcall.reset()
    writer.join()
