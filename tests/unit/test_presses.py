"""Presses of Ctrl-C, held back for a moment."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from llmcall import map
from llmcall.parallel.presses import Presses

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to send to oneself")


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, whoever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    """Press Ctrl-C; this thread hears it before the call returns."""
    signal.raise_signal(signal.SIGINT)


def test_what_is_held_back_comes_later() -> None:
    """A press is raised when it is held back no longer, and at once where it is not."""
    presses, done = Presses(), []
    with pytest.raises(KeyboardInterrupt), presses.heard():
        presses.hold()
        press()
        done.append("held")
        presses.release()
        done.append("never")
    with pytest.raises(KeyboardInterrupt), presses.heard():
        press()
        done.append("never")
    assert done == ["held"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_presses_can_be_kept() -> None:
    """However many there are, a block that keeps them runs to its end, also inside one that hears them."""
    presses = Presses()
    kept: list[KeyboardInterrupt] = []
    with presses.heard():
        with presses.heard(kept):
            press()
            press()
        presses.hold()
        presses.release()
    assert len(kept) == 2


def test_another_s_handler_is_left_alone() -> None:
    """Whoever has a handler of his own hears the presses, before, within and after."""
    heard: list[int] = []

    def own(number: int, frame: Any) -> None:
        heard.append(number)

    signal.signal(signal.SIGINT, own)
    presses = Presses()
    with presses.heard():
        presses.hold()
        press()
        presses.release()
    assert (heard, signal.getsignal(signal.SIGINT)) == ([signal.SIGINT], own)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with presses.heard():
        signal.signal(signal.SIGINT, own)
    assert signal.getsignal(signal.SIGINT) is own


def test_another_thread_hears_nothing() -> None:
    """Only the main thread is interrupted: elsewhere there is nothing to hold back, and no handler to set."""

    def hold() -> None:
        with presses.heard():
            presses.hold()
            presses.release()
        ended.append(True)

    presses, ended = Presses(), list[bool]()
    thread = threading.Thread(target=hold)
    thread.start()
    thread.join(60)
    assert ended == [True]


def test_a_map_sets_the_handler_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many items there are: to set it for each would cost more than all else that a map does for one."""
    changes: list[int] = []
    really = signal.signal

    def counted(number: int, handler: Any) -> Any:
        changes.append(number)
        return really(number, handler)

    monkeypatch.setattr(signal, "signal", counted)
    assert len(map(abs, range(100))) == 100
    assert len(changes) == 2


def test_maps_inside_the_items_of_a_map() -> None:
    """A generator of items that runs a map of its own is heard as well, and leaves the handler as it was."""
    assert map(abs, (map(abs, [number])[0] for number in range(3))) == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
