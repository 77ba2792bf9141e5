"""The store in Redis: what the store on the disk does, for clients on several machines; against a real server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import ran, start
from redis_servers import RedisProcess

from llmcall.cache.redis import RedisStorage
from llmcall.cache.sqlite import SqliteStorage
from llmcall.cache.storage import Storage, each_row
from llmcall.errors import CacheError, ConfigError


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    """A server for the tests of this file."""
    with RedisProcess() as made:
        yield made


@pytest.fixture
def empty(server: RedisProcess) -> RedisProcess:
    """The server without data, as it was configured at first."""
    with server.client() as client:
        client.flushall()
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_resetstat()
    return server


@pytest.fixture
def mortal() -> Iterator[RedisProcess]:
    """A server that a test stops and starts again: at a socket, since a port may be taken meanwhile; it saves all."""
    with RedisProcess(port="0", appendonly="yes", appendfsync="always") as made:
        yield made


@pytest.fixture(params=["disk", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A store of each kind."""
    if request.param == "disk":
        made: Storage = SqliteStorage(tmp_path / "cache")
    else:
        made = RedisStorage(request.getfixturevalue("empty").url)
    yield made
    made.close()


def listed(store: Storage) -> list[tuple[str, bytes | None]]:
    """List keys and bytes in the order of storing."""
    return [(key, value) for key, value, _ in each_row(store)]


def test_an_empty_store(store: Storage) -> None:
    """Where nothing was stored nothing is found, and asking leaves nothing."""
    assert (store.get("key"), len(store), list(each_row(store)), store.page(0, 5), store.last()) == (None, 0, [], [], 0)
    assert (store.starting("", 5), store.delete(["key"]), store.clear(), store.exists()) == ([], 0, 0, False)


def test_first_writer_wins(store: Storage) -> None:
    """A second value is not added; set replaces it, and moves neither its place nor the count."""
    assert store.add("key", b"value")
    assert not store.add("key", b"other")
    assert store.add("more", b"m")
    assert store.get("key")[0] == b"value"  # type: ignore[index]
    store.set("key", b"newer")
    store.set("last", b"")
    assert listed(store) == [("key", b"newer"), ("more", b"m"), ("last", b"")]
    assert (len(store), store.exists()) == (3, True)


def test_rows_are_read_a_page_at_a_time(store: Storage) -> None:
    """More rows than a page holds come in the order of storing, none twice, also while some are added and deleted."""
    assert store.add_all((f"{number:05}", b"v", False) for number in range(1203)) == 1203
    found = []
    for key, _, _ in each_row(store):
        found.append(key)
        if len(found) == 600:
            store.add("late", b"v")
            store.delete([f"{number:05}" for number in range(400, 1000)])
    assert found[:600] == [f"{number:05}" for number in range(600)]
    assert found[-204:] == [*(f"{number:05}" for number in range(1000, 1203)), "late"]
    assert len(found) == len(set(found))


def test_pages(store: Storage) -> None:
    """A page begins after a place, and the last place is the last row's."""
    store.add_all((name, name.encode(), False) for name in "abcde")
    first = store.page(0, 2)
    assert [row[1:3] for row in first] == [("a", b"a"), ("b", b"b")]
    assert [row[1] for row in store.page(first[-1][0], 9)] == ["c", "d", "e"]
    assert store.page(store.last() - 1, 1)[0][1] == "e"
    assert store.page(store.last(), 1) == []


def test_all_or_none(store: Storage) -> None:
    """Where one row of many cannot be made, none is stored."""
    store.add("key", b"value")

    def rows() -> Any:
        yield "a", b"1", False
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add_all(rows())
    assert store.add_all([("a", b"1", False), ("key", b"2", False), ("key", b"3", True)], {"a": 7.5}) == 2
    assert (store.get("key")[0], store.get("a"), len(store)) == (b"3", (b"1", 7.5), 2)  # type: ignore[index]


def test_delete_and_clear(store: Storage) -> None:
    """Deleting tells how many were there; clearing leaves nothing, and what is stored later comes later."""
    store.add_all([(name, b"", False) for name in "abcd"])
    before = store.last()
    assert store.delete(["a", "b", "never"]) == 2
    assert [key for key, _ in listed(store)] == ["c", "d"]
    assert store.clear() == 2
    assert (len(store), listed(store), store.exists()) == (0, [], True)
    store.add("later", b"")
    assert listed(store) == [("later", b"")]
    assert isinstance(store, SqliteStorage) or store.last() > before


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("", ["*a", "[x]", "a", "a-b", "ab"]), ("a", ["a", "a-b", "ab"]), ("*", ["*a"]), ("[x", ["[x]"]), ("a-", ["a-b"]),
     ("?", []), ("abc", [])],
)  # fmt: skip
def test_keys_that_begin_with(store: Storage, prefix: str, expected: list[str]) -> None:
    """Signs that mean something in a pattern mean themselves; the keys are sorted, and at most as many as asked for."""
    store.add_all([(key, b"", False) for key in ("ab", "a", "a-b", "*a", "[x]")])
    assert store.starting(prefix, 9) == expected
    assert store.starting(prefix, 1) == expected[:1]


def test_rewrite(store: Storage) -> None:
    """Rows change places with each other, or their bytes only; each keeps its place and time."""
    store.add_all([(key, b"old", False) for key in "abcd"], {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
    assert store.rewrite(lambda: [("a", "b", b"A"), ("b", "a", b"B"), ("c", "c", b"C")]) == 3
    assert list(each_row(store)) == [("b", b"A", 1.0), ("a", b"B", 2.0), ("c", b"C", 3.0), ("d", b"old", 4.0)]
    assert store.rewrite(list) == 0


def test_a_rewrite_that_fails_changes_nothing(store: Storage) -> None:
    """Whatever happens while the changes are made up, none of them stays."""
    store.add("a", b"1")

    def changes() -> Any:
        yield "a", "b", b"2"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.rewrite(changes)
    assert listed(store) == [("a", b"1")]


KEYS = st.sampled_from("abc")
VALUES = st.binary(max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("add"), KEYS, VALUES),
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("add_all"), st.lists(st.tuples(KEYS, VALUES, st.booleans()), max_size=4)),
    st.tuples(st.just("delete"), st.lists(KEYS, max_size=3, unique=True)),
    st.tuples(st.just("clear")),
)


@settings(max_examples=30)
@given(st.lists(STEPS, max_size=12))
def test_both_stores_do_the_same(server: RedisProcess, tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    """Whatever is stored, replaced and deleted, each step returns the same, and the same is there at the end."""
    with server.client() as client:
        client.flushall()
    disk, redis = SqliteStorage(tmp_path_factory.mktemp("disk") / "cache"), RedisStorage(server.url)
    for name, *given_to in steps:
        assert getattr(disk, name)(*given_to) == getattr(redis, name)(*given_to), (name, given_to)
    assert (listed(disk), len(disk)) == (listed(redis), len(redis))
    assert disk.starting("", 9) == redis.starting("", 9)
    disk.close()
    redis.close()


def test_many_threads_share_one_store(empty: RedisProcess) -> None:
    """Threads that write the same keys store each once, more of them than redis-py has connections by default."""
    store = RedisStorage(empty.url)
    stored: list[bool] = []
    barrier = threading.Barrier(120)

    def work(thread: int) -> None:
        barrier.wait()
        stored.extend([store.add(str(key), str(thread).encode()) for key in range(5)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(120)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(stored), len(stored), len(store)) == (5, 600, 5)
    store.close()


def test_processes_share_a_store(empty: RedisProcess) -> None:
    """Of processes that store the same keys at the same time, one stores each."""
    program = """
        from llmcall.cache.redis import RedisStorage
        store = RedisStorage(sys.argv[1])
        sys.stdin.readline()
        print(sum(store.add(str(key), sys.argv[2].encode()) for key in range(50)))
    """
    processes = [start(program, empty.url, number) for number in range(3)]
    results = [process.communicate("go\n", timeout=300) for process in processes]
    assert [complaints for _, complaints in results] == [""] * 3
    store = RedisStorage(empty.url)
    assert sum(int(printed) for printed, _ in results) == len(store) == len(listed(store)) == 50
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork(empty: RedisProcess) -> None:
    """A forked child reads, lists and writes through connections of its own, also while another thread is writing."""
    program = """
        from llmcall.cache.redis import RedisStorage
        from llmcall.cache.storage import each_row
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, from Python 3.12 on
        store = RedisStorage(sys.argv[1])
        store.add("parent", b"1")
        writing = threading.Thread(target=lambda: [store.add(str(number), b"") for number in range(300)])
        writing.start()
        child = os.fork()
        if not child:
            assert store.get("parent")[0] == b"1" and store.add("child", b"2")
            assert all(not store.add("child", b"x") for _ in range(200))
            assert {"parent", "child"} <= {key for key, _, _ in each_row(store)} and len(store) >= 2
            os._exit(0)
        _, status = os.waitpid(child, 0)
        writing.join()
        assert status == 0 and store.add("after", b"3") and not store.add("child", b"x")
        print(len(store), store.get("child")[0].decode())
    """
    assert ran(program, empty.url) == "303 2"


def commands(server: RedisProcess) -> dict[str, int]:
    """Count what the server was asked to do since it was last asked."""
    with server.client() as client:
        found = {name: each["calls"] for name, each in client.info("commandstats").items()}
        client.config_resetstat()
    return {name: calls for name, calls in found.items() if name not in ("cmdstat_info", "cmdstat_config|resetstat")}


def test_neither_looking_up_nor_storing_grows_with_the_cache(empty: RedisProcess) -> None:
    """One row in five thousand costs the commands of one row in three."""
    store = RedisStorage(empty.url)
    store.add("first", b"")
    costs = []
    for size in (3, 5000):
        store.add_all((f"{size}-{number}", b"v", False) for number in range(size - len(store)))
        commands(empty)
        store.add(f"put-{size}", b"v")
        store.add(f"put-{size}", b"again")
        store.get(f"put-{size}")
        len(store)
        costs.append(commands(empty))
    assert costs[0] == costs[1]
    assert costs[0]["cmdstat_hget"] == costs[0]["cmdstat_hlen"] == 1
    store.close()


def test_other_data_in_the_database_stays(empty: RedisProcess) -> None:
    """Only what is ours is listed, counted and deleted."""
    with empty.client() as client:
        client.set("theirs", b"1")
        store = RedisStorage(empty.url)
        store.add("ours", b"2")
        assert (len(store), store.clear()) == (1, 1)
        assert client.get("theirs") == b"1"
        store.close()


def test_databases_are_apart(empty: RedisProcess) -> None:
    """The number in the address names the database."""
    stores = [RedisStorage(empty.url), RedisStorage(empty.url[:-1] + "1"), RedisStorage(f"unix://{empty.socket}?db=1")]
    assert [store.add("key", str(number).encode()) for number, store in enumerate(stores)] == [True, True, False]
    assert [store.get("key")[0] for store in stores] == [b"0", b"1", b"1"]  # type: ignore[index]
    for store in stores:
        store.close()


def test_a_row_that_is_none(empty: RedisProcess) -> None:
    """What somebody else put among the rows, or took from them, is shown as unreadable."""
    store = RedisStorage(empty.url)
    store.add_all([("a", b"1", False), ("b", b"2", False), ("c", b"3", False)])
    with empty.client() as client:
        client.hset("llmcall:rows", "a", b"short")
        client.hdel("llmcall:rows", "b")
    assert listed(store) == [("a", b""), ("b", None), ("c", b"3")]
    store.close()


def test_a_rewrite_waits_for_nobody(empty: RedisProcess) -> None:
    """What is stored while changes are made up lets them be made up again; if that goes on, nothing is changed."""
    store, other = RedisStorage(empty.url), RedisStorage(empty.url)
    store.add("a", b"1")
    disturbing = iter(range(1))

    def changes() -> list[tuple[str, str, bytes]]:
        for number in disturbing:
            other.add(f"x{number}", b"")
        return [("a", "b", b"2")]

    assert store.rewrite(changes) == 1
    assert listed(store) == [("b", b"2"), ("x0", b"")]
    disturbing = iter(range(10, 20))

    def disturbed() -> list[tuple[str, str, bytes]]:
        other.add(f"x{next(disturbing)}", b"")
        return [("b", "c", b"3")]

    with pytest.raises(CacheError, match="others go on storing records, so nothing was changed"):
        store.rewrite(disturbed)
    assert store.get("b") is not None
    store.close()
    other.close()


def test_a_restart_of_the_server(mortal: RedisProcess) -> None:
    """While the server is away each use says so; when it is back, the same store goes on, with what it held."""
    store = RedisStorage(f"unix://{mortal.socket}")
    store.add("before", b"1")
    for _ in range(2):
        mortal.stop()
        for use in (lambda: store.get("before"), lambda: store.add("away", b""), store.clear, store.size):
            with pytest.raises(CacheError, match="cannot be reached"):
                use()
        mortal.start()
        assert store.get("before")[0] == b"1"  # type: ignore[index]
        assert not store.add("before", b"2")
    mortal.stop()
    mortal.start()
    assert store.add("after", b"3")
    assert listed(store) == [("before", b"1"), ("after", b"3")]
    store.close()


def test_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listening is said at once, without waiting for a next attempt, with address and remedy."""
    retry = pytest.importorskip("redis.retry")

    def fail(seconds: float) -> None:
        pytest.fail(f"it waits {seconds} s before it tries again")

    monkeypatch.setattr(retry, "sleep", fail)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens to nobody
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        store = RedisStorage(f"redis://lisa:sesame@{address}/0")
        with pytest.raises(CacheError) as caught:
            store.get("key")
    assert f"the Redis server redis://***@{address}/0 cannot be reached" in str(caught.value)
    assert "start it, or name another server or a directory in [Cache] PATH" in str(caught.value)
    assert "sesame" not in told(caught.value)


def told(error: BaseException) -> str:
    """Return all that is shown of an error where nobody catches it."""
    return "".join(traceback.format_exception(error)) + repr(error)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Listen on the loopback, and answer whatever comes with some bytes, or never with none; gives the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = []

    def talk() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            opened.append(connection)
            if answer and connection.recv(65536):
                connection.sendall(answer)

    thread = threading.Thread(target=talk)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()
    for connection in opened:
        connection.close()


def test_a_server_that_never_answers() -> None:
    """A server that hangs is given up after the time that the address allows."""
    with answering(b"") as address:
        store = RedisStorage(f"redis://:sesame@{address}/0?socket_timeout=0.1")
        with pytest.raises(CacheError, match=r"cannot be reached \(Timeout") as caught:
            store.get("key")
        assert "sesame" not in told(caught.value)
        store.close()


def test_a_server_that_repeats_the_password() -> None:
    """A password that a server quotes in its complaint is not handed on, by the message or by its cause."""
    with answering(b"-ERR unknown command 'AUTH', with args beginning with: 'sesame'\r\n") as address:
        store = RedisStorage(f"redis://:sesame@{address}/0")
        with pytest.raises(CacheError, match=r"beginning with: '\*\*\*'") as caught:
            store.get("key")
        assert "sesame" not in told(caught.value)
        store.close()


def test_passwords() -> None:
    """The right password opens; without it, or with another, the error says where it belongs and shows none."""
    with RedisProcess(requirepass="a/b@c:d?e") as server:
        address = f"127.0.0.1:{server.port}/0"
        right = RedisStorage(f"redis://:a%2Fb%40c%3Ad%3Fe@{address}")
        assert right.add("key", b"1")
        right.close()
        for url in (f"redis://{address}", f"redis://:other-word@{address}", f"redis://{address}?password=other-word"):
            store = RedisStorage(url)
            with pytest.raises(CacheError, match=r"refuses access \(.*\): user and password stand in") as caught:
                store.get("key")
            assert "other-word" not in told(caught.value)
            assert "other-word" not in str(store.place)
            store.close()


@pytest.mark.parametrize(
    "address",
    ["s3://key:sesame@bucket/x", "redis://:ses/ame@host/0", "redis://:sesame@host:port/0", "rediss://host?sesame=1",
     "http://:sesame@host", "redis://:sesame@host/0?socket_timeout=soon", "file:///sesame"],
)  # fmt: skip
def test_an_address_that_is_none(address: str) -> None:
    """It is refused before anything is asked, with the forms that there are, and its password stays unsaid."""
    pytest.importorskip("redis")
    with pytest.raises(ConfigError, match=r"redis://\[\[USER\]:PASSWORD@\]HOST") as caught:
        RedisStorage(address)
    if "@" in address:
        assert "same" not in told(caught.value)
        assert "ses/" not in told(caught.value)


def test_without_the_client_library() -> None:
    """Without redis-py an error names the extra, before anything is asked or paid for."""
    program = """
        sys.modules["redis"] = None
        llmcall.configure(cache_path="redis://:sesame@127.0.0.1/0", cache_mode=sys.argv[1])
        paid = []
        try:
            ScriptedClient(paid.append, cache_mode=sys.argv[1]).send_message("Hello")
        except llmcall.ConfigError as error:
            print(error, len(paid))
    """
    expected = (
        "[Cache] PATH = redis://***@127.0.0.1/0 needs the Python package redis (5.3.0 or later): "
        "install the extra 'redis' 0"
    )
    assert [ran(program, mode) for mode in ("auto", "refresh", "replay")] == [expected] * 3


def test_the_client_library_comes_with_redis_only(tmp_path: Path) -> None:
    """A cache on the disk imports neither it nor our modules for it."""
    program = """
        client = ScriptedClient(["yes"], cache_mode="auto", cache_path=sys.argv[1])
        assert client.send_message("Hello") == client.send_message("Hello")
        with llmcall.budget(calls=5, name="survey"):
            client.send_message("Hello")
        print([name for name in sys.modules if "redis" in name])
    """
    assert ran(program, tmp_path / "cache") == "[]"


def test_a_server_that_evicts_is_warned_of(empty: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    """Before the first answer is stored where it may be dropped, the log says so once, with the remedy."""
    with empty.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    store = RedisStorage(empty.url)
    store.get("a")
    assert not caplog.records
    store.add("a", b"")
    store.add("b", b"")
    assert [record.getMessage() for record in caplog.records] == [
        f"the Redis server {empty.url}: it may drop answers when its memory is full (maxmemory-policy allkeys-lru): "
        "set noeviction"
    ]
    assert [risk.rpartition(": ")[2] for risk in store.risks()] == ["set noeviction", "set appendonly yes"]
    store.close()


def test_a_server_that_takes_nothing_more(empty: RedisProcess) -> None:
    """Of many rows that do not fit into the server's memory none is stored, and what is there can be read."""
    store = RedisStorage(empty.url)
    store.add("there", b"1")
    with empty.client() as client:
        client.config_set("maxmemory", "1")
    for use in (lambda: store.add("a", b""), lambda: store.add_all([("a", b"", False), ("b", b"", False)])):
        with pytest.raises(CacheError, match=r"refuses a command \(.*maxmemory"):
            use()
    assert listed(store) == [("there", b"1")]
    store.close()


def test_tls(tmp_path: Path) -> None:
    """``rediss://`` speaks to a server with a certificate, whose authority the address names, and to no other one."""
    certificate, key = made_certificate(tmp_path)
    files = {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate}
    with RedisProcess(**files, **{"tls-auth-clients": "no"}) as server:
        address = f"rediss://localhost:{server.port}/0"
        store = RedisStorage(f"{address}?ssl_ca_certs={certificate}")
        assert store.add("key", b"1")
        store.close()
        stranger = RedisStorage(address)
        with pytest.raises(CacheError, match=r"cannot be reached \(.*[Cc]ertificate"):
            stranger.get("key")
        stranger.close()


def made_certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate for localhost that vouches for itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here")
    names = str(folder / "certificate.pem"), str(folder / "key.pem")
    done = subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-out", names[0], "-keyout", names[1]],
        check=False, capture_output=True,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"openssl makes no certificate: {done.stderr.decode()}")
    return names
