"""Run a program in this process as Python would, and record it until the process ends."""

from __future__ import annotations

import atexit
import contextlib
import importlib.machinery
import logging
import os
import pkgutil
import runpy
import signal
import sys
import types
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ..call.usage import process_meter
from ..cassettes.cassette import Cassette
from ..cassettes.guards import guards
from ..clients.streams import end_streams, end_streams_at_exit
from ..config import resolve as config
from ..config.sources import keep_folder
from ..config.values import without_password
from ..errors import CacheMissError, LLMCallError, shorten
from ..failures import ABANDONED, CUT_OFF, process_failures
from ..notices import keep_notices
from ..system import after_fork_in_child
from ..testing import answers_in_process
from .actors import warn_of_askers
from .connections import Watch, refusal
from .recorder import HAS_ENDED, ProgramCalls

KILLED_BY_INTERRUPT = 128 + signal.SIGINT
RECORDED_LIBRARIES = (
    "llmcall records what the libraries httpx, httpx2 and requests send to APIs like those of OpenAI and "
    "Anthropic"
)


def execute(script: str, arguments: tuple[str, ...], *, module: bool = False) -> None:
    """Run a script or a module as ``__main__`` of this process. It stays there when this returns.

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


class StandardError:
    """A copy of standard error, which stays when the program closes, replaces or redirects its own.

    A forked process has no copy: as a daemon it would keep a pipe open.
    """

    def __init__(self) -> None:
        stream = sys.__stderr__
        self._descriptor: int | None = None
        if stream is None:
            return
        self._encoding = stream.encoding
        with contextlib.suppress(OSError, ValueError):  # it is closed, or no file
            self._descriptor = os.dup(stream.fileno())
            after_fork_in_child(self._close)

    def print(self, line: str) -> None:
        """Print a line, if there is a standard error."""
        if self._descriptor is None:
            return
        with (
            contextlib.suppress(OSError),
            open(
                self._descriptor,
                "w",
                encoding=self._encoding,
                errors="backslashreplace",
                closefd=False,
            ) as file,
        ):
            print(line, file=file)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Execution:
    """Runs a program, and closes what is open around it when the process ends.

    After the script's last line, Python waits for the program's threads and executors and calls its
    ``atexit`` functions, and each of them may ask a model. So everything stays open until then. Make
    an Execution before the program runs: then Python calls the Execution's ``atexit`` function last.

    :param calls: answers the program's requests.
    :param cassette: the cassette that records the requests, or ``None``.
    :param exit_stack: what is open around the program, including the cassette.
    :param sends_nothing: whether requests that are not recorded are refused.
    """

    def __init__(
        self,
        calls: ProgramCalls,
        cassette: Cassette | None,
        exit_stack: contextlib.ExitStack,
        *,
        sends_nothing: bool,
    ) -> None:
        self._calls = calls
        self._cassette = cassette
        # The program may change the working directory.
        keep_folder()
        self._file = None if cassette is None else Path(cassette.path).absolute()
        self._exit_stack = exit_stack
        self._sends_nothing = sends_nothing
        self._failures = process_failures if cassette is None else cassette.failures
        self._unrecorded: dict[
            str, None
        ] = {}  # hosts that something else than recorded clients asks
        self._watch = Watch(self._note_unrecorded, configured_addresses())
        self._only_replays = sends_nothing or (cassette is not None and not cassette.may_record)
        self._process = os.getpid()
        self._error: BaseException | None = None  # what ended the script
        self._code = 0
        self._has_ended = False
        self._stderr = StandardError()
        self._notices = keep_notices()
        calls.watch(self._watch, sends_nothing=sends_nothing)
        self._watch.start()
        guards.append(self._check_may_send)
        end_streams_at_exit()  # after this execution's end: the program may still read them then
        atexit.register(self._end)

    def run(self, script: str, arguments: tuple[str, ...], *, module: bool = False) -> NoReturn:
        """Run the program, show the exception that ends it as Python does, and exit.

        :raises SystemExit: with the program's exit code, or 1 instead of 0 if the program got one of
            llmcall's own errors.
        """
        try:
            execute(script, arguments, module=module)
        except SystemExit as program_exit:
            self._error = program_exit
            self._code = _exit_code(program_exit)
            if self._code:
                sys.exit(program_exit.code)  # a cassette that the settings name notes it
        except BaseException as error:  # noqa: BLE001 - shown as Python shows it, without the frames of what runs the program
            shorten(error, of_program=True)
            self._error = error
            is_interrupt = isinstance(error, KeyboardInterrupt)
            self._code = KILLED_BY_INTERRUPT if is_interrupt else 1
            sys.excepthook(type(error), error, error.__traceback__)
        if self._has_failed():
            self._code = self._code or 1
        sys.exit(self._code)

    def _note_unrecorded(self, host: str) -> None:
        """Note a connection to a model that no recorded client makes.

        :raises ConnectionRefusedError: if nothing may be sent.
        """
        self._unrecorded[host] = None
        if self._sends_nothing:
            raise refusal(host)

    def _check_may_send(self, client: object, cassette: Cassette | None) -> None:
        """Check that a call that no record answers may be sent.

        :raises CacheMissError: if nothing may be sent.
        :raises LLMCallError: if the program has ended.
        """
        if self._has_ended:
            raise LLMCallError(HAS_ENDED)
        if self._sends_nothing:
            _refuse_to_send(client, cassette)

    def _has_failed(self) -> bool:
        is_refused = self._sends_nothing and bool(self._unrecorded)
        return self._calls.first_error is not None or is_refused

    def _not_recorded(self) -> Iterator[str]:
        """Yield a line about each host that something else than recorded clients asks."""
        for host in self._unrecorded:
            if self._sends_nothing:
                yield f"--mode none refused a connection to {host}. {RECORDED_LIBRARIES}"
            else:
                yield (
                    f"what was sent to {host} by other clients is not recorded, so a replay cannot "
                    f"answer it. {RECORDED_LIBRARIES}"
                )

    def _end(self) -> None:
        """Finish when Python ends the process, and set the exit code."""
        if os.getpid() != self._process:
            return  # a forked process leaves all this to its parent
        with contextlib.suppress(OSError, ValueError):  # Python itself reports what it cannot flush
            sys.stdout.flush()
        has_failed = self._finish()
        if isinstance(self._error, KeyboardInterrupt):
            _end_by_signal(signal.SIGINT)
        if self._code == 0 and has_failed:
            _exit_with(1)

    def _finish(self) -> bool:
        """Close what is open and print what the user must know; return whether anything failed."""
        self._has_ended = True
        for request in self._calls.close():
            reason = CUT_OFF if self._only_replays else ABANDONED
            self._failures.add("", request, reason, asks_model=not self._only_replays)
        end_streams()
        problems = self._close()
        first_error = self._calls.first_error
        if first_error is not None and (self._error is None or isinstance(self._error, SystemExit)):
            problems.append(first_error)
        self._watch.stop()
        errors = [f"Error: {problem}" for problem in problems]
        for line in [*errors, *self._summary(), *self._not_recorded(), *self._notices]:
            self._stderr.print(line)
        return bool(problems) or self._has_failed()

    def _close(self) -> list[Exception]:
        """Close what is open around the program; return what went wrong."""
        error = self._error
        problems: list[Exception] = []
        if self._cassette is not None and (self._code or self._has_failed()):
            self._cassette.keep_unused("the program failed")
        try:
            self._exit_stack.__exit__(
                None if error is None else type(error), error, getattr(error, "__traceback__", None)
            )
        except (LLMCallError, OSError) as problem:
            problems.append(problem)
        warn_of_askers()
        process_failures.warn("replay")
        return problems

    def _summary(self) -> list[str]:
        """Return a line that counts the program's calls, and one that counts unused records."""
        refused = process_failures.refused + self._calls.refused
        cassette = self._cassette
        if cassette is None:
            usage = process_meter.usage()
            asked = usage.calls + usage.errors - process_failures.unsent
            return [_counts_line(asked, 0, usage.cached_calls, 0, refused, _cache_target())]
        not_recorded = cassette.failures.unanswered
        asked = cassette.asked + not_recorded
        is_saved = cassette.is_written or not cassette.recorded
        is_file = is_saved and self._file is not None and self._file.exists()
        target = str(cassette.path) if is_file else f"{cassette.path} was not written"
        line = _counts_line(
            asked, not_recorded, cassette.supplied, cassette.replayed, refused, target
        )
        return [line, cassette.unused_report] if cassette.unused_report else [line]


def _refuse_to_send(client: object, cassette: Cassette | None) -> None:
    """Refuse a call that no record answers.

    :param cassette: the call's cassette; the program may have opened one of its own.
    :raises CacheMissError: unless the client answers without sending anything.
    """
    if not answers_in_process(client):
        location = "" if cassette is None else f" in {cassette.path}"
        raise CacheMissError(
            f"no answer is recorded{location}, and llmcall run --mode none sends nothing; run the "
            "program without --mode none to record it"
        )


def _cache_target() -> str:
    """Return where the disk cache is, or that it records nothing."""
    settings = config.settings()
    if settings.cache_mode == "off":
        return "nothing was recorded, because the cache's mode is off"
    return str(without_password(settings.cache_path))


def _counts_line(
    asked: int, not_recorded: int, supplied: int, replayed: int, refused: int, target: str
) -> str:
    """Return the line that counts a program's calls.

    :param not_recorded: how many of the calls that were asked are not recorded.
    :param target: where the answers are recorded.
    """
    note = f" ({not_recorded:,} not recorded)" if not_recorded else ""
    counts = f"{asked:,} asked{note}, {supplied:,} from the cache, {replayed:,} replayed"
    return f"{counts}, {refused:,} refused: {target}"


def configured_addresses() -> Iterator[tuple[str, int]]:
    """Yield the hosts and ports of the models that the settings name."""
    settings = config.settings()
    addresses = [settings.base_url, settings.azure_endpoint]
    addresses += [endpoint.address for endpoint in settings.endpoints]
    for address in addresses:
        url = urllib.parse.urlsplit(address or "")
        if url.hostname:
            yield url.hostname, url.port or (80 if url.scheme == "http" else 443)


def _exit_code(program_exit: SystemExit) -> int:
    """Return the exit code that Python gives for the argument of ``sys.exit``."""
    if program_exit.code is None:
        return 0
    return program_exit.code if isinstance(program_exit.code, int) else 1


def _exit_with(code: int) -> NoReturn:
    """End the process with another exit code than Python would."""
    logging.shutdown()
    _flush_output()
    os._exit(code)


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()


def _end_by_signal(number: int) -> None:
    """End the process by a signal, as Python does after Ctrl-C: the signal tells a shell to stop too."""
    if os.name != "posix":
        return
    signal.signal(number, signal.SIG_DFL)
    _flush_output()
    os.kill(os.getpid(), number)
