"""``llmcall run``: runs an unchanged program, recorded and replayed."""

from __future__ import annotations

import contextlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..config import resolve as config
from ..config import values
from ..engine.service_tiers import FLEX
from ..errors import CacheError, ConfigError
from ..programs.chance import HASH_SEED, LARGEST, has_hash_seed, seeded
from ..programs.options import RunOptions
from ..records.reader import header_in
from ..scopes import default_scope

if TYPE_CHECKING:
    from ..programs.actors import Actor

DEFAULT_SCOPE = "run"  # of a call that stands in no scope
NORMALIZE = "LLMCALL_CACHE_NORMALIZE"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--scope",
    help='Put the whole run below this scope. Without it, a call that stands in no scope stands in "run".',
)
@click.option(
    "--cassette", type=click.Path(dir_okay=False), help="Record on this cassette, or replay it."
)
@click.option(
    "--mode",
    type=click.Choice(["none", "once", "new", "update", "rewrite"]),
    help="The cassette's mode (once, if not given); without a cassette, none replays the cache.",
)
@click.option(
    "--actor",
    metavar="system|header:NAME|user:REGEX|MODULE:FUNCTION",
    help="Who is asking: each system message is an actor; or a header's value names the actor; or the first group "
    "in the first user message does; or a function of the request (llmcall.ProgramRequest) does.",
)
@click.option(
    "--normalize",
    "normalizers",
    metavar="NAMES",
    multiple=True,
    help="What in a text does not matter: times, uuids, addresses, temporary_paths (with commas between), or one "
    "regular expression.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, LARGEST),
    help="Fix the program's own chance: random, NumPy, generators made without a seed, and the hash seed.",
)
@click.option(
    "--flex",
    is_flag=True,
    help="Ask for OpenAI's flex tier, at half the price, in chat requests that name no service tier.",
)
@click.option(
    "-m", "module", is_flag=True, help="SCRIPT is the name of a module, as with python -m."
)
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(
    is_own_process: bool,
    scope: str | None,
    cassette: str | None,
    mode: str | None,
    actor: str | None,
    normalizers: tuple[str, ...],
    seed: int | None,
    flex: bool,
    module: bool,
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """Run an unchanged program, recorded and replayed.

    SCRIPT is a Python file that uses the OpenAI SDK or an HTTP client; what follows are its own
    arguments. It is recorded until its process ends, threads that outlive the script included. The
    exit code is the program's, or 1 if it got an error of llmcall's own, such as a request that is
    not recorded; the first one is printed. A replay takes --scope, --actor, --normalize and --seed
    from the cassette.
    """
    if not module and not Path(script).is_file():
        raise click.UsageError(f"{script} does not exist")
    if mode == "none" and cassette is not None and not Path(cassette).is_file():
        raise CacheError(
            f"{cassette} does not exist, so there is nothing to replay; run it once without --mode none to record it"
        )
    if mode not in (None, "none") and cassette is None:
        raise click.UsageError(f"--mode {mode} is that of a cassette; name one with --cassette")
    import llmcall

    from ..programs.execution import Execution
    from ..programs.patch import record_clients
    from ..programs.recorder import ProgramCalls

    given = RunOptions(scope, actor, _normalizers(normalizers), seed)
    options = given if cassette is None else _options(given, cassette, mode)
    if options.seed is not None and not has_hash_seed(options.seed):
        _start_again(options.seed, is_own_process)
    named = None if options.actor is None else _actor(options.actor, script, module)
    overrides: dict[str, Any] = {}
    if mode == "none" and cassette is None:
        overrides["cache_mode"] = "replay"
    if flex:
        overrides["service_tier"] = FLEX
    tape = None
    with contextlib.ExitStack() as opening:
        if options.normalizers:
            opening.enter_context(_normalizing(options.normalizers))
        if cassette is not None:
            tape = llmcall.cassette(cassette, mode=mode or "once")
            tape.command = "llmcall run"
            tape.run = options.header()
            opening.enter_context(tape)
        if options.scope is not None:
            opening.enter_context(llmcall.scope(options.scope, process=True))
        if options.seed is not None:
            opening.enter_context(seeded(options.seed))
        calls = ProgramCalls(named, overrides, (), caller="llmcall run")
        record_clients(calls)
        if tape is None or tape.run is not None:
            # A cassette that was recorded before there was a default scope replays without it.
            opening.enter_context(default_scope(DEFAULT_SCOPE))
        around = opening.pop_all()
    execution = Execution(calls, tape, around, sends_nothing=mode == "none")
    execution.run(script, arguments, module=module)


def _normalizers(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the normalizers that --normalize names.

    :raises click.UsageError: if one is wrong.
    """
    try:
        return values.normalizers("\n".join(given), "--normalize")
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _options(given: RunOptions, cassette: str, mode: str | None) -> RunOptions:
    """Return the options of a run: those that its cassette was recorded with, if it is there.

    :raises click.UsageError: if an option contradicts them.
    """
    header = None if mode == "rewrite" else header_in(cassette)
    if header is None:
        return given
    try:
        if "run" in header:
            return given.replaying(header["run"], cassette)
        # Recorded by code, or before cassettes held these options.
        recorded = tuple(header["settings"].get("cache_normalize", ()))
        RunOptions(normalizers=given.normalizers).replaying({"normalizers": recorded}, cassette)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    return given._replace(normalizers=())


@contextlib.contextmanager
def _normalizing(normalizers: tuple[str, ...]) -> Iterator[None]:
    """Let normalizers hold for a block, as the environment would: in child processes, too."""
    before = os.environ.get(NORMALIZE)
    os.environ[NORMALIZE] = "\n".join(normalizers)
    config.refresh()
    try:
        yield
    finally:
        del os.environ[NORMALIZE]
        if before is not None:
            os.environ[NORMALIZE] = before
        config.refresh()


def _start_again(seed: int, is_own_process: bool) -> NoReturn:
    """Start Python again with a hash seed, which can only be given before it starts.

    :raises click.UsageError: if that is not possible.
    """
    if not is_own_process:
        raise click.UsageError(
            f"--seed {seed} needs a process of its own: start it as a command, or set {HASH_SEED}={seed} before"
        )
    if sys.flags.ignore_environment:
        raise click.UsageError(
            f"--seed {seed} cannot fix the hash seed, since Python was told to ignore {HASH_SEED} (-E or -I)"
        )
    environment = {**os.environ, HASH_SEED: str(seed)}
    command = [sys.executable, *sys.orig_argv[1:]]
    if os.name == "nt":  # there, exec does not wait for what it starts
        raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
    os.execve(sys.executable, command, environment)


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
