"""Credentials are taken out of exceptions, since a server may repeat them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config.values import MASK
from ..secrets import SHORTEST_SECRET

if TYPE_CHECKING:
    from collections.abc import Iterable

SECRET_NAMES = (
    "auth",
    "key",
    "token",
    "secret",
    "cookie",
    "password",
    "credential",
    "signature",
    "sig",
)


def mask(error: BaseException, secrets: list[str]) -> None:
    """Remove secrets from an exception of the SDK or of llmcall."""
    error.args = tuple(masked([*error.args], secrets))
    for name in ("message", "body", "code", "param"):
        if hasattr(error, name):
            setattr(error, name, masked(getattr(error, name), secrets))


def secrets_of(request: Any) -> list[str]:
    """Return an HTTP request's credentials, both with and without the word before them ("Bearer
    …"), longest first.
    """
    fields: Iterable[tuple[str, str]] = [
        *request.headers.multi_items(),
        *request.url.params.multi_items(),
    ]
    values = [value for name, value in fields if any(word in name.lower() for word in SECRET_NAMES)]
    values += [request.url.password or "", *map(_password, values)]
    values += [
        word for value in values for word in value.split() if word not in ("Bearer", "Basic")
    ]
    return sorted(
        {value for value in values if value and len(value) >= SHORTEST_SECRET},
        key=len,
        reverse=True,
    )


def _password(header: str) -> str:
    """Return the password in a header with name and password, or ``""``."""
    from base64 import b64decode

    scheme, _, encoded = header.partition(" ")
    try:
        return b64decode(encoded).decode().partition(":")[2] if scheme == "Basic" else ""
    except ValueError:
        return ""


def masked(value: Any, secrets: list[str]) -> Any:
    """Return plain data without secrets, since a server may repeat them."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
    elif isinstance(value, dict):
        return {masked(name, secrets): masked(item, secrets) for name, item in value.items()}
    elif isinstance(value, list):
        return [masked(item, secrets) for item in value]
    return value
