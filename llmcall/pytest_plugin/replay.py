"""The plugin at work: each test's cassette opens before its fixtures, and is written if the test
passed.

Each process counts what it replayed, recorded and left unused, and one process adds up the counts.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from .. import askers, scopes
from ..cassettes.cassette import Cassette
from ..cassettes.current import guards, opened_by_code
from ..cassettes.misses import recording_command
from ..cassettes.stack import pop, push
from ..cassettes.unused import drop_records, keep_in_cache
from ..display.formatting import counted
from ..errors import CacheMissError, ConfigError
from ..failures import REFUSED, before_add, process_failures
from ..notices import forget_notices, keep_notices, stop_keeping_notices
from ..programs.blocks import recording_programs
from ..programs.connections import refusal
from ..programs.front import in_front
from ..programs.recorder import Recorder
from ..records.reader import read
from ..testing import answers_in_process

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest


# The names of cassettes: readable, the same in every run, good on every file system

FOLDER = "cassettes"
SUFFIX = ".jsonl"
LONGEST_NAME = 100  # characters
DIGEST_DIGITS = 8
UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+\[\]-]+")
# Another test's name may differ only in case, which some file systems ignore.
UPPER = re.compile(r"\[.*[A-Z].*\]|(?:^|\.)test\w*[A-Z]")
# How pytest names the fixtures that it makes of setup functions (pytest 8 and 9).
SETUP_FIXTURE = re.compile(r"^_(?:xunit|unittest)_(\w+?)_fixture_.*")


def item_name(item: pytest.Item) -> str:
    """Return the name of a test's cassette: its classes, its name and its parameters."""
    return _name_below(item, item.name)


def _name_below(node: pytest.Item | pytest.Collector, name: str) -> str:
    """Return a file's name for a test's or fixture's name, such as
    ``TestMarket.test_buys[bread-3]`` with its classes.

    If a character is replaced, or two names may differ only in case, a digest of the name is added.
    """
    full_name = ".".join(
        [*(each.name for each in node.listchain() if isinstance(each, pytest.Class)), name]
    )
    safe_name = UNSAFE.sub("_", full_name)
    if safe_name == full_name and len(full_name) <= LONGEST_NAME and not UPPER.search(full_name):
        return safe_name + SUFFIX
    digest = hashlib.sha256(full_name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_DIGITS]
    return f"{safe_name[: LONGEST_NAME - DIGEST_DIGITS - 1]}-{digest}{SUFFIX}"


def item_path(item: pytest.Item, name: str) -> Path:
    """Return the file of a test's cassette.

    :param name: from the marker, a fixture or :func:`item_name`.
    :raises pytest.UsageError: if it is not a name.
    """
    if not isinstance(name, str) or not name.strip():
        raise pytest.UsageError(f"{item.nodeid}: a cassette's name must be a string, not {name!r}")
    path = _folder(item.config, item.path) / (name if Path(name).suffix else name + SUFFIX)
    # Tests of several modules may share "../shared.jsonl", which must have one name.
    return Path(os.path.normpath(path))


def _folder(config: pytest.Config, module: Path) -> Path:
    """Return the folder of a test module's cassettes."""
    base_folder = config.getini("llm_cassette_dir")
    if not base_folder:
        return module.parent / FOLDER / module.stem
    root = config.rootpath
    module_path = module.with_suffix("")
    is_in_project = module_path.is_relative_to(root)
    subfolder = module_path.relative_to(root) if is_in_project else Path(module_path.name)
    return root / str(base_folder) / subfolder


def fixture_path(fixture: pytest.FixtureDef[Any], request: SubRequest) -> Path:
    """Return the file of the cassette of a fixture with a wider scope: beside the module, class or
    package that it is set up for; for a session, beside the fixture's definition.
    """
    node, config = request.node, request.config
    is_session = isinstance(node, pytest.Session)
    location = config.rootpath / fixture.baseid.partition("::")[0] if is_session else node.path
    module = location if location.suffix == ".py" else location / "conftest.py"
    return _folder(config, module) / _name_below(node, _fixture_name(fixture, request))


def _fixture_name(fixture: pytest.FixtureDef[Any], request: SubRequest) -> str:
    name = SETUP_FIXTURE.sub(r"\1", fixture.argname)
    if not hasattr(request, "param"):
        return name
    ids = fixture.ids
    index = request.param_index
    parameter_id = ids[index] if isinstance(ids, (list, tuple)) else request.param
    is_readable = isinstance(parameter_id, (str, int, float, type(None)))
    return f"{name}[{parameter_id if is_readable else index}]"


# The plugin

FIXTURE = "llm_cassette"
OPENED = pytest.StashKey[tuple[Cassette, contextlib.ExitStack]]()
OUTCOMES = pytest.StashKey[list[str]]()  # of a test's setup and of its calls


class Mark(NamedTuple):
    """The arguments of a test's nearest marker."""

    name: str | None = None
    live: bool = False
    actor: Any = None  # who asks with an SDK, as of llmcall.cassette


def mark_of(node: pytest.Item | pytest.Collector) -> Mark:
    """Return the arguments of a node's marker, or the defaults without one.

    :raises pytest.UsageError: if the arguments are wrong.
    """
    marker = node.get_closest_marker("llm")
    if marker is None:
        return Mark()
    with contextlib.suppress(TypeError):
        mark = Mark(*marker.args, **marker.kwargs)
        if mark.name is None or not mark.live:
            return mark
    arguments = [
        *map(repr, marker.args),
        *(f"{name}={value!r}" for name, value in marker.kwargs.items()),
    ]
    problem = f"@pytest.mark.llm({', '.join(arguments)}) must be llm, llm(name), llm(actor=…) or llm(live=True)"
    raise pytest.UsageError(f"{node.nodeid}: {problem}")


class _Connections(Recorder):
    """Refuses the connections to models of tests without a cassette.

    :param are_allowed: returns whether the test that runs now may connect.
    """

    passes_requests = True

    def __init__(self, are_allowed: Callable[[], bool]) -> None:
        super().__init__(None, {}, caller="the pytest plugin")
        self._are_allowed = are_allowed

    def note_connection(self, host: str) -> None:
        """Refuse a connection to a model, unless it is allowed.

        :raises ConnectionRefusedError: if it is not.
        """
        if not self._are_allowed():
            raise refusal(host, "this test has no cassette; mark it with @pytest.mark.llm")


class Replay:
    """The plugin in one process of a project that replays.

    :param mode: of every test's cassette.
    :param name: under which workers of pytest-xdist and their controller exchange data.
    """

    def __init__(self, config: pytest.Config, mode: str, name: str) -> None:
        self.config = config
        self.mode = mode
        self.name = name
        self.report = RunReport()
        self._has_parameters = False  # whether the test that runs now has any
        self._live = False  # whether the test or fixture that runs now may reach the model
        self._recorded_paths: set[Path] = set()  # of the cassettes that this run has recorded
        self._refused: Counter[str] = Counter()  # calls of the test that runs now, by reason
        # Code may open cassettes that record, so neither a cassette nor a cache mode can refuse all
        # calls.
        guards.append(self._check)
        # Nor does a test's SDK reach a model without a cassette; one that is mocked may answer.
        front = contextlib.ExitStack()
        with contextlib.suppress(ConfigError):  # a test that needs the settings tells it
            front.enter_context(in_front(_Connections(lambda: self._live)))
        config.add_cleanup(front.close)
        config.add_cleanup(lambda: guards.remove(self._check))
        before_add.append(self._note_refused)
        config.add_cleanup(lambda: before_add.remove(self._note_refused))

    def pytest_report_header(self) -> str | None:
        """Return a line if this run records."""
        return None if self.mode == "none" else f"llmcall: recording, --llm-record={self.mode}"

    # The network

    def _check(self, client: object, cassette: Cassette | None) -> None:
        """Refuse a call that no record answers, unless it may reach the model or its client sends
        nothing.
        """
        __tracebackhide__ = True
        may_record = cassette is not None and self.mode != "none"
        if self._live or may_record or answers_in_process(client):
            return
        if cassette is not None:
            raise CacheMissError(
                f"no answer is recorded in {cassette.path}, and this run records nothing; record it with "
                f"{recording_command('once')}"
            )
        raise CacheMissError(
            "this test has no cassette, so its calls may not reach a model. Mark it with "
            f"@pytest.mark.llm and record it with {recording_command('once')}; or let it reach the "
            "model with @pytest.mark.llm(live=True); or use llmcall.testing.ScriptedClient, whose "
            "answers are written in the test"
        )

    def _note_refused(self, scope: str, description: str, reason: str) -> None:
        if reason in REFUSED:
            self._refused[reason] += 1

    # Tests

    def prepare(self, items: list[pytest.Item], *, is_complete: bool) -> None:
        """Make the cassette the first fixture of every test that replays.

        :param is_complete: whether all collected tests are run.
        """
        self.report.is_complete = is_complete
        for item in items:
            names = getattr(item, "fixturenames", ())
            if FIXTURE not in names and (
                mark_of(item).live or item.get_closest_marker("llm") is None
            ):
                continue
            if not isinstance(names, list):
                raise pytest.UsageError(
                    f"{item.nodeid}: @pytest.mark.llm is for test functions and methods"
                )
            names[:] = [FIXTURE, *(name for name in names if name != FIXTURE)]

    @functools.cached_property
    def _collected_folders(self) -> list[Path]:
        """Return the folders of which this run collects all tests."""
        start_folder = self.config.invocation_params.dir
        arguments = [Path(os.path.normpath(start_folder / each)) for each in self.config.args]
        return [each for each in arguments if each.is_dir()]

    def _collects_all_of(self, path: Path) -> bool:
        """Return whether this run collects all tests in the folder of a cassette.

        In ``llm_cassette_dir``, that is the folder whose cassettes are there.
        """
        root = self.config.rootpath
        base_folder = root / str(self.config.getini("llm_cassette_dir") or "")
        if base_folder != root and path.is_relative_to(base_folder):
            path = root / path.relative_to(base_folder)
        return any(map(path.is_relative_to, self._collected_folders))

    def open(self, item: pytest.Item, name: str) -> Cassette:
        """Open a test's cassette, for the fixture.

        :param name: from the fixture ``llm_cassette_name``; a name in the marker overrides it.
        """
        mark = mark_of(item)
        if mark.live:
            raise pytest.UsageError(
                f"{item.nodeid}: a live test has no cassette; remove the fixture {FIXTURE}"
            )
        cassette_name = mark.name or name
        path = item_path(item, cassette_name)
        is_shared = cassette_name != item_name(item)
        scopes.forget()  # the draws of LLMCALL_SCOPE must not depend on the tests before
        stack = contextlib.ExitStack()
        cassette = stack.enter_context(self._open_cassette(path, mark.actor, is_shared=is_shared))
        item.stash[OPENED] = cassette, stack
        return cassette

    @contextlib.contextmanager
    def _open_cassette(
        self, path: Path, actor: Any = None, *, is_shared: bool = False
    ) -> Iterator[Cassette]:
        """Open a cassette for a block, which sets ``write_at_end`` if all passed.

        If this run has already recorded it, records are added. Workers of pytest-xdist would overwrite
        one another's records, so they only replay a cassette that others may use.

        :param actor: names who asks with an SDK.
        :param is_shared: whether other tests may use it.
        """
        mode = self.mode
        if is_shared and hasattr(self.config, "workerinput"):
            mode = "none"
        elif mode == "update" or path in self._recorded_paths:
            mode = "new"  # unused records are known, and removed, only after all tests
        # A cassette that is rewritten asks again for all that is added to it.
        bypasses_cache = self.mode == "rewrite"
        if is_shared and mode == "rewrite" and path.exists():
            keep_in_cache(read(path).records())  # of tests that this run leaves out
        forget_notices()  # a test's warnings must not depend on the tests before
        notices = keep_notices()  # pytest shows the log of failed tests only
        end = contextlib.ExitStack()
        end.callback(stop_keeping_notices, notices)
        opened = recording_programs(
            Cassette(path, mode, write=False, bypasses_cache=bypasses_cache), actor
        )
        # Nor must its askers depend on them, or on which test sets up a fixture.
        with end, askers.numbered_anew(), opened as cassette:
            try:
                yield cassette
            finally:
                root = self.config.rootpath
                relative_path = path.relative_to(root) if path.is_relative_to(root) else path
                name = relative_path.as_posix()
                self.report.add(name, cassette)
                if is_shared:
                    self.report.note_shared(name, is_collected=self._collects_all_of(path))
                self.report.add_notices(name, notices)
        if cassette.may_record and cassette.write_at_end and cassette.recorded:
            self.report.asked += cassette.asked
            self.report.recorded += cassette.recorded
            self._recorded_paths.add(path)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Note what is known of the test that runs now."""
        self._live = mark_of(item).live
        self._has_parameters = hasattr(item, "callspec")
        self._refused = Counter()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note the outcome of each phase of a test."""
        report = yield
        if report.when == "setup":  # also if the test is run again
            item.stash[OUTCOMES] = []
        item.stash[OUTCOMES].append(report.outcome)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Write the test's cassette if the whole test passed, its teardown included."""
        passed = False
        try:
            result = yield
            setup, *call = item.stash[OUTCOMES]
            passed = bool(call) and {setup, *call} == {"passed"}
            return result
        finally:
            if not passed and FIXTURE in getattr(item, "fixturenames", ()):
                self.report.is_complete = False
            if passed and OPENED not in item.stash:  # a cassette raises what was refused
                self.report.refused.update(
                    {(item.nodeid, reason): count for reason, count in self._refused.items()}
                )
            if OPENED in item.stash:
                cassette, stack = item.stash[OPENED]
                del item.stash[OPENED]
                cassette.write_at_end = passed
                stack.close()

    # Wider fixtures

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: SubRequest
    ) -> Generator[None, object, object]:
        """Set up a fixture with a wider scope on its own cassette, and tear it down on the same."""
        __tracebackhide__ = True
        if fixturedef.scope == "function":
            return (yield)
        # It may be set up for each parameter: its own or that of a fixture that it uses.
        is_shared = self._has_parameters or hasattr(self.config, "workerinput")
        path = fixture_path(fixturedef, request)
        replayed = functools.partial(self._replayed, path, is_shared=is_shared)
        context = self._on_the_network if mark_of(request.node).live else replayed
        at_teardown = contextlib.ExitStack()
        fixturedef.addfinalizer(at_teardown.close)  # the first finalizer is called last
        with context():
            result = yield
        fixturedef.addfinalizer(lambda: at_teardown.enter_context(context()))
        return result

    @contextlib.contextmanager
    def _replayed(self, path: Path, *, is_shared: bool) -> Iterator[None]:
        """Replay the calls of a block from its own cassette."""
        with self._open_cassette(path, is_shared=is_shared) as cassette:
            yield
            cassette.write_at_end = True

    @contextlib.contextmanager
    def _on_the_network(self) -> Iterator[None]:
        """Allow the calls of a block to reach the model, outside the test's cassette."""
        was_live = self._live
        cassette = opened_by_code()
        self._live = True
        if cassette is not None:
            pop(cassette)
        try:
            yield
        finally:
            self._live = was_live
            if cassette is not None:
                push(cassette)

    # The whole run

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Pass a worker's counts to its controller; fail the run if unused records are an error."""
        has_ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if session.shouldstop or session.shouldfail or not has_ended:
            self.report.is_complete = False
        process_failures.forget(*REFUSED)  # the summary or a test's failure tells them
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[self.name] = pickle.dumps(self.report)
            return
        # What addopts ignores is no part of the project's tests.
        arguments = map(str, self.config.invocation_params.args)
        ignores = any(argument.startswith("--ignore") for argument in arguments)
        if ignores or getattr(self.config.option, "lf", False):
            self.report.is_complete = False
        if self.mode == "update":
            self.report.drop_unused(self.config.rootpath)
        fails_on_unused = self.config.getoption("llm_unused") == "fail"
        if fails_on_unused and exitstatus == pytest.ExitCode.OK and self.report.unused():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what was replayed and recorded, and what was not used."""
        for number, line in enumerate(self.report.lines()):
            terminalreporter.write_line(line, yellow=number > 0)


MOST_NAMES = 3  # unused records that the summary names for each cassette


class RunReport:
    """Counts calls, calls that left no record, and records that answered no call.

    :ivar replayed: number of calls that a cassette answered.
    :ivar asked: number of written records that a model was asked for.
    :ivar recorded: number of written records, including those from the disk cache.
    :ivar dropped_counts: by cassette, the number of records that were removed from it.
    :ivar notices: the warnings that were logged while cassettes were open, with their names.
    """

    def __init__(self) -> None:
        self.replayed = 0
        self.asked = 0
        self.recorded = 0
        self.dropped_counts: dict[str, int] = {}
        self.notices: dict[str, set[str]] = {}
        self.is_complete = True  # no collected test was left out, skipped or failed
        # calls of passed tests, by cassette and reason
        self.unrecorded: Counter[tuple[str, str]] = Counter()
        # by passed test and reason
        self.refused: Counter[tuple[str, str]] = Counter()
        # by cassette and key: what they are called
        self.unused_records: dict[str, dict[str, str]] = {}
        self.shared_cassettes: dict[str, bool] = {}  # whether all tests that use it are collected

    def add(self, name: str, cassette: Cassette) -> None:
        """Add what a cassette did for a test; if the test passed, also its unused records and the
        calls that are not recorded.

        :param name: the cassette's file, as in the summary.
        """
        self.replayed += cassette.replayed
        unused: dict[str, str] = {}
        if cassette.write_at_end:  # the test passed
            from ..review.text import record_name

            unused = {record.cache_key: record_name(record) for record in cassette.unused()}
            self.unrecorded.update(
                {(name, reason): count for reason, count in cassette.failures.counts().items()}
            )
        self._keep_unused(name, unused)

    def note_shared(self, name: str, *, is_collected: bool) -> None:
        """Note that several tests may use a cassette: its unused records are known only if all of
        them ran and passed.

        :param is_collected: whether this run collects all tests in the folder of the cassette.
        """
        self.shared_cassettes[name] = is_collected

    def add_notices(self, name: str, notices: Iterable[str]) -> None:
        """Add the warnings that were logged while a cassette was open."""
        for message in notices:
            self.notices.setdefault(message, set()).add(name)

    def _keep_unused(self, name: str, unused: Mapping[str, str]) -> None:
        earlier = self.unused_records.get(name, unused)
        self.unused_records[name] = {key: label for key, label in earlier.items() if key in unused}

    def unused(self) -> dict[str, list[str]]:
        """Return the names of each cassette's unused records, if all its tests ran."""
        return {
            name: list(unused.values())
            for name, unused in sorted(self.unused_records.items())
            if unused and (name not in self.shared_cassettes or self._has_run_all_of(name))
        }

    def _has_run_all_of(self, name: str) -> bool:
        """Return whether all tests that use a shared cassette ran and passed."""
        return self.is_complete and self.shared_cassettes[name]

    def drop_unused(self, root: Path) -> None:
        """Move the records that no test used to the disk cache, unless a call of theirs failed.

        :param root: the folder from which cassettes are named.
        """
        failed_cassettes = {name for name, _ in self.unrecorded}
        for name in self.unused().keys() - failed_cassettes:
            keys = self.unused_records.pop(name)
            drop_records(root / name, keys)
            self.dropped_counts[name] = len(keys)

    def merge(self, pickled: bytes) -> None:
        """Add the report of another process."""
        other: RunReport = pickle.loads(pickled)
        self.replayed += other.replayed
        self.asked += other.asked
        self.recorded += other.recorded
        self.is_complete = self.is_complete and other.is_complete
        self.shared_cassettes |= other.shared_cassettes
        self.unrecorded.update(other.unrecorded)
        self.refused.update(other.refused)
        for message, names in other.notices.items():
            self.notices.setdefault(message, set()).update(names)
        for name, unused in other.unused_records.items():
            self._keep_unused(name, unused)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        if self.replayed or self.recorded:
            supplied = self.recorded - self.asked
            recorded_text = f"{self.recorded:,} recorded" + (
                f" ({self.asked:,} asked, {supplied:,} from the cache)" if supplied else ""
            )
            yield f"llmcall: {counted(self.replayed, 'call')} replayed, {recorded_text}"
        for (name, reason), count in sorted(self.unrecorded.items()):
            consequence = (
                "is not recorded, so a replay will not find it"
                if count == 1
                else "are not recorded, so a replay will not find them"
            )
            yield f"llmcall: {counted(count, 'call')} of {name} {reason} and {consequence}"
        for (name, reason), count in sorted(self.refused.items()):
            calls = counted(count, "call")
            yield f"llmcall: {calls} of {name} {reason}, but the test passed: its code caught the error"
        for message, cassettes in sorted(self.notices.items(), key=lambda item: min(item[1])):
            more = f" and {len(cassettes) - 1} more" if len(cassettes) > 1 else ""
            yield f"llmcall: {min(cassettes)}{more}: {message}"
        for name, count in sorted(self.dropped_counts.items()):
            verb = "was" if count == 1 else "were"
            yield f"llmcall: {counted(count, 'record')} of {name} {verb} not used and {verb} moved to the disk cache"
        unused = self.unused()
        for name, labels in unused.items():
            names = ", ".join(labels[:MOST_NAMES]) + (
                f", and {len(labels) - MOST_NAMES} more" if len(labels) > MOST_NAMES else ""
            )
            verb = "was" if len(labels) == 1 else "were"
            yield f"llmcall: {counted(len(labels), 'record')} of {name} {verb} not used: {names}"
        if unused:
            yield "llmcall: --llm-record=update moves such records to the disk cache, and asks only for missing ones"
