"""Connections to models that no recorded client makes."""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import re
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ..clients.sdk_transport import is_own_request
from .calls import current_call

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

LOOPBACK = "localhost"
OLLAMA = (LOOPBACK, 11434)  # whose own API is not recorded


class Watch:
    """Finds the connections of this process to models that no recorded client makes.

    A host counts as a model's if it belongs to a well-known API, if a recorded request went to it,
    if the settings name it as ``base_url``, or if it is Ollama's on this machine. All other
    connections (databases, queues, downloads) pass.

    :param tell: called with the host of each such connection; an exception that it raises prevents
        the connection.
    :param addresses: hosts and ports of models that are known from the beginning.
    """

    def __init__(
        self, tell: Callable[[str], None], addresses: Iterable[tuple[str, int]] = ()
    ) -> None:
        self._tell = tell
        self._addresses: set[tuple[str, int]] = {OLLAMA}
        self._names: dict[str, str] = {}  # hosts by the addresses that were looked up for them
        self._is_on = False
        for host, port in addresses:
            self.add(host, port)

    def add(self, host: str, port: int) -> None:
        """Add the address of a model."""
        self._addresses.add((_normalized_host(host), port))

    def start(self) -> None:
        """Start watching. The hooks stay until the process ends; after :meth:`stop` they do nothing."""
        self._is_on = True
        self._remember_names()
        sys.addaudithook(self._audit)

    def stop(self) -> None:
        """Stop watching."""
        self._is_on = False

    def _remember_names(self) -> None:
        """Remember the addresses of the hosts that are looked up: a connection knows only these."""
        look_up = socket.getaddrinfo

        @functools.wraps(look_up)
        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            addresses = look_up(host, *args, **kwargs)
            if self._is_on and host:
                name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
                self._names.update({str(each[4][0]): name for each in addresses})
            return addresses

        socket.getaddrinfo = getaddrinfo

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "socket.connect" or not self._is_on:
            return
        address = args[1]
        if not (isinstance(address, tuple) and isinstance(address[0], str)):
            return  # a Unix socket
        host = _normalized_host(self._names.get(address[0], address[0]))
        is_model = MODEL_HOSTS.search(host) is not None or (host, address[1]) in self._addresses
        if is_model and not _is_recorded():
            self._tell(host)


def _normalized_host(host: str) -> str:
    """Return a host's name in one spelling; the addresses of this machine are ``localhost``."""
    name = host.lower().strip("[]").rstrip(".")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(name).is_loopback:
            return LOOPBACK
    return name


def _is_recorded() -> bool:
    """Return whether a call of llmcall makes the connection."""
    return is_own_request.get() or current_call.get(None) is not None


def refusal(host: str) -> OSError:
    """Return the error that a program gets if it may not connect."""
    return ConnectionRefusedError(
        errno.ECONNREFUSED, f"llmcall run refuses the connection to {host}: a replay sends nothing"
    )
