"""The settings as they stand in this process, and the functions that change them.

Highest first: ``force_*``; arguments of a call and of a client (``Settings.replace``); ``configure``; what an open
cassette recorded (``push_layer``); ``LLMCALL_*`` and the SDK's variables; ``.env``; config.ini; the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .layers import CONFIGURED, FORCED, PUSHED, Layer, Origin
from .names import HIDDEN, SETTINGS
from .settings import Endpoint, Settings, thawed
from .sources import Sources
from .stack import Entry, Stack, complete_layer, entry_of
from .values import directory_named, is_loopback

if TYPE_CHECKING:
    from .api_keys import announce_key_destination, key_for, key_variable

__all__ = [
    "Endpoint",
    "Settings",
    "announce_key_destination",
    "configure",
    "configured",
    "force_api_cache",
    "force_api_type",
    "generation",
    "is_loopback",
    "key_for",
    "key_variable",
    "keyed_settings",
    "layer_of",
    "pack",
    "pop_layer",
    "push_layer",
    "refresh",
    "reset",
    "settings",
    "settings_for",
    "stack",
    "unpack",
    "without_keys",
]

# What a call needs and a hit does not is imported when it is first asked for.
_LATER = {
    "announce_key_destination": "api_keys",
    "key_for": "api_keys",
    "key_variable": "api_keys",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f".{_LATER[name]}", __package__), name)
    return found


_stack = Stack()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stack.renew_lock)  # another thread may have held it


def settings() -> Settings:
    """Return the current settings: the very same object until something changes.

    Environment and files are read by the first call and by ``refresh``.

    :raises ConfigError: if a file is broken or a value is of the wrong type.
    """
    current = _stack.current
    if current is None:
        with _stack.lock:
            current = _stack.made()
    return current


def stack() -> Stack:
    """Return the layers that the settings are made of."""
    return _stack


def generation() -> int:
    """Return a number that changes whenever ``settings()`` would return another object than before."""
    return _stack.generation


def settings_for(base: Settings | None, overrides: Mapping[str, Any] | None = None, caller: str = "it") -> Settings:
    """Return the settings of a client.

    :param base: the settings it was given, or ``None`` for the current ones. What a cassette recorded and what is
        forced now goes above them as it goes above the current ones.
    :param overrides: its arguments; ``None`` as a value means that there is none.
    :param caller: what was given them, for messages.
    :raises ConfigError, TypeError: if a value is of the wrong type; if there is no such setting.
    """
    if base is None:
        return settings().changed(overrides or {}, caller)
    with _stack.lock:
        made = base.overlaid(_stack.pushed_layer()).changed(overrides or {}, caller)
        return made.overlaid(_stack.forced_layer(made.layer()))


def configure(**overrides: Any) -> None:
    """Set settings for the whole process, above environment and files.

    Inside ``configured`` they hold until its block ends. A relative path starts from the working directory of now.

    :param overrides: settings by name; ``None`` withdraws what an earlier call set.
    :raises ConfigError: if a value is of the wrong type; nothing is set then.
    :raises TypeError: if there is no such setting.
    """
    entry = entry_of(overrides, "configure()", CONFIGURED)
    with _stack.lock:
        *below, top = _stack.configured
        _stack.configured = (*below, top.under(entry))
        _stack.changed()


@contextmanager
def configured(**overrides: Any) -> Iterator[None]:
    """Set settings while a block runs, for every thread of the process.

    What the block's end takes away is what it brought: blocks of several threads may overlap.

    :param overrides: as of ``configure``.
    """
    entry = entry_of(overrides, "configured()", CONFIGURED)
    with _stack.lock:
        _stack.configured += (entry,)
        _stack.changed()
    try:
        yield
    finally:
        with _stack.lock:
            _stack.configured = tuple(each for each in _stack.configured if each.token is not entry.token)
            _stack.changed()


# What decides keys besides the arguments in code: a cassette's header holds these.
NEEDED = ("model", "embedding_model")
KEYED = (
    "model",
    "embedding_model",
    "temperature",
    "max_tokens",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "cache_namespace",
    "cache_normalize",
    "aliases",
)


def keyed_settings(base: Settings | None = None) -> dict[str, Any]:
    """Return, as JSON data, the settings that decide keys, as environment, files and defaults say them.

    :param base: the settings that a client was given; what code says in them is left out all the same.
    """
    with _stack.lock:
        _stack.made()
        assert _stack.sources is not None
        pushed = _stack.pushed_layer()
        values = {**_stack.sources.values, **pushed}
    if base is not None:
        given = base.overlaid(pushed).layer().items()
        values.update({name: value for name, value in given if value[1].rank < CONFIGURED})
    found = {name: _as_json(values[name][0]) for name in KEYED if name in values}
    return {name: value for name, value in found.items() if value not in (None, "", [], {})}


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def layer_of(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded settings as a layer for :func:`push_layer`: what was left out then has no value now.

    :raises ConfigError: where a name is none of a setting that decides keys.
    """
    unknown = sorted(set(recorded) - set(KEYED))
    if unknown:
        from ..errors import ConfigError

        raise ConfigError(f"the header names {', '.join(unknown)}, which this version of llmcall does not know")
    if not recorded:
        return {}
    empty: dict[str, Any] = {"cache_namespace": "", "cache_normalize": (), "aliases": {}}
    return {name: recorded.get(name, empty.get(name)) for name in KEYED if name in recorded or name not in NEEDED}


def push_layer(values: Mapping[str, Any], origin: str) -> object:
    """Put values above environment and files and below ``configure`` and arguments, for the whole process.

    :param values: settings by name; ``None`` is a value here and means that the setting has none.
    :param origin: where they came from, for ``Settings.origin``.
    :returns: what ``pop_layer`` takes.
    :raises ConfigError: if a value is of the wrong type.
    :raises TypeError: if there is no such setting.
    """
    entry = Entry(complete_layer(values, Origin(PUSHED, origin)))
    with _stack.lock:
        _stack.pushed += (entry,)
        _stack.changed()
    return entry.token


def pop_layer(token: object) -> None:
    """Take down the layer that ``push_layer`` put up; nothing happens if it is down already."""
    with _stack.lock:
        left = tuple(entry for entry in _stack.pushed if entry.token is not token)
        if len(left) != len(_stack.pushed):
            _stack.pushed = left
            _stack.changed()


def force_api_type(api_type: str | None) -> None:
    """Choose the client for the whole process, above every other setting.

    :param api_type: the name that a client is registered by; ``None`` gives the choice back.
    :raises ConfigError: if it is no text.
    """
    _force("force_api_type()", {"api_type": api_type})


def force_api_cache(cache_api_calls: bool | None, cache_file_name: str | os.PathLike[str] | None = None) -> None:
    """Turn the request cache on or off for the whole process, above every other setting.

    :param cache_api_calls: ``True`` turns it on: the mode stays what it is unless that is ``off``, which becomes
        ``auto``; ``False`` turns it off; ``None`` gives the choice back.
    :param cache_file_name: its directory, from the working directory on; TinyTroupe's ``x.pickle`` becomes ``x.cache``,
        since ours is a directory; ``None`` gives the place back.
    :raises ConfigError: if the file name is none.
    :raises TypeError: if ``cache_api_calls`` is no bool.
    """
    if cache_api_calls is not None and not isinstance(cache_api_calls, bool):
        raise TypeError(f"force_api_cache() takes True, False or None, not a {type(cache_api_calls).__name__}")
    mode = None if cache_api_calls is None else "auto" if cache_api_calls else "off"
    path = None if cache_file_name is None else directory_named(os.fspath(cache_file_name))
    _force("force_api_cache()", {"cache_mode": mode, "cache_path": path})


def _force(caller: str, overrides: Mapping[str, Any]) -> None:
    entry = entry_of(overrides, caller, FORCED)
    with _stack.lock:
        _stack.forced = _stack.forced.under(entry)
        _stack.changed()


def refresh() -> None:
    """Read environment and files again if the environment, the working directory or a file changed.

    Where nothing did, ``settings()`` goes on returning the same object; before its first call there is nothing to do.

    :raises ConfigError: if a file is broken or a value is of the wrong type; the settings stay as they were.
    """
    with _stack.lock:
        sources = _stack.sources
        if sources is None or not sources.changed():
            return
        from .sources import read_sources

        read = read_sources()
        if read.values == sources.values:
            sources.seen, sources.config, sources.references = read.seen, read.config, read.references
            return
        _stack.read_again(read)


def reset() -> None:
    """Forget what ``configure`` and ``force_*`` set, what was read, and what was said in the log.

    Layers of open cassettes stay up until they are taken down.
    """
    from ..notices import forget_notices

    with _stack.lock:
        _stack.forget()
    forget_notices()


# Defaults, files and environment; what cassettes recorded; what code configured; what it forced.
Luggage = tuple[Layer, tuple[Entry, ...], tuple[Entry, ...], Entry]


class _Brought(Sources):
    """Be what defaults, files and environment say in another process."""

    __slots__ = ()

    def changed(self) -> bool:
        """Tell that nothing changes: what is here does not count."""
        return False


def pack() -> Luggage:
    """Return all that the settings of this process are made of, keys included, to be pickled."""
    stack = _stack
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
    stack = _stack
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
