"""``llmcall serve``: records or replays the calls of programs that the user starts."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path

import click

from ...cli.output import echo
from ...cli.recording import actor_source, find_target, recording_options
from ...config.values import check_address
from ...errors import ConfigError
from ...link.commands import caller_of, exit_code, program_name
from ...programs.entry import unrecorded_lines
from ...programs.http_server import Server
from ...programs.last_lines import has_gaps, summary_lines
from ...programs.patches import patched_by
from ...programs.routes import base_urls, environment_of_child
from ...programs.started import LONGEST_END, RoutesOfRecording
from ...scopes.callers import current_caller
from ...scopes.position import hold
from ...support.failures import process_failures
from ...traffic.usage import counted_here

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
OTHER_SCOPES = "a scope of another name in the header x-llmcall-scope"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
NOT_FOUND = 127  # the exit code of a shell


def read_address(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the address that an option names."""
    try:
        return None if value is None else check_address(value, "--to")
    except ConfigError as error:
        raise click.BadParameter(str(error), param=parameter) from error


def read_token(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the token that an option names, or the one in the file that it names."""
    if value is not None and value.startswith("@"):
        try:
            value = Path(value[1:]).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise click.BadParameter(f"{value}: {error}", param=parameter) from error
    if value is not None and not TOKEN.fullmatch(value):
        raise click.BadParameter(
            "give at least 16 letters, digits, - or _: it becomes part of the address",
            param=parameter,
        )
    return value


@click.command()
@recording_options
@click.option("--port", type=click.IntRange(1, 65535), help="The port; by default, any free one.")
@click.option(
    "--token",
    metavar="TEXT",
    callback=read_token,
    help="The secret in the addresses, so that they stay the same: at least 16 letters, digits, - or _; or @FILE, "
    "which hides it from process lists. Random by default.",
)
@click.option(
    "--to",
    metavar="URL",
    callback=read_address,
    help="The base URL that all requests go to; by default openai, anthropic and gemini are where the "
    "environment's base URLs point.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def serve(
    path: str | None,
    mode: str | None,
    actor: str | None,
    normalizers: tuple[str, ...],
    port: int | None,
    token: str | None,
    to: str | None,
    command: tuple[str, ...],
) -> None:
    """Record or replay programs in any language.

    Prints addresses on this machine as lines to export, and answers until Ctrl-C or SIGTERM. Then it
    writes the file. The header x-llmcall-scope names the actor (trial-1/Ada); it is not forwarded. A
    command after -- runs with these variables. serve then ends with the command, and its exit code is
    the command's, or 1 instead of 0 if a call was refused or a record left out.
    """
    if not command:
        _require_uvicorn()
    target = find_target("llmcall serve", path, mode, normalizers, actor=actor)
    actors = target.options.actor
    source = None if actors is None else actor_source(actors)
    file = None if target.path is None else Path(target.path).absolute()
    code = 0
    with contextlib.ExitStack() as stack:
        cassette = target.open(stack)
        counts = counted_here()
        recorder = target.recorder(source, cassette)
        stack.enter_context(patched_by(recorder))
        routes = RoutesOfRecording(recorder, is_run=True)
        context = copy_context()
        context.run(hold, caller=current_caller())
        server = routes.server = Server(
            recorder, routes.context_of, context, port=port or 0, token=token, to=to
        )
        stack.callback(routes.end, LONGEST_END)
        if command:
            code = _run_command(command, server, routes, to)
        else:
            server.start()
            has_ended = threading.Event()
            with _on_signals(lambda _: has_ended.set()):  # anyone with an address may end it
                for variable, address in base_urls(server.address).items():
                    echo(f"export {variable}={address}")
                has_ended.wait()
        missed = routes.missed_lines()
    process_failures.warn()
    if (error := recorder.first_error) and (code == 0 or isinstance(error, ConfigError)):
        echo(f"Error: {error}", err=True)
    for line in (
        *summary_lines(recorder, cassette, counts, file, OTHER_SCOPES, lambda: "no request came"),
        *unrecorded_lines(recorder),
        *missed,
    ):
        echo(line, err=True)
    raise SystemExit(code or int(has_gaps(recorder, cassette, missed)))


def _require_uvicorn() -> None:
    """Raise an error now if the extra is missing: without it, addresses answer nothing."""
    try:
        from ...support.libraries import uvicorn  # noqa: F401
    except ImportError as error:
        raise click.ClickException(
            "llmcall serve needs uvicorn: pip install 'llmcall-sim[serve]'"
        ) from error


def _run_command(
    command: tuple[str, ...], server: Server, routes: RoutesOfRecording, to: str | None
) -> int:
    """Run a command with the addresses of the server in its environment, and return its exit code."""
    main = current_caller()
    assert main is not None  # the attached recorder names them
    caller = main.child("process", caller_of(command))
    route = routes.new(caller, program_name(command))
    served = base_urls(f"{server.address}/{route.caller_part}")
    given = dict(os.environ)
    if to is not None:
        given |= dict.fromkeys(served, to)
        given["ANTHROPIC_BASE_URL"] = to.rstrip("/").removesuffix("/v1")  # its SDK adds that
    environment = environment_of_child(given, route, served)
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        echo(f"Error: {command[0]}: {error.strerror}", err=True)
        return NOT_FOUND
    routes.started()
    routes.expect(route, command, process.pid)
    with _on_signals(process.send_signal):
        code = process.wait()
    return exit_code(code)


@contextlib.contextmanager
def _on_signals(act: Callable[[int], object]) -> Iterator[None]:
    """Call a function with each signal that would end this process, for a block."""
    before = {
        number: signal.signal(number, lambda given, _: act(given)) for number in ENDING_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
