"""Connections to models that no recorded client makes.

A host counts as a model's if it belongs to a well-known API, if a recorded request or one of OpenAI's or
Anthropic's SDK went to it, if the settings name it as ``base_url``, or if it is Ollama's on this
machine. All other connections (databases, queues, downloads) pass.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Collection
from typing import Any

from ..config import resolve as config

# The hosts of well-known APIs; each may have further labels before it.
KNOWN_HOSTS = (
    "aiplatform.googleapis.com",
    "api-inference.huggingface.co",
    "api.ai21.com",
    "api.anthropic.com",
    "api.cerebras.ai",
    "api.cohere.ai",
    "api.cohere.com",
    "api.deepseek.com",
    "api.fireworks.ai",
    "api.groq.com",
    "api.mistral.ai",
    "api.moonshot.ai",
    "api.moonshot.cn",
    "api.openai.com",
    "api.perplexity.ai",
    "api.together.ai",
    "api.together.xyz",
    "api.voyageai.com",
    "api.x.ai",
    "auth.openai.com",
    "cognitiveservices.azure.com",
    "dashscope.aliyuncs.com",
    "dashscope-intl.aliyuncs.com",
    "generativelanguage.googleapis.com",
    "integrate.api.nvidia.com",
    "models.inference.ai.azure.com",
    "openai.azure.com",
    "openrouter.ai",
    "router.huggingface.co",
    "services.ai.azure.com",
)
AMAZON = r"bedrock-runtime\.[\w-]+\.amazonaws\.com"
MODEL_HOSTS = re.compile(rf"(^|[.-])({'|'.join([*map(re.escape, KNOWN_HOSTS), AMAZON])})$")
LOCALHOST = "localhost"
OLLAMA = (LOCALHOST, 11434)
PORTS = {"http": 80, "https": 443}

Addresses = Collection[tuple[str, int]]  # of models: hosts and ports

MOST_NAMES = 10_000
# If there are too many, all are forgotten: a host is looked up again before each connection.
_hosts_by_address: dict[str, str] = {}


SocketAddress = tuple[Any, ...]  # as the module socket has them


def getaddrinfo(
    look_up: Callable[..., list[SocketAddress]],
    host: bytes | str | None,
    *args: object,
    **kwargs: object,
) -> list[SocketAddress]:
    """Look addresses up, and note the host's name: a connection knows only the address."""
    addresses = look_up(host, *args, **kwargs)
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if len(_hosts_by_address) >= MOST_NAMES:
        _hosts_by_address.clear()
    _hosts_by_address.update({str(address[4][0]): name for address in addresses if host})
    return addresses


def connected_to(address: object) -> tuple[str, int] | None:
    """Return the host and the port that a socket connects to, or ``None`` for a Unix socket."""
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return None
    return _normalized_host(_hosts_by_address.get(address[0], address[0])), address[1]


def is_models(address: tuple[str, int], models: Addresses) -> bool:
    """Return whether a host and port belong to a model.

    :param models: addresses of models besides those of well-known APIs.
    """
    return MODEL_HOSTS.search(address[0]) is not None or address in models


def address_of(scheme: str, host: str, port: int | None) -> tuple[str, int]:
    """Return a host in one spelling, and its port, by the scheme if none is named."""
    return _normalized_host(host), port or PORTS.get(scheme, 0)


def address_in(url: str) -> tuple[str, int]:
    """Return the host and port that a URL names; both are empty if it names none."""
    parts = urllib.parse.urlsplit(url)
    return address_of(parts.scheme, parts.hostname or "", parts.port)


def configured_models() -> set[tuple[str, int]]:
    """Return the addresses of the models that the settings name, and Ollama's."""
    settings = config.settings()
    endpoints = [endpoint.address for endpoint in settings.endpoints]
    urls = (settings.base_url, settings.azure_endpoint, *endpoints)
    return {OLLAMA, *map(address_in, filter(None, urls))}


@functools.lru_cache(1024)  # for each request
def _normalized_host(host: str) -> str:
    """Return a host's name in one spelling; the addresses of this machine are ``localhost``."""
    name = host.lower().strip("[]").rstrip(".")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(name).is_loopback:
            return LOCALHOST
    return name


def refused_connection(host: str, reason: str = "a replay sends nothing") -> OSError:
    """Return the error that a program gets if it may not connect."""
    return ConnectionRefusedError(
        errno.ECONNREFUSED, f"llmcall refuses the connection to {host}: {reason}"
    )
