"""References to environment variables in the values of config.ini.

``${NAME}`` is the variable's value; ``$${NAME}`` is the text ``${NAME}``; any other ``$`` stands for itself, as at the
end of a regular expression.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from ..errors import ConfigError

__all__ = ["KeyReference", "expand"]

_REFERENCE = re.compile(r"\$(\$?)\{([^{}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(text: str, where: str, lookup: Callable[[str], str | None]) -> str:
    """Replace each ``${NAME}`` in a value by the variable's value.

    :param where: file, section and key, for the message.
    :param lookup: gives a variable's value, or ``None`` if it is unset.
    :raises ConfigError: if a variable is not set, or ``${…}`` is no name.
    """

    def value_of(match: re.Match[str]) -> str:
        """Return what stands in place of a match."""
        if match[1]:
            return match[0][1:]
        if not _VARIABLE.fullmatch(match[2]):
            raise ConfigError(f"{where}: ${{…}} holds no variable's name; write $${{ for the text ${{")
        value = lookup(match[2])
        if not value:
            raise ConfigError(f"{where}: the environment variable {match[2]} is not set")
        return value

    return _REFERENCE.sub(value_of, text) if "${" in text else text


class KeyReference:
    """Stand for a key that config.ini writes with ``${NAME}``; calling it gives the key.

    The variable is looked up when the key is used and not when the file is read, since a replay needs no key.

    :param text: the value as it is written.
    :param where: file, section and key.
    :param dotenv: the variables of ``.env``, asked after the environment.
    """

    __slots__ = ("_dotenv", "_text", "_where")

    def __init__(self, text: str, where: str, dotenv: Mapping[str, str]) -> None:
        self._text = text
        self._where = where
        self._dotenv = {name: value for name, value in dotenv.items() if name in text}

    def __call__(self) -> str:
        """Return the key.

        :raises ConfigError: if the variable is not set; file, section, key and variable are named.
        """
        return expand(self._text, self._where, self._lookup)

    @property
    def variables(self) -> str:
        """Return the names of the variables, in words."""
        names = [match[2] for match in _REFERENCE.finditer(self._text) if not match[1]]
        return " and ".join(f"environment variable {name}" for name in names)

    def _lookup(self, name: str) -> str | None:
        return os.environ.get(name, "").strip() or self._dotenv.get(name)

    def __repr__(self) -> str:
        return f"KeyReference({self._where!r})"
