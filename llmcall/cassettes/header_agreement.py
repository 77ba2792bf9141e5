"""The settings in a cassette's header, on which all of its callers have to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..records.header import header_differences, joined_headers

if TYPE_CHECKING:
    import os


class HeaderAgreement:
    """One set of settings for all records of a cassette.

    :param path: the cassette's file, as messages name it.
    :param header: the file's header, or that of this process if there is no file yet.
    :param is_recorded: whether the header stands in the file.
    :ivar header: the settings that the callers agreed on.
    """

    def __init__(
        self, path: str | os.PathLike[str], header: dict[str, Any], *, is_recorded: bool
    ) -> None:
        self.header = header
        self._path = path
        self._is_recorded = is_recorded
        self._has_caller = False

    def settle(self, header: dict[str, Any]) -> None:
        """Take the first caller's header, and refuse any other caller with a different one.

        :raises ConfigError: if they differ.
        """
        if not self._has_caller:
            # The file decides. Only for models that it does not name does the first caller.
            first = self.header if self._is_recorded else header
            self.header = joined_headers(first, header)
        differences = header_differences(self.header, header, all_models=not self._is_recorded)
        if differences:
            raise ConfigError(
                f"all calls on {self._path} must use the same settings, but two clients disagree on {differences}: "
                "give them as arguments in code, or record each client in a file of its own"
            )
        self._has_caller = True
