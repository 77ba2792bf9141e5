"""The recording of a program by ``llmcall run`` and ``serve``: its options, its cassette, its recorder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from ..additions import additions
from ..config import resolve as config
from ..config import values
from ..config.cassette_modes import ALIASES, HELP, MODES
from ..errors import CacheError, ConfigError
from ..programs.actors import ACTOR_FORMS, Actor, Actors, is_named_by_text
from ..programs.placeholders import placeholder_keys
from ..programs.recorder import Recorder
from ..scopes.active import new_program_scope
from ..stores.cassettes.cassette import Cassette
from ..stores.cassettes.reports import CommandOwner
from ..stores.records.reader import header_in
from ..support.display import printable
from ..support.system import check_replaceable
from .options import import_function


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
        found = {name: recorded[name] for name in RunOptions._fields if name in recorded}
        normalizers = tuple(found.get("normalizers", ()))
        recorded_options = RunOptions(**{**found, "normalizers": normalizers})
        actor = recorded_options.actor
        if actor is not None and self.actor is None and not is_named_by_text(actor):
            raise click.UsageError(
                f"{path} was recorded with --actor {printable(actor)}. Give the option again: a cassette runs no code"
            )
        for name, value, recorded_value in zip(self._fields, self, recorded_options, strict=True):
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
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return f"{option} {printable(text)}"


def recording_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options of a recorder to a command."""
    options = [
        click.option(
            "--cassette",
            "path",
            type=click.Path(dir_okay=False),
            help="The cassette to record on or to replay; by default [Cassette] PATH.",
        ),
        click.option(
            "--mode",
            type=click.Choice([*MODES, *ALIASES]),
            help=f"Which calls may be made (once). {HELP}. Without a cassette, none replays the cache.",
        ),
        click.option(
            "--actor",
            metavar="system|system:REGEX|user:REGEX|header:NAME|MODULE:FUNCTION",
            help="How to name the actor of a call: by its system message; by the first group (or the match) of "
            "a regular expression in the first system or user message; by a header's value; or by a function that "
            "gets the request (llmcall.types.ProgramRequest).",
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


class Target(NamedTuple):
    """The cassette on which a command records a program, or from which it replays one.

    :param command: its name, such as ``llmcall run``.
    :param path: the cassette, or ``None`` for the disk cache alone.
    :param mode: ``None`` for ``once``, or for the cache's mode.
    :param options: those of the recording; a replay has the recorded ones.
    """

    command: str
    path: str | None
    mode: str | None
    options: RunOptions

    @property
    def is_none(self) -> bool:
        """Return whether the mode is ``none``."""
        return self.mode is not None and not MODES[self.mode].records

    def open(self, stack: contextlib.ExitStack) -> Cassette | None:
        """Open the cassette, if there is one, and give SDKs placeholders for keys where nothing is sent."""
        # below the cassette, so that its header has the normalizers
        if self.options.normalizers:
            _push(stack, "--normalize", cache_normalize=self.options.normalizers)
        if self.is_none and self.path is None:
            _push(stack, "--mode none", cache_mode="replay")
        cassette = None
        if self.path is not None:
            owner = CommandOwner(self.command, self.options.header())
            cassette = stack.enter_context(Cassette(self.path, self.mode or "once", owner=owner))
        is_local = config.settings().api_type in additions("program_senders")
        if is_local or self._is_replay(cassette):
            stack.enter_context(placeholder_keys(replace=is_local or self.is_none))
        return cassette

    def recorder(self, actor: Actor | None, cassette: Cassette | None) -> Recorder:
        """Return the recorder for the program's calls.

        :param cassette: the open one.
        """
        return Recorder(
            actor,
            {},
            function=self.command,
            sends_nothing=self._is_replay(cassette) or None,
            default=new_program_scope() if cassette is None else cassette.program_scope,
            is_of_cassette=cassette is not None,
        )

    def _is_replay(self, cassette: Cassette | None) -> bool:
        return self.is_none or (cassette is not None and not cassette.may_record)


def _push(stack: contextlib.ExitStack, option: str, **settings: object) -> None:
    """Put the settings of an option above environment and files."""
    stack.callback(config.push_layer(config.layer_above_files(settings, option)))


def find_target(
    command: str,
    path: str | None,
    mode: str | None,
    normalizers: tuple[str, ...],
    *,
    scope: str | None = None,
    actor: str | None = None,
    seed: int | None = None,
) -> Target:
    """Find the cassette of a command: the named one, or that of the settings.

    :param normalizers: with those below, the options on the command line; see :class:`RunOptions`.
    :raises click.UsageError: if the mode needs a cassette, or an option is wrong or contradicts an
        existing cassette.
    :raises CacheError: if there is nothing to replay.
    """
    mode = mode and ALIASES.get(mode, mode)
    if path is None:
        settings = config.settings()
        path = settings.cassette_path
        mode = mode or (settings.cassette_mode if path else None)
    if path is not None:
        check_replaceable(path)
    if mode == "none" and path is not None and not Path(path).is_file():
        raise CacheError(
            f"{path} does not exist, so there is nothing to replay; run the program with --mode once "
            "to record it"
        )
    if mode not in (None, "none") and path is None:
        raise click.UsageError(f"--mode {mode} needs a cassette; add --cassette FILE")
    try:
        normalizers = values.normalizers("\n".join(normalizers), "--normalize")
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    options = RunOptions(scope, actor, normalizers, seed)
    reads = mode is None or MODES[mode].reads
    header = header_in(os.path.expanduser(path)) if path is not None and reads else None
    if path is not None and header is not None:
        if header.run is not None:
            options = options.replay_options(header.run, path)
        else:  # recorded by a block in code
            recorded = {"normalizers": tuple(header.settings.get("cache_normalize", ()))}
            RunOptions(normalizers=normalizers).replay_options(recorded, path)
            options = options._replace(normalizers=())
    return Target(command, path, mode, options)


def actor_source(option: str, folder: str = "") -> Actor:
    """Return the source of the actors' names.

    :param option: the value of --actor.
    :param folder: in which a function's module is sought first; empty means the working directory.
    :raises click.UsageError: if the value is wrong, or names a function that does not exist.
    """
    if is_named_by_text(option):
        Actors(option)
        return option
    return import_function(
        "--actor",
        option,
        folder=folder,
        forms=f"{ACTOR_FORMS.replace(' or', ',')} or MODULE:FUNCTION",
    )
