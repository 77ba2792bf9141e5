"""Names for the tasks, threads and thread pools' work of a program, by their makers.

Each gets its name where it is made: a task in its event loop's ``create_task``, a thread in its
``start``, a function in its pool's ``submit``. What is made on llmcall's behalf gets none, and
what it sends is llmcall's, too.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ..scopes.callers import Caller, counted_apart, current_caller, running_work
from ..scopes.position import hold, holding
from ..support.request_origin import LLMCALL, PROGRAM, llmcall_sends, sender, sent_by

T = TypeVar("T")
R = TypeVar("R")

KERNEL = re.compile(r"[\\/](ipykernel|IPython)[\\/]")  # folders of the files of a notebook's kernel


# Tasks


def create_task(create: Callable[..., T], loop: object, coroutine: object, **options: Any) -> T:
    """Make a task, a new caller, with the function that would have made it."""
    maker = None if llmcall_sends() else current_caller()
    if maker is None:
        return create(loop, coroutine, **options)
    # A notebook's kernel makes tasks for each message. Their number does not belong to the program.
    caller = maker.main if _is_of_kernel(coroutine) else maker.child("task", _name(coroutine))
    if options.get("context") is not None:
        _enter([options["context"]], caller)
        return create(loop, coroutine, **options)
    with holding(caller=caller):  # the task copies the context; an eager one runs at once
        return create(loop, coroutine, **options)


def _is_of_kernel(coroutine: object) -> bool:
    """Return whether a coroutine is a notebook kernel's own, such as that of a cell."""
    code = getattr(coroutine, "cr_code", None)
    return code is not None and KERNEL.search(code.co_filename) is not None


def as_completed(complete: Callable[..., T], awaitables: object, **options: object) -> T:
    """Make the tasks in the given order; ``asyncio.as_completed`` makes the tasks of coroutines,
    such as tqdm's ``gather`` passes, in the order of a set.
    """
    is_named = current_caller() is not None and not llmcall_sends()
    if is_named and isinstance(awaitables, Iterable):
        import asyncio

        awaitables = [asyncio.ensure_future(awaitable) for awaitable in dict.fromkeys(awaitables)]
    return complete(awaitables, **options)


# Threads


def start_thread(start: Callable[[threading.Thread], None], thread: threading.Thread) -> None:
    """Start a thread, a new caller, with the function that would have started it."""
    maker = current_caller()
    if llmcall_sends():
        _run_after(thread, functools.partial(sender.set, LLMCALL))
    elif maker is not None:
        # This is a trick: no public attribute says what a thread will run. A subclass may lack these two.
        target = getattr(thread, "_target", None)
        args = getattr(thread, "_args", ())
        function, args, contexts = _unwrapped(target or type(thread), args)
        caller = maker.child("thread", _name_with_arguments(function, args))
        _enter(contexts, caller)
        _run_after(thread, functools.partial(hold, caller=caller))
    start(thread)


def _run_after(thread: threading.Thread, prepare: Callable[[], object]) -> None:
    """Let a thread prepare its context before it runs."""
    run = thread.run

    def run_prepared() -> None:
        del thread.run  # the thread holds itself no longer
        prepare()
        run()

    thread.run = run_prepared  # type: ignore[method-assign]


def submit_work(
    submit: Callable[..., T],
    executor: object,
    function: Callable[..., R],
    /,
    *args: object,
    **kwargs: object,
) -> T:
    """Submit a function to a pool, as a new caller, with the pool's own method."""
    if llmcall_sends():

        def run_as_llmcall() -> R:
            with sent_by(LLMCALL):
                return function(*args, **kwargs)

        # A thread that the pool starts now outlives this call, and runs the program's work, too.
        with sent_by(PROGRAM), counted_apart():
            return submit(executor, run_as_llmcall)
    maker = current_caller()
    if maker is None:
        return submit(executor, function, *args, **kwargs)
    work, work_args, _ = _unwrapped(function, args)
    caller = maker.child("work", _name_with_arguments(work, work_args))

    def run_as_caller() -> R:
        with running_work(caller):
            return function(*args, **kwargs)

    return submit(executor, run_as_caller)


# Functions


def _enter(contexts: Iterable[contextvars.Context], caller: Caller) -> None:
    """Set the caller in contexts, but for those that are in use."""
    for context in contexts:
        with contextlib.suppress(RuntimeError):
            context.run(hold, caller=caller)


def _unwrapped(
    function: object, args: Sequence[object]
) -> tuple[object, Sequence[object], list[contextvars.Context]]:
    """Return the function that is called behind ``functools.partial`` and contexts' ``run``, as in
    ``asyncio.to_thread`` and LangChain's executor, its arguments, and these contexts.
    """
    contexts = []
    while True:
        context = getattr(function, "__self__", None)
        if isinstance(function, functools.partial):
            args = (*function.args, *args)
            function = function.func
        elif isinstance(context, contextvars.Context) and args:
            contexts.append(context)
            function, args = args[0], args[1:]
        else:
            return function, args, contexts


def _name_with_arguments(function: object, args: Sequence[object]) -> str:
    """Return a function's name with the names of functions among its arguments: a library's function may run
    all of a program's, in the random order of a set (Concordia).
    """
    functions = [_unwrapped(argument, ())[0] for argument in args if callable(argument)]
    owners = [getattr(function, "__self__", None) for function in functions]
    names = [
        _name(function) if owner is None else f"{type(owner).__name__}.{_name(function)}"
        for function, owner in zip(functions, owners, strict=True)
    ]
    return " ".join([_name(function), *names])


def _name(function: object) -> str:
    """Return the name of a coroutine's or function's code, which is the same in every run."""
    function = getattr(function, "__func__", function)
    for name in ("cr_code", "__code__", "gi_code", "ag_code"):
        if (code := getattr(function, name, None)) is not None:
            return str(code.co_name)
    kind = function if isinstance(function, type) else type(function)
    return kind.__name__
