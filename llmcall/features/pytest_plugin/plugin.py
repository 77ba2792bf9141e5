"""The pytest plugin: a test replays its model calls from its own cassette.

A test reaches a model only if its marker allows this. The plugin does nothing, and imports nothing
more, until a project uses the marker ``llm``, the fixture ``llm_cassette``, or one of the plugin's
options; see :mod:`llmcall.features.pytest_plugin.replay`.

PYTEST_DONT_REWRITE: nothing is asserted here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ...config.cassette_modes import HELP, MODES

if TYPE_CHECKING:
    from ...stores.cassettes.cassette import Cassette
    from .replay import Replay

__all__ = ["llm_cassette", "llm_cassette_name"]

NAME = "llmcall-replay"
IS_USED = pytest.StashKey[bool]()
IS_COLLECTED = pytest.StashKey[bool]()  # whether all modules could be collected
RECORDING = {**dict(zip(MODES, MODES, strict=True)), "all": "rewrite", "new_episodes": "new"}
MARKER = (
    "llm(name, *, actor=None, live=False): replay the test's calls to language models from its cassette, or from "
    "the cassette NAME; with live=True they reach the model."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line options and ini options."""
    group = parser.getgroup("llmcall", "recorded calls to language models")
    group.addoption(
        "--llm-record",
        choices=list(RECORDING),
        help=f"What a test may record (none). {HELP}. vcrpy's names also work: new_episodes (new) and all (rewrite).",
    )
    group.addoption(
        "--llm-unused",
        choices=["warn", "fail"],
        default="warn",
        help="What to do with records that no test used: list them in the summary, or also fail the run.",
    )
    parser.addini("llm_record", "default of --llm-record")
    parser.addini(
        "llm_cassette_dir",
        "folder for all cassettes, below the project's root, instead of 'cassettes'",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; start now if one of the plugin's options is set."""
    config.addinivalue_line("markers", MARKER)
    options = (
        config.getoption("llm_record"),
        config.getini("llm_record"),
        config.getini("llm_cassette_dir"),
    )
    if any(options) and not config.getoption("collectonly"):
        _replay(config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Note whether a test uses the marker or the fixture, even if it will not run, and whether a module
    could not be collected.
    """
    report = yield
    if report.outcome != "passed":
        collector.config.stash[IS_COLLECTED] = False
    if any(map(_uses_plugin, report.result)):
        collector.config.stash[IS_USED] = True
    return report


def _uses_plugin(node: pytest.Item | pytest.Collector) -> bool:
    return (
        "llm_cassette" in getattr(node, "fixturenames", ())
        or node.get_closest_marker("llm") is not None
    )


def _has_cassettes(folder: Path) -> bool:
    """Return whether a folder's test modules have cassettes, even if they are not collected."""
    cassettes = (folder / "cassettes").glob("*/*.jsonl")
    return any((folder / f"{cassette.parent.name}.py").is_file() for cassette in cassettes)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Start if the project uses the plugin; after other hooks, because a ``conftest.py`` may add marks
    in this one.
    """
    item_count = len(items)
    result = yield
    is_started = config.pluginmanager.has_plugin(NAME)
    is_used = config.stash.get(IS_USED, False) or any(map(_uses_plugin, items))
    is_used = is_used or any(map(_has_cassettes, {item.path.parent for item in items}))
    if is_started or (is_used and not config.getoption("collectonly")):
        is_complete = config.stash.get(IS_COLLECTED, True) and len(items) == item_count
        _replay(config).prepare(items, is_complete=is_complete)
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Add a pytest-xdist worker's results; the controller collects no tests itself."""
    output = getattr(node, "workeroutput", {}).get(NAME)
    if output is not None:
        _replay(node.config).summary.add(*output)
    elif error:  # the worker died, so it is unknown which of its tests passed
        _replay(node.config).summary.is_complete = False


def _replay(config: pytest.Config) -> Replay:
    replay: Replay | None = config.pluginmanager.get_plugin(NAME)
    if replay is None:
        from .replay import Replay

        mode = config.getoption("llm_record") or config.getini("llm_record") or "none"
        if mode not in RECORDING:
            raise pytest.UsageError(
                f"llm_record is {mode!r}; it must be one of {', '.join(RECORDING)}"
            )
        replay = Replay(config, RECORDING[mode], NAME)
        config.pluginmanager.register(replay, NAME)
    return replay


@pytest.fixture
def llm_cassette(request: pytest.FixtureRequest, llm_cassette_name: str) -> Iterator[Cassette]:
    """Yield the test's cassette, which records or replays its calls to language models: .path,
    .records, .replayed, .asked, .recorded.
    """
    with _replay(request.config).open_cassette(request.node, llm_cassette_name) as cassette:
        yield cassette


@pytest.fixture
def llm_cassette_name(request: pytest.FixtureRequest) -> str:
    """Return the file name of the test's cassette; override this fixture to change it."""
    from .naming import item_name

    return item_name(request.node)
