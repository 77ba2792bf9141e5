"""A program that runs in this process as Python would run it, recorded until the process ends."""

from __future__ import annotations

import atexit
import contextlib
import importlib.machinery
import logging
import multiprocessing
import os
import pkgutil
import runpy
import signal
import sys
import types
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..config import resolve as config
from ..config.values import without_password
from ..engine.usage import process_meter
from ..errors import LLMCallError, shorten
from ..notices import LEFT, keep_notices, kept_notices, process_failures
from .children import Children
from .connections import Watch, refusal

if TYPE_CHECKING:
    from ..cassettes.cassette import Cassette
    from .recorder import ProgramCalls

NAMED = 10  # child processes that are named
RECORDED = "llmcall records what httpx, httpx2 and requests send to APIs like those of OpenAI and Anthropic"
KILLED_BY_INTERRUPT = 128 + signal.SIGINT


def execute(script: str, arguments: tuple[str, ...], *, module: bool = False) -> None:
    """Run a script or a module as ``__main__`` of this process; it stays that when this returns.

    :param script: the path of a file, or the name of a module.
    :param arguments: the program's own.
    """
    sys.argv = [script, *arguments]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if module:
        sys.path.insert(0, "")
        runpy._run_module_as_main(script)  # type: ignore[attr-defined]
    elif pkgutil.get_importer(script) is not None:  # an archive with a __main__.py
        sys.path.insert(0, script)
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
    else:
        sys.path.insert(0, str(Path(script).resolve().parent))
        file = os.path.abspath(script)
        loader = importlib.machinery.SourceFileLoader("__main__", file)
        vars(main).update(__file__=file, __loader__=loader, __cached__=None)
        code = compile(loader.get_data(file), file, "exec", dont_inherit=True)
        exec(code, vars(main))


class Execution:
    """Runs a program, and closes what is open around it when the process ends.

    Python waits for the program's threads and executors and calls its functions of ``atexit`` after
    the script's last line, and each of them may ask a model. So all stays open until then: make
    this before the program runs, and Python calls it last.

    :param calls: answers the program's requests.
    :param tape: the cassette that records them, if any.
    :param around: what is open around the program, the cassette's block too.
    :param sends_nothing: whether the program only replays, so that connections to models that no
        recorded client makes are refused.
    """

    def __init__(
        self,
        calls: ProgramCalls,
        tape: Cassette | None,
        around: contextlib.ExitStack,
        *,
        sends_nothing: bool,
    ) -> None:
        self._calls = calls
        self._tape = tape
        self._sends_nothing = sends_nothing
        self._unrecorded: dict[tuple[str, str], None] = {}  # hosts, and the modules that ask them
        self._watch = Watch(self._meet, configured_addresses())
        is_replay = sends_nothing or (tape is not None and not tape.asks)
        self._children = Children(self._watch, refuses=is_replay)
        calls.watch(self._watch, self._children, sends_nothing=sends_nothing)
        self._watch.start()
        self._failures = process_failures if tape is None else tape.failures
        self._around = around
        self._process = os.getpid()
        self._error: BaseException | None = None  # what ended the script
        self._code = 0
        keep_notices()
        atexit.register(self._end)

    def run(self, script: str, arguments: tuple[str, ...], *, module: bool = False) -> NoReturn:
        """Run the program, show the exception that ends it as Python does, and leave.

        :raises SystemExit: with the program's exit code; 1 instead of 0 if it got an error of
            llmcall's own.
        """
        try:
            execute(script, arguments, module=module)
        except SystemExit as left:
            self._error = left
            self._code = _exit_code(left)
            if self._code:
                raise
        except BaseException as error:  # noqa: BLE001 - shown as Python shows it, without the frames of what runs the program
            shorten(error, of_program=True)
            self._error = error
            interrupted = isinstance(error, KeyboardInterrupt)
            self._code = KILLED_BY_INTERRUPT if interrupted else 1
            sys.excepthook(type(error), error, error.__traceback__)
        if self._has_failed():
            self._code = self._code or 1
        sys.exit(self._code)

    def _meet(self, host: str, module: str) -> None:
        """Take in a connection to a model that no recorded client makes.

        :raises ConnectionRefusedError: if nothing may be sent.
        """
        if self._children.is_here():
            self._children.tell(host, module)
            return
        self._unrecorded[host, module] = None
        if self._sends_nothing:
            raise refusal(host)

    def _has_failed(self) -> bool:
        is_refused = self._sends_nothing and bool(self._unrecorded)
        return self._calls.first_error is not None or is_refused

    def _not_recorded(self, children: int) -> Iterator[str]:
        """Yield a line about each kind of request that is not recorded.

        :param children: how many child processes asked a model.
        """
        for host, module in self._unrecorded:
            if self._sends_nothing:
                yield f"{module} sent no request to {host}: --mode none refused it. {RECORDED}"
            else:
                yield (
                    f"{module} sent requests to {host} that are not recorded, so a replay cannot "
                    f"answer them. {RECORDED}"
                )
        if children:
            processes = "1 child process" if children == 1 else f"{children} child processes"
            outcome = "refused" if self._children.refuses else "sent, but not recorded"
            yield (
                f"The requests of {processes} were {outcome}: llmcall records only the program's "
                "own process. Ask in threads or tasks instead"
            )
        if self._sends_nothing and self._watch.unwatched:
            names = ", ".join(self._watch.unwatched[:NAMED])
            yield f"llmcall could not watch what these child processes sent: {names}"

    def _end(self) -> None:
        """Close what is open, say what the user must know, and see to the exit code."""
        if os.getpid() != self._process:
            return  # a forked process leaves all this to its parent
        _wait_for_child_processes()
        for words in self._calls.close():
            self._failures.add("", words, LEFT)
        with contextlib.suppress(OSError, ValueError):  # Python itself says what it cannot flush
            sys.stdout.flush()
        problems = self._closed()
        first = self._calls.first_error
        if first is not None and (self._error is None or isinstance(self._error, SystemExit)):
            problems.append(first)
        self._watch.stop()
        children = self._children.asked()
        lines = [f"Error: {problem}" for problem in problems]
        lines += [*self._summary(), *self._not_recorded(children)]
        for line in [*lines, *kept_notices()]:
            _say(line)
        if isinstance(self._error, KeyboardInterrupt):
            _die_of_interrupt()
        if self._code == 0 and (problems or children or self._has_failed()):
            _leave(1)

    def _closed(self) -> list[Exception]:
        """Close what is open around the program; return what went wrong."""
        error = self._error
        problems: list[Exception] = []
        if self._tape is not None and (self._code or self._has_failed()):
            self._tape.keeps_unused = "the program did not end well"
        try:
            self._around.__exit__(
                None if error is None else type(error), error, getattr(error, "__traceback__", None)
            )
        except (LLMCallError, OSError) as problem:
            problems.append(problem)
        self._calls.warn_of_actors()
        process_failures.warn("replay")
        return problems

    def _summary(self) -> list[str]:
        """Return in a line what the program's calls came to, and in another what none of them used."""
        refused = process_failures.refused + self._calls.refused
        tape = self._tape
        if tape is None:
            used = process_meter.usage()
            counts = used.calls, used.cached_calls, 0, refused
            return [_counts_line(counts, without_password(config.settings().cache_path))]
        counts = tape.asked, tape.supplied, tape.replayed, refused
        return [_counts_line(counts, tape.path), *filter(None, [tape.told_unused])]


def _counts_line(counts: tuple[int, int, int, int], place: object) -> str:
    asked, supplied, replayed, refused = counts
    return f"{asked:,} asked, {supplied:,} from the cache, {replayed:,} replayed, {refused:,} refused: {place}"


def configured_addresses() -> Iterator[tuple[str, int]]:
    """Yield the hosts and ports of the models that the settings name."""
    settings = config.settings()
    named = [
        settings.base_url,
        settings.azure_endpoint,
        *(each.address for each in settings.endpoints),
    ]
    for address in filter(None, named):
        url = urllib.parse.urlsplit(address)
        if url.hostname:
            yield url.hostname, url.port or (80 if url.scheme == "http" else 443)


def _exit_code(left: SystemExit) -> int:
    """Return the exit code that Python makes of what ``sys.exit`` was given."""
    if left.code is None:
        return 0
    return left.code if isinstance(left.code, int) else 1


def _wait_for_child_processes() -> None:
    """Wait for the processes that multiprocessing would wait for after us."""
    for child in multiprocessing.active_children():
        if not child.daemon:
            child.join()


def _say(line: str) -> None:
    """Print a line on standard error, unless that is closed."""
    if sys.__stderr__ is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.__stderr__, flush=True)


def _leave(code: int) -> NoReturn:
    """End the process with another exit code than the one that Python is ending with."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def _die_of_interrupt() -> None:
    """End the process as Python ends after Ctrl-C: by the signal, which tells a shell to stop too."""
    if os.name != "posix":
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os.kill(os.getpid(), signal.SIGINT)
