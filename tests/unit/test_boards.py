"""The board of a map: where it is, and the marks on it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import read_only, small
from redis_servers import RedisProcess

import llmcall
from llmcall.parallel.boards import HALT, LEFT_FOR, STOP, Board, board_at, new_board


def made(**settings: object) -> Board:
    """Return a new board under some settings."""
    with llmcall.configured(**settings):
        return new_board(llmcall.settings())


@pytest.fixture(params=["folder", "redis"])
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """Give a board in a directory, and one in a database."""
    if request.param == "folder":
        yield made(cache_path="cache")
    else:
        with RedisProcess() as server:
            yield made(cache_path=server.url)


def test_marks(board: Board) -> None:
    """What one process leaves, another finds, until it is taken away."""
    assert (board.marks(), board.has(STOP), board.read(STOP)) == (set(), False, None)
    board.post(STOP, b"now")
    other = type(board)(board.place, board.name)  # type: ignore[call-arg]
    assert (other.marks(), other.has(STOP), other.read(STOP)) == ({STOP}, True, b"now")
    other.withdraw(STOP)
    other.withdraw(STOP)
    assert not board.has(STOP)


def test_what_may_begin(board: Board) -> None:
    """All may until the map is halted, and leave a mark in any case; nothing may once it has ended."""
    assert board.begin("begun-0-0")
    board.post(HALT)
    assert not board.begin("begun-1-0")
    assert board.marks() == {"begun-0-0", "begun-1-0", HALT}
    board.remove()
    assert not board.begin("begun-2-0")


def test_boards_are_apart(board: Board) -> None:
    """Two maps in one place have nothing in common."""
    board.post(HALT)
    assert not board_at(board.place, "another").has(HALT)


@pytest.mark.parametrize(
    ("mode", "exists", "there"),
    [
        ("auto", False, True),
        ("refresh", False, True),
        ("replay", False, False),
        ("off", False, False),
        ("off", True, True),
    ],
)
def test_where_it_is(mode: str, exists: bool, there: bool) -> None:
    """It stands in the cache's directory, which is made only in the modes that would make it anyway."""
    if exists:
        Path("cache").mkdir()
    board = made(cache_path="cache", cache_mode=mode)
    assert (os.path.dirname(board.place) == os.path.abspath("cache")) == there
    assert Path("cache").exists() == (exists or there)
    assert board.begin("begun-0-0")
    board.remove()
    assert not Path(board.place, board.name).exists()


def test_a_place_that_takes_nothing() -> None:
    """Where the cache's path is no directory, the machine's folder for temporary files has it."""
    Path("cache").touch()
    board = made(cache_path="cache")
    assert Path(tempfile.gettempdir()) in Path(board.place).parents
    assert board.begin("begun-0-0")
    board.remove()
    assert not Path(board.place).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is mounted there")
def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """A board is elsewhere where the cache's disk is read only, also where others stood on it before."""
    with small(tmp_path / "small") as disk:
        made(cache_path=disk / "cache").remove()
        with read_only(disk):
            board = made(cache_path=disk / "cache")
    assert (board.begin("begun-0-0"), disk in Path(board.place).parents) == (True, False)
    board.remove()


def test_a_cache_s_directory_begins_as_ever() -> None:
    """It is private and out of git, also where a board comes first; a cache works there, and a board is no record."""
    board = made(cache_path="cache")
    assert Path("cache/.gitignore").read_text(encoding="utf-8") == "*\n"
    assert os.name == "nt" or Path("cache").stat().st_mode & 0o777 == 0o700
    cache = llmcall.ResponseCache("cache")
    assert (len(cache), list(cache.records()), cache.verify()) == (0, [], [])
    board.remove()


@pytest.mark.parametrize("has_its_own", [False, True])
def test_a_board_that_another_machine_does_not_see(has_its_own: bool) -> None:
    """All may begin there, and nothing is told, also where a cache of its own stands at the same path."""
    here = made(cache_path="cache")
    Path("cache").rename("elsewhere")
    if has_its_own:
        made(cache_path="cache").remove()
    board = board_at(here.place, here.name)
    assert (board.begin("begun-0-0"), board.has(STOP), board.read(STOP), board.marks()) == (True, False, None, set())


def test_maps_share_a_folder() -> None:
    """However many run, one after the other or at once, the cache's directory has one folder for them."""
    first, second = made(cache_path="cache"), made(cache_path="cache")
    second.remove()
    assert made(cache_path="cache").place == second.place == first.place


def test_what_a_killed_map_left_is_removed() -> None:
    """A board on which nothing has moved for a week goes when another map comes; one that is in use stays."""
    old, used = made(cache_path="cache"), made(cache_path="cache")
    left = Path(old.place, old.name)
    os.utime(left, (0, left.stat().st_mtime - LEFT_FOR - 60))
    made(cache_path="cache")
    assert (left.exists(), used.begin("begun-0-0")) == (False, True)


def test_a_server_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """A map goes on, and says once that Ctrl-C may not reach its workers."""
    with RedisProcess() as server:
        board = made(cache_path=server.url)
        server.stop()
        assert (board.begin("begun-0-0"), board.has(STOP), board.marks()) == (True, False, set())
        board.post(STOP)
        board.remove()
    (said,) = caplog.messages
    assert "cannot be reached" in said and said.endswith("meanwhile Ctrl-C may not reach the workers of a map")


def test_what_nobody_removes_goes_by_itself() -> None:
    """A server forgets a board on which nothing has moved for a week."""
    with RedisProcess() as server, server.client() as client:
        board = made(cache_path=server.url)
        board.begin("begun-0-0")
        board.remove()
        (key,) = client.keys("llmcall:map:*")
        assert 0 < client.ttl(key) <= LEFT_FOR
