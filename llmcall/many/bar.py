"""The progress bar of a ``map``."""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

from ..support.display import money, visible
from ..support.system import ipython_shell, last_in, without_warnings
from ..traffic import usage as metering
from ..traffic.limits import seconds_held_back, under_way

if TYPE_CHECKING:
    import tqdm

PLAIN_SECONDS = 1.0  # between two drawings of a bar that is neither on a terminal nor a widget
SHOWN_SECONDS = 1.0  # of a wait; a shorter one has ended before it is read


class _Total(metering.Meter):
    """A meter with one row, since every tick reads it all: a study has a row for each item."""

    def add(self, model: str, scope: str, amounts: metering.UsageDelta, arm: str) -> None:
        super().add("", "", amounts, "")


class Bar:
    """The progress bar of a map. It counts every call of the process, and does nothing if hidden.

    :param progress: ``True`` shows it, ``None`` only on a terminal or in a notebook.
    :param total: the number of steps, or ``None`` if it is unknown.
    """

    def __init__(self, progress: bool | None, total: int | None) -> None:
        # a stream that only logs may have no other method than ``write``
        is_terminal = getattr(sys.stderr, "isatty", bool)()
        if progress is None:
            progress = hasattr(ipython_shell(), "kernel") or is_terminal
        self._failed_count = 0
        self._shown_figures = ""
        self._next_drawing = 0.0  # the time before which a bar of plain text is not drawn again
        self._total = _Total()
        self._is_plain = False
        self._tqdm_bar: tqdm.tqdm[NoReturn] | None = None
        self._shown = ExitStack()
        if progress and sys.stderr is not None:
            with without_warnings():  # of a notebook without ipywidgets, which gets a bar of text
                from ..support.libraries import tqdm
            bar = tqdm.auto.tqdm(total=total, file=sys.stderr, dynamic_ncols=True)
            # In a file, or a notebook without widgets, each drawing is one more line or output.
            self._is_plain = not is_terminal and not hasattr(bar, "container")
            if self._is_plain:
                bar.mininterval = math.inf
            self._tqdm_bar = self._shown.enter_context(bar)
            self._shown.enter_context(last_in(metering.meters, self._total))

    def close(self) -> None:
        """Show the last figures and leave the bar standing."""
        self.refresh(is_last=True)
        self._tqdm_bar = None
        self._shown.close()

    def step(self, *, failed: bool) -> None:
        """Count one more finished draw."""
        self._failed_count += failed
        if self._tqdm_bar is not None and (self._tqdm_bar.update() or self._is_plain):
            self.refresh()

    def end_at(self, done: int) -> None:
        """Show this many finished draws. At an early end, some finished draws were never collected."""
        if self._tqdm_bar is not None:
            self._tqdm_bar.n = done

    def refresh(self, *, is_last: bool = False) -> None:
        """Update the time and figures, as plain text at most once a second. Show failures, retries, running
        calls and waits only where there are any.
        """
        now = time.monotonic()
        if self._tqdm_bar is None or (now < self._next_drawing and not is_last):
            return
        usage = self._total.usage()
        counts = {
            # a failed call may belong to a failed item, or to an item that continued without it
            "failed": max(self._failed_count, usage.errors),
            "retries": usage.retries,
        }
        figures = [f"{name}={count:,}" for name, count in counts.items() if count]
        if rows := under_way():
            calls, most = sum(row.calls for row in rows), sum(row.most for row in rows)
            figures.append(f"running={calls:,}/{most:,}")
        if (seconds := seconds_held_back()) >= SHOWN_SECONDS:
            end = time.localtime(time.time() + seconds)
            figures.append(f"rate limit until {time.strftime('%H:%M:%S', end)}")
        figures.append(f"cached={usage.cached_calls:,}")
        prompts, answers = usage.input_tokens, usage.output_tokens
        tokens = "?" if prompts is None or answers is None else f"{prompts + answers:,}"
        figures.append(f"tokens={tokens}")
        if usage.calls or usage.cached_calls:
            figures.append("cost=?" if usage.cost is None else f"cost={money(usage.cost)}")
        text = ", ".join(figures)
        is_redrawn = not is_last  # the end of the bar draws it
        if self._is_plain:
            self._next_drawing = now + PLAIN_SECONDS
            shown = f"{self._tqdm_bar.n} {text}"
            is_redrawn = is_redrawn and shown != self._shown_figures
            self._shown_figures = shown
        self._tqdm_bar.set_postfix_str(text, refresh=is_redrawn)

    def write(self, line: str) -> None:
        """Write a line above the bar, or on standard error."""
        line = visible(line)
        if self._tqdm_bar is not None:
            self._tqdm_bar.write(line, file=sys.stderr)
        elif sys.stderr is not None:
            print(line, file=sys.stderr)
