"""The store among others: threads, processes, forks, and rows that somebody else put into it."""

from __future__ import annotations

import gc
import os
import pickle
import sqlite3
import threading
from pathlib import Path
from typing import Any

import diskcache
import pytest
from programs import ran, start

from llmcall.cache.cache import ResponseCache
from llmcall.cache.sqlite import SqliteStorage
from llmcall.cache.storage import each_row


def test_many_threads_share_one_store(tmp_path: Path) -> None:
    """Eight threads that write the same keys store each once, and all read the same."""
    store = SqliteStorage(tmp_path / "cache")
    stored: list[bool] = []
    barrier = threading.Barrier(8)

    def work(thread: int) -> None:
        barrier.wait()
        stored.extend([store.add(str(key), str(thread).encode()) for key in range(25)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(stored), len(stored), len(store)) == (25, 200, 25)
    assert SqliteStorage(tmp_path / "cache").get("0") == store.get("0")


def test_processes_that_start_together_share_a_new_store(tmp_path: Path) -> None:
    """No process ever meets a database that another one is still making; each key is stored once."""
    program = """
        from llmcall.cache.sqlite import SqliteStorage
        from llmcall.cache.storage import each_row
        sys.stdin.readline()
        store = SqliteStorage(sys.argv[1])
        assert store.get("0") is None or True
        print(sum(store.add(str(key), sys.argv[2].encode()) for key in range(20)))
    """
    processes = [start(program, tmp_path / "cache", number) for number in range(5)]
    results = [process.communicate("go\n", timeout=60) for process in processes]
    assert [complaints for _, complaints in results] == [""] * 5
    assert sum(int(printed) for printed, _ in results) == len(SqliteStorage(tmp_path / "cache")) == 20


def test_a_forgotten_store_closes_its_handles(tmp_path: Path) -> None:
    """Nothing stays open of a store that nobody holds any more."""
    store = SqliteStorage(tmp_path / "cache")
    store.add("key", b"value")
    store.get("key")
    handles = [store._reader, store._writer]
    del store
    gc.collect()
    for handle in handles:
        assert handle is not None
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            handle.execute("SELECT 1")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork(tmp_path: Path) -> None:
    """A forked child reads, lists and writes through handles of its own, also while another thread is writing."""
    program = """
        from llmcall.cache.sqlite import SqliteStorage
        from llmcall.cache.storage import each_row
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, from Python 3.12 on
        store = SqliteStorage(sys.argv[1])
        store.add("parent", b"1")
        writing = threading.Thread(target=lambda: [store.add(str(number), b"") for number in range(300)])
        writing.start()
        child = os.fork()
        if not child:
            assert store.get("parent")[0] == b"1" and store.add("child", b"2")
            assert {"parent", "child"} <= {key for key, _, _ in each_row(store)} and len(store) >= 2
            os._exit(0)
        _, status = os.waitpid(child, 0)
        writing.join()
        assert status == 0 and store.add("after", b"3") and not store.add("child", b"x")
        print(len(store), store.get("child")[0].decode())
    """
    assert ran(program, tmp_path / "cache") == "303 2"


def test_rows_that_are_not_ours_are_unreadable(tmp_path: Path) -> None:
    """Values that diskcache pickled, put into files or kept as text are not handed on; their files stay."""
    with diskcache.Cache(str(tmp_path / "cache"), disk_min_file_size=10) as theirs:
        theirs["pickled"] = {"a": 1}
        theirs["file"] = b"x" * 100
        theirs["text"] = "text"
        theirs["number"] = 7
        theirs[("a", "tuple")] = b"bytes under a pickled key"
    files = sorted(path for path in (tmp_path / "cache").rglob("*.val"))
    store = SqliteStorage(tmp_path / "cache")
    assert [store.get(key)[0] for key in ("file", "text", "number")] == [None, b"text", b"7"]
    with ResponseCache(tmp_path / "cache") as cache:
        assert len(cache.verify()) == 5
    store.set("file", b"ours")
    assert store.get("file")[0] == b"ours"  # type: ignore[index]
    assert store.delete(["pickled"]) == 1
    assert store.clear() == 4
    assert files
    assert sorted((tmp_path / "cache").rglob("*.val")) == files


def test_diskcache_would_have_run_what_is_planted(tmp_path: Path) -> None:
    """A pickle planted in value, key or file runs where diskcache reads it, and never where we do."""

    class Planted:
        def __init__(self, name: str) -> None:
            self.path = tmp_path / name

        def __reduce__(self) -> Any:
            return Path.touch, (self.path,)

    with diskcache.Cache(str(tmp_path / "cache"), disk_min_file_size=10_000) as theirs:
        theirs["value"] = Planted("from the value")
        theirs[Planted("from the key")] = b"value"
        theirs["file"] = (Planted("from the file"), "x" * 20_000)
    for path in tmp_path.glob("from*"):
        path.unlink()
    store = SqliteStorage(tmp_path / "cache")
    planted_key = pickle.dumps(Planted("from the key"))
    with ResponseCache(tmp_path / "cache") as cache:
        assert len(cache.verify()) == 3
    assert len(list(each_row(store))) == len(store) == 3
    assert store.delete(["value", "file", str(planted_key)]) == 2
    assert not list(tmp_path.glob("from*"))
    with diskcache.Cache(str(tmp_path / "cache")) as theirs:
        list(theirs)
    assert [path.name for path in tmp_path.glob("from*")] == ["from the key"]
