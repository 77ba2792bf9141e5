"""The settings of the process: which layer wins, and what changes them."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from project_files import written

from llmcall.config import resolve as config
from llmcall.config.names import SETTINGS
from llmcall.errors import ConfigError

LAYERS = ["default", "config.ini", ".env", "environment", "cassette", "configure", "argument", "force"]


@pytest.mark.parametrize("highest", range(len(LAYERS)))
def test_each_layer_is_above_those_before_it(highest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every layer up to one given, the value and its origin are that one's."""
    layers = LAYERS[: highest + 1]
    if "config.ini" in layers:
        written("config.ini", "[OpenAI]\nAPI_TYPE = config.ini\n")
    if ".env" in layers:
        written(".env", "LLMCALL_API_TYPE=.env\n")
    if "environment" in layers:
        monkeypatch.setenv("LLMCALL_API_TYPE", "environment")
    with ExitStack() as stack:
        if "force" in layers:
            config.force_api_type("force")
        if "configure" in layers:
            config.configure(api_type="configure")
        if "cassette" in layers:
            stack.callback(config.pop_layer, config.push_layer({"api_type": "cassette"}, "a cassette"))
        found = config.settings()
        if "argument" in layers:
            found = found.replace(api_type="argument")
    origins = {
        "default": "default",
        "config.ini": f"config.ini ({Path.cwd() / 'config.ini'}), [OpenAI] API_TYPE",
        ".env": f".env ({Path.cwd() / '.env'}), LLMCALL_API_TYPE",
        "environment": "environment variable LLMCALL_API_TYPE",
        "cassette": "a cassette",
        "configure": "configure()",
        "argument": "argument",
        "force": "force_api_type()",
    }
    assert found.api_type == ("openai" if highest == 0 else LAYERS[highest])
    assert found.origin("API_TYPE") == origins[LAYERS[highest]]


@pytest.mark.parametrize("layer", ["environment", ".env"])
def test_our_variables_go_before_the_sdks(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a layer, LLMCALL_BASE_URL wins over OPENAI_BASE_URL."""
    variables = {"LLMCALL_BASE_URL": "https://ours/v1", "OPENAI_BASE_URL": "https://sdk/v1"}
    if layer == "environment":
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    else:
        written(".env", "".join(f"{name}={value}\n" for name, value in variables.items()))
    assert config.settings().base_url == "https://ours/v1"
    assert config.settings().origin("BASE_URL").endswith("LLMCALL_BASE_URL")


def test_the_same_object_until_something_changes() -> None:
    """settings() is remembered; each change gives another object and another generation."""
    first = config.settings()
    assert config.settings() is first
    before = config.generation()
    config.refresh()
    assert config.settings() is first
    assert config.generation() == before
    config.configure(model="a")
    assert config.generation() != before
    assert config.settings() is not first
    assert config.settings().model == "a"


def test_none_withdraws_what_was_configured() -> None:
    """configure(model=None) gives the lower layers their say back."""
    config.configure(model="a", timeout=5)
    config.configure(model=None)
    assert (config.settings().model, config.settings().timeout) == ("gpt-4o-mini", 5)
    with config.configured(timeout=None):
        assert config.settings().timeout == 60
    assert config.settings().timeout == 5


def test_configure_sets_all_or_nothing() -> None:
    """A wrong value among right ones sets none of them."""
    before = config.settings()
    with pytest.raises(ConfigError, match=r"configure\(\), timeout: -1 is not a number of seconds above 0"):
        config.configure(model="a", timeout=-1)
    assert config.settings() is before


@pytest.mark.parametrize("change", [config.configure, lambda **values: config.settings().replace(**values)])
def test_an_unknown_name_suggests_the_nearest(change: Any) -> None:
    """A misspelt argument is a TypeError that names the right one."""
    with pytest.raises(TypeError, match=r"has no setting 'modle'; did you mean 'model'\?"):
        change(modle="a")


def test_configured_restores_the_very_object() -> None:
    """After nested blocks, also left by an exception, the settings are the same objects as before them."""
    config.configure(model="a")
    outside = config.settings()
    with config.configured(model="b"):
        between = config.settings()
        with pytest.raises(KeyError), config.configured(model="c", temperature=1):
            config.configure(timeout=5)
            assert (config.settings().model, config.settings().timeout) == ("c", 5)
            raise KeyError
        assert config.settings() is between
        assert config.settings().model == "b"
    assert config.settings() is outside


def test_blocks_of_threads_may_overlap() -> None:
    """A block that ends takes away only what it brought, in whatever order blocks end."""
    first, second = config.configured(model="a"), config.configured(temperature=1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (config.settings().model, config.settings().temperature) == ("gpt-4o-mini", 1)
    second.__exit__(None, None, None)
    assert config.settings().temperature is None


def test_threads_that_configure() -> None:
    """Many threads with blocks of their own see their own values, and leave nothing behind."""
    outside = config.settings()
    names = [name for name, row in SETTINGS.items() if row.kind == "number"]
    start = threading.Barrier(len(names))

    def work(name: str) -> None:
        start.wait()
        for _ in range(200):
            with config.configured(**{name: 1}):
                assert getattr(config.settings(), name) == 1

    with ThreadPoolExecutor(len(names)) as pool:
        for done in [pool.submit(work, name) for name in names]:
            done.result()
    assert config.settings() is outside


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_another_thread_configures() -> None:
    """A child forked while a thread holds the lock can change and read its settings."""
    with config._stack.lock:
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(forked()))
        thread.start()
        thread.join()
    assert done == [0]


def forked() -> int:
    """Configure in a child process and return its exit code."""
    child = os.fork()
    if child == 0:
        config.configure(model="in the child")
        os._exit(0 if config.settings().model == "in the child" else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_is_forced_stays_above_arguments() -> None:
    """force_api_type is above configure, a client's and a call's arguments; None gives it back."""
    config.force_api_type("azure")
    config.configure(api_type="local")
    assert config.settings().replace(api_type="openai").api_type == "azure"
    assert config.settings_for(None, {"api_type": "openai"}).api_type == "azure"
    config.force_api_type(None)
    assert config.settings().api_type == "local"


@pytest.mark.parametrize(
    ("below", "forced", "mode"),
    [
        ("auto", True, "auto"),
        ("off", True, "auto"),
        ("replay", True, "replay"),
        ("refresh", True, "refresh"),
        ("auto", False, "off"),
        ("replay", False, "off"),
        ("off", None, "off"),
    ],
)
def test_force_api_cache(below: str, forced: bool | None, mode: str) -> None:
    """On turns off into auto and leaves replay and refresh; off is off; None gives it back."""
    config.configure(cache_mode=below)
    config.force_api_cache(forced)
    assert config.settings().cache_mode == mode
    assert (config.settings().origin("cache_mode") == "force_api_cache()") == (forced is not None)


def test_the_forced_cache_file() -> None:
    """The name is a path from the working directory of the call; a pickle's becomes a directory's."""
    here = Path.cwd()
    config.force_api_cache(True, "openai_api_cache.pickle")
    assert config.settings().cache_path == str(here / "openai_api_cache.cache")
    config.force_api_cache(True, here / "x")
    assert config.settings().cache_path == str(here / "x")
    assert config.settings().replace(cache_path="y").cache_path == str(here / "x")
    config.force_api_cache(True)
    assert config.settings().cache_path == str(here / ".llmcall" / "cache")


def test_force_api_cache_wants_a_bool() -> None:
    """A word for the mode is a mistake, not true."""
    with pytest.raises(TypeError, match="True, False or None, not a str"):
        config.force_api_cache("off")  # type: ignore[arg-type]


WATCH = """
import sys, json, os, threading, typing
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
before = set(sys.modules)
import llmcall.config.resolve
imported = set(sys.modules) - before
llmcall.config.resolve.settings()
print(json.dumps([opened, sorted(imported), sorted(set(sys.modules) - before)]))
"""


def test_import_and_first_use_are_cheap(tmp_path: Path) -> None:
    """Importing config reads no file; neither that nor settings() without files imports what costs time."""
    environment = {**os.environ, "PYTHONPATH": str(Path(config.__file__).parents[2]), "OPENAI_API_KEY": "sk-1"}
    command = [sys.executable, "-c", WATCH]
    done = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True)
    opened, imported, used = json.loads(done.stdout)
    assert [path for path in opened if not path.endswith((".py", ".so", ".pyd")) and "__pycache__" not in path] == []
    assert not {"logging", "configparser", "dotenv", "difflib", "dataclasses", "inspect", "urllib.parse"} & set(used)


def test_settings_are_shared_by_copies() -> None:
    """Frozen settings are copied by sharing them."""
    found = config.settings()
    assert copy.copy(found) is found
    assert copy.deepcopy({"settings": found})["settings"] is found


def test_names_that_come_later() -> None:
    """Each exported name is there, and any other is an AttributeError."""
    assert all(hasattr(config, name) for name in config.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        config.nothing  # noqa: B018
