"""The layers that code puts above environment and files, and what all layers together say."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .layers import Layer, Origin, check_setting
from .names import setting_named
from .settings import Settings
from .values import UNSET

if TYPE_CHECKING:
    from .sources import Sources

__all__ = ["Entry", "Stack", "complete_layer", "entry_of"]

MEMO_SIZE = 8


class Entry:
    """Hold one layer that code put up; equal to itself alone.

    :param values: the values and their origins.
    :param withdrawn: the settings that an earlier ``configure`` no longer decides.
    :param token: what takes the layer down again.
    """

    __slots__ = ("token", "values", "withdrawn")

    def __init__(self, values: Layer, withdrawn: frozenset[str] = frozenset(), token: object = None) -> None:
        self.values = values
        self.withdrawn = withdrawn
        self.token = self if token is None else token

    def under(self, other: Entry) -> Entry:
        """Return this layer with another's values put in, and without what the other withdraws."""
        kept = {name: value for name, value in self.values.items() if name not in other.withdrawn}
        withdrawn = (self.withdrawn | other.withdrawn) - frozenset(other.values)
        return Entry({**kept, **other.values}, withdrawn, self.token)


def entry_of(overrides: Mapping[str, Any], caller: str, rank: int) -> Entry:
    """Return checked values as a layer; what is ``None`` or empty is withdrawn.

    :param caller: the function that was called, for messages and as the origin.
    :raises ConfigError: if a value is of the wrong type.
    :raises TypeError: if there is no such setting.
    """
    values: Layer = {}
    for name, value in overrides.items():
        row = setting_named(name, caller=caller)
        checked = UNSET if value is None else check_setting(row, value, f"{caller}, {name}")
        if checked is not UNSET:
            values[name] = (checked, Origin(rank, caller))
    return Entry(values, frozenset(overrides) - frozenset(values))


def complete_layer(values: Mapping[str, Any], origin: Origin) -> Layer:
    """Return checked values in which ``None`` is a value: that there is none.

    :raises ConfigError: if a value is of the wrong type, or missing where there must be one.
    :raises TypeError: if there is no such setting.
    """
    layer: Layer = {}
    for name, value in values.items():
        row = setting_named(name, caller=origin.text)
        checked = None if value is None else check_setting(row, value, f"{origin.text}, {name}")
        if checked is UNSET or (checked is None and row.default is not None):
            raise ConfigError(f"{origin.text}, {name}: a value is missing")
        layer[name] = (checked, origin)
    return layer


State = tuple["Sources", tuple[Entry, ...], tuple[Entry, ...], Entry]


class Stack:
    """Hold the layers of a process.

    Whoever changes one holds the lock; tuples and entries are replaced, never changed.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.generation = 0
        self.current: Settings | None = None
        self.sources: Sources | None = None
        self.pushed: tuple[Entry, ...] = ()
        self.configured: tuple[Entry, ...] = (Entry({}),)
        self.forced = Entry({})
        self._memo: dict[State, Settings] = {}

    def changed(self) -> None:
        """Let the settings be made anew, and the generation tell so."""
        self.current = None
        self.generation += 1

    def forget(self) -> None:
        """Take all layers down but those of open cassettes."""
        self.sources = None
        self.configured = (Entry({}),)
        self.forced = Entry({})
        self._memo.clear()
        self.changed()

    def read_again(self, sources: Sources) -> None:
        """Stand on other sources."""
        self.sources = sources
        self._memo.clear()
        self.changed()

    def renew_lock(self) -> None:
        """Take a fresh lock, in a forked process, where the thread that held the old one is gone."""
        self.lock = threading.RLock()

    def made(self) -> Settings:
        """Return the settings of now; of the same layers as a while ago, the very same object."""
        if self.sources is None:
            from .sources import read_sources

            self.sources = read_sources()
        key = (self.sources, self.pushed, self.configured, self.forced)
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = Settings(self._merged(self.sources))
            self._forget_one()
        self.current = found
        return found

    def _forget_one(self) -> None:
        """Keep the memo small, but never forget what the end of an open block will ask for again."""
        if len(self._memo) > MEMO_SIZE:
            for key in self._memo:
                _, pushed, configured, _ = key
                if self.pushed[: len(pushed)] != pushed or self.configured[: len(configured)] != configured:
                    del self._memo[key]
                    return

    def _merged(self, sources: Sources) -> Layer:
        values = {**sources.values, **self.pushed_layer()}
        decided: Layer = {}
        for entry in self.configured:
            decided.update(entry.values)
            for name in entry.withdrawn:
                decided.pop(name, None)
        values.update(decided)
        values.update(self.forced_layer(values))
        return values

    def pushed_layer(self) -> Layer:
        """Return what open cassettes recorded; the innermost counts."""
        return {name: value for entry in self.pushed for name, value in entry.values.items()}

    def forced_layer(self, below: Mapping[str, tuple[Any, Origin]]) -> Layer:
        """Return what is forced; a cache that is forced on goes on replaying or refreshing where it was told to.

        :param below: the values of the layers below.
        """
        forced = dict(self.forced.values)
        if "cache_mode" in forced:
            mode, origin = forced["cache_mode"]
            told = below["cache_mode"][0]
            forced["cache_mode"] = (told if mode == "auto" and told != "off" else mode, origin)
        return forced
