"""A program run in this process as Python would run it, recorded until the process ends."""

from __future__ import annotations

import atexit
import contextlib
import importlib.machinery
import logging
import os
import runpy
import shutil
import signal
import sys
import time
import types
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from ..clients.streams import end_streams, end_streams_at_exit
from ..core.calls import Call
from ..errors import CacheMissError, LLMCallError
from ..scopes.callers import naming_own_calls
from ..stores.cassettes.cassette import Cassette
from ..support.display import as_warning, coloured, counted, has_colours, money, visible, wrapped
from ..support.failures import REFUSED, process_failures
from ..support.failures import problems as problems_reported
from ..support.listeners import CallListener, listen
from ..support.notices import hold_notices
from ..support.tracebacks import ends_shown_by, show
from ..traffic.usage import counted_here, process_meter
from .answering import HAS_ENDED
from .children import recording_children
from .entry import other_connections, unrecorded_lines
from .interceptors import Sight
from .last_lines import has_gaps, summary_lines
from .patches import patched_by, recorded_libraries
from .recorder import Recorder
from .started import LONGEST_END, RoutesOfRecording
from .status_line import StatusLine, shows_lines

KILLED_BY_INTERRUPT = 128 + signal.SIGINT
SOON = 1  # second that the answers to child processes may still take after Ctrl-C


def execute(script: str, arguments: tuple[str, ...], *, module: bool = False) -> None:
    """Run a script or a module as ``__main__`` of this process. It stays there when this returns.

    :param script: the path of a file, or the name of a module.
    :param arguments: the program's own.
    """
    sys.argv = [script, *arguments]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    # As ``python -m`` does; the public run_module takes its __main__ away when it returns.
    if module:
        sys.path.insert(0, "")
        runpy._run_module_as_main(script)  # type: ignore[attr-defined]
    else:
        sys.path.insert(0, str(Path(script).resolve().parent))
        file = os.path.abspath(script)
        loader = importlib.machinery.SourceFileLoader("__main__", file)
        vars(main).update(__file__=file, __loader__=loader, __cached__=None)
        code = compile(loader.get_data(file), file, "exec", dont_inherit=True)
        exec(code, vars(main))


class Execution(CallListener):
    """The run of a program, which closes what is open around it when the process ends.

    After the script's last line, Python waits for the program's threads and executors and calls its
    ``atexit`` functions, and each of them may call a model. So everything stays open until then. Make
    an Execution before the program runs: then Python calls the Execution's ``atexit`` function last.

    :param recorder: answers the program's requests.
    :param cassette: the cassette that records the requests, or ``None``.
    :param exit_stack: the open contexts around the program, including the cassette.
    :param scope: the scope of the whole run, if the user named one.
    :param is_none: ``True`` if the mode is ``none``, also for the cassettes that the program opens.
    """

    def __init__(
        self,
        recorder: Recorder,
        cassette: Cassette | None,
        exit_stack: contextlib.ExitStack,
        scope: str | None,
        *,
        is_none: bool,
    ) -> None:
        self._recorder = recorder
        self._scope = scope
        self._is_none = is_none
        self._cassette = cassette
        self._counts = counted_here()
        # The program may change the working directory, and close or redirect standard error.
        self._file = None if cassette is None else Path(cassette.path).absolute()
        self._stderr: int | None = None
        with contextlib.suppress(OSError):
            self._stderr = os.dup(2)
        self._exit_stack = exit_stack
        self._process = os.getpid()
        self._error: BaseException | None = None  # what ended the script
        self._code = 0
        self._reported: Exception | None = None  # the error that was printed when it came
        self._began_at = time.monotonic()
        self._status: StatusLine | None = None
        if self._stderr is not None and shows_lines(self._stderr):
            self._status = StatusLine(self._under_way, self._stderr)
        self._notices = hold_notices()
        patches = contextlib.ExitStack()
        patches.enter_context(ends_shown_by(lambda error: show(error, self._reported)))
        patches.enter_context(patched_by(recorder))
        patches.enter_context(naming_own_calls())
        self._routes = RoutesOfRecording(recorder, is_run=True, end_program=self._end_program)
        patches.enter_context(recording_children(self._routes))
        atexit.register(patches.close)  # after all else
        listen(self)
        recorder.report_first = self._report_first
        recorder.binds_cassettes = is_none
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
            code = program_exit.code
            self._code = code if isinstance(code, int) else int(code is not None)
            if self._code:
                sys.exit(program_exit.code)
        except BaseException as error:  # noqa: BLE001 - shown as Python shows it
            frames = error.__traceback__
            while frames is not None and frames.tb_frame.f_globals.get("__name__") != "__main__":
                frames = frames.tb_next  # leave out the frames around the program
            error.__traceback__ = frames
            self._error = error
            is_interrupt = isinstance(error, KeyboardInterrupt)
            self._code = KILLED_BY_INTERRUPT if is_interrupt else 1
            # As Python does: a function that is called at exit can see what ended the program.
            sys.last_value = error
            sys.excepthook(type(error), error, frames)
        if self._recorder.first_error is not None:
            self._code = self._code or 1
        # The summary has the first refusal, and a count.
        atexit.register(process_failures.forget, *REFUSED)
        sys.exit(self._code)

    def asks(self, call: Call) -> None:
        """Check that a call that no record answers may be sent.

        :raises CacheMissError: if nothing may be sent.
        :raises LLMCallError: if the program has ended.
        """
        if self._recorder.has_ended:
            raise LLMCallError(HAS_ENDED)
        if os.getpid() != self._process and call.cassette is None:
            return  # the run answers its forked processes
        if self._is_none or self._recorder.sends_nothing:
            location = "" if call.cassette is None else f" in {call.cassette.path}"
            raise CacheMissError(
                f"no answer is recorded{location}, and a replay sends nothing; run the program "
                "without --mode none to record it"
            )

    def _end(self) -> None:
        """Close what is open, print what the user must know, and set the exit code, as the process ends."""
        if os.getpid() != self._process:
            return  # a forked process leaves all this to its parent
        # Python itself reports what it cannot flush; it has no output at all where that was closed before.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stdout.flush()
        if self._status is not None:
            self._status.end()
        error, recorder = self._error, self._recorder
        missed = self._routes.missed_lines()
        self._routes.end(SOON if isinstance(error, KeyboardInterrupt) else LONGEST_END)
        unrecorded = [*unrecorded_lines(recorder), *missed]
        recorder.has_ended = True
        end_streams()
        problems: list[Exception] = []
        if self._cassette is not None:
            self._cassette.exit_code = self._code
        try:
            self._exit_stack.__exit__(None if error is None else type(error), error, None)
        except (LLMCallError, OSError, ValueError) as problem:
            problems.append(problem)
        has_failed = has_gaps(recorder, self._cassette, missed) or bool(problems_reported)
        process_failures.warn()
        if recorder.first_error is not None and (error is None or isinstance(error, SystemExit)):
            problems.append(recorder.first_error)
        errors = [f"Error: {problem}" for problem in problems if problem is not self._reported]
        another = "--scope NAME" if self._scope is None else "another --scope"
        summary = summary_lines(
            recorder, self._cassette, self._counts, self._file, another, self._explain_no_calls
        )
        self._print([*errors, *summary], [*unrecorded, *self._notices])
        if isinstance(error, KeyboardInterrupt) and os.name == "posix":
            # As Python ends after Ctrl-C: the signal tells a shell to stop, too.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _flush_output()
            os.kill(self._process, signal.SIGINT)
        if self._code == 0 and (problems or has_failed):
            logging.shutdown()
            _flush_output()
            os._exit(1)  # Python has no other way to exit with another code now

    def _end_program(self, code: int) -> NoReturn:
        """Write what must be written, and end the process at once. The program has become another one, so nothing else
        of it runs: no ``finally`` block and no exit handler.
        """
        self._error, self._code = SystemExit(code), code
        self._end()
        logging.shutdown()
        _flush_output()
        os._exit(code)

    def _report_first(self, error: Exception) -> None:
        """Print llmcall's first error at once: the program may retry for minutes."""
        self._reported = error
        self._print([f"Error: {error}"])

    def _print(self, lines: Iterable[str], warnings: Iterable[str] = ()) -> None:
        """Print lines, and then warnings, on the standard error that the process began with."""
        if self._stderr is None:
            return
        if self._status is not None:
            self._status.erase()
        is_terminal, text = os.isatty(self._stderr), ""
        for some, styled in ((lines, coloured), (warnings, as_warning)):
            shown = "".join(f"{visible(line)}\n" for line in some)
            if is_terminal:
                shown = wrapped(shown, shutil.get_terminal_size().columns)
            if shown and has_colours(is_terminal=is_terminal):
                shown = styled(shown)
            text += shown
        encoding = getattr(sys.__stderr__, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError), open(self._stderr, "wb", closefd=False) as file:
            file.write(text.encode(encoding, "backslashreplace"))

    def _under_way(self) -> str:
        """Return the calls so far, the seconds and the known cost in words; empty without a call."""
        sums = self._counts.sums
        calls = sums["asked"] + sums["cached_calls"]
        if not calls:
            return ""
        seconds = f"{time.monotonic() - self._began_at:,.0f} s"
        parts = [counted(calls, "call"), seconds, money(sums["cost"]) if "cost" in sums else ""]
        return ", ".join(filter(None, parts))

    def _explain_no_calls(self) -> str:
        """Return the likely reasons why no call of the program was recorded."""
        used = process_meter.usage()
        if used.calls or used.cached_calls:
            return "the program's calls are in the cassettes that it opens itself"
        recorder, seen = self._recorder, []
        if self._routes.names:
            names = ", ".join(self._routes.names)
            seen.append(
                f"the program started other processes ({names}), which sent nothing to the addresses that llmcall "
                "gives them: OPENAI_BASE_URL, ANTHROPIC_BASE_URL and GOOGLE_GEMINI_BASE_URL"
            )
        seen += other_connections(recorder)
        if passed := recorder.seen[Sight.OTHER_REQUEST]:
            seen.append(
                "these requests were not recorded, since nothing shows that a model answers them: "
                f"{', '.join(passed)}; to record a host's requests, name it in "
                "hosts=(…) of llmcall.cassette or llmcall.patched"
            )
        return "; ".join(seen) or (
            f"no model request was seen ({', '.join(recorded_libraries())}), no other connection and no child process"
        )


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
