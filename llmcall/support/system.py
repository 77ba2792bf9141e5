"""Processes that are forked or end, locks between processes, the running event loop, IPython's shell."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeVar

from ..errors import CacheError

T = TypeVar("T")


# Windows has no forks.
register_at_fork: Callable[..., None] = getattr(os, "register_at_fork", lambda **_: None)


def after_fork_in_child(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in every process that is forked from this one, in the order of registration."""
    register_at_fork(after_in_child=function)
    return function


def before_fork(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in this process before each fork of it."""
    register_at_fork(before=function)
    return function


def after_fork_in_parent(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in this process after each fork of it."""
    register_at_fork(after_in_parent=function)
    return function


_process = os.getpid()


def this_process() -> int:
    """Return the number of this process, without asking the system each time."""
    return _process


@after_fork_in_child
def _renew_process() -> None:
    global _process
    _process = os.getpid()


def is_watched() -> bool:
    """Return whether BlockBuster may be on, which forbids event loops to touch a disk."""
    return "blockbuster" in sys.modules


@contextmanager
def unwatched() -> Iterator[None]:
    """Let a block read or write small files where an event loop is watched.

    This is a trick: asyncio offers the function to event loops. A thread in its place was rejected, as the loop would
    have to wait for it just as long.
    """
    loop = running_loop() if is_watched() else None
    if loop is not None:
        sys.modules["asyncio"]._set_running_loop(None)
    try:
        yield
    finally:
        if loop is not None:
            sys.modules["asyncio"]._set_running_loop(loop)


@unwatched()
def process_state(process: int) -> str:
    """Return Linux's letter for a process's state, such as T for stopped; empty if it has ended, and on other
    systems.
    """
    with suppress(OSError), open(f"/proc/{process}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0].decode()
    return ""


def is_running(process: int) -> bool:
    """Return whether a process has not ended; ``False`` where that cannot be known."""
    return process_state(process) not in ("", "Z")


# Held for microseconds, never while a caller's code runs or anything waits. Re-entrant, because the
# garbage collector may end a stream at any moment. A fork takes it, so that the child finds it free.
lock = threading.RLock()
register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@contextmanager
def last_in(stack: list[T], item: T) -> Iterator[None]:
    """Keep an object at a list's end for a block. Blocks of two threads may overlap, and a fork may empty the list."""
    with lock:
        stack.append(item)
    try:
        yield
    finally:
        with lock:
            if indexes := [index for index, other in enumerate(stack) if other is item]:
                del stack[indexes[-1]]


class ProcessLock:
    """A re-entrant lock that may be held for long. In a forked process it is free, if a thread held it
    that was not forked.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _process_locks.append(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def free(self) -> None:
        """Take the lock from a thread that this process does not have."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()


_process_locks: list[ProcessLock] = []


@after_fork_in_child
def _free_locks() -> None:
    for lock in _process_locks:
        lock.free()


@contextmanager
def file_lock(path: str) -> Iterator[None]:
    """Let one process at a time run a block. The lock ends with its process,
    however that ends.

    :param path: an empty file that exists meanwhile.
    :raises OSError: if it cannot be made.
    """
    file = _lock_file(path)
    try:
        yield
    finally:
        with suppress(OSError):  # what the block did is done
            os.unlink(path)
        os.close(file)


# The lock is one of POSIX (lockf), which a forked process does not share: with flock, a child that was
# forked meanwhile would hold the lock of its killed parent. A folder or a file that is the lock by
# being there was rejected, since a killed process leaves it, and no other process can know that. Nor
# may the file stay: it would stand beside each cassette, for git to see. So a process that waited for it checks
# that the file it locked is still the one at the path.
if sys.platform == "win32":

    def _lock_file(path: str) -> int:
        while True:
            with suppress(FileExistsError, PermissionError):
                # A trick: Windows removes such a file when its process ends.
                return os.open(path, os.O_CREAT | os.O_EXCL | os.O_TEMPORARY)
            time.sleep(0.01)

else:
    import fcntl

    def _lock_file(path: str) -> int:
        """Open and lock the file of a path."""
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            with suppress(OSError):  # file systems of some clusters have no locks
                fcntl.lockf(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return file
            os.close(file)


# Characters of a file's name in those of its temporary files: at most 240 of a name's 255 bytes
MOST_NAMED = 60


def check_replaceable(path: str, mark: bytes = b"") -> None:
    """Refuse to write over a device, a pipe or another file that is not a regular one, or that llmcall did not write.

    :param mark: stands at the beginning of files that llmcall wrote, in the first thousand bytes.
    :raises CacheError: if something else is there.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        return  # which is refused where a file is meant
    if not stat.S_ISREG(mode):
        raise CacheError(f"{path} is not a regular file, so llmcall does not write to it")
    with open(path, "rb") as file:
        if mark not in file.read(1000):
            raise CacheError(
                f"{path} exists, and llmcall did not write it: name another file, or remove this one"
            )


# One writer at a time, from the beginning: so one name does for the temporary file, and the next writer
# removes what a killed one left. Names with random parts would stay for good.
@contextmanager
def file_beside(path: str) -> Iterator[BinaryIO]:
    """Open a new file beside another, with its mode. It can take the other's place whole, and is removed at
    the end.

    :param path: the real path of the other, which need not exist.
    :raises OSError: if it cannot be made.
    """
    folder, name = os.path.split(path)
    start = os.path.join(folder, f".{name[:MOST_NAMED]}")
    temporary = f"{start}.tmp"
    with file_lock(f"{start}.lock"):
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        try:
            with open(temporary, "xb") as file:
                with suppress(FileNotFoundError):  # before the content, which may be private
                    os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
                yield file
        finally:
            with suppress(OSError):
                os.unlink(temporary)


_lock = ProcessLock()


@contextmanager
def without_warnings(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore Python's warnings for a block, in all threads; only one thread at a time may do so.

    Each block restores the filters that it found. If two overlapped, the last one to end might
    restore the filters of the other, and the process would ignore warnings until its end.
    """
    import warnings

    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def at_exit(function: Callable[[], object]) -> None:
    """Call a function when this process ends.

    A process that multiprocessing started ends with its main function, before its other threads.
    There the function is called at both ends: after the main function and, unless the process was
    forked, after the threads.
    """
    import atexit
    import logging  # noqa: F401  # shuts down after this function if it is imported first

    atexit.register(function)
    if is_started_by_multiprocessing():
        from multiprocessing.util import Finalize

        Finalize(None, function, exitpriority=0)


def is_started_by_multiprocessing() -> bool:
    """Return whether ``multiprocessing`` started this process, by a fork or otherwise.

    This is a trick: the name is private, but has existed since Python 3.8. The public function fails
    while another thread imports the module.
    """
    processes = sys.modules.get("multiprocessing.process")
    return getattr(processes, "_parent_process", None) is not None


def multiprocessing_config() -> dict[str, object]:
    """Return the dict that ``multiprocessing`` pickles for each process that it starts.

    This is a trick: the dict is private, but has existed since Python 2.6, and nothing public reaches
    such a process before its own code runs.
    """
    # The package is imported first: of two threads, one that imports a package and one that
    # imports a module in it, the first may fail.
    with unwatched():
        from multiprocessing import process

    return getattr(process.current_process(), "_config", {})


def running_loop() -> object:
    """Return the event loop that runs in this thread, or ``None``; asyncio need not be imported."""
    # While another thread imports asyncio, the module may still lack the function.
    get_running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return None if get_running_loop is None else get_running_loop()


def current_task() -> object:
    """Return the asyncio task that runs in this thread, or ``None``."""
    loop = running_loop()
    return None if loop is None else sys.modules["asyncio"].current_task(loop)


def ipython_shell() -> Any:
    """Return IPython's shell if the code runs in one, or ``None``."""
    # While another thread imports IPython, it may lack the function; a kernel has imported it.
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return None if get_ipython is None else get_ipython()


NO_FILE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Not the billion that some containers allow: there are programs that close every descriptor up to the limit.
MOST_FILES = 1 << 16


def raise_limit_of_files() -> None:
    """Raise this process's limit of open files to its maximum."""
    # Windows has no such limit, and other systems may allow less than they say.
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(soft, min(hard, MOST_FILES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def has_no_file_left() -> bool:
    """Return whether this process can open no further file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in NO_FILE_LEFT
    return False
