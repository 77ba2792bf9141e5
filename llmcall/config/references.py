"""References to environment variables in values: ``${NAME}`` means the variable's value, and ``$${NAME}`` the text
``${NAME}``. Any other ``$`` is an ordinary character.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NamedTuple

from ..errors import ConfigError
from .values import check_credential

_REFERENCE = re.compile(r"\$(\$?)\{([^{}]*)\}")


def expand(value: str, location: str, lookup: Callable[[str], str | None]) -> str:
    """Return a value with each ``${NAME}`` replaced by the variable's value.

    :param location: file, section and key, for the message.
    :param lookup: returns a variable's value, or ``None`` if it is not set.
    :raises ConfigError: if a variable is not set.
    """

    def value_of(match: re.Match[str]) -> str:
        """Return the value of one reference."""
        if match[1]:
            return match[0][1:]
        replacement = lookup(match[2])
        if not replacement:
            raise ConfigError(f"{location}: the environment variable {match[2]} is not set")
        return replacement

    return _REFERENCE.sub(value_of, value)


class KeyReference(NamedTuple):
    """A key that config.ini writes as ``${NAME}``; calling it returns the key.

    The variable is looked up when the key is used, not when the file is read, because a replay needs no
    key.

    :param reference: the value in the file.
    :param location: file, section and key.
    :param dotenv: the variables of ``.env`` that it names; the environment takes precedence.
    """

    reference: str
    location: str
    dotenv: tuple[tuple[str, str], ...] = ()

    def __call__(self) -> str:
        """Return the key.

        :raises ConfigError: if the variable is not set or holds no key; names file, section, key and
            variable.
        """
        key = expand(
            self.reference,
            self.location,
            lambda name: os.environ.get(name, "").strip() or dict(self.dotenv).get(name),
        )
        return check_credential(key, f"{self.location}, {self.variables}")

    @property
    def variables(self) -> str:
        """Return the names of the variables in words."""
        variable_names = [match[2] for match in _REFERENCE.finditer(self.reference) if not match[1]]
        return " and ".join(f"environment variable {variable}" for variable in variable_names)

    def __repr__(self) -> str:
        return f"KeyReference({self.location!r})"
