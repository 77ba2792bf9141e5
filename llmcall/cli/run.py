"""``llmcall run``: runs an unchanged program, recorded and replayed."""

from __future__ import annotations

import contextlib
import pkgutil
import runpy
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import LLMCallError, shorten

if TYPE_CHECKING:
    from ..programs.actors import Actor


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--scope", help="The scope of the whole run, also of the program's threads.")
@click.option(
    "--cassette", type=click.Path(dir_okay=False), help="Record on this cassette, or replay it."
)
@click.option(
    "--mode",
    type=click.Choice(["none", "once", "new", "rewrite"]),
    help="The cassette's mode (once, if not given); without a cassette, none replays the cache.",
)
@click.option(
    "--actor",
    metavar="system|header:NAME|user:REGEX|MODULE:FUNCTION",
    help="Who is asking: each system message is an actor; or a header's value names the actor; or the first group "
    "in the first user message does; or a function of the request (llmcall.ProgramRequest) does.",
)
@click.option(
    "-m", "module", is_flag=True, help="SCRIPT is the name of a module, as with python -m."
)
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(
    scope: str | None,
    cassette: str | None,
    mode: str | None,
    actor: str | None,
    module: bool,
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """Run an unchanged program, recorded and replayed.

    SCRIPT is a Python file that uses the OpenAI SDK or an HTTP client; what follows are its own
    arguments. The exit code is the program's, or 1 where it got an error of llmcall's own, such as
    a request that is not recorded; the first one is printed.
    """
    if not module and not Path(script).is_file():
        raise click.UsageError(f"{script} does not exist")
    if mode not in (None, "none") and cassette is None:
        raise click.UsageError(f"--mode {mode} is that of a cassette; name one with --cassette")
    import llmcall

    named = None if actor is None else _actor(actor, script, module)
    with contextlib.ExitStack() as around:
        if cassette is not None:
            tape = llmcall.cassette(cassette, mode=mode or "once")
            tape.command = "llmcall run"
            around.enter_context(tape)
        if scope is not None:
            around.enter_context(llmcall.scope(scope, process=True))
        overrides = {"cache_mode": "replay"} if mode == "none" and cassette is None else {}
        around.enter_context(llmcall.patched(actor=named, **overrides))
        _run(script, arguments, module)


def _actor(named: str, script: str, module: bool) -> Actor:
    """Return what names the program's actors.

    :param named: the value of --actor.
    :raises click.UsageError: if it is none of the ways, or names a function that is not there.
    """
    from ..programs.actors import Actors

    if named == "system" or named.startswith(("header:", "user:")):
        Actors(named)
        return named
    target, _, function = named.partition(":")
    if not target or not function:
        raise click.UsageError(
            f'--actor is {named!r}; it must be "system", "header:NAME", "user:REGEX" or MODULE:FUNCTION'
        )
    folder = "" if module else str(Path(script).resolve().parent)
    sys.path.insert(0, folder)
    try:
        found = pkgutil.resolve_name(named)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{target}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports one that is not
        place = "the working directory" if module else "the script's folder"
        raise click.UsageError(
            f"--actor {named}: there is no module {error.name!r} in {place} or installed"
        ) from None
    except AttributeError:
        raise click.UsageError(
            f"--actor {named}: the module {target!r} has no function {function!r}"
        ) from None
    finally:
        sys.path.remove(folder)
    if not callable(found):
        raise click.UsageError(f"--actor {named}: {function} is no function of the request")
    return found  # type: ignore[no-any-return]


def _run(script: str, arguments: tuple[str, ...], module: bool) -> None:
    before = sys.argv, list(sys.path)
    sys.argv = [script, *arguments]
    try:
        if module:
            sys.path.insert(0, "")
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(script).resolve().parent))
            runpy.run_path(script, run_name="__main__")
    except LLMCallError:
        raise
    except Exception as error:  # noqa: BLE001 - shown as Python shows it, without the frames of what runs the program
        shorten(error)
        traceback.print_exception(error)
        raise click.exceptions.Exit(1) from None
    finally:
        sys.argv, sys.path[:] = before
