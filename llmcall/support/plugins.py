"""Plug-ins by name: registered in this process, or named by installed packages."""

from __future__ import annotations

from ..errors import ConfigError
from .request_origin import callback_errors


class PlugIns(dict[str, object]):
    """The plug-ins that this process registered, by name; the last one under a name counts.

    :param group: the group of the entry points by which packages name theirs.
    """

    def __init__(self, group: str) -> None:
        super().__init__()
        self.group = group

    def find(self, name: str, use: str) -> object:
        """Return the object registered under a name, else a package's entry point, else ``None``.

        :param use: the name's use, for messages.
        :raises ConfigError: if the plug-in cannot be imported.
        """
        if name in self:
            return self[name]
        from importlib.metadata import entry_points  # takes long to import

        for plugin in entry_points(group=self.group, name=name):
            failure = f"the plug-in {plugin.value} for {use} cannot be loaded:"
            with callback_errors(failure, ConfigError, ()):
                return plugin.load()
        return None

    def names(self) -> list[str]:
        """Return all names, of packages too, sorted."""
        from importlib.metadata import entry_points

        return sorted({*self, *(plugin.name for plugin in entry_points(group=self.group))})
