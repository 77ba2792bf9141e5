"""Name the tasks, threads and executor functions of a program by who makes them.

Each gets its name from its maker when it is made: a task in its event loop's ``create_task``, a
thread in its ``start``, a function in its executor's ``submit``. The threads of a pool get no name,
because a pool starts them when none is idle, which depends on timing. Neither do anyio's threads,
which run functions in a copy of the context of the task that waits for them.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from .. import askers
from ..askers import Asker

KERNEL = re.compile(r"[\\/](ipykernel|IPython)[\\/]")  # folders of the files of a notebook's kernel


class _Thread(threading.local):
    # The asker of the threads that a pool starts now.
    pool_asker: Asker | None = None


_thread = _Thread()


def name_threads(undo: contextlib.ExitStack) -> None:
    """Name every thread that starts from now on.

    :param undo: gets the callbacks that end the naming.
    """
    askers.begin_naming()
    undo.callback(askers.end_naming)
    _replace(undo, threading.Thread, "start", _start)


def name_work(undo: contextlib.ExitStack, executor: type) -> None:
    """Name the functions that are submitted to a class of executors."""
    _replace(undo, executor, "submit", _submit)


def name_tasks(undo: contextlib.ExitStack, loop: type) -> None:
    """Name the tasks of a class of event loops, by a thread's asker if a thread hands them over."""
    _replace(undo, loop, "create_task", _create_task)
    _replace(undo, loop, "call_soon_threadsafe", _call_soon_threadsafe)


def order_completed(undo: contextlib.ExitStack, asyncio: ModuleType) -> None:
    """Make the tasks of ``as_completed`` in the given order. It makes those of coroutines, such as
    tqdm's ``gather`` gives it, in the order of a set.
    """

    def ordered(as_completed: Callable[..., Any], awaitables: Any, **options: Any) -> Any:
        is_single = asyncio.isfuture(awaitables) or asyncio.iscoroutine(awaitables)
        if askers.current() is not None and not is_single:
            awaitables = [asyncio.ensure_future(each) for each in dict.fromkeys(awaitables)]
        return as_completed(awaitables, **options)

    _replace(undo, asyncio, "as_completed", ordered)


def _replace(
    undo: contextlib.ExitStack, owner: Any, name: str, replacement: Callable[..., Any]
) -> None:
    """Replace a method, or a module's function, by one that takes the original as its first argument."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    is_inherited = name not in vars(owner)
    setattr(owner, name, replaced)
    if is_inherited:
        undo.callback(delattr, owner, name)
    else:
        undo.callback(setattr, owner, name, original)


# Tasks


def _create_task(create_task: Callable[..., Any], loop: Any, coroutine: Any, **options: Any) -> Any:
    maker = askers.current()
    if maker is None:
        return create_task(loop, coroutine, **options)
    # A notebook's kernel makes tasks for each message. How many these are is no part of the program.
    asker = maker.main if _is_of_kernel(coroutine) else maker.child("task", _name(coroutine))
    context = options.get("context")
    if context is None:
        # The task copies the context. An eager one runs at once, in that copy.
        with askers.running_as(asker):
            task = create_task(loop, coroutine, **options)
        if hasattr(task, "get_context"):  # a task factory may give it a context of its own
            _enter_context(task.get_context(), asker)
        return task
    _enter_context(context, asker)
    return create_task(loop, coroutine, **options)


def _is_of_kernel(coroutine: Any) -> bool:
    """Return whether a coroutine is a notebook kernel's own, such as one that runs a cell."""
    code = getattr(coroutine, "cr_code", None)
    return code is not None and KERNEL.search(code.co_filename) is not None


def _call_soon_threadsafe(
    call_soon: Callable[..., Any],
    loop: Any,
    callback: Callable[..., Any],
    *args: Any,
    **options: Any,
) -> Any:
    """Run a callback with the asker of the thread that schedules it on the loop.

    A thread's own context doesn't hold its asker, so the callback would not find it there.
    """
    asker = askers.current()
    if asker is not None and options.get("context") is None:
        options["context"] = contextvars.copy_context()
        options["context"].run(askers.set_current, asker)
    return call_soon(loop, callback, *args, **options)


# Threads


def _start(start: Callable[..., Any], thread: threading.Thread) -> None:
    maker = askers.current()
    if maker is not None:
        if _thread.pool_asker is not None:
            _run_for(_thread.pool_asker, thread)
        elif type(thread).__module__.startswith("anyio."):
            _run_for(maker.main, thread)
        else:
            function = getattr(thread, "_target", None) or type(thread)
            asker = maker.child("thread", _name(function))
            _enter(asker, function, getattr(thread, "_args", ()))
            askers.note_started(thread, asker, maker)
    start(thread)


def _run_for(asker: Asker, thread: threading.Thread) -> None:
    """Set the asker of a pool's thread, until it runs a function with an asker of its own."""
    run = thread.run

    def run_as_asker() -> None:
        with askers.running_as(asker):
            run()

    thread.run = run_as_asker  # type: ignore[method-assign]


# Executors


def _submit(
    submit: Callable[..., Any],
    executor: Any,
    function: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    maker = askers.current()
    if maker is None:
        return submit(executor, function, *args, **kwargs)
    work = _work(maker, function, args)
    with _pool_of(maker.main):
        return submit(executor, work, *args, **kwargs)


def _work(maker: Asker, function: Callable[..., Any], args: Iterable[Any]) -> Callable[..., Any]:
    """Return a function that runs with an asker of its own, a child of its maker."""
    asker = maker.child("work", _name(functools.partial(function, *args)))
    return functools.partial(_run_work, asker, maker, function)


def _run_work(
    asker: Asker, maker: Asker, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    _enter(asker, function, args)
    with askers.running_as(asker, maker):
        return function(*args, **kwargs)


@contextlib.contextmanager
def _pool_of(asker: Asker) -> Iterator[None]:
    """Set the asker of the pool threads that start in a block."""
    outer_asker, _thread.pool_asker = _thread.pool_asker, asker
    try:
        yield
    finally:
        _thread.pool_asker = outer_asker


# Functions


def _enter(asker: Asker, function: Any, args: Iterable[Any]) -> None:
    """Set the asker in each context in which the function will run."""
    for layer in _layers(functools.partial(function, *args)):
        context = _context_of(layer)
        if context is not None:
            _enter_context(context, asker)


def _enter_context(context: contextvars.Context, asker: Asker) -> None:
    """Set the asker in a context, unless the context is in use."""
    with contextlib.suppress(RuntimeError):
        context.run(askers.set_current, asker)


def _name(function: Any) -> str:
    """Return the name of a coroutine's or function's code, which is the same in every run."""
    *_, function = _layers(function)
    function = getattr(function, "__func__", function)
    for name in ("cr_code", "__code__", "gi_code", "ag_code"):
        code = getattr(function, name, None)
        if code is not None:
            return str(code.co_name)
    kind = function if isinstance(function, type) else type(function)
    return kind.__name__


def _layers(function: Any) -> Iterator[Any]:
    """Yield a function without its partials and, if it is a context's ``run``, what that runs."""
    while True:
        args: tuple[Any, ...] = ()
        while isinstance(function, functools.partial):
            function, args = function.func, (*function.args, *args)
        yield function
        if _context_of(function) is None or not args:
            return
        function = functools.partial(args[0], *args[1:])


def _context_of(function: Any) -> contextvars.Context | None:
    """Return the context whose ``run`` a function is, or ``None``."""
    context = getattr(function, "__self__", None)
    if isinstance(context, contextvars.Context) and function == context.run:
        return context
    return None
