"""The store of bytes: diskcache's directory without what loses data or runs code."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import diskcache
import pytest

from llmcall.cache.sqlite import DATABASE, SqliteStorage
from llmcall.cache.storage import each_row
from llmcall.errors import CacheCorruptError, CacheError


@pytest.fixture
def store(tmp_path: Path) -> SqliteStorage:
    """A store with one row."""
    made = SqliteStorage(tmp_path / "cache")
    assert made.add("key", b"value")
    return made


def columns(database: Path, table: str) -> list[tuple[str, str]]:
    """List a table's columns with their types."""
    with sqlite3.connect(database) as connection:
        found = connection.execute(f"PRAGMA table_info({table})").fetchall()
    connection.close()
    return [(row[1], row[2]) for row in found]


def test_opens_nothing_until_used(tmp_path: Path) -> None:
    """Making, reading, listing, clearing and closing an absent store leave no trace."""
    store = SqliteStorage(tmp_path / "cache")
    assert store.get("key") is None
    assert (len(store), list(each_row(store)), store.size(), store.delete(["key"]), store.clear()) == (0, [], 0, 0, 0)
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_directory_is_private_and_out_of_git(store: SqliteStorage) -> None:
    """The directory has mode 0700 and a .gitignore that covers itself."""
    assert stat.S_IMODE(store.place.stat().st_mode) == 0o700
    assert (store.place / ".gitignore").read_text() == "*\n"
    assert {path.name for path in store.place.iterdir()} <= {
        ".gitignore",
        DATABASE,
        f"{DATABASE}-wal",
        f"{DATABASE}-shm",
    }


def test_an_empty_directory_becomes_private_and_another_keeps_its_mode(tmp_path: Path) -> None:
    """A directory in which somebody keeps other things stays as it is."""
    for name, modes in (("empty", 0o700), ("used", 0o755)):
        (tmp_path / name).mkdir(mode=0o755)
        if name == "used":
            (tmp_path / name / "other.txt").write_text("mine")
        SqliteStorage(tmp_path / name).add("key", b"value")
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == modes
    assert not (tmp_path / "used" / ".gitignore").exists()


def test_diskcache_loses_and_runs_nothing(store: SqliteStorage) -> None:
    """Opened by diskcache itself, the directory evicts, culls and limits nothing, and holds the bytes as they are."""
    store.close()
    with diskcache.Cache(str(store.place)) as opened:
        assert opened["key"] == b"value"
        assert opened.eviction_policy == "none"
        assert opened.cull_limit == 0
        assert opened.size_limit >= 2**60
        assert opened.statistics == 0
        assert opened.expire() == opened.cull() == 0
        assert len(opened) == 1


def test_settings_stay_after_diskcache_wrote(store: SqliteStorage) -> None:
    """What diskcache itself adds through the same directory evicts nothing, and we read its bytes."""
    store.close()
    with diskcache.Cache(str(store.place)) as opened:
        opened["theirs"] = b"plain bytes"
    assert store.get("theirs")[0] == b"plain bytes"  # type: ignore[index]
    assert len(store) == 2


def test_layout_of_diskcache_that_we_lean_on(tmp_path: Path) -> None:
    """Names and types of diskcache's tables, its unique index, its triggers and constants are those of 5.6.3."""
    with diskcache.Cache(str(tmp_path)) as made:
        made["a"] = b"bytes"
        made["b"] = 1
    assert (diskcache.core.DBNAME, diskcache.core.MODE_RAW) == (DATABASE, 1)
    assert columns(tmp_path / DATABASE, "Cache") == [
        ("rowid", "INTEGER"), ("key", "BLOB"), ("raw", "INTEGER"), ("store_time", "REAL"), ("expire_time", "REAL"),
        ("access_time", "REAL"), ("access_count", "INTEGER"), ("tag", "BLOB"), ("size", "INTEGER"), ("mode", "INTEGER"),
        ("filename", "TEXT"), ("value", "BLOB"),
    ]  # fmt: skip
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        rows = connection.execute("SELECT key, raw, mode, filename, value FROM Cache ORDER BY rowid").fetchall()
        kinds = "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'index') AND name LIKE ?"
        names = {name for pattern in ("Settings%", "Cache_key%") for (name,) in connection.execute(kinds, (pattern,))}
        count = connection.execute("SELECT value FROM Settings WHERE key = 'count'").fetchone()
        journal = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    assert rows == [("a", 1, 1, None, b"bytes"), ("b", 1, 1, None, 1)]
    assert names >= {"Settings_count_insert", "Settings_count_delete", "Cache_key_raw"}
    assert (count, journal) == ((2,), ("wal",))


def test_first_writer_wins(store: SqliteStorage) -> None:
    """A second value is not added; set replaces it, and moves neither its place nor the count."""
    assert not store.add("key", b"other")
    assert store.add("more", b"m")
    assert store.get("key")[0] == b"value"  # type: ignore[index]
    store.set("key", b"newer")
    assert [(key, value) for key, value, _ in each_row(store)] == [("key", b"newer"), ("more", b"m")]
    assert len(store) == 2


def test_rows_are_read_a_page_at_a_time(tmp_path: Path) -> None:
    """More rows than a page holds come in the order of storing, none twice, also while some are added."""
    store = SqliteStorage(tmp_path / "cache")
    assert store.add_all((f"{number:05}", b"v", False) for number in range(1203)) == 1203
    listed = []
    for key, _, _ in each_row(store):
        listed.append(key)
        if len(listed) == 600:
            store.add("late", b"v")
    assert listed == [*(f"{number:05}" for number in range(1203)), "late"]


def test_all_or_none(store: SqliteStorage) -> None:
    """Where one row of many cannot be made, none is stored."""

    def rows() -> Any:
        yield "a", b"1", False
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add_all(rows())
    assert store.add_all([("a", b"1", False), ("key", b"2", False), ("key", b"3", True)]) == 2
    assert (store.get("key")[0], len(store)) == (b"3", 2)  # type: ignore[index]


def test_delete_and_clear(store: SqliteStorage) -> None:
    """Deleting tells how many were there; clearing leaves nothing and the count agrees."""
    store.add_all([(name, b"", False) for name in "abc"])
    assert store.delete(["a", "b", "never"]) == 2
    assert len(store) == 2
    assert store.clear() == 2
    assert (len(store), list(each_row(store))) == (0, [])


@pytest.mark.parametrize(
    "name", ["a b", "Käse 🧀 ключ", "100%", "a%20b", "a#b", "a?mode=memory", "a$b", "a'b\"c", "a\\b", "&;|", "file:x"]
)
def test_paths_with_odd_letters(name: str, tmp_path: Path) -> None:
    """Whatever letters a path has, the database lies in it and diskcache finds it there."""
    store = SqliteStorage(tmp_path / name / "cache")
    assert store.add("key", b"value")
    assert store.get("key") is not None
    store.close()
    assert (tmp_path / name / "cache" / DATABASE).exists()
    with diskcache.Cache(str(tmp_path / name / "cache")) as opened:
        assert opened["key"] == b"value"


def test_home_and_variables_are_expanded_as_diskcache_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~ and $NAME mean what they mean to diskcache; a relative path is one of the working directory of then."""
    monkeypatch.setenv("SHELF", "shelf")
    assert SqliteStorage("~/$SHELF").place == tmp_path / "shelf"
    relative = SqliteStorage("here")
    monkeypatch.chdir("/")
    assert relative.place == tmp_path / "here"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """A path that is a file is an error with its remedy before anything is asked, and an OSError when storing."""
    (tmp_path / "cache").write_text("mine")
    store = SqliteStorage(tmp_path / "cache")
    with pytest.raises(CacheError, match=r"is a file; \[Cache\] PATH must name a directory"):
        store.get("key")
    with pytest.raises(OSError, match="must name a directory"):
        store.add("key", b"value")
    with pytest.raises(OSError):
        SqliteStorage(tmp_path / "cache" / "inside").add("key", b"value")
    assert (tmp_path / "cache").read_text() == "mine"


@pytest.mark.parametrize("damage", ["garbage", "another database", "a directory", "cut"])
def test_a_damaged_database_names_the_remedy(damage: str, tmp_path: Path, store: SqliteStorage) -> None:
    """What is no database of ours is a CacheCorruptError that names the file and the command."""
    store.close()
    database = store.place / DATABASE
    content = database.read_bytes()
    database.unlink()
    if damage == "garbage":
        database.write_bytes(b"\x00garbage" * 1000)
    elif damage == "cut":
        database.write_bytes(content[:5000] + bytes(len(content) - 5000))
    elif damage == "a directory":
        database.mkdir()
    else:
        sqlite3.connect(database).execute("CREATE TABLE Other (a)").connection.close()
    for ask in (lambda: store.get("key"), lambda: list(each_row(store)), lambda: len(store)):
        with pytest.raises(CacheCorruptError, match="salvage") as caught:
            ask()
        assert str(database) in str(caught.value)


def test_a_deleted_directory_is_made_again(store: SqliteStorage) -> None:
    """What is stored after somebody deleted the directory is in the new one, on the disk."""
    for path in store.place.iterdir():
        path.unlink()
    store.place.rmdir()
    assert store.add("later", b"value")
    assert SqliteStorage(store.place).get("later") is not None
    assert (store.get("key"), len(store)) == (None, 1)
