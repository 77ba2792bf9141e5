"""The bar of a ``map``: what is done, cached and spent, on a terminal and in a notebook; none in a log file."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .. import metering

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Bar", "in_notebook", "is_shown", "progress_bar"]


def is_shown(progress: bool | None) -> bool:
    """Return whether a bar is shown.

    :param progress: ``None`` means only on a terminal or in a notebook.
    :raises TypeError: where it is neither ``None`` nor a bool.
    """
    if progress is None:
        return in_notebook() or sys.stderr.isatty()
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
        self._lock = threading.Lock()
        self._cached = self._tokens = 0
        self._cost: float | None = 0.0

    def add(self, model: str, scope: str, amounts: Mapping[str, float | None]) -> None:
        """Take in what calls used, as a meter does."""
        cost = amounts.get("cost", 0.0)
        with self._lock:
            self._cached += int(amounts.get("cached_calls") or 0)
            self._tokens += int(amounts.get("input_tokens") or 0) + int(amounts.get("output_tokens") or 0)
            self._cost = None if cost is None or self._cost is None else self._cost + cost

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
        cost = "?" if self._cost is None else f"${self._cost:,.4f}"
        return f"cached={self._cached:,}, tokens={self._tokens:,}, cost={cost}"


@contextmanager
def progress_bar(shown: bool, total: int | None) -> Iterator[Bar]:
    """Give a bar for a block; every call of the process counts in it meanwhile.

    :param total: how many steps there will be; ``None`` where nobody knows.
    """
    if not shown:
        yield Bar()
        return
    with _tqdm()(total=total, dynamic_ncols=True, file=sys.stderr) as inner:
        bar = Bar(inner)
        with metering.watching(bar):
            try:
                yield bar
            finally:
                bar.refresh()


def _tqdm() -> Any:
    if not in_notebook():
        from tqdm import tqdm

        return tqdm
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets tqdm warns, and shows a bar of text
        from tqdm.auto import tqdm as notebook_tqdm
    return notebook_tqdm
