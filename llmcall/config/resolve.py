"""The settings as they stand in this process, and the functions that change them.

Highest first: ``force_*``; arguments of a call and of a client (``Settings.replace``);
``configure``; what an open cassette recorded (``push_layer``); ``LLMCALL_*`` and the SDK's
variables; ``.env``; config.ini; the defaults.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import short_traceback
from ..notices import forget_notices, warn_once
from ..system import process_lock
from .settings import SETTINGS, Endpoint, Layer, Rank, Settings, checked_layer
from .sources import Sources, read_sources
from .values import UNSET, KeyReference, directory_named, host_of, is_loopback

INTERVAL = 1.0  # seconds for which calls trust that environment and files are what they were


class _Layers:
    """Hold the layers of this process; whoever changes one holds ``_lock``.

    :ivar generation: a number that changes whenever ``settings()`` would return another object than
        before.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.current: Settings | None = None
        self.sources: Sources | None = None
        self.looked_at = 0.0
        self.pushed: list[Layer] = []  # what open cassettes recorded, the innermost last
        # UNSET in one means that an earlier configure() no longer decides
        self.configured: list[Layer] = [{}]
        self.forced: Layer = {}

    def changed(self) -> None:
        """Let the settings be made anew, and the generation tell so."""
        self.current = None
        self.generation += 1

    def read(self) -> Sources:
        """Return what environment and files say, read once."""
        if self.sources is None:
            self.sources, self.looked_at = read_sources(), time.monotonic()
        return self.sources

    def made(self) -> Settings:
        """Return the settings of now."""
        if self.current is None:
            found = self.read().settings.overlaid(_merged(self.pushed))
            self.current = self.with_forced(found.overlaid(_merged(self.configured)))
        return self.current

    def with_forced(self, below: Settings) -> Settings:
        """Return settings with what is forced; a cache forced on goes on replaying or refreshing if
        it was told to.
        """
        forced = dict(self.forced)
        if below.cache_mode != "off" and forced.get("cache_mode", (None,))[0] == "auto":
            forced["cache_mode"] = (below.cache_mode, forced["cache_mode"][1])
        return below.overlaid(forced)


def _merged(entries: list[Layer]) -> Layer:
    """Return several layers of one rank as one; the latest counts."""
    return {name: value for entry in entries for name, value in entry.items()}


layers = _Layers()
_lock = process_lock(__name__)


def settings() -> Settings:
    """Return the current settings: the very same object until something changes.

    Environment and files are read by the first call and by ``refresh``.

    :raises ConfigError: if a file is broken or a value is of the wrong type.
    """
    current = layers.current
    if current is None:
        with _lock:
            current = layers.made()
    return current


def refresh(interval: float = 0.0) -> None:
    """Read environment and files again; where they say the same, ``settings()`` goes on returning
    the same object.

    :param interval: seconds; whoever looked less long ago need not look again.
    :raises ConfigError: if a file is broken or a value is of the wrong type; the settings stay as
        they were.
    """
    if layers.sources is None or time.monotonic() - layers.looked_at < interval:
        return
    with _lock:
        found = read_sources()
        if layers.sources is None or found.settings.layer != layers.sources.settings.layer:
            layers.changed()
        layers.sources, layers.looked_at = found, time.monotonic()


def searched() -> str:
    """Say which config.ini and ``.env`` were read, or where a config.ini was sought in vain."""
    with _lock:
        return layers.read().searched


def settings_for(base: Settings | None, overrides: Mapping[str, Any], caller: str) -> Settings:
    """Return the settings of a client.

    :param base: the settings it was given, or ``None`` for the current ones. What a cassette
        recorded and what is forced now goes above them as it goes above the current ones.
    :param overrides: its arguments; ``None`` as a value means that there is none.
    :param caller: what was given them, for messages.
    :raises ConfigError, TypeError: if a value is of the wrong type; if there is no such setting.
    """
    with _lock:
        below = layers.made() if base is None else base.overlaid(_merged(layers.pushed))
        return layers.with_forced(below.overlaid(checked_layer(overrides, caller, Rank.ARGUMENT)))


@short_traceback
def configure(**overrides: Any) -> None:
    """Set settings for the whole process, above environment and files, which are looked at again.

    Inside ``configured`` they hold until its block ends. A relative path starts from the working
    directory of now.

    :param overrides: settings by name; ``None`` withdraws what an earlier call set.
    :raises ConfigError: if a value is of the wrong type; nothing is set then.
    :raises TypeError: if there is no such setting.

    >>> llmcall.configure(model="gpt-4o-mini", temperature=0.5)
    >>> llmcall.settings().model
    'gpt-4o-mini'
    >>> llmcall.configure(model=None, temperature=None)
    """
    entry = checked_layer(overrides, "configure()", Rank.CONFIGURED)
    refresh()
    with _lock:
        layers.configured[-1].update(entry)
        layers.changed()


@contextmanager
def configured(**overrides: Any) -> Iterator[None]:
    """Set settings while a block runs, for every thread of the process.

    The block's end withdraws only what the block set, so blocks of several threads may overlap.

    :param overrides: as of ``configure``.

    >>> with llmcall.configured(temperature=0.5):
    ...     llmcall.settings().temperature
    0.5
    """
    entry = checked_layer(overrides, "configured()", Rank.CONFIGURED)
    with _lock:
        layers.configured.append(entry)
        layers.changed()
    try:
        yield
    finally:
        with _lock:
            layers.configured = [each for each in layers.configured if each is not entry]
            layers.changed()


def force_api_type(api_type: str | None) -> None:
    """Choose the client for the whole process, above every other setting.

    :param api_type: the name that a client is registered by; ``None`` gives the choice back.
    :raises ConfigError: if it is no text.

    >>> llmcall.force_api_type("azure")
    >>> llmcall.settings().api_type
    'azure'
    >>> llmcall.force_api_type(None)
    """
    _force("force_api_type()", {"api_type": api_type})


def force_api_cache(
    cache_api_calls: bool | None, cache_file_name: str | os.PathLike[str] | None = None
) -> None:
    """Turn the request cache on or off for the whole process, above every other setting.

    :param cache_api_calls: ``True`` turns it on: the mode stays what it is unless that is ``off``,
        which becomes ``auto``; ``False`` turns it off; ``None`` gives the choice back.
    :param cache_file_name: its directory, from the working directory on; TinyTroupe's ``x.pickle``
        becomes ``x.cache``, since ours is a directory; ``None`` gives the place back.
    :raises ConfigError: if the file name is none.
    :raises TypeError: if ``cache_api_calls`` is no bool.

    >>> llmcall.force_api_cache(False)
    >>> llmcall.settings().cache_mode
    'off'
    >>> llmcall.force_api_cache(None)
    """
    if cache_api_calls is not None and not isinstance(cache_api_calls, bool):
        raise TypeError(
            f"force_api_cache() takes True, False or None, not a {type(cache_api_calls).__name__}"
        )
    mode = None if cache_api_calls is None else "auto" if cache_api_calls else "off"
    path = None if cache_file_name is None else directory_named(os.fspath(cache_file_name))
    _force("force_api_cache()", {"cache_mode": mode, "cache_path": path})


def _force(caller: str, overrides: Mapping[str, Any]) -> None:
    with _lock:
        layers.forced.update(checked_layer(overrides, caller, Rank.FORCED))
        layers.changed()


def reset() -> None:
    """Forget what ``configure`` and ``force_*`` set, what was read, and what was said in the log.

    Layers of open cassettes stay up until they are taken down.
    """
    with _lock:
        layers.sources = None
        layers.configured, layers.forced = [{}], {}
        layers.changed()
    forget_notices()


def without_code(base: Settings | None = None) -> dict[str, Any]:
    """Return each setting's value as defaults, files, environment and open cassettes say it,
    whatever code says.

    :param base: the settings that a client was given; what code says in them is left out all the
        same.
    """
    with _lock:
        pushed, current = _merged(layers.pushed), layers.read().settings
    below = current.overlaid(pushed).layer
    given = below if base is None else base.overlaid(pushed).layer
    return {
        name: (given if given[name][1].rank < Rank.CONFIGURED else below)[name][0]
        for name in SETTINGS
    }


def push_layer(values: Mapping[str, Any], origin: str) -> object:
    """Put values above environment and files and below ``configure`` and arguments, for the whole
    process.

    :param values: settings by name; ``None`` is a value here and means that the setting has none.
    :param origin: where they came from, for ``Settings.origin``.
    :returns: what ``pop_layer`` takes.
    :raises ConfigError: if a value is of the wrong type.
    :raises TypeError: if there is no such setting.
    """
    layer = checked_layer(values, origin, Rank.PUSHED)
    for name, (value, place) in layer.items():
        if value is UNSET and SETTINGS[name].default is None:
            layer[name] = (None, place)
    with _lock:
        layers.pushed.append(layer)
        layers.changed()
    return layer


def pop_layer(token: object) -> None:
    """Take down the layer that ``push_layer`` put up; nothing happens if it is down already."""
    with _lock:
        layers.pushed = [layer for layer in layers.pushed if layer is not token]
        layers.changed()


# The settings as they travel to another process: what code, environment and files say here holds
# there too.


def pack() -> tuple[Any, ...]:
    """Return all that the settings of this process are made of, keys included, to be pickled for
    :func:`unpack`.
    """
    with _lock:
        return (
            layers.read().settings,
            list(layers.pushed),
            [_merged(layers.configured)],
            dict(layers.forced),
        )


def unpack(packed: tuple[Any, ...]) -> None:
    """Let the settings of another process hold in this one, whatever environment and files say
    here.
    """
    with _lock:
        settings, layers.pushed, layers.configured, layers.forced = packed
        layers.sources = Sources(settings)
        layers.looked_at = float("inf")
        layers.changed()


# Keys.


def key_for(settings: Settings, api_type: str | None = None) -> str | Callable[[], Any] | None:
    """Return the key for a client, the function that gives it, or ``None``.

    A key from the settings (``api_key=``, ``LLMCALL_API_KEY``, ``API_KEY`` in config.ini) goes
    before the SDK's variable unless its layer is lower.

    :param api_type: ``None`` is the configured one.
    :raises ConfigError: if config.ini refers to a variable that is not set.
    """
    key, _ = settings.key_and_origin(api_type)
    return key() if isinstance(key, KeyReference) else key


def announce_key_destination(settings: Settings, endpoint: Endpoint) -> None:
    """Warn once per host before a key from the environment goes to a host that a found config.ini
    names.

    A config.ini comes with a project, perhaps a stranger's, and is found without being asked for.
    Loopback hosts are not announced, nor those that the environment, code or the file of
    ``LLMCALL_CONFIG`` names.

    :param settings: the client's settings.
    :param endpoint: what is about to be called; a client may have made it from the settings, or
        listed one from them.
    """
    url = endpoint.address
    is_listed = endpoint in settings.endpoints
    name = "endpoints" if is_listed else "azure_endpoint" if endpoint.azure_endpoint else "base_url"
    named_by = settings.origin_of(name)
    if not url or named_by.rank != Rank.FOUND_FILE or is_loopback(url):
        return
    source = _environment_key(settings, endpoint, is_listed=is_listed)
    if source is not None and (is_listed or url == getattr(settings, name)):
        host = host_of(url)
        message = f"the key from {source} goes to the host {host}, which {named_by.text} names"
        warn_once(message, about=("key destination", host))


def _environment_key(settings: Settings, endpoint: Endpoint, *, is_listed: bool) -> str | None:
    """Say where in the environment the key is, or return ``None`` if it is not from there."""
    key, origin = settings.key_and_origin(endpoint.api_type)
    if is_listed and endpoint.api_key is not None:
        key, origin = endpoint.api_key, settings.origin_of("endpoints")
    elif key is None and endpoint.api_type == "azure":
        key, origin = settings.azure_ad_token, settings.origin_of("azure_ad_token")
    if isinstance(key, KeyReference):
        return key.variables
    return origin.text if origin.rank in (Rank.DOTENV, Rank.ENVIRONMENT) else None
