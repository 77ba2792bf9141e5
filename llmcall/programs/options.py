"""The options of a program's run: its cassette's header keeps them, and a replay uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError

SYSTEM, HEADER, USER = "system", "header:", "user:"


def is_named_by_text(actor: str) -> bool:
    """Return whether a text of the request names the actors; else a function does, MODULE:FUNCTION."""
    return actor == SYSTEM or actor.startswith((HEADER, USER))


class RunOptions(NamedTuple):
    """The options of ``llmcall run`` that decide what a program asks and in which scopes.

    :param scope: the scope of the whole run.
    :param actor: what names the actors, as on the command line.
    :param normalizers: what is ignored in texts.
    :param seed: the seed of the program's own random numbers.
    """

    scope: str | None = None
    actor: str | None = None
    normalizers: tuple[str, ...] = ()
    seed: int | None = None

    def header(self) -> dict[str, Any]:
        """Return the given options as JSON data for the header of a cassette."""
        options = {name: value for name, value in self._asdict().items() if value not in (None, ())}
        if self.normalizers:
            options["normalizers"] = list(self.normalizers)
        return options

    def replaying(self, recorded: Mapping[str, Any], path: str) -> RunOptions:
        """Return the options of a recorded run. The options of this run may repeat them, but not
        contradict them.

        :param recorded: the options in the header of its cassette.
        :param path: the cassette, for messages.
        :raises ConfigError: if an option contradicts the header.
        """
        recorded_options = RunOptions(
            **{**recorded, "normalizers": tuple(recorded.get("normalizers", ()))}
        )
        actor = recorded_options.actor
        if actor is not None and self.actor is None and not is_named_by_text(actor):
            raise ConfigError(
                f"{path} was recorded with --actor {actor}. Name it again: a cassette runs no code"
            )
        for name in self._fields:
            value, recorded_value = getattr(self, name), getattr(recorded_options, name)
            if value not in (None, ()) and value != recorded_value:
                raise ConfigError(
                    f"{_option(name, value)} contradicts {path}, which was recorded with "
                    f"{_option(name, recorded_value)}. Leave the option out (a replay takes it from the "
                    "cassette), or record a new cassette"
                )
        return recorded_options


def _option(name: str, value: Any) -> str:
    """Return an option as it is given on the command line."""
    option = "--normalize" if name == "normalizers" else f"--{name}"
    if value in (None, ()):
        return f"no {option}"
    return f"{option} {', '.join(value) if isinstance(value, tuple) else value}"
