"""What a disk store holds: the writer's turn from the first step of a change, and no handle of files that are gone."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmcall.cache.sqlite import SqliteStorage
from llmcall.cache.storage import each_row


def test_a_change_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    """What it wrote before is not there, and the connection goes on."""
    store = SqliteStorage(tmp_path / "cache")
    store.add("there", b"0")

    def rows() -> Iterator[tuple[str, bytes, bool]]:
        """Give a row, and fail."""
        yield "a", b"1", False
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        store.add_all(rows())
    with pytest.raises(ValueError, match="half-way"):
        store.delete("there" if number == 0 else int("half-way") for number in range(2))  # type: ignore[misc]
    assert [key for key, _, _ in each_row(store)] == ["there"]
    assert store.add("a", b"2")
    store.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells which files are open")
def test_no_handle_stays_open_of_a_cache_that_is_gone(tmp_path: Path) -> None:
    """What was stored before it vanished is not read from its ghost, and its space is given back."""
    folder = tmp_path / "cache"
    store = SqliteStorage(folder)
    store.add("before", b"1")
    assert store.get("before") is not None
    shutil.rmtree(folder)
    assert store.add("after", b"2")
    assert store.get("before") is None
    assert store.get("after") is not None
    assert not [name for name in open_files() if str(folder) in name and "(deleted)" in name]
    store.close()
    assert not [name for name in open_files() if str(folder) in name]


def open_files() -> list[str]:
    """Return what this process has open, as the system names it."""
    found = []
    for handle in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{handle}"))
        except FileNotFoundError:  # that of the listing itself
            continue
    return found
