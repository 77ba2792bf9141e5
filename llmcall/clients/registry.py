"""The clients by api_type, a shared instance of each, and functions for the whole process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..additions import additions, load
from ..config import resolve as config
from ..config.settings import Settings
from ..errors import ConfigError
from ..models.catalog import capabilities, resolve
from ..scopes.active import forget_scopes
from ..stores.cache.cache import forget_shared
from ..stores.cassettes.current import close_named
from ..support.arguments import checked, nearest
from ..support.failures import process_failures
from ..support.plugins import PlugIns
from ..support.request_origin import callback_errors
from ..support.system import ProcessLock
from ..traffic.usage import Usage, process_meter
from .base import LLMClient

if TYPE_CHECKING:
    from ..models.tokens import TokenCount
    from .base import Messages

BUILT_IN = {
    "azure": "clients.openai:AzureClient",
    "ollama": "clients.openai:OllamaClient",
    "openai": "clients.openai:OpenAIClient",
    **additions("clients"),
}

_lock = ProcessLock()
_registered = PlugIns("llmcall.clients")
_shared: dict[str, LLMClient] = {}


def register_client(api_type: str, client: LLMClient | Callable[[Settings], LLMClient]) -> None:
    """Register a client for an api_type, replacing any earlier one.

    :param api_type: the name, as in ``[OpenAI] API_TYPE``.
    :param client: a client, or a function of the settings that returns one.
    :raises TypeError: if the name is not a string, or the client neither a client nor a function.

    >>> llmcall.register_client("parrot", lambda settings: llmcall.testing.ScriptedClient(["Pieces of eight!"]))
    >>> llmcall.client("parrot").send_message("Good morning!").content
    'Pieces of eight!'
    """
    if not isinstance(api_type, str):
        raise TypeError(f"api_type is {api_type!r}; it must be a name")
    if not (isinstance(client, LLMClient) or callable(client)):
        raise TypeError(
            f"the client for the api_type {api_type!r} is {client!r:.60}; it must be an LLMClient, or a function of "
            "the settings that returns one"
        )
    with _lock:
        _registered[api_type] = client
        _shared.pop(api_type, None)


@checked
def client(api_type: str | None = None) -> LLMClient:
    """Return the shared client for an api_type.

    :param api_type: the name; ``None`` means the configured one.
    :raises ConfigError: if no client is registered for it; the message lists the known ones.

    >>> llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    """
    config.refresh(config.INTERVAL)
    name = api_type or config.settings().api_type
    with _lock:
        shared = _shared.get(name)
        if shared is None:
            shared = _shared[name] = _new_client(name)
        return shared


def _new_client(name: str) -> LLMClient:
    if name in BUILT_IN and name not in _registered:
        return load(BUILT_IN[name])()  # type: ignore[no-any-return]
    registered = _registered.find(name, f"the api_type {name!r}")
    if registered is None:
        api_types = sorted({*BUILT_IN, *_registered.names()})
        hint = nearest(name, api_types) or "."
        raise ConfigError(
            f"unknown api_type {name!r}{hint} Known: {', '.join(api_types)} (register_client adds one). A model "
            "is named by MODEL in [OpenAI], or by model= of a call"
        )
    new_client = registered
    if callable(registered) and not isinstance(registered, LLMClient):
        failure = f"the function registered for the api_type {name!r} raised"
        with callback_errors(failure, ConfigError):
            new_client = registered(config.settings())
    if not isinstance(new_client, LLMClient):
        raise ConfigError(f"the api_type {name!r} gave {new_client!r:.60}, not an LLMClient")
    return new_client


def settings() -> Settings:
    """Return the current settings. Environment and files are read again if they changed.

    >>> with llmcall.configured(temperature=0.5):
    ...     llmcall.settings().temperature, llmcall.settings().origin("TEMPERATURE")
    (0.5, 'configured()')
    """
    config.refresh()
    return config.settings()


def reset() -> None:
    """Forget the shared clients and caches, and the settings that were configured, forced or read
    from environment and files.

    Usage totals and registered clients stay. The cassette that ``[Cassette] PATH`` names is written
    and closed.

    >>> llmcall.configure(temperature=0.5)
    >>> llmcall.reset()
    >>> llmcall.settings().temperature is None
    True
    """
    from ..traffic import limits  # takes milliseconds, and a recorded answer does not need it

    close_named()
    process_failures.forget()
    with _lock:
        clients = list(_shared.values())
        _shared.clear()
    for shared in clients:
        shared.close()
    forget_shared()
    forget_scopes()
    limits.forget()
    config.reset()


def usage() -> Usage:
    """Return this process's total usage, and how many calls run at each endpoint whose limit is ``auto``.

    >>> llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> usage = llmcall.usage()
    >>> usage.calls + usage.cached_calls > 0
    True
    """
    from ..traffic.limits import under_way  # not needed for a recorded answer

    return process_meter.usage()._replace(under_way=under_way())


@checked
def count_tokens(messages_or_text: Messages, model: str | None = None) -> TokenCount:
    """Return the number of tokens in a text, or in messages with their framing.

    :param messages_or_text: a string, or messages as :meth:`LLMClient.send_message` takes them.
    :param model: the model whose tokenizer counts; ``None`` means the configured one.
    :returns: the number; its ``.estimated`` is true if it is not exact, as for unknown models.

    >>> llmcall.count_tokens("Good morning!", "some-unknown-model").estimated
    True
    """
    from ..models.tokens import count_tokens as count

    current = settings()
    name = resolve(model or current.model, current.aliases)
    return count(messages_or_text, name, encoding=capabilities(name, current.models).encoding)
