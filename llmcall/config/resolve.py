"""The current settings of this process, and the functions that change them.

Highest first: ``force_*``; arguments of a call and of a client (``Settings.replace``); ``configured``;
``configure``; the header of an open cassette (``push_layer``); ``LLMCALL_*`` and the SDK's
variables; ``.env``; config.ini; the defaults.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from ..support.notices import forget_notices, warn_once
from ..support.system import ProcessLock
from .endpoints import Endpoint, KeyReference
from .setting import Layer, Rank, SettingValue
from .settings import SETTINGS, Settings, checked_layer
from .sources import Sources, read_sources
from .values import UNSET, cache_directory_name, host_of, is_loopback

INTERVAL = 1.0  # seconds between two readings of environment and files by calls


class Layers:
    """The layers of this or another process; changes need ``_lock``."""

    def __init__(self, sources: Sources | None = None, read_at: float = 0.0) -> None:
        self.sources = sources
        self.read_at = read_at
        self.pushed: list[Layer] = []  # the headers of open cassettes, the innermost last
        self.configured: Layer = {}  # UNSET withdraws the value of an earlier configure()
        self.forced: Layer = {}
        self.changed()

    def changed(self) -> None:
        """Forget the merged settings after a change of a layer."""
        self._without_code: Settings | None = None
        self.merged_settings: Settings | None = None

    def read(self) -> Sources:
        """Return the environment and files, read once."""
        if self.sources is None:
            self.sources = read_sources()
            self.read_at = time.monotonic()
        return self.sources

    def without_code(self) -> Settings:
        """Return the settings of defaults, files, environment and open cassettes."""
        if self._without_code is None:
            self._without_code = self.read().settings.overlaid(*self.pushed)
        return self._without_code

    def settings(self) -> Settings:
        """Return the settings outside any block of :func:`configured`."""
        merged_settings = self.merged_settings
        if merged_settings is None:
            with _lock:
                merged_settings = self.merged_settings = self.merged_settings or self.merged(
                    self.configured
                )
        return merged_settings

    def merged(self, configured: Layer) -> Settings:
        """Return the settings of all layers.

        :param configured: the values of ``configure`` and of blocks.
        """
        return self.with_forced(self.without_code().overlaid(configured))

    def with_forced(self, below: Settings) -> Settings:
        """Return settings with the forced values. Forcing the cache on keeps any mode but ``off``."""
        forced = dict(self.forced)
        mode = forced.get("cache_mode")
        if mode is not None and mode.value == "auto" and below.cache_mode != "off":
            del forced["cache_mode"]  # a Settings.replace() may still set it
        return below.overlaid(forced)


class Block:
    """The open blocks of :func:`configured` in this context.

    :param layer: the values that they set.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.layers = layers  # using() may replace the global ones
        self._merged: tuple[Settings, Settings] | None = None  # the process's, and those here

    def settings(self) -> Settings:
        """Return the settings inside the blocks."""
        merged = self._merged
        if merged is None or merged[0] is not self.layers.settings():
            with _lock:
                settings = self.layers.merged({**self.layers.configured, **self.layer})
                merged = self._merged = self.layers.settings(), settings
        return merged[1]


layers = Layers()
_block: ContextVar[Block | None] = ContextVar("llmcall_configured", default=None)
_lock = ProcessLock()


def _open_block() -> Block | None:
    block = _block.get()
    return None if block is None or block.layers is not layers else block


def _configured() -> dict[str, SettingValue]:
    """Return the values of :func:`configure` and of the open blocks of :func:`configured`."""
    block = _open_block()
    return {**layers.configured, **(block.layer if block else {})}


def settings() -> Settings:
    """Return the current settings, as the same object until something changes.

    Environment and files are read by the first call and by ``refresh``.

    :raises ConfigError: if a file is broken or a value is of the wrong type.
    """
    block = _block.get()
    if block is None or block.layers is not layers:
        return layers.merged_settings or layers.settings()
    return block.settings()


def refresh(interval: float = 0.0) -> None:
    """Read environment and files again. If nothing changed, ``settings()`` returns the same object.

    :param interval: skip this if the last reading is fewer seconds ago.
    :raises ConfigError: if a file is broken or a value is of the wrong type; the settings stay
        unchanged.
    """
    if layers.sources is None or time.monotonic() - layers.read_at < interval:
        return
    with _lock:
        sources = read_sources()
        if layers.sources is None or sources.settings.layer != layers.sources.settings.layer:
            layers.changed()
        layers.sources = sources
        layers.read_at = time.monotonic()


def file_summary() -> str:
    """Return in words which config.ini and ``.env`` were read, or where the search found no file."""
    with _lock:
        return layers.read().file_summary


def settings_for(base: Settings | None, arguments: Layer) -> Settings:
    """Return the settings of a client.

    :param base: the client's own settings, or ``None`` for the current ones. Open cassettes and forced
        values override either.
    :param arguments: the values of its arguments.
    """
    with _lock:
        below = (
            layers.without_code().overlaid(_configured())
            if base is None
            else base.overlaid(*layers.pushed)
        )
        return layers.with_forced(below.overlaid(arguments))


def configure(**overrides: object) -> None:
    """Set settings for the whole process, overriding environment and files, which are read again.

    A relative path starts from the current working directory.

    :param overrides: settings by name; ``None`` withdraws the value of an earlier call.
    :raises ConfigError: if a value is of the wrong type; then nothing is set.
    :raises TypeError: for an unknown setting.

    >>> llmcall.configure(model="gpt-6-luna", temperature=0.5)
    >>> llmcall.settings().model
    'gpt-6-luna'
    >>> llmcall.configure(model=None, temperature=None)
    """
    layer = checked_layer(overrides, "configure()", Rank.CONFIGURED)
    refresh()
    with _lock:
        layers.configured = {**layers.configured, **layer}
        layers.changed()


@contextmanager
def configured(**overrides: object) -> Iterator[None]:
    """Set settings for a block, overriding ``configure``. They apply in this thread or task, and where its
    context is inherited: in its tasks and in the threads of ``map``, but not in threads that you start.

    :param overrides: settings by name, as for ``configure``.
    :raises ConfigError: if a value is of the wrong type.

    >>> with llmcall.configured(temperature=0.5):
    ...     llmcall.settings().temperature
    0.5
    """
    layer = checked_layer(overrides, "configured()", Rank.CONFIGURED)
    before = _open_block()
    _block.set(Block({**before.layer, **layer} if before else layer))
    try:
        yield
    finally:
        _block.set(before)


def force_api_type(api_type: str | None) -> None:
    """Choose the client for the whole process, overriding all other settings.

    :param api_type: the name of a registered client; ``None`` withdraws the choice.
    :raises ConfigError: if it is not text.

    >>> llmcall.force_api_type("azure")
    >>> llmcall.settings().api_type
    'azure'
    >>> llmcall.force_api_type(None)
    """
    _force("force_api_type()", {"api_type": api_type})


def force_api_cache(
    cache_api_calls: bool | None, cache_file_name: str | os.PathLike[str] | None = None
) -> None:
    """Turn the request cache on or off for the whole process, overriding all other settings.

    :param cache_api_calls: ``True`` turns it on, and a mode of ``off`` becomes ``auto``; ``False``
        turns it off; ``None`` withdraws the choice.
    :param cache_file_name: its directory, relative to the working directory; TinyTroupe's file
        ``x.pickle`` becomes the directory ``x.cache``; ``None`` withdraws the choice.
    :raises ConfigError: if the file name is invalid.
    :raises TypeError: if ``cache_api_calls`` is neither a bool nor ``None``.

    >>> llmcall.force_api_cache(False)
    >>> llmcall.settings().cache_mode
    'off'
    >>> llmcall.force_api_cache(None)
    """
    _force("force_api_cache()", api_cache("force_api_cache()", cache_api_calls, cache_file_name))


def api_cache(
    function: str, cache_api_calls: object, cache_file_name: str | os.PathLike[str] | None
) -> dict[str, str | None]:
    """Return the settings for TinyTroupe's cache arguments.

    :param function: the function that took them, for the message.
    """
    if cache_api_calls is not None and not isinstance(cache_api_calls, bool):
        raise TypeError(
            f"{function} takes True, False or None, not a {type(cache_api_calls).__name__}"
        )
    mode = None
    if cache_api_calls is not None:
        mode = "auto" if cache_api_calls else "off"
    path = None if cache_file_name is None else cache_directory_name(os.fspath(cache_file_name))
    return {"cache_mode": mode, "cache_path": path}


def _force(function: str, overrides: Mapping[str, object]) -> None:
    with _lock:
        layers.forced = {**layers.forced, **checked_layer(overrides, function, Rank.FORCED)}
        layers.changed()


def reset() -> None:
    """Forget the values of ``configure`` and ``force_*``, the environment and files, and which warnings
    were logged. The settings of open cassettes stay.
    """
    with _lock:
        layers.sources = None
        layers.configured, layers.forced = {}, {}
        layers.changed()
    forget_notices()


def without_code() -> Settings:
    """Return the settings of defaults, files, environment and open cassettes, without code's, as the same
    object until something changes.
    """
    with _lock:
        return layers.without_code()


def layer_above_files(values: Mapping[str, object], origin: str) -> Layer:
    """Return a layer above environment and files, below ``configure`` and arguments, for :func:`push_layer`.

    :param values: settings by name; ``None`` means no value.
    :param origin: their source, for ``Settings.origin``.
    :raises ConfigError: if a value is of the wrong type.
    :raises TypeError: for an unknown setting.
    """
    layer = checked_layer(values, origin, Rank.PUSHED)
    for name, entry in layer.items():
        if entry.value is UNSET and SETTINGS[name].default is None:
            layer[name] = entry._replace(value=None)
    return layer


def push_layer(layer: Layer) -> Callable[[], None]:
    """Put a layer above environment and files for the whole process; return the function that takes it away."""
    with _lock:
        layers.pushed.append(layer)
        layers.changed()

    def pop_layer() -> None:
        with _lock:
            layers.pushed = [pushed for pushed in layers.pushed if pushed is not layer]
            layers.changed()

    return pop_layer


# Settings sent to another process, which then uses this process's code, environment and files.


def packed() -> Layers:
    """Return the layers of this process, including API keys, to be pickled for :func:`using`."""
    with _lock:
        other = Layers(layers.read(), float("inf"))
        other.pushed, other.forced = list(layers.pushed), layers.forced
        other.configured = _configured()
    return other


@contextmanager
def using(other: Layers) -> Iterator[None]:
    """Use other layers for a block, in all threads of the process."""
    global layers
    with _lock:
        previous = layers
        layers = other
    try:
        yield
    finally:
        with _lock:
            layers = previous


# Keys.


def key_for(settings: Settings, api_type: str) -> str | Callable[[], object] | None:
    """Return the key for a client, the function that returns it, or ``None``.

    A key from the settings (``api_key=``, ``LLMCALL_API_KEY``, ``API_KEY`` in config.ini) overrides the
    SDK's variable, unless its layer is lower.

    :param api_type: the client's name.
    :raises ConfigError: if config.ini refers to a variable that is not set.
    """
    key = settings.key_and_origin(api_type).value
    return key() if isinstance(key, KeyReference) else key


def announce_key_destination(settings: Settings, endpoint: Endpoint) -> None:
    """Warn once per host before a key from the environment goes to a host that comes from a config.ini
    or ``.env`` that llmcall found itself.

    Such a file belongs to a project, perhaps a stranger's. There is no warning for loopback hosts, for a
    key from the same file, or for hosts from the environment, code or the file of ``LLMCALL_CONFIG``.

    :param settings: the client's settings.
    :param endpoint: the endpoint to call, listed in the settings or made from them.
    """
    url = endpoint.address
    name = "azure_endpoint" if endpoint.azure_endpoint else "base_url"
    key = settings.key_and_origin(endpoint.api_type)
    section = {listed.name: listed for listed in settings.endpoints}.get(endpoint.name)
    if section is not None and section.address:
        name = "endpoints"
    elif url != getattr(settings, name):
        return
    if section is not None and section.api_key is not None:
        key = settings.setting_value("endpoints")._replace(value=section.api_key)
    elif key.value is None and endpoint.api_type == "azure":
        key = settings.setting_value("azure_ad_token")
    address = settings.setting_value(name)
    if isinstance(key.value, KeyReference):
        key = key._replace(rank=Rank.ENVIRONMENT, origin=key.value.variables)
    is_found = address.rank in (Rank.FOUND_FILE, Rank.DOTENV)
    is_from_environment = address.rank < key.rank <= Rank.ENVIRONMENT
    if url and is_found and is_from_environment and not is_loopback(url):
        host = host_of(url)
        warn_once(
            f"the API key from {key.origin} is sent to the host {host}, which {address.origin} names",
            about=("key destination", host),
        )
