"""The plugin at work: each test on its cassette, opened before its fixtures and written when all of it passed."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ..errors import CacheMissError
from ..replay import scopes
from .fixtures import LiveFixture, ReplayedFixture
from .names import fixture_path, item_name, item_path
from .network import OPTION, Network
from .runs import Recorder, Run
from .tally import Tally
from .turns import Turns, make_folder, remove_folder

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest

    from ..cassettes.cassette import Cassette

__all__ = ["Replay"]

FIXTURE = "llm_cassette"
RUN = pytest.StashKey[Run]()
OUTCOMES = pytest.StashKey[list[tuple[str, str]]]()  # when, and what became of it


class Mark(NamedTuple):
    """Be what the marker nearest to a test says."""

    name: str | None = None
    live: bool = False


def mark_of(node: pytest.Item | pytest.Collector) -> Mark | None:
    """Return what a node's marker says, or ``None`` where it has none.

    :raises pytest.UsageError: where it says what no marker can.
    """
    marker = node.get_closest_marker("llm")
    if marker is None:
        return None
    try:
        mark = Mark(*marker.args, **marker.kwargs)
    except TypeError:
        what = f"{_written(marker)} is none of llm, llm(name), llm(live=True)"
        raise pytest.UsageError(f"{node.nodeid}: {what}") from None
    if mark.live and mark.name is not None:
        raise pytest.UsageError(f"{node.nodeid}: {_written(marker)}: a live test has no cassette")
    return mark


def _written(marker: pytest.Mark) -> str:
    given = [repr(value) for value in marker.args] + [f"{name}={value!r}" for name, value in marker.kwargs.items()]
    return f"@pytest.mark.llm({', '.join(given)})"


class Replay:
    """Be the plugin in one process of a project that replays.

    :param mode: the mode of every test's cassette.
    :param name: what workers of pytest-xdist and their controller put under, for each other.
    """

    def __init__(self, config: pytest.Config, mode: str, name: str) -> None:
        self.config = config
        self.mode = mode
        self.name = name
        self.tally = Tally()
        self._folder: str | None = None  # where the workers of this controller meet
        turns = Turns(getattr(config, "workerinput", {}).get(name))
        self._recorder = Recorder(mode, config.rootpath, turns, self.tally)
        self._network = Network(recording=mode != "none")
        self._network.close()

    def pytest_unconfigure(self) -> None:
        """Leave everything as it was."""
        self._network.open()
        if self._folder is not None:
            remove_folder(self._folder)

    def pytest_report_header(self) -> str | None:
        """Say that this run records."""
        return None if self.mode == "none" else f"llmcall: recording, --llm-record={self.mode}"

    # Tests

    def prepare(self, items: list[pytest.Item]) -> None:
        """Let every test that replays have its cassette before its other fixtures."""
        self.tally.complete = all(map(self._is_folder, self.config.args))
        for item in items:
            mark = mark_of(item)
            names = getattr(item, "fixturenames", None)
            if mark is not None and not mark.live and not isinstance(names, list):
                raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.llm is for test functions and methods")
            if isinstance(names, list) and (FIXTURE in names or (mark is not None and not mark.live)):
                names[:] = [FIXTURE, *(name for name in names if name != FIXTURE)]

    def _is_folder(self, argument: str) -> bool:
        return (self.config.invocation_params.dir / argument).is_dir()

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Take note that not all tests run that may share a cassette."""
        if any(map(_replays, items)):
            self.tally.complete = False

    def open(self, item: pytest.Item, name: str) -> Cassette:
        """Open a test's cassette, for the fixture.

        :param name: what the fixture ``llm_cassette_name`` gave; the marker's own name stands above it.
        """
        mark = mark_of(item) or Mark()
        if mark.live:
            raise pytest.UsageError(f"{item.nodeid}: a live test has no cassette; take the fixture {FIXTURE} away")
        path = item_path(item, mark.name or name)
        own = path == item_path(item, item_name(item))
        run = self._recorder.open_own(path) if own else self._recorder.open(path, shared=True)
        item.stash[RUN] = run
        scopes.forget()  # the draws of LLMCALL_SCOPE must not depend on the tests before
        run.begin()
        item.addfinalizer(run.end)
        return run.cassette

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Know which test runs, and whether it may reach the model."""
        mark = mark_of(item)
        self._network.test, self._network.live = item.nodeid, mark is not None and mark.live
        try:
            return (yield)
        finally:
            self._network.test, self._network.live = "", False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin anew, also where a test is run again."""
        item.stash[OUTCOMES] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Take note of what became of each part of a test; beside a miss, say how to record it."""
        report = yield
        item.stash[OUTCOMES].append((report.when, report.outcome))
        missed = call.excinfo is not None and _is_miss(call.excinfo.value)
        if report.failed and missed and OPTION not in report.longreprtext:
            run = item.stash.get(RUN, None)
            mode = "new" if run is None or run.cassette.path.exists() else "once"
            report.sections.append(("llmcall", f"To record what is missing: {self._network.command(mode)}"))
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Write the test's cassette where all of it passed, this too."""
        try:
            result = yield
        except BaseException:
            self._close(item, passed=False)
            raise
        outcomes = item.stash[OUTCOMES]
        passed = "call" in dict(outcomes) and all(outcome == "passed" for _, outcome in outcomes)
        self._close(item, passed)
        return result

    def _close(self, item: pytest.Item, passed: bool) -> None:
        if not passed and _replays(item):
            self.tally.complete = False
        run = item.stash.get(RUN, None)
        if run is not None:
            del item.stash[RUN]
            run.close(passed)

    # Wider fixtures

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: SubRequest
    ) -> Generator[None, object, object]:
        """Set a wider fixture up on its own cassette, and have it torn down on it."""
        __tracebackhide__ = True
        if fixturedef.scope == "function":
            return (yield)
        mark = mark_of(request.node)
        live = mark is not None and mark.live
        fixture = (
            LiveFixture(self._network) if live else ReplayedFixture(self._recorder, fixture_path(fixturedef, request))
        )
        fixturedef.addfinalizer(fixture.end)  # the first one is called last
        fixture.begin()
        try:
            result = yield
        except BaseException:
            fixture.end(passed=False)
            raise
        fixture.end()
        fixturedef.addfinalizer(fixture.begin)
        return result

    # The whole run

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist where the workers meet that record."""
        if self.mode != "none":
            self._folder = self._folder or make_folder()
            node.workerinput[self.name] = self._folder

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Hand a worker's counts to its controller; let the run fail where records are unused and may not be."""
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if session.shouldstop or session.shouldfail or not ended:
            self.tally.complete = False
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[self.name] = self.tally.dump()
        elif self.config.getoption("llm_unused") == "fail" and self.tally.unused() and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was replayed and recorded, and what was not used."""
        for number, line in enumerate(self.tally.lines()):
            terminalreporter.write_line(line, yellow=number > 0)


def _replays(item: pytest.Item) -> bool:
    return FIXTURE in getattr(item, "fixturenames", ())


def _is_miss(error: BaseException | None) -> bool:
    """Tell whether an error is a miss, or has one as its reason."""
    seen: list[BaseException] = []
    while error is not None and not any(error is each for each in seen):
        if isinstance(error, CacheMissError):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
