"""The recording of a program by ``llmcall run`` and ``serve``: its options, its cassette, its recorder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import CacheError
from ..programs.actors import Actors, is_named_by_text
from ..scopes import new_program_scope
from ..stores.records.reader import header_in
from .options import UserPath, import_function

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..programs.actors import Actor
    from ..programs.recorder import Recorder
    from ..stores.cassettes.cassette import Cassette


class RunOptions(NamedTuple):
    """The options of ``llmcall run`` that decide a program's requests and scopes.

    :param scope: the scope of the whole run.
    :param actor: the value of ``--actor``.
    :param normalizers: the names of normalizers, or regular expressions.
    :param seed: the seed of the program's own random numbers.
    """

    scope: str | None = None
    actor: str | None = None
    normalizers: tuple[str, ...] = ()
    seed: int | None = None

    def header(self) -> dict[str, Any]:
        """Return the options that are set, as JSON data for the header of a cassette."""
        options = {name: value for name, value in self._asdict().items() if value not in (None, ())}
        if self.normalizers:
            options["normalizers"] = list(self.normalizers)
        return options

    def replay_options(self, recorded: Mapping[str, Any], path: str) -> RunOptions:
        """Return the options of a recorded run; this run's options may repeat them, but not contradict
        them.

        :param recorded: the options in the header of its cassette.
        :param path: the cassette, for messages.
        :raises click.UsageError: if an option contradicts the header.
        """
        recorded_options = RunOptions(
            **{**recorded, "normalizers": tuple(recorded.get("normalizers", ()))}
        )
        actor = recorded_options.actor
        if actor is not None and self.actor is None and not is_named_by_text(actor):
            raise click.UsageError(
                f"{path} was recorded with --actor {actor}. Give the option again: a cassette runs no code"
            )
        for name in self._fields:
            value, recorded_value = getattr(self, name), getattr(recorded_options, name)
            if value not in (None, ()) and value != recorded_value:
                raise click.UsageError(
                    f"{_as_option(name, value)} contradicts {path}, which was recorded with "
                    f"{_as_option(name, recorded_value)}. Leave the option out (a replay takes it from the "
                    "cassette), or record a new cassette"
                )
        return recorded_options


def _as_option(name: str, value: object) -> str:
    """Return an option as on the command line."""
    option = "--normalize" if name == "normalizers" else f"--{name}"
    if value in (None, ()):
        return f"no {option}"
    return f"{option} {', '.join(value) if isinstance(value, tuple) else value}"


def recording_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options of a recorder to a command."""
    options = [
        click.option(
            "--cassette",
            type=UserPath(dir_okay=False),
            help="The cassette to record on or to replay; by default [Cassette] PATH.",
        ),
        click.option(
            "--mode",
            type=click.Choice(["none", "replay", "once", "new", "update", "rewrite"]),
            help="Which calls may be made. none (or replay): only replay; once (the default): record if the file "
            "does not exist, otherwise replay; new: add missing answers; update: also move unused records to the "
            "cache; rewrite: record everything again. Without a cassette, none replays the cache.",
        ),
        click.option(
            "--actor",
            metavar="system|header:NAME|user:REGEX|MODULE:FUNCTION",
            help="How to name the sender of a request: by its system message, by a header's value, by the first "
            "group of a regular expression in the first user message, or by a function that gets the request "
            "(llmcall.types.ProgramRequest).",
        ),
        click.option(
            "--normalize",
            "normalizers",
            metavar="NAMES",
            multiple=True,
            help="Parts of texts that keys and actors' names ignore: times, uuids, addresses, temporary_paths "
            "(separated by commas), or one regular expression. Repeat the option for several.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def recorder_of_command(
    command: str, actor: Actor | None, recording: Cassette | None, *, is_none: bool
) -> Recorder:
    """Return the recorder for the calls of a command's program.

    :param recording: the open cassette, or ``None``.
    :param is_none: whether the mode is ``none``.
    """
    from ..programs.recorder import Recorder

    is_replay = is_none or (recording is not None and not recording.may_record)
    return Recorder(
        actor,
        {"cache_mode": "replay"} if is_none and recording is None else {},
        caller=command,
        sends_nothing=is_replay or None,
        default=new_program_scope() if recording is None else recording.program_scope,
        is_of_cassette=recording is not None,
    )


def check_cassette(cassette: str | None, mode: str | None) -> None:
    """Check that the mode has the cassette that it needs.

    :raises click.UsageError: if no cassette is named.
    :raises CacheError: if there is nothing to replay.
    """
    if mode == "none" and cassette is not None and not Path(cassette).is_file():
        raise CacheError(
            f"{cassette} does not exist, so there is nothing to replay; run the program with --mode once "
            "to record it"
        )
    if mode not in (None, "none") and cassette is None:
        raise click.UsageError(f"--mode {mode} needs a cassette; add --cassette FILE")


def run_options(requested: RunOptions, cassette: str, mode: str | None) -> RunOptions:
    """Return the options of a run; an existing cassette's options, if it has them.

    :raises click.UsageError: if an option contradicts them.
    """
    header = None if mode == "rewrite" else header_in(cassette)
    if header is None:
        return requested
    if header.run is not None:
        return requested.replay_options(header.run, cassette)
    # Recorded by a block in code.
    recorded = tuple(header.settings.get("cache_normalize", ()))
    RunOptions(normalizers=requested.normalizers).replay_options(
        {"normalizers": recorded}, cassette
    )
    return requested._replace(normalizers=())


def actor_source(option: str, script: str, is_module: bool) -> Actor:
    """Return the source of the actors' names.

    :param option: the value of --actor.
    :raises click.UsageError: if the value is wrong, or names a function that does not exist.
    """
    if is_named_by_text(option):
        Actors(option)
        return option
    return import_function(
        "--actor",
        option,
        folder="" if is_module else str(Path(script).resolve().parent),
        forms='"system", "header:NAME", "user:REGEX" or MODULE:FUNCTION',
    )
