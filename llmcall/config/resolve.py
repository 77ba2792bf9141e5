"""The current settings of this process, and the functions that change them.

Highest first: ``force_*``; arguments of a call and of a client (``Settings.replace``); ``configured``;
``configure``; what an open cassette recorded (``push_layer``); ``LLMCALL_*`` and the SDK's
variables; ``.env``; config.ini; the defaults.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..notices import forget_notices, warn_once
from ..system import process_lock
from .endpoints import Endpoint
from .setting import Layer, Rank, SettingValue
from .settings import SETTINGS, Settings, checked_layer
from .sources import Sources, read_sources
from .values import UNSET, KeyReference, directory_named, host_of, is_loopback

INTERVAL = 1.0  # seconds for which calls do not look at environment and files again


_generations = itertools.count(1)


class _Blocks:
    """The blocks of :func:`configured` that are open around the code that runs here.

    :param stack: what they set, the outermost first.
    """

    def __init__(self, stack: tuple[Layer, ...]) -> None:
        self.stack = stack
        self.layers = layers  # using() may put others in their place
        self.generation = -1
        self._base: tuple[Layers, int] | None = None  # what the settings were made from
        self._settings: Settings | None = None

    def settings(self) -> Settings:
        """Return the current settings, with what the blocks set above ``configure``."""
        base = layers, layers.generation
        if self._settings is None or base != self._base:
            with _lock:
                self._settings = layers.made(self.stack)
                self._base = base
                self.generation = next(_generations)
        return self._settings


_blocks: ContextVar[_Blocks | None] = ContextVar("llmcall_configured", default=None)


def _open_blocks() -> _Blocks | None:
    blocks = _blocks.get()
    return None if blocks is None or blocks.layers is not layers else blocks


class Layers:
    """The layers of this process, or of another; changes need ``_lock``.

    :ivar generation: a number that changes whenever ``settings()`` would return another object; no
        two layers have the same.
    """

    def __init__(self) -> None:
        self.generation = next(_generations)
        self.current: Settings | None = None
        self.sources: Sources | None = None
        self.read_at = 0.0
        self.pushed: list[Layer] = []  # what open cassettes recorded, the innermost last
        self.configured: Layer = {}  # UNSET means that an earlier configure() no longer decides
        self.forced: Layer = {}

    def invalidate(self) -> None:
        """Forget the current settings, because a layer changed."""
        self.current = None
        self.generation = next(_generations)

    def read(self) -> Sources:
        """Return the environment and files, read once."""
        if self.sources is None:
            self.sources = read_sources()
            self.read_at = time.monotonic()
        return self.sources

    def resolve(self) -> Settings:
        """Return the current settings."""
        if self.current is None:
            self.current = self.made()
        return self.current

    def made(self, blocks: Iterable[Layer] = ()) -> Settings:
        """Return settings of all layers.

        :param blocks: what blocks set above ``configure``, the outermost first.
        """
        below = self.read().settings.overlaid(_merged(self.pushed))
        return self.with_forced(below.overlaid(_merged((self.configured, *blocks))))

    def with_forced(self, below: Settings) -> Settings:
        """Return settings with the forced values. A cache that is forced on keeps its mode, unless
        that is ``off``.
        """
        forced = dict(self.forced)
        mode = forced.get("cache_mode")
        if mode is not None and mode.value == "auto" and below.cache_mode != "off":
            forced["cache_mode"] = mode._replace(value=below.cache_mode)
        return below.overlaid(forced)


def _merged(stack: Iterable[Layer]) -> Layer:
    """Return several layers of one rank as one; later ones win."""
    return {name: value for layer in stack for name, value in layer.items()}


layers = Layers()
_lock = process_lock(__name__)


def settings() -> Settings:
    """Return the current settings: the very same object until something changes.

    Environment and files are read by the first call and by ``refresh``.

    :raises ConfigError: if a file is broken or a value is of the wrong type.
    """
    blocks = _open_blocks()
    if blocks is not None:
        return blocks.settings()
    current = layers.current
    if current is None:
        with _lock:
            current = layers.resolve()
    return current


def generation() -> int:
    """Return a number that changes whenever ``settings()`` would return another object here."""
    blocks = _open_blocks()
    if blocks is None:
        return layers.generation
    blocks.settings()
    return blocks.generation


def refresh(interval: float = 0.0) -> None:
    """Read environment and files again. If nothing changed, ``settings()`` returns the same object.

    :param interval: seconds since the last reading below which nothing is read.
    :raises ConfigError: if a file is broken or a value is of the wrong type; the settings stay as
        they were.
    """
    if layers.sources is None or time.monotonic() - layers.read_at < interval:
        return
    with _lock:
        sources = read_sources()
        if layers.sources is None or sources.settings.layer != layers.sources.settings.layer:
            layers.invalidate()
        layers.sources = sources
        layers.read_at = time.monotonic()


def file_summary() -> str:
    """Return which config.ini and ``.env`` were read, or where none was found, in words."""
    with _lock:
        return layers.read().file_summary


def settings_for(base: Settings | None, overrides: Mapping[str, Any], caller: str) -> Settings:
    """Return the settings of a client.

    :param base: the settings it was given, or ``None`` for the current ones. What a cassette
        recorded and what is forced now goes above them as it goes above the current ones.
    :param overrides: its arguments; ``None`` means not given.
    :param caller: the function that took them, for messages.
    :raises ConfigError: if a value is of the wrong type.
    :raises TypeError: if there is no such setting.
    """
    with _lock:
        below = settings() if base is None else base.overlaid(_merged(layers.pushed))
        return layers.with_forced(below.overlaid(checked_layer(overrides, caller, Rank.ARGUMENT)))


def configure(**overrides: Any) -> None:
    """Set settings for the whole process, above environment and files, which are read again.

    A relative path starts from the current working directory.

    :param overrides: settings by name; ``None`` withdraws the value of an earlier call.
    :raises ConfigError: if a value is of the wrong type; then nothing is set.
    :raises TypeError: if there is no such setting.

    >>> llmcall.configure(model="gpt-6-luna", temperature=0.5)
    >>> llmcall.settings().model
    'gpt-6-luna'
    >>> llmcall.configure(model=None, temperature=None)
    """
    layer = checked_layer(overrides, "configure()", Rank.CONFIGURED)
    refresh()
    with _lock:
        layers.configured.update(layer)
        layers.invalidate()


@contextmanager
def configured(**overrides: Any) -> Iterator[None]:
    """Set settings for a block, above ``configure``: in this thread or task, and in what inherits its
    context, such as its tasks and the threads of ``map``. A thread of one's own does not see them.

    :param overrides: settings by name, as for ``configure``.
    :raises ConfigError: if a value is of the wrong type.

    >>> with llmcall.configured(temperature=0.5):
    ...     llmcall.settings().temperature
    0.5
    """
    layer = checked_layer(overrides, "configured()", Rank.CONFIGURED)
    outer = _open_blocks()
    _blocks.set(_Blocks((*(outer.stack if outer else ()), layer)))
    try:
        yield
    finally:
        # Blocks of one context may overlap.
        inner = _blocks.get()
        rest = tuple(each for each in (inner.stack if inner else ()) if each is not layer)
        _blocks.set(outer if rest == (outer.stack if outer else ()) else _Blocks(rest))


def force_api_type(api_type: str | None) -> None:
    """Choose the client for the whole process, above all other settings.

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
    """Turn the request cache on or off for the whole process, above all other settings.

    :param cache_api_calls: ``True`` turns it on, and a mode of ``off`` becomes ``auto``; ``False``
        turns it off; ``None`` withdraws the choice.
    :param cache_file_name: its directory, relative to the working directory; TinyTroupe's
        ``x.pickle`` becomes ``x.cache``, since ours is a directory; ``None`` withdraws the choice.
    :raises ConfigError: if the file name is invalid.
    :raises TypeError: if ``cache_api_calls`` is neither a bool nor ``None``.

    >>> llmcall.force_api_cache(False)
    >>> llmcall.settings().cache_mode
    'off'
    >>> llmcall.force_api_cache(None)
    """
    if cache_api_calls is not None and not isinstance(cache_api_calls, bool):
        raise TypeError(
            f"force_api_cache() takes True, False or None, not a {type(cache_api_calls).__name__}"
        )
    mode = None
    if cache_api_calls is not None:
        mode = "auto" if cache_api_calls else "off"
    path = None if cache_file_name is None else directory_named(os.fspath(cache_file_name))
    _force("force_api_cache()", {"cache_mode": mode, "cache_path": path})


def _force(caller: str, overrides: Mapping[str, Any]) -> None:
    with _lock:
        layers.forced.update(checked_layer(overrides, caller, Rank.FORCED))
        layers.invalidate()


def reset() -> None:
    """Forget the values of ``configure`` and ``force_*``, what was read, and which warnings were logged.

    The layers of open cassettes stay.
    """
    with _lock:
        layers.sources = None
        layers.configured, layers.forced = {}, {}
        layers.invalidate()
    forget_notices()


def without_code(base: Settings | None = None) -> dict[str, Any]:
    """Return each setting's value in defaults, files, environment and open cassettes, without code.

    :param base: a client's settings; values that code set in them are left out as well.
    """
    with _lock:
        pushed = _merged(layers.pushed)
        current = layers.read().settings
    process_layer = current.overlaid(pushed).layer
    client_layer = process_layer if base is None else base.overlaid(pushed).layer
    values = {}
    for name in SETTINGS:
        is_set_in_code = client_layer[name].origin.rank >= Rank.CONFIGURED
        layer = process_layer if is_set_in_code else client_layer
        values[name] = layer[name].value
    return values


class PushedLayer(NamedTuple):
    """What ``push_layer`` added.

    :param layers: those that it was added to; ``using`` may put others in their place meanwhile.
    :param layer: what was added.
    """

    layers: Layers
    layer: Layer


def push_layer(values: Mapping[str, Any], origin: str) -> PushedLayer:
    """Set settings for the whole process, above environment and files, below ``configure`` and
    arguments.

    :param values: settings by name; ``None`` means that the setting has no value.
    :param origin: the place that they came from, for ``Settings.origin``.
    :returns: what was added, for ``pop_layer``.
    :raises ConfigError: if a value is of the wrong type.
    :raises TypeError: if there is no such setting.
    """
    layer = checked_layer(values, origin, Rank.PUSHED)
    for name, (value, setting_origin) in layer.items():
        if value is UNSET and SETTINGS[name].default is None:
            layer[name] = SettingValue(None, setting_origin)
    with _lock:
        layers.pushed.append(layer)
        layers.invalidate()
        return PushedLayer(layers, layer)


def overridden(pushed: PushedLayer) -> Layer:
    """Return the settings that environment and files give, and in place of which a pushed layer gives
    other values now.
    """
    with _lock:
        below = layers.read().settings.layer
        current = settings().layer
    return {
        name: below[name]
        for name, given in pushed.layer.items()
        if current[name] is given
        and below[name].origin.rank > Rank.DEFAULT
        and below[name].value != given.value
    }


def pop_layer(pushed: PushedLayer) -> None:
    """Remove the layer that ``push_layer`` added, unless it was removed before."""
    changed_layers, layer = pushed
    with _lock:
        changed_layers.pushed = [each for each in changed_layers.pushed if each is not layer]
        changed_layers.invalidate()


# Settings that are sent to another process, where the code, environment and files of this one apply.


def pack() -> tuple[Any, ...]:
    """Return the layers of this process, keys included, to be pickled for :func:`unpacked`."""
    blocks = _open_blocks()
    with _lock:
        return (
            layers.read().settings,
            list(layers.pushed),
            _merged((layers.configured, *(blocks.stack if blocks else ()))),
            dict(layers.forced),
        )


def unpacked(packed: tuple[Any, ...]) -> Layers:
    """Return the layers of another process, for :func:`using`."""
    other = Layers()
    settings, other.pushed, other.configured, other.forced = packed
    other.sources = Sources(settings)
    other.read_at = float("inf")
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


def key_for(settings: Settings, api_type: str | None = None) -> str | Callable[[], Any] | None:
    """Return the key for a client, the function that returns it, or ``None``.

    A key from the settings (``api_key=``, ``LLMCALL_API_KEY``, ``API_KEY`` in config.ini) precedes
    the SDK's variable, unless its layer is lower.

    :param api_type: the client's name; ``None`` for the configured one.
    :raises ConfigError: if config.ini refers to a variable that is not set.
    """
    key, _ = settings.key_and_origin(api_type)
    return key() if isinstance(key, KeyReference) else key


def announce_key_destination(settings: Settings, endpoint: Endpoint) -> None:
    """Warn once per host before a key from the environment is sent to a host that a config.ini names.

    A config.ini comes with a project, perhaps a stranger's, and is read without the user naming it.
    There is no warning for loopback hosts, nor for hosts that the environment, code or the file of
    ``LLMCALL_CONFIG`` names.

    :param settings: the client's settings.
    :param endpoint: the endpoint about to be called, listed in the settings or made from them.
    """
    url = endpoint.address
    is_listed = endpoint in settings.endpoints
    name = "endpoints"
    if not is_listed:
        name = "azure_endpoint" if endpoint.azure_endpoint else "base_url"
    origin = settings.origin_of(name)
    if not url or origin.rank != Rank.FOUND_FILE or is_loopback(url):
        return
    source = _key_source(settings, endpoint, is_listed=is_listed)
    if source is not None and (is_listed or url == getattr(settings, name)):
        host = host_of(url)
        message = f"the API key from {source} is sent to the host {host}, which {origin.text} names"
        warn_once(message, about=("key destination", host))


def _key_source(settings: Settings, endpoint: Endpoint, *, is_listed: bool) -> str | None:
    """Return the place of the key in the environment, in words; ``None`` if it is not from there."""
    key, origin = settings.key_and_origin(endpoint.api_type)
    if is_listed and endpoint.api_key is not None:
        key, origin = endpoint.api_key, settings.origin_of("endpoints")
    elif key is None and endpoint.api_type == "azure":
        key, origin = settings.azure_ad_token, settings.origin_of("azure_ad_token")
    if isinstance(key, KeyReference):
        return key.variables
    return origin.text if origin.rank in (Rank.DOTENV, Rank.ENVIRONMENT) else None
