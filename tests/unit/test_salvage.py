"""Salvaging: a damaged database gives back every record that can still be read, and no deleted one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from golden_requests import asked
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcall.cache.cache import ResponseCache
from llmcall.cache.record import pack
from llmcall.cache.sqlite import DATABASE
from llmcall.cli.main import main
from llmcall.errors import CacheCorruptError, CacheError
from llmcall.types import Record

PAGE = 4096
LONG = 30_000  # characters, over several overflow pages
SMALL, LARGE = 60, 4


def filled(path: Path, small: int = SMALL, large: int = LARGE) -> dict[str, Record]:
    """A cache with small records and some that fill several pages; return its records by their keys."""
    with ResponseCache(path) as cache:
        for number in range(small):
            cache.put(asked(f"question {number}", sample=number % 2 or None), {"answer": number}, cost=number / 10)
        for number in range(large):
            cache.put(asked(f"long question {number}"), {"answer": str(number) * LONG})
        return {record.cache_key: record for record in cache.records()}


def salvaged(path: Path, to: Path) -> dict[str, Record]:
    """What is read of a cache, by the keys under which it is found then."""
    with ResponseCache(path) as cache:
        count = cache.salvage(to)
    with ResponseCache(to) as saved:
        found = {record.cache_key: record for record in saved.records()}
        assert saved.verify() == []
    assert count == len(found)
    return found


def overwrite(path: Path, offset: int, junk: bytes) -> None:
    """Put other bytes into the database."""
    with open(path / DATABASE, "r+b") as file:
        file.seek(offset)
        file.write(junk)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    """A sound cache and its records."""
    path = tmp_path_factory.mktemp("sound") / "cache"
    return path, filled(path)


def test_a_sound_cache(sound: tuple[Path, dict[str, Record]], tmp_path: Path) -> None:
    """All comes over: keys, answers, costs, times and order; and running it again changes nothing."""
    path, records = sound
    assert salvaged(path, tmp_path / "new") == records
    assert list(salvaged(path, tmp_path / "new")) == list(records)


def test_what_is_there_already_stays(sound: tuple[Path, dict[str, Record]], tmp_path: Path) -> None:
    """The new cache may hold records; they keep their answers."""
    path, records = sound
    with ResponseCache(tmp_path / "new") as new:
        new.put(asked("question 0"), {"answer": "mine"})
    with ResponseCache(path) as cache:
        assert cache.salvage(tmp_path / "new") == len(records)
    with ResponseCache(tmp_path / "new") as new:
        assert len(new) == len(records)
        assert new.get(asked("question 0")).response == {"answer": "mine"}  # type: ignore[union-attr]


DAMAGES: dict[str, Callable[[Path, int], Any]] = {
    "the header": lambda path, size: overwrite(path, 0, bytes(100)),
    "the page size": lambda path, size: overwrite(path, 16, b"\x20\x00"),
    "the list of free pages": lambda path, size: overwrite(path, 32, b"\0\0\0\x05\0\0\0\x09"),
    "the table of tables": lambda path, size: overwrite(path, 100, b"\xff" * (PAGE - 100)),
    "the first two pages": lambda path, size: overwrite(path, 0, b"\x5a" * 2 * PAGE),
    "a pointer to the rows": lambda path, size: overwrite_interior(path),
}


def overwrite_interior(path: Path) -> None:
    """Damage every inner page of a b-tree, so that no row can be reached."""
    data = (path / DATABASE).read_bytes()
    inner = [at for at in range(PAGE, len(data), PAGE) if data[at] == 5]
    assert inner
    for at in inner:
        overwrite(path, at, b"\xff" * 200)


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damage_outside_the_records(
    damage: str, sound: tuple[Path, dict[str, Record]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where all rows are whole, all come back, whatever leads to them is lost."""
    path, records = sound
    shutil.copytree(path, tmp_path / "bad")
    DAMAGES[damage](tmp_path / "bad", len(records))
    found = salvaged(tmp_path / "bad", tmp_path / "new")
    assert {key: record.response for key, record in found.items()} == {
        key: record.response for key, record in records.items()
    }


@settings(max_examples=40)
@given(
    place=st.floats(0, 0.999),
    junk=st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 9000).map(bytes), st.just(b"\xff" * 5000)),
)
@example(place=0.022, junk=b"\xff" * 5000)  # SQLite quotes a name that is no text any more
def test_damage_anywhere(
    place: float, junk: bytes, sound: tuple[Path, dict[str, Record]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every record whose bytes stand whole in one page comes back, and nothing that was not there."""
    path, records = sound
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(path, folder / "bad")
    overwrite(folder / "bad", int(place * (path / DATABASE).stat().st_size), junk)
    data = (folder / "bad" / DATABASE).read_bytes()
    whole = {key for key, record in records.items() if pack(record) in data}
    found = salvaged(folder / "bad", folder / "new")
    assert whole <= found.keys() <= records.keys()
    assert all(found[key].response == records[key].response for key in found)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_database_that_was_cut_off(part: float, sound: tuple[Path, dict[str, Record]], tmp_path: Path) -> None:
    """What stands before the cut comes back."""
    path, records = sound
    shutil.copytree(path, tmp_path / "bad")
    data = (path / DATABASE).read_bytes()[: int((path / DATABASE).stat().st_size * part)]
    (tmp_path / "bad" / DATABASE).write_bytes(data)
    whole = {key for key, record in records.items() if pack(record) in data}
    assert whole and whole <= salvaged(tmp_path / "bad", tmp_path / "new").keys()


def test_a_damaged_record_is_left_out(sound: tuple[Path, dict[str, Record]], tmp_path: Path) -> None:
    """A record whose checksum does not fit is not handed on, and all others are."""
    path, records = sound
    shutil.copytree(path, tmp_path / "bad")
    key, record = next(iter(records.items()))
    at = (path / DATABASE).read_bytes().index(pack(record))
    overwrite(tmp_path / "bad", at + 40, b"\0")
    assert salvaged(tmp_path / "bad", tmp_path / "new").keys() == records.keys() - {key}


def test_keys_are_made_anew(sound: tuple[Path, dict[str, Record]], tmp_path: Path) -> None:
    """A row's own key is not needed."""
    path, records = sound
    shutil.copytree(path, tmp_path / "bad")
    with sqlite3.connect(tmp_path / "bad" / DATABASE) as connection:
        connection.execute("UPDATE Cache SET key = 'k' || rowid")
    connection.close()
    assert salvaged(tmp_path / "bad", tmp_path / "new") == records


def test_deleted_records_stay_deleted(tmp_path: Path) -> None:
    """What was deleted stands in free pages, and does not come back with the rest."""
    records = filled(tmp_path / "bad")
    with ResponseCache(tmp_path / "bad") as cache:
        cache.delete(where=lambda record: "long" in record.request["messages"][0]["content"])
        kept = {record.cache_key for record in cache.records()}
    overwrite_interior(tmp_path / "bad")
    assert salvaged(tmp_path / "bad", tmp_path / "new").keys() == kept < records.keys()


def test_the_write_ahead_log(tmp_path: Path) -> None:
    """Records that stand in the log alone come back, though the database is damaged."""
    with ResponseCache(tmp_path / "cache") as cache:
        filled(tmp_path / "cache", 5, 0)
        cache.put(asked("in the log"), {"answer": 1})
        shutil.copytree(tmp_path / "cache", tmp_path / "bad")
    log = tmp_path / "bad" / f"{DATABASE}-wal"
    assert b"in the log" in log.read_bytes()
    assert b"in the log" not in (tmp_path / "bad" / DATABASE).read_bytes()
    (tmp_path / "bad" / DATABASE).write_bytes(b"\xff" * PAGE)
    assert len(salvaged(tmp_path / "bad", tmp_path / "new")) == 6


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, bytes(3 * PAGE)])
def test_a_file_without_records(content: bytes, tmp_path: Path) -> None:
    """A file in which nothing is left gives nothing, and no error."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / DATABASE).write_bytes(content)
    with ResponseCache(tmp_path / "bad") as cache:
        assert cache.salvage(tmp_path / "new") == 0


def test_there_must_be_a_database(tmp_path: Path) -> None:
    """A directory without a cache is named."""
    with pytest.raises(CacheError, match="holds no cache"):
        ResponseCache(tmp_path / "none").salvage(tmp_path / "new")


def test_not_into_itself(sound: tuple[Path, dict[str, Record]]) -> None:
    """The damaged cache is not written to."""
    with ResponseCache(sound[0]) as cache, pytest.raises(CacheError, match="into itself"):
        cache.salvage(sound[0].parent / "." / "cache")


def test_the_error_names_the_command_that_mends(tmp_path: Path) -> None:
    """From the error of a damaged database to a cache that works, as a user would go."""
    records = filled(tmp_path / "cache")
    overwrite(tmp_path / "cache", 0, bytes(100))
    with ResponseCache(tmp_path / "cache", mode="replay") as cache, pytest.raises(CacheCorruptError) as caught:
        cache.get(asked("question 0"))
    assert f"'llmcall cache salvage NEW_FOLDER --path {tmp_path / 'cache'}'" in str(caught.value)
    done = CliRunner().invoke(main, ["cache", "--path", str(tmp_path / "cache"), "salvage", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{len(records)} records read from ")
    with ResponseCache(tmp_path / "new", mode="replay") as cache:
        assert cache.get(asked("question 0")).response == {"answer": 0}  # type: ignore[union-attr]
