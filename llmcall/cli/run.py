"""``llmcall run``: records or replays the calls of an unchanged program."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from ..programs.execution import Execution
from ..programs.seeds import seeded
from ..scopes.active import default_scope, new_program_scope
from ..scopes.scope import scope as open_scope
from ..stores.records.header import MAX_SEED
from ..support.arguments import nearest
from .options import NumberCommand, feature_options, options_of_features
from .output import echo
from .recording import actor_source, find_target, recording_options

HASH_SEED = "PYTHONHASHSEED"


@click.command(
    cls=NumberCommand,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--scope",
    help='Scope of the whole run. Without it, a call outside any scope is in the scope "run".',
)
@recording_options
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    help="Seed the program's own random numbers: random, NumPy, generators made without a seed, and the hash seed.",
)
@feature_options
@click.option("-m", "module", is_flag=True, help="SCRIPT is a module's name, as with python -m.")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(
    is_own_process: bool,
    /,
    scope: str | None,
    path: str | None,
    mode: str | None,
    actor: str | None,
    normalizers: tuple[str, ...],
    seed: int | None,
    module: bool,
    script: str,
    arguments: tuple[str, ...],
    **of_features: Any,
) -> None:
    """Run a program unchanged; record or replay its calls.

    SCRIPT is a Python file that uses the OpenAI SDK or an HTTP client, or a folder with a
    __main__.py. Its own arguments follow it.
    llmcall records until the process ends, so it also records threads that outlive the script. The
    exit code is the program's, or 1 if the program got an llmcall error, such as for a request that
    is not recorded. The first such error is printed. A replay takes --scope, --actor, --normalize
    and --seed from the cassette.
    """
    if not module and (main := Path(script) / "__main__.py").is_file():
        script = str(main)
    if not module and Path(script).suffix == ".ipynb":
        raise click.UsageError(
            f"{script} is a notebook. Record it by a cassette in its first cell: "
            f'tape = llmcall.cassette("{Path(script).stem}.jsonl"); tape.open(), and tape.close() in its last'
        )
    # As a program, a recording would end well and call nothing, and --check would find nothing wrong.
    if not module and Path(script).suffix == ".jsonl":
        raise click.UsageError(
            f"{script} is not a program. Give the program that was recorded: "
            f"llmcall run --cassette {script} PROGRAM"
        )
    if not module and not Path(script).is_file():
        option = hint = ""
        if script.startswith("-"):
            name = script.partition("=")[0]
            option, hint = f"llmcall run has no option {name}, and ", nearest(name, _options())
        raise click.UsageError(f"{option}there is no file {script}{hint}")
    if misplaced := _misplaced(arguments, None if module else Path(script)):
        echo(
            f"{misplaced} comes after {script}, so the program gets it. Put llmcall's options before {script}",
            err=True,
        )
    for name, value in of_features.items():
        options_of_features()[name].before(value)
    target = find_target(
        "llmcall run", path, mode, normalizers, scope=scope, actor=actor, seed=seed
    )
    options = target.options
    if options.seed is not None:
        _set_hash_seed(options.seed, is_own_process)
    folder = "" if module else str(Path(script).resolve().parent)
    source = None if options.actor is None else actor_source(options.actor, folder)
    with contextlib.ExitStack() as exit_stack:
        cassette = target.open(exit_stack)
        if options.scope is not None:
            exit_stack.enter_context(open_scope(options.scope, process=True))
        if options.seed is not None:
            exit_stack.enter_context(seeded(options.seed))
        for name, value in of_features.items():
            exit_stack.enter_context(options_of_features()[name].around(value))
        # Only now: a recorder knows the scope in which it was made.
        recorder = target.recorder(source, cassette)
        default = new_program_scope() if cassette is None else cassette.default_scope
        exit_stack.enter_context(default_scope(default))
        open_contexts = exit_stack.pop_all()
    execution = Execution(recorder, cassette, open_contexts, options.scope, is_none=target.is_none)
    execution.run(script, arguments, module=module)


def _misplaced(arguments: tuple[str, ...], script: Path | None) -> str:
    """Return the first program argument that looks like an option meant for this command; empty without one.

    :param script: the program's file, or ``None`` for a module.
    """
    own = _options()
    text = "" if script is None else script.read_text(encoding="utf-8", errors="replace")
    return next(
        (
            option
            for option in (argument.partition("=")[0] for argument in arguments)
            if option in own and not re.search(rf"\b{option[2:].replace('-', '[-_]')}\b", text)
        ),
        "",
    )


def _options() -> set[str]:
    """Return the names of this command's options."""
    return {name for parameter in run.params for name in parameter.opts if name.startswith("--")}


def _set_hash_seed(seed: int, is_own_process: bool) -> None:
    """Start Python again with a hash seed, unless it has it already; it reads the seed only when it starts."""
    if os.environ.get(HASH_SEED) == str(seed):
        return
    if not is_own_process:
        raise click.UsageError(
            f"--seed {seed} needs its own process: run llmcall as a command, or set {HASH_SEED}={seed} "
            "first"
        )
    environment = {**os.environ, HASH_SEED: str(seed)}
    command = [sys.executable, *sys.orig_argv[1:]]
    if os.name == "nt":  # on Windows, exec does not wait for the new process
        raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
    os.execve(sys.executable, command, environment)
