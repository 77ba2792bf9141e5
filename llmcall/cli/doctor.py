"""Check what a call needs, one thing after the other, and say how to mend what is wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cache.storage import DATABASE, SqliteStorage
from ..config.values import without_password
from ..display.formatting import counted, shortened
from ..errors import APIError, AuthenticationError, CacheError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..clients.base import LLMClient
    from ..config.settings import Endpoint

SECONDS = 10.0  # for the one request that an endpoint is asked
NAMED = 8  # models that a remedy names at most
LONGEST = 200  # characters of an error that are shown


class Check(NamedTuple):
    """Hold what was found of one thing.

    :param name: the thing.
    :param ok: whether a call can do with it as it is.
    :param found: what was found.
    :param remedy: how to mend or better it; empty where there is nothing to do.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""


def checks() -> Iterator[Check]:
    """Yield what was found of files, settings, keys, endpoints, model, cache, tokenizer and price."""
    from ..clients.registry import client
    from ..config import resolve

    try:
        yield Check("files", True, resolve.searched())
        asked = client()
        model = asked.model_named(None)
        endpoints = asked.endpoints(model)
    except ConfigError as error:
        yield Check(
            "settings", False, str(error), "'llmcall config' shows where each setting comes from"
        )
        return
    yield Check(
        "settings", True, f"{asked.api_type}, model {model} ({asked.settings.origin('MODEL')})"
    )
    if asked.settings.cache_mode == "replay":
        yield Check("key", True, "none is needed: [Cache] MODE is replay, which never calls")
    else:
        for endpoint in endpoints:
            yield from _endpoint(asked, endpoint, model)
    yield _structured_output(asked, model)
    yield _cache(asked)
    yield _tokenizer(asked, model)
    yield _price(asked, model)


def _endpoint(asked: LLMClient, endpoint: Endpoint, model: str) -> Iterator[Check]:
    try:
        transport = asked.transport_of(endpoint)
    except ConfigError as error:
        remedy = "without one: recorded answers (LLMCALL_CACHE_MODE=replay), or a small model (LLMCALL_API_TYPE=local)"
        yield Check("key", False, str(error), remedy)
        return
    yield Check("key", True, f"{endpoint.name}: {_key(asked, endpoint)}")
    if hasattr(transport, "models"):
        yield from _answering(asked, transport, endpoint, model)
    if hasattr(transport, "close"):
        transport.close()


def _key(asked: LLMClient, endpoint: Endpoint) -> str:
    if endpoint.api_key is None:
        return "no key, and none is needed"
    if endpoint in asked.settings.endpoints:
        return f"[Endpoint {endpoint.name}] gives one"
    return f"one from {asked.settings.key_and_origin(endpoint.api_type)[1].text}"


def _answering(asked: LLMClient, transport: Any, endpoint: Endpoint, model: str) -> Iterator[Check]:
    name = endpoint.name
    try:
        models = transport.models(SECONDS)
    except APIError as error:
        yield _moved(asked, endpoint, error) or _refused(name, error)
        return
    yield Check(
        "endpoint", True, f"{name} answers{' and takes the key' if endpoint.api_key else ''}"
    )
    if endpoint.api_type == "azure":  # lists what could be deployed, not what is
        deployment = endpoint.deployment or model
        yield Check(
            "model",
            True,
            f"{name}: the first call shows whether there is a deployment {deployment}",
        )
    else:
        yield _model(name, models, model)


def _model(name: str, models: Sequence[str], model: str) -> Check:
    if model in models:
        return Check("model", True, f"{name} has {model}")
    if not models:
        return Check("model", True, f"{name} lists no models: whether it has {model} is open")
    from difflib import get_close_matches

    near = get_close_matches(model, models, NAMED, 0.4) or sorted(models)[:NAMED]
    return Check(
        "model", False, f"{name} lists no {model}", f"[OpenAI] MODEL may be {', '.join(near)}"
    )


def _moved(asked: LLMClient, endpoint: Endpoint, error: APIError) -> Check | None:
    """Look for the API at the address that was probably meant, if it is not where it should be."""
    from ..clients.api_errors import meant_address

    if error.status_code != 404 or endpoint.api_type == "azure" or not endpoint.base_url:
        return None
    meant = meant_address(endpoint.base_url)
    if meant is None:
        return None
    transport = asked.make_transport(endpoint._replace(base_url=meant))
    try:
        transport.models(SECONDS)
    except APIError:
        return None
    finally:
        transport.close()
    found = (
        f"{endpoint.name} does not answer at {without_password(endpoint.base_url)}, but at {meant}"
    )
    return Check("endpoint", False, found, f"set BASE_URL to {without_password(meant)}")


def _refused(name: str, error: APIError) -> Check:
    """Judge a refusal of the list of models: some servers answer chats and nothing else."""
    status = error.status_code
    if status is None:
        remedy = "'llmcall config' shows where the address comes from"
        # without the page that a proxy may have sent
        told = str(error).partition("<")[0].partition("\n")[0].strip()
        return Check("endpoint", False, f"{name}: {shortened(told, LONGEST)}", remedy)
    if isinstance(error, AuthenticationError):
        remedy = "the key is refused: look at 'llmcall config' for where it comes from"
    elif status == 429 or (status >= 500 and status != 501):  # of a server that has no such list
        remedy = "the server answers, but fails; its own log, or the provider's status page, may tell why"
    else:
        what = "something else at /models" if status < 400 else f"HTTP {status}"
        remedy = "the first call shows whether it answers chats; if not, check BASE_URL: most addresses end in /v1"
        return Check(
            "endpoint", True, f"{name} answers, and has no list of models ({what})", remedy
        )
    return Check("endpoint", False, f"{name}: HTTP {status}", remedy)


def _cache(asked: LLMClient) -> Check:
    try:
        found = asked.cache
        count = counted(len(found), "record")
        if not isinstance(found.storage, SqliteStorage):
            return Check("cache", True, f"{found.path}: {count}", "; ".join(found.storage.risks()))
        directory = Path(found.path)
        _try_to_write(directory)
    except (ConfigError, CacheError, OSError) as error:
        place = without_password(asked.settings.cache_path)
        remedy = (
            f"no answer is kept there: 'llmcall cache verify', or another [Cache] PATH than {place}"
        )
        return Check("cache", False, str(error), remedy)
    return Check(
        "cache", True, f"{directory}: {count if directory.exists() else 'made at the first call'}"
    )


def _try_to_write(directory: Path) -> None:
    """Write nothing that stays: a file without a name in the directory, or where it would be made.

    :raises OSError: where that, or writing to the database, is not allowed.
    """
    tempfile.TemporaryFile(
        dir=next(folder for folder in (directory, *directory.parents) if folder.exists())
    ).close()
    database = directory / DATABASE
    if database.exists():
        database.open("r+b").close()


def _price(asked: LLMClient, model: str) -> Check:
    found = asked.price(model)
    if found is not None:
        each = f"${found.input:g} in and ${found.output:g} out per million tokens"
        return Check("price", True, f"{model}: {each}, by {found.source}")
    remedy = f"{model} = IN, OUT in [Prices] (USD per million tokens); the extra 'prices' knows those of many"
    return Check("price", True, f"{model}: unknown, so costs are shown as ?", remedy)


def _structured_output(asked: LLMClient, model: str) -> Check:
    if asked.capabilities(model).structured_output:
        return Check("output", True, f"structured output is used with {model}")
    found = f"structured output is not used with {model}: typed answers are asked for as JSON"
    remedy = f"if its server takes a JSON schema: STRUCTURED_OUTPUT = yes in [Model {model}]"
    return Check("output", True, found, remedy)


def _tokenizer(asked: LLMClient, model: str) -> Check:
    count = asked.count_tokens("How many tokens?")
    if not count.estimated:
        return Check("tokenizer", True, f"exact for {model}")
    remedy = "the extra 'offline' (bpe-openai) counts OpenAI's models exactly, without network"
    return Check(
        "tokenizer",
        True,
        f"estimated for {model}",
        remedy if asked.capabilities(model).encoding else "",
    )
