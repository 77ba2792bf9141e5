"""Salvaging: a damaged database gives back every record that can still be read, and no deleted one."""

from __future__ import annotations

import shutil
from pathlib import Path

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


def leaf_pages(path: Path) -> list[int]:
    """Where the pages begin that hold rows of tables."""
    data = (path / DATABASE).read_bytes()
    return [at for at in range(PAGE, len(data), PAGE) if data[at] == 13]


def test_a_lost_page(sound: tuple[Path, dict[str, Record]], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The rows of a page that SQLite cannot read are lost, all others come back, and the log says how many."""
    path, records = sound
    for number, at in enumerate(leaf_pages(path)):
        bad = tmp_path / f"bad {number}"
        shutil.copytree(path, bad)
        overwrite(bad, at, b"\xff" * PAGE)
        caplog.clear()
        found = salvaged(bad, tmp_path / f"new {number}")
        assert found.items() <= records.items()
        assert len(found) > len(records) / 2
        lost = len(records) - len(found)
        assert not lost or f"{lost} of {len(records)} records cannot be read and are lost" in caplog.text
    assert number > 3


@settings(max_examples=40)
@given(
    place=st.floats(0, 0.999),
    junk=st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 9000).map(bytes), st.just(b"\xff" * 5000)),
)
@example(place=0.022, junk=b"\xff" * 5000)  # SQLite quotes a name that is no text any more
def test_damage_anywhere(
    place: float, junk: bytes, sound: tuple[Path, dict[str, Record]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing comes back that was not there; where not even a beginning can be read, the error says so."""
    path, records = sound
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(path, folder / "bad")
    overwrite(folder / "bad", int(place * (path / DATABASE).stat().st_size), junk)
    try:
        found = salvaged(folder / "bad", folder / "new")
    except CacheCorruptError as error:
        assert "nothing of the cache" in str(error)
    else:
        assert found.keys() <= records.keys()
        assert all(found[key].response == records[key].response for key in found)


@pytest.mark.parametrize("part", [0.6, 0.95])
def test_a_database_that_was_cut_off(part: float, sound: tuple[Path, dict[str, Record]], tmp_path: Path) -> None:
    """What stands before the cut comes back."""
    path, records = sound
    shutil.copytree(path, tmp_path / "bad")
    data = (path / DATABASE).read_bytes()[: int((path / DATABASE).stat().st_size * part)]
    (tmp_path / "bad" / DATABASE).write_bytes(data)
    assert 0 < len(salvaged(tmp_path / "bad", tmp_path / "new")) < len(records)


def test_a_damaged_record_is_left_out(sound: tuple[Path, dict[str, Record]], tmp_path: Path) -> None:
    """A record whose checksum does not fit is not handed on, and all others are."""
    path, records = sound
    shutil.copytree(path, tmp_path / "bad")
    key, record = next(iter(records.items()))
    at = (path / DATABASE).read_bytes().index(pack(record))
    overwrite(tmp_path / "bad", at + 40, b"\0")
    assert salvaged(tmp_path / "bad", tmp_path / "new").keys() == records.keys() - {key}


@pytest.mark.parametrize("content", [b"no database at all" * 100, bytes(3 * PAGE)])
def test_a_file_without_records(content: bytes, tmp_path: Path) -> None:
    """A file that is no database any more is an error."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / DATABASE).write_bytes(content)
    with ResponseCache(tmp_path / "bad") as cache, pytest.raises(CacheCorruptError, match="nothing of the cache"):
        cache.salvage(tmp_path / "new")


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
    overwrite(tmp_path / "cache", leaf_pages(tmp_path / "cache")[-1], b"\xff" * PAGE)
    with ResponseCache(tmp_path / "cache", mode="replay") as cache, pytest.raises(CacheCorruptError) as caught:
        list(cache.records())
    assert f"'llmcall cache salvage NEW_FOLDER --path {tmp_path / 'cache'}'" in str(caught.value)
    done = CliRunner().invoke(main, ["cache", "--path", str(tmp_path / "cache"), "salvage", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    count = int(done.output.split(" ")[0])
    assert 1 < count < len(records) and "records read from " in done.output
    with ResponseCache(tmp_path / "new", mode="replay") as cache:
        assert cache.get(asked("question 0")).response == {"answer": 0}  # type: ignore[union-attr]
