"""``llmcall run``: runs an unchanged program, recorded and replayed."""

from __future__ import annotations

import contextlib
import runpy
import sys
import traceback
from pathlib import Path

import click

from ..errors import LLMCallError, shorten


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
    "--actor", help='Who is asking: "system" (each system message is an actor), or "header:NAME".'
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

    with contextlib.ExitStack() as around:
        if cassette is not None:
            tape = llmcall.cassette(cassette, mode=mode or "once")
            tape.command = "llmcall run"
            around.enter_context(tape)
        if scope is not None:
            around.enter_context(llmcall.scope(scope, process=True))
        overrides = {"cache_mode": "replay"} if mode == "none" and cassette is None else {}
        around.enter_context(llmcall.patched(actor=actor, **overrides))
        _run(script, arguments, module)


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
