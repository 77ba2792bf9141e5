"""The surroundings of every test: an empty machine, and no network but the loopback."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import certifi
import hypothesis
import pytest
from commands import LONGEST, PRICED
from pytest_httpserver import HTTPServer
from servers import NumberedServer, RedisProcess

import llmcall
from llmcall.additions import FEATURES
from llmcall.support.plugins import PlugIns
from llmcall.support.waits import open_calls

SETTINGS = re.compile(
    r"(OPENAI|AZURE|XDG|LLMCALL)_|.*_PROXY$|(TIKTOKEN|DATA_GYM)_CACHE_DIR$|(COLUMNS|LINES)$"
    r"|PYTHONUNBUFFERED$",
    re.IGNORECASE,
)
# Where the llmcall under test lies, a checkout or an installed wheel: other processes are to import
# the same one.
IMPORTED_FROM = str(Path(llmcall.__file__).parents[1])
# For the package "benchmarks". At the end: in front, the checkout would hide an installed wheel.
sys.path.append(str(Path(__file__).parents[1]))
COUNTS = os.environ.get("TEST_COUNTS", "")
LONGEST_QUICK = 120.0  # seconds: no test that is neither marked ci nor slow takes so long, also on a busy machine
# Standard error as it was before pytest captured it.
STDERR = pytest.StashKey[int]()
# The same examples on every machine, however slow it is; "make test" takes the first few of them.
hypothesis.settings.register_profile(
    "all",
    max_examples=50,
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("few", hypothesis.settings.get_profile("all"), max_examples=10)
hypothesis.settings.load_profile("all")
# Newer ones also draw constants of the modules that are loaded: those depend on the tests that ran
# before in a process.
if find_spec("hypothesis.internal.conjecture.providers"):
    providers: Any = import_module("hypothesis.internal.conjecture.providers")
    providers._get_local_constants = lambda: providers._local_constants


def pytest_configure(config: pytest.Config) -> None:
    """Keep standard error for the tracebacks of tests that hang, and let Ctrl-C interrupt.

    In a shell's background job it is ignored, and what the tests start would inherit that.
    """
    config.stash[STDERR] = os.dup(2)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def most_seconds(item: pytest.Item) -> float | None:
    """Return how long a test may take, or ``None`` if it may take any time.

    The bounds in the tests that start programs, and end them, are shorter than this one, but not for quick tests: a
    hang among these shall not take minutes.
    """
    if item.get_closest_marker("programs"):
        return None
    if item.get_closest_marker("slow"):
        return 3 * LONGEST
    return LONGEST + 60 if item.get_closest_marker("ci") else LONGEST_QUICK


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a test that uses a feature which is deleted."""
    for mark in item.iter_markers("feature"):
        if mark.args[0] not in FEATURES:
            pytest.skip(f"there is no feature {mark.args[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the process of a test that hangs, after the tracebacks of all its threads.

    With pytest-xdist, the test counts as failed, and a new process runs the other tests.
    """
    seconds = most_seconds(item)
    if seconds is not None:
        faulthandler.dump_traceback_later(seconds, file=item.config.stash[STDERR], exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add the counts of this session, and the reasons to skip, to the file that .ci/run names."""
    if not COUNTS or hasattr(terminalreporter.config, "workerinput"):  # of pytest-xdist
        return
    found = terminalreporter.stats
    counts = {
        "passed": len(found.get("passed", ())),
        "failed": len(found.get("failed", ())) + len(found.get("error", ())),
        "skipped": len(found.get("skipped", ())),
    }
    with open(COUNTS, "a", encoding="utf-8") as file:
        file.writelines(f"{name}\t{count}\n" for name, count in counts.items())
        for report in found.get("skipped", ()):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            words = " ".join(str(reason).removeprefix("Skipped: ").split())
            file.write(f"reason\t{words}\n")


def scrub(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Take away every setting of the developer's, and make ``home`` the home and working directory."""
    for name in [name for name in os.environ if SETTINGS.match(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(home / ".cache" / "tiktoken"))
    monkeypatch.setenv("PYTHONPATH", IMPORTED_FROM)
    monkeypatch.chdir(home)


def refuse_unless_local(host: str | bytes | None) -> None:
    """Fail the test, past every ``except Exception``, where it would leave this machine."""
    name = host.decode() if isinstance(host, bytes) else host or ""
    if not re.fullmatch(r"(localhost|127\.[\d.]+|::1)?", name):
        pytest.fail(f"a test tried to reach {host!r}; only the loopback is allowed")


def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a socket that takes an address."""

    def guard(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            refuse_unless_local(address[0])
        return connect(self, address)

    return guard


@pytest.fixture(scope="session", autouse=True)
def only_loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Refuse the network, and hide the developer's settings from wider fixtures too."""
    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_unless_local(host)
        return look_up(host, *args, **kwargs)

    # No test asks a server with a real certificate, and reading all of them takes each client longer
    # than its calls.
    certificates = tmp_path_factory.mktemp("certificates") / "one.pem"
    certificates.write_text("".join(certifi.contents().partition("-----END CERTIFICATE-----")[:2]))
    with pytest.MonkeyPatch.context() as monkeypatch:
        scrub(monkeypatch, tmp_path_factory.mktemp("home"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates))
        monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
        monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
        monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


@pytest.fixture(autouse=True)
def empty_machine(
    only_loopback: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Run each test in an empty home without settings, and with llmcall as freshly imported."""
    scrub(monkeypatch, tmp_path)
    llmcall.reset()
    # what is registered stays after a reset
    monkeypatch.setattr("llmcall.clients.registry._registered", PlugIns("llmcall.clients"))
    yield
    assert not open_calls(), "a stream or gate of this test is still open for the next one"
    llmcall.reset()
    module = sys.modules.get("llmcall.programs.interceptors")
    assert module is None or not module.interceptors, "a recorder of this test is still open"


@pytest.fixture(scope="session")
def redis_process(only_loopback: None) -> Iterator[RedisProcess]:
    """A Redis server for the tests of a process."""
    if "redis" not in FEATURES:
        pytest.skip("there is no feature redis")
    with RedisProcess() as made:
        yield made


@pytest.fixture
def model(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> NumberedServer:
    """A model's server, which the programs of a test find; their module says how slow it may be."""
    made = NumberedServer(httpserver, slow=getattr(request.module, "SLOWLY", 0.0))
    monkeypatch.setenv("MODEL_AT", made.address)
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    return made


@pytest.fixture(params=["disk", pytest.param("redis", marks=pytest.mark.feature("redis"))])
def cache_path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty path of each kind that a cache can have."""
    if request.param == "disk":
        return str(tmp_path / "cache")
    server: RedisProcess = request.getfixturevalue("redis_process")
    with server.client() as client:
        client.flushall()
    return server.url


@pytest.fixture
def cache(cache_path: str) -> Iterator[llmcall.ResponseCache]:
    """An empty cache of each kind."""
    with llmcall.ResponseCache(cache_path) as made:
        yield made
