"""The line on a terminal that shows what is under way while a program prints nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import ASK, LONGEST, NEEDS_POSIX, PRICED
from pytest_httpserver import HTTPServer
from servers import completion
from werkzeug import Request, Response

PROGRAM = f"""{ASK}
print("begin")
print(ask("quickly"), file=sys.stderr)
sys.stdout.write("half a line, "); sys.stdout.flush()
print(ask("slowly"))
print(ask("slowly again"))
"""
SHOWN = re.compile(r"\d calls, \d+ s, (?:<|\$)")
pytestmark = [pytest.mark.ci, NEEDS_POSIX]


@pytest.fixture
def goes_on(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A model's server that answers the last question once this is set."""
    seen = threading.Event()

    def respond(request: Request) -> Response:
        if "again" in request.get_json()["messages"][-1]["content"]:
            seen.wait(LONGEST)
        return Response(json.dumps(completion("answer")), content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(respond)
    monkeypatch.setenv("MODEL_AT", httpserver.url_for("/v1"))
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    monkeypatch.setenv("TERM", "xterm")
    Path("program.py").write_text(PROGRAM, encoding="utf-8")
    return seen


def pieces(master: int) -> Iterator[str]:
    """Yield what comes to a terminal, until its program ends."""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # Linux: nobody has the other side open
            return
        if not data:
            return
        yield data.decode()


def on_terminal(note: Callable[[str], object], **streams: int | None) -> str:
    """Run the program on a terminal of its own, and return all that came to it.

    :param note: is called with what has come so far.
    """
    import fcntl
    import pty
    import termios

    master, terminal = pty.openpty()
    came = ""
    with subprocess.Popen(
        [sys.executable, "-m", "llmcall", "run", "--cassette", "a.jsonl", "program.py"],
        **{"stdin": terminal, "stdout": terminal, "stderr": terminal, **streams},  # type: ignore[call-overload]
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(terminal)
        for piece in pieces(master):
            came += piece
            note(came)
        assert process.wait(LONGEST) == 0, came
    os.close(master)
    return came


def screen(came: str) -> list[str]:
    """Return the lines that a terminal shows in the end: what came after the last return of each, unless erased."""
    return [line.rpartition("\x1b[K")[2] for line in came.replace("\r\n", "\n").split("\n")]


def test_it_is_shown_in_silence_and_erased_before_each_write(goes_on: threading.Event) -> None:
    """What the program printed stands there as without the line."""

    def note(came: str) -> None:
        if SHOWN.search(came):
            goes_on.set()

    came = on_terminal(note)
    *lines, summary, end = screen(came)
    assert lines == ["begin", "answer", "half a line, answer", "answer"]
    assert summary.startswith("3 asked") and not end
    shown = SHOWN.findall(came)
    assert shown and came.count("half a line, answer\r\n") == 1


def test_a_file_has_no_line(goes_on: threading.Event) -> None:
    """Where standard error is no terminal, though standard output is one."""
    goes_on.set()
    with open("log.txt", "wb") as log:
        came = on_terminal(len, stderr=log.fileno())
    assert "\x1b" not in came + Path("log.txt").read_text(encoding="utf-8")
