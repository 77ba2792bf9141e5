"""The masking of credentials in exceptions, since a server may repeat them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..config.values import MASK
from ..support.data import Data
from ..support.display import visible
from ..support.lazy_names import pattern
from ..support.secrets import SHORTEST_SECRET, basic_password
from ..support.secrets import masked as without_credential_forms

SECRET_NAMES = pattern("auth|key|token|secret|cookie|password|credential|sig", re.IGNORECASE)


def mask(error: BaseException, secrets: Sequence[object]) -> None:
    """Mask secrets, and texts that look like one, in an exception of the SDK or of llmcall; escape its
    control characters.

    :param secrets: the secrets; values that are not texts are ignored.
    """
    arguments = without_secrets([*error.args], secrets)
    error.args = tuple(visible(arg) if isinstance(arg, str) else arg for arg in arguments)
    for name in vars(error).keys() & {"message", "body", "code", "param"}:
        setattr(error, name, without_secrets(vars(error)[name], secrets))


def secrets_of(request: Any) -> list[str]:
    """Return an HTTP request's credentials, longest first: with and without their scheme ("Bearer …") or their
    name ("session=…"), and as an address writes them.
    """
    from urllib.parse import quote  # takes 2 ms: a replay need not know a credential

    fields: Iterable[tuple[str, str]] = [
        *request.headers.multi_items(),
        *request.url.params.multi_items(),
        *(part.partition("=")[::2] for part in request.url.query.decode("ascii").split("&")),
    ]
    values = [value for name, value in fields if SECRET_NAMES.search(name)]
    values += [request.url.password or "", *map(basic_password, values)]
    words = [word.strip(",;") for value in values for word in value.split()]
    values += [word for word in words if word not in ("Bearer", "Basic")]
    values += [word.partition("=")[2].strip('"') for word in words]
    values += [quote(value, safe="") for value in values]
    return sorted(filter(None, set(values)), key=len, reverse=True)


def without_secrets(value: object, secrets: Sequence[object]) -> Data:
    """Return plain data without secrets that are long enough to matter, and without texts that look like
    one.
    """
    if isinstance(value, str):
        for secret in secrets:
            if isinstance(secret, str) and len(secret) >= SHORTEST_SECRET:
                value = value.replace(secret, MASK)
        return without_credential_forms(value)
    if isinstance(value, dict):
        return {
            without_secrets(name, secrets): without_secrets(item, secrets)
            for name, item in value.items()
        }
    return [without_secrets(item, secrets) for item in value] if isinstance(value, list) else value
