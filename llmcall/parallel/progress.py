"""The bar of a ``map``: what is done, cached and spent, on a terminal and in a notebook; none in a log file."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..engine import usage as metering

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Bar", "in_notebook", "is_shown", "progress_bar"]

UNKNOWN_SIZE = 80, 24  # columns and lines, as shutil.get_terminal_size assumes


def is_shown(progress: bool | None) -> bool:
    """Return whether a bar is shown.

    :param progress: ``None`` means only on a terminal or in a notebook.
    :raises TypeError: where it is neither ``None`` nor a bool.
    """
    if progress is None:
        return in_notebook() or _is_terminal(sys.stderr)
    if not isinstance(progress, bool):
        raise TypeError(f"progress is {progress!r}; it must be True, False or None (on a terminal or in a notebook)")
    return progress


def in_notebook() -> bool:
    """Return whether the code runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class Bar:
    """Be the bar of a map, which may be one that is not shown.

    :param shown: the tqdm bar, or ``None``.
    """

    def __init__(self, shown: Any = None) -> None:
        self._shown = shown
        self._lock = threading.RLock()  # a stream that the garbage collector ends may count at any moment
        self._cached = 0
        self._tokens: int | None = 0
        self._cost: float | None = 0.0

    def add(self, model: str, scope: str, amounts: metering.UsageDelta) -> None:
        """Take in what calls used, as a meter does."""
        with self._lock:
            self._cached += int(amounts.get("cached_calls") or 0)
            for name in ("input_tokens", "output_tokens"):
                self._tokens = _sum(self._tokens, amounts.get(name, 0))
            self._cost = _sum(self._cost, amounts.get("cost", 0.0))

    def step(self) -> None:
        """Say that one more is done."""
        if self._shown is not None:
            self._shown.set_postfix_str(self.words(), refresh=False)
            self._shown.update()

    def refresh(self) -> None:
        """Show the time anew."""
        if self._shown is not None:
            self._shown.set_postfix_str(self.words())

    def words(self) -> str:
        """Return what stands behind the bar."""
        tokens = "?" if self._tokens is None else f"{self._tokens:,}"
        cost = "?" if self._cost is None else f"${self._cost:,.4f}"
        return f"cached={self._cached:,}, tokens={tokens}, cost={cost}"


def _sum(total: Any, amount: Any) -> Any:
    """Return a sum, which is unknown, ``None``, as soon as one of its parts is."""
    return None if total is None or amount is None else total + amount


@contextmanager
def progress_bar(shown: bool, total: int | None) -> Iterator[Bar]:
    """Give a bar for a block; every call of the process counts in it meanwhile.

    :param total: how many steps there will be; ``None`` where nobody knows.
    """
    if not shown or sys.stderr is None:
        yield Bar()
        return
    with _tqdm()(total=total, file=sys.stderr, **_size(sys.stderr)) as inner:
        bar = Bar(inner)
        with metering.watching(bar):
            try:
                yield bar
            finally:
                bar.refresh()


def _size(stream: Any) -> dict[str, Any]:
    """Return tqdm's arguments for the size of the bar: that of the terminal, followed as it changes.

    On a terminal that says that it has no columns or lines, as one of a container may, tqdm would show nothing.
    """
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (AttributeError, OSError, ValueError):  # it is no terminal
        return {"dynamic_ncols": True}
    if in_notebook() or (columns and lines):
        return {"dynamic_ncols": True}
    return {"ncols": columns or UNKNOWN_SIZE[0], "nrows": lines or UNKNOWN_SIZE[1]}


def _tqdm() -> Any:
    if not in_notebook():
        from tqdm import tqdm

        return tqdm
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets tqdm warns, and shows a bar of text
        from tqdm.auto import tqdm as notebook_tqdm
    return notebook_tqdm


def _is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal: a program without a console has none, and what logs may only write."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # ValueError: it is closed
        return False
