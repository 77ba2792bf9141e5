"""What a run of a program is started with: kept in the header of its cassette, and taken from there
by a replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError


class RunOptions(NamedTuple):
    """Hold the options of ``llmcall run`` that decide what a program asks, and in which scopes.

    :param scope: the scope of the whole run.
    :param actor: what names the actors, as on the command line.
    :param normalizers: what does not matter in a text.
    :param seed: of the program's own chance.
    """

    scope: str | None = None
    actor: str | None = None
    normalizers: tuple[str, ...] = ()
    seed: int | None = None

    def header(self) -> dict[str, Any]:
        """Return what the header of a cassette holds of it, as JSON data."""
        given = {name: value for name, value in self._asdict().items() if value not in (None, ())}
        return {
            name: list(value) if name == "normalizers" else value for name, value in given.items()
        }

    def replaying(self, recorded: Mapping[str, Any], path: str) -> RunOptions:
        """Return the options of a recorded run, which these may leave out and may not contradict.

        :param recorded: what the header of its cassette holds.
        :param path: the cassette, for messages.
        :raises ConfigError: if the header is of a newer version, or an option says something else.
        """
        unknown = sorted(recorded.keys() - set(self._fields))
        if unknown:
            raise ConfigError(
                f"the header of {path} has the options {', '.join(unknown)} of a run, which this version of llmcall "
                "does not know; upgrade llmcall"
            )
        found = RunOptions(**{**recorded, "normalizers": tuple(recorded.get("normalizers", ()))})
        for name in self._fields:
            given, held = getattr(self, name), getattr(found, name)
            if given not in (None, ()) and given != held:
                raise ConfigError(
                    f"{_option(name, given)} contradicts {path}, which was recorded with "
                    f"{_option(name, held)}. Leave the option out (a replay takes it from the "
                    "cassette), or record a new cassette"
                )
        return found


def _option(name: str, value: Any) -> str:
    """Return an option as it is given on the command line."""
    option = "--normalize" if name == "normalizers" else f"--{name}"
    if value in (None, ()):
        return f"no {option}"
    return f"{option} {', '.join(value) if isinstance(value, tuple) else value}"
