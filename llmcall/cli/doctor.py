"""``llmcall doctor``: checks of key, endpoint, model, cache and tokenizer, with remedies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import click

from ..clients import registry
from ..clients.api_errors import proxy_hint
from ..clients.base import LLMClient
from ..config import resolve
from ..config.endpoints import Endpoint
from ..config.values import without_password
from ..core.callbacks import call_callback, close
from ..errors import APIError, CacheError, ConfigError
from ..stores.cache.directory import DATABASE
from ..support.display import counted, shortened, text_table, visible
from ..support.notices import keep_notices, stop_keeping_notices
from .options import json_option
from .output import echo, echo_json, with_colours

SECONDS = 10.0  # timeout of the one request to each endpoint
MAX_NAMES = 8  # of models in a remedy
MAX_ERROR_CHARACTERS = 200
WITHOUT_LIST = (404, 405, 501)  # some servers only answer chats


class Check(NamedTuple):
    """The result of one check.

    :param name: the thing checked.
    :param ok: ``True`` if a call works with it.
    :param found: the finding.
    :param remedy: how to fix or improve it; empty if there is nothing to do.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check key, endpoint and setup, and suggest fixes.

    Checks the API key, the endpoint, the model, the cache directory and the tokenizer.
    The exit code is 1 if something is wrong.
    """
    results = list(checks())
    if as_json:
        echo_json([check._asdict() for check in results])
    else:
        rows = []
        for check in results:
            rows.append(("ok" if check.ok else "FAIL", check.name, visible(check.found)))
            if check.remedy:
                rows.append(("", "", visible(f"→ {check.remedy}")))
        echo(with_colours(text_table(rows)))
    if not all(check.ok for check in results):
        raise click.exceptions.Exit(1)


def checks() -> Iterator[Check]:
    """Yield the checks of files, settings, keys, endpoints, models, cache and tokenizer."""
    wrong = keep_notices()  # such as a setting that does not exist
    try:
        files = resolve.file_summary()
    except ConfigError as error:
        yield Check("settings", False, str(error), "correct it there")
        return
    finally:
        stop_keeping_notices(wrong)
    yield Check("files", True, files)
    try:
        client = registry.client()
        model = client.model_named(None)
        endpoints = client.endpoints(model)
    except ConfigError as error:
        yield Check(
            "settings", False, str(error), "'llmcall config' shows where each setting comes from"
        )
        return
    origin = (
        client.settings.origin("MODEL") if model == client.settings.model else "the client's own"
    )
    used = f"{client.api_type}, model {model} ({origin})"
    remedy = "correct it there" if wrong else ""
    yield Check("settings", not wrong, "; ".join([used, *wrong]), remedy)
    if client.settings.cache_mode == "replay":
        yield Check("key", True, "not needed: [Cache] MODE is replay, which calls no model")
    else:
        for endpoint in endpoints:
            yield from _endpoint_checks(client, endpoint, model)
    yield _cache_check(client)
    yield _tokenizer_check(client, model)


def _endpoint_checks(client: LLMClient, endpoint: Endpoint, model: str) -> Iterator[Check]:
    """Yield the checks of an endpoint: its key, whether it answers, and whether it has the model."""
    name = endpoint.name
    try:
        transport = client.shared_transport(endpoint)
    except ConfigError as error:
        lacking = "model" if client.sends_nothing else "key"
        remedy = f"LLMCALL_CACHE_MODE=replay replays recorded answers without a {lacking}"
        yield Check(lacking, False, str(error), remedy)
        return
    if endpoint.api_key is None:
        origin = "no API key is needed"
    elif any(listed.name == name and listed.api_key for listed in client.settings.endpoints):
        origin = f"from [Endpoint {name}]"
    else:
        origin = f"from {client.settings.key_and_origin(endpoint.api_type).origin}"
    yield Check("key", True, f"{name}: {origin}")
    try:
        models = call_callback(transport.list_models, SECONDS)
    except APIError as error:
        # A proxy may have sent an HTML page.
        url = getattr(transport, "url", name)
        proxy = proxy_hint(url)
        came = str(error).removesuffix(proxy).partition("<")[0].partition("\n")[0].strip()
        found = f"{url}/models: {shortened(came, MAX_ERROR_CHARACTERS)}"
        remedy = proxy.strip() or "'llmcall config' shows where address and key come from"
        if is_without_list := error.status_code in WITHOUT_LIST:
            remedy = "the first call shows whether it answers chats; most addresses end in /v1"
        yield Check("endpoint", is_without_list, found, remedy)
    else:
        if models is not None:
            key = " and accepts the API key" if endpoint.api_key else ""
            yield Check("endpoint", True, f"{name} answers{key}")
            yield _model_check(endpoint, models, model)
    close(transport)


def _model_check(endpoint: Endpoint, models: Sequence[str], model: str) -> Check:
    """Return the check of a model at an endpoint, by the models that it lists."""
    name = endpoint.name
    if endpoint.api_type == "azure":  # it lists models that could be deployed, not deployments
        deployment = endpoint.deployment or model
        found = f"{name}: the first call shows whether the deployment {deployment} exists"
        return Check("model", True, found)
    if model in models:
        return Check("model", True, f"{name} has {model}")
    if not models:
        found = f"{name} lists no models, so the first call shows whether it has {model}"
        return Check("model", True, found)
    nearest = get_close_matches(model, models, MAX_NAMES, 0.4) or sorted(models)[:MAX_NAMES]
    one_of = "one of " if len(nearest) > 1 else ""
    remedy = f"set [OpenAI] MODEL to {one_of}{', '.join(nearest)}"
    return Check("model", False, f"{name} does not list {model}", remedy)


def _cache_check(client: LLMClient) -> Check:
    try:
        cache = client.cache
        count = counted(len(cache), "record")
        if not cache.is_directory:
            return Check("cache", True, f"{cache.path}: {count}")
        directory = Path(cache.path)
        _try_to_write(directory)
    except (ConfigError, CacheError, OSError) as error:
        cache_path = without_password(client.settings.cache_path)
        remedy = (
            f"no answer can be stored in {cache_path}: set another PATH under [Cache] in config.ini"
        )
        return Check("cache", False, str(error), remedy)
    if not directory.exists():
        return Check("cache", True, f"{directory}: the first call creates it")
    return Check("cache", True, f"{directory}: {count}")


def _try_to_write(directory: Path) -> None:
    """Try to write to a directory, or to the nearest one above it, and to its database; leave nothing behind."""
    tempfile.TemporaryFile(
        dir=next(folder for folder in (directory, *directory.parents) if folder.exists())
    ).close()
    database = directory / DATABASE
    if database.exists():
        database.open("r+b").close()


def _tokenizer_check(client: LLMClient, model: str) -> Check:
    count = client.count_tokens("How many tokens?")
    if not count.estimated:
        return Check("tokenizer", True, f"tokens of {model} are counted exactly")
    remedy = "install the extra 'offline' (bpe-openai), which counts exactly and needs no network"
    return Check(
        "tokenizer",
        True,
        f"tokens of {model} are estimated",
        remedy if client.capabilities(model).encoding else "",
    )
