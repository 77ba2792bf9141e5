"""The plugin once it has started: it opens each test's cassette before the test's other fixtures, and
writes it if the test passed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ...config.cassette_modes import MODES
from ...core.calls import Call
from ...errors import CacheError, CacheMissError, ConfigError
from ...keys.keys import short_key
from ...programs.connections import configured_models, refused_connection
from ...programs.entry import recording_programs
from ...programs.interceptors import Interceptor, Sight
from ...programs.patches import patched_by
from ...review.conversations import record_name
from ...scopes.active import forget_scopes
from ...stores.cassettes.cassette import Cassette, keep_in_cache
from ...stores.cassettes.current import none_open
from ...stores.cassettes.replay_log import NO_CALLS, SortKey, without_lone_callers
from ...stores.cassettes.reports import Owner
from ...stores.record import Record
from ...stores.records.reader import read
from ...stores.records.writer import write
from ...support.display import visible
from ...support.failures import REFUSED, process_failures
from ...support.listeners import CallListener, listen, stop_listening
from ...support.notices import forget_notices, keep_notices, notice, stop_keeping_notices
from ...support.tracebacks import hide_own_frames, is_own
from .naming import item_name, item_path, read_marker
from .summary import CassetteUse, Summary

FIXTURE = "llm_cassette"
OUTCOMES = pytest.StashKey[list[str]]()  # of a test's phases


class _Connections(Interceptor):
    """A guard that refuses connections to models in tests without a cassette, and lets all requests pass.

    :param are_allowed: returns whether the current test may connect.
    """

    passes_requests = True

    def __init__(self, are_allowed: Callable[[], bool]) -> None:
        self._models = configured_models()
        self._are_allowed = are_allowed

    def known_models(self) -> set[tuple[str, int]]:
        """Return the addresses of the models that the settings name."""
        return self._models

    def note(self, sight: Sight, address: str) -> None:
        """Refuse a connection to a model, unless the test may connect.

        :raises ConnectionRefusedError: if it may not.
        """
        if sight == Sight.MODEL_CONNECTION and not self._are_allowed():
            raise refused_connection(
                address, "this test has no cassette; mark it with @pytest.mark.llm"
            )


class Replay(CallListener):
    """The started plugin in one process.

    :param mode: the mode of every test's cassette.
    :param name: the name under which a pytest-xdist worker reports to its controller.
    :ivar summary: of the tests that have run.
    """

    def __init__(self, config: pytest.Config, mode: str, name: str) -> None:
        self.config = config
        self.mode = mode
        self.name = name
        self.summary = Summary()
        self._is_worker = hasattr(config, "workerinput")
        self._recorded_paths: set[Path] = set()
        # By cassette: the first calls of the tests that passed, whose records keep their order.
        self._first_calls: dict[Path, Mapping[str, SortKey]] = {}
        self._live = False  # whether the current test may reach the model
        self._miss: CacheMissError | None = None  # the first one of the current test
        # A listener, because neither a cassette nor a cache mode can refuse all calls: a test's code may
        # open a cassette that records.
        listen(self)
        config.add_cleanup(lambda: stop_listening(self))
        # An SDK in a test without a cassette cannot connect to a model either; a mocked one may answer.
        patches = contextlib.ExitStack()
        with contextlib.suppress(ConfigError):  # tests that need the settings will report it
            patches.enter_context(patched_by(_Connections(lambda: self._live)))
        config.add_cleanup(patches.close)

    def pytest_report_header(self) -> str | None:
        """Return a line if this run records."""
        records = MODES[self.mode].records
        return f"llmcall: recording, --llm-record={self.mode}" if records else None

    def asks(self, call: Call) -> None:
        """Refuse a call without a recorded answer, unless the test may reach the model or the client
        answers in this process.
        """
        __tracebackhide__ = True
        cassette = call.cassette
        may_record = cassette is not None and MODES[self.mode].records
        if self._live or may_record or call.at.sends_nothing:
            return
        if cassette is not None:
            raise CacheMissError(
                f"no answer is recorded in {cassette.path}, and this run does not record; record it with "
                f"{recording_command('once')}"
            )
        raise CacheMissError(
            "this test, or its fixture with a wider scope, has no cassette, so it may not call a model. Mark the "
            "test with @pytest.mark.llm, or open llmcall.cassette(…) in the fixture, and record it with "
            f"{recording_command('once')}; or mark it @pytest.mark.llm(live=True); or use "
            "llmcall.testing.ScriptedClient"
        )

    def refused(self, call: object, error: Exception) -> None:
        """Keep the current test's first miss for the summary."""
        if self._miss is None and isinstance(error, CacheMissError):
            self._miss = error

    # Tests

    def prepare(self, items: list[pytest.Item], *, is_complete: bool) -> None:
        """Make the cassette the first fixture of every test that uses one.

        :param is_complete: ``True`` if all collected tests will run.
        """
        self.summary.is_complete = is_complete
        for item in items:
            names: list[str] = getattr(item, "fixturenames", [])
            is_recorded = item.get_closest_marker("llm") is not None and not read_marker(item).live
            if is_recorded or FIXTURE in names:
                names[:] = [FIXTURE, *(name for name in names if name != FIXTURE)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Note whether the current test may reach the model."""
        self._live = read_marker(item).live
        self._miss = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Show the test's frames of an llmcall error, and what changed in the summary; note the
        outcome of each phase.
        """
        error = None if call.excinfo is None else call.excinfo.value
        # An SDK raises an error of its own with the report as its words: ConflictError, status 409.
        is_refusal = self._miss is not None and str(self._miss).partition("\n")[0] in str(error)
        if error is not None and (is_refusal or is_own(error)):
            hide_own_frames(error, is_refusal=is_refusal)
            call.excinfo = pytest.ExceptionInfo.from_exception(error)
        report = yield
        miss = None if self._miss is None or not report.failed else self._miss.miss
        crash = getattr(report.longrepr, "reprcrash", None)
        if miss and crash and short_key(miss.cache_key) in crash.message:
            words = miss.changes() or str(miss).partition("\n")[0]
            crash.message = f"{CacheMissError.__name__}: {words}"
        if report.when == "setup":  # also if the test is run again
            item.stash[OUTCOMES] = []
        item.stash[OUTCOMES].append(report.outcome)
        if not report.passed and FIXTURE in getattr(item, "fixturenames", ()):
            self.summary.is_complete = False
        return report

    @contextlib.contextmanager
    def open_cassette(self, item: pytest.Item, name: str) -> Iterator[Cassette]:
        """Open a test's cassette for its fixture, and write it at the end if the test passed.

        If this run has recorded to it before, records are added. Workers of pytest-xdist only replay
        shared cassettes, because they would overwrite one another's records.

        :param name: from the fixture ``llm_cassette_name``; a name in the marker overrides it.
        """
        mark = read_marker(item)
        name = mark.name or name
        path, is_shared = item_path(item, name), name != item_name(item)
        mode = self.mode
        if is_shared and self._is_worker:
            mode = "none"
        elif (is_shared and MODES[mode].moves_unused) or path in self._recorded_paths:
            mode = "new"  # other tests may use the records that this one does not
        if is_shared and not MODES[mode].reads and path.exists():
            with contextlib.suppress(CacheError):  # a damaged file is replaced
                keep_in_cache(read(path))  # tests that this run leaves out may need them
        # Later additions to a rewritten cassette are requested anew, too.
        test = TestOwner(not MODES[self.mode].reads, self._first_calls.get(path, NO_CALLS))
        around = functools.partial(recording_programs, actor=mark.actor)
        cassette = Cassette(path, mode, owner=test, around=around)
        unused: list[Record] = []
        # The draws of LLMCALL_SCOPE and the warnings must not depend on earlier tests.
        forget_scopes()
        forget_notices()
        notices = keep_notices()  # pytest shows the logs of failed tests only
        if not MODES[self.mode].reads and not MODES[mode].records:
            notice(
                "several tests may share it, so a worker of pytest-xdist replayed it; -n 0 records it anew"
            )
        try:
            with cassette:
                yield cassette
                outcomes = item.stash.get(OUTCOMES, [])  # empty after Ctrl-C in the setup
                if len(outcomes) > 1 and set(outcomes) == {"passed"}:
                    test.writes = test.raises_refusals = True
                is_known = not is_shared or self._collects_all_of(path)
                if is_known and test.writes and not cassette.failures.counts():
                    unused = cassette.unused()
                    if MODES[self.mode].moves_unused:  # but keeps further draws of its requests
                        unused = [*cassette.tape.not_of_run(unused)]
        finally:
            stop_keeping_notices(notices)
            self._add_use(cassette, unused, notices, is_shared=is_shared)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Set up a fixture with a wider scope outside the cassette of the test that needs it first."""
        if fixturedef.scope == "function":
            return (yield)
        with none_open():
            return (yield)

    def _add_use(
        self, cassette: Cassette, unused: list[Record], notices: Iterable[str], *, is_shared: bool
    ) -> None:
        """Add the use of a closed cassette."""
        root, path = self.config.rootpath, cassette.path
        name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
        gained, unwritten = (cassette.asked, cassette.supplied, cassette.recorded), 0
        if not cassette.file.is_written:
            gained, unwritten = (0, 0, 0), cassette.recorded
        labels = {record.cache_key: record_name(record) for record in unused}
        use = CassetteUse(name, is_shared, cassette.replayed, *gained, unwritten, labels)
        self.summary.uses.append(use)
        if cassette.owner.writes:  # a failed test's log is shown
            # The path is taken out of the message, so that equal messages of many cassettes share a line.
            words = re.escape(str(path))
            for message in notices:
                text = re.sub(f"^{words}: ", "", message)
                text = re.sub(f"(the cassette )?{words}", "the cassette", text)
                self.summary.notices.append((text, name))
        if any(gained):
            self._recorded_paths.add(cassette.path)
        if cassette.owner.writes:
            self._first_calls[cassette.path] = cassette.tape.log.first_calls()

    def _collects_all_of(self, path: Path) -> bool:
        """Return whether this run collects all tests of a cassette's folder; ``llm_cassette_dir`` mirrors it."""
        root, start = self.config.rootpath, self.config.invocation_params.dir
        base_folder = root / str(self.config.getini("llm_cassette_dir"))
        if path.is_relative_to(base_folder):
            path = root / path.relative_to(base_folder)
        folders = [Path(os.path.normpath(start / argument)) for argument in self.config.args]
        return any(folder.is_dir() and path.is_relative_to(folder) for folder in folders)

    # The whole run

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Remove unused records in the mode ``update``; fail the run if they are an error."""
        has_ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        # An --ignore in addopts is not counted: such modules are not the project's tests.
        arguments = map(str, self.config.invocation_params.args)
        ignores = any(argument.startswith("--ignore") for argument in arguments)
        is_cut = session.shouldstop or session.shouldfail or not has_ended
        if is_cut or ignores or self.config.getoption("lf", False):
            self.summary.is_complete = False
        process_failures.forget(*REFUSED)  # failed tests report them
        if self._is_worker:
            vars(self.config)["workeroutput"][self.name] = self.summary.results()
            return
        if MODES[self.mode].moves_unused:
            for name, unused in self.summary.unused().items():
                self._drop(self.config.rootpath / name, unused)
                self.summary.dropped[name] = len(unused)
        has_passed = exitstatus == pytest.ExitCode.OK
        is_error = self.config.getoption("llm_unused") == "fail"
        if has_passed and is_error and self.summary.unused():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _drop(self, path: Path, keys: Container[str]) -> None:
        """Move records from a file to the disk cache."""
        file = read(path)
        keep_in_cache([record for record in file if record.cache_key in keys])
        kept = [record for record in file if record.cache_key not in keys]
        if file.header.is_complete:
            kept = [*without_lone_callers(kept)]
        write(path, file.header, kept, replaces=file.content)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the summary: calls replayed and recorded, warnings, and unused records."""
        for number, line in enumerate(self.summary.lines()):
            terminalreporter.write_line(f"llmcall: {visible(line)}", yellow=number > 0)


CURRENT_TEST = "PYTEST_CURRENT_TEST"


class TestOwner(Owner):
    """A test of the pytest plugin, which reports the use itself, since other tests may use the file, too. The file is
    written once the test has passed.

    :param bypasses_cache: ``True`` if this run requests everything anew.
    :param earlier_calls: the first calls of the tests that have passed.
    """

    writes = False
    raises_refusals = False  # a failed test reports its own error
    knows_use = False

    def __init__(self, bypasses_cache: bool, earlier_calls: Mapping[str, SortKey]) -> None:
        self.bypasses_cache = bypasses_cache
        self.earlier_calls = earlier_calls

    def place(self) -> str:
        return "for this test by the pytest plugin; remove one of the two"

    def how_to_record(self, path: Path, mode: str) -> str:
        return recording_command(mode)


def recording_command(mode: str) -> str:
    """Return the command that records the running test."""
    test = os.environ.get(CURRENT_TEST, "").rpartition(" (")[0]
    one_process = "-n 0 " if "PYTEST_XDIST_WORKER" in os.environ else ""
    return f"pytest {one_process}--llm-record={mode} {shlex.quote(test) if test else ''}".rstrip()
