"""The settings as they travel to another process: what code, environment and files say here holds there too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import current as config
from .names import HIDDEN, SETTINGS
from .settings import Settings, thawed
from .sources import Sources
from .stack import Entry

if TYPE_CHECKING:
    from .layers import Layer

    # Defaults, files and environment; what cassettes recorded; what code configured; what it forced.
    Luggage = tuple[Layer, tuple[Entry, ...], tuple[Entry, ...], Entry]

__all__ = ["pack", "unpack", "without_keys"]


class _Brought(Sources):
    """Be what defaults, files and environment say in another process."""

    __slots__ = ()

    def changed(self) -> bool:
        """Tell that nothing changes: what is here does not count."""
        return False


def pack() -> Luggage:
    """Return all that the settings of this process are made of, keys included, to be pickled."""
    stack = config.stack()
    with stack.lock:
        stack.made()
        assert stack.sources is not None
        pushed, configured = tuple(map(_entry, stack.pushed)), tuple(map(_entry, stack.configured))
        return _layer(stack.sources.values), pushed, configured, _entry(stack.forced)


def _entry(entry: Entry) -> Entry:
    return Entry(_layer(entry.values), entry.withdrawn)


def _layer(layer: Layer) -> Layer:
    """Return a layer without read-only mappings, which cannot be pickled."""
    return {name: (thawed(value), origin) for name, (value, origin) in layer.items()}


def unpack(luggage: Luggage) -> None:
    """Let the settings of another process hold in this one."""
    stack = config.stack()
    with stack.lock:
        values, stack.pushed, stack.configured, stack.forced = luggage
        stack.read_again(_Brought(values, None, (), ()))


def without_keys(settings: Settings) -> Settings:
    """Return settings without their keys, for what goes home with a result: an executor may keep results on disk."""
    layer = _layer(settings.layer())
    for name, (value, origin) in layer.items():
        kind = {**SETTINGS, **HIDDEN}[name].kind
        if kind == "secret":
            layer[name] = (None, origin)
        elif kind == "endpoints":
            layer[name] = (tuple(endpoint._replace(api_key=None) for endpoint in value), origin)
    return Settings(layer)
