"""``llmcall doctor``: checks of key, endpoint, model, cache and tokenizer, with remedies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from ..clients import registry
from ..clients.base import LLMClient
from ..config import resolve
from ..config.endpoints import Endpoint
from ..config.values import without_password
from ..core.callbacks import call_callback, close
from ..errors import APIError, CacheError, ConfigError
from ..support.display import counted, text_table, visible
from .options import json_option
from .output import echo, echo_json, with_colours

MAX_NAMES = 8  # of models in a remedy
SECONDS = 10.0  # timeout of the one request to each endpoint
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
    yield Check("files", True, resolve.file_summary())
    client = registry.client()
    model = client.model_named(None)
    endpoints = client.endpoints(model)
    yield Check("settings", True, f"{client.api_type}, model {model}")
    if client.settings.cache_mode == "replay":
        yield Check("key", True, "not needed: [Cache] MODE is replay, which calls no model")
    else:
        for endpoint in endpoints:
            yield from _endpoint_checks(client, endpoint, model)
    yield _cache_check(client)
    count = client.count_tokens("How many tokens?")
    how = "estimated" if count.estimated else "counted exactly"
    remedy = "install the extra 'offline' (bpe-openai), which counts exactly and needs no network"
    is_countable = count.estimated and client.capabilities(model).encoding
    yield Check("tokenizer", True, f"tokens of {model} are {how}", remedy if is_countable else "")


def _endpoint_checks(client: LLMClient, endpoint: Endpoint, model: str) -> Iterator[Check]:
    """Yield the checks of an endpoint: its key, whether it answers, and whether it lists the model."""
    name = endpoint.name
    try:
        transport = client.shared_transport(endpoint)
    except ConfigError as error:
        remedy = "LLMCALL_CACHE_MODE=replay replays recorded answers without it"
        yield Check("model" if client.sends_nothing else "key", False, str(error), remedy)
        return
    key = "an API key is set" if endpoint.api_key else "no API key is needed"
    yield Check("key", True, f"{name}: {key}")
    try:
        models = call_callback(transport.list_models, SECONDS)
    except APIError as error:
        remedy = "'llmcall config' shows where address and key come from"
        if is_without_list := error.status_code in WITHOUT_LIST:
            remedy = "the first call shows whether it answers chats; most addresses end in /v1"
        found = f"{transport.source or name}/models: {error}"
        yield Check("endpoint", is_without_list, found, remedy)
        return
    finally:
        close(transport)
    if models is None:
        return
    yield Check("endpoint", True, f"{name} answers")
    if models and endpoint.api_type != "azure":  # which lists models that could be deployed
        has_model = model in models
        remedy = f"set [OpenAI] MODEL to one of {', '.join(sorted(models)[:MAX_NAMES])}"
        found = f"{name} {'has' if has_model else 'does not list'} {model}"
        yield Check("model", has_model, found, "" if has_model else remedy)


def _cache_check(client: LLMClient) -> Check:
    path = without_password(client.settings.cache_path)
    try:
        count = counted(len(client.cache), "record")
        if client.cache.is_directory:
            folders = (Path(path), *Path(path).parents)
            tempfile.TemporaryFile(dir=next(it for it in folders if it.exists())).close()
    except (ConfigError, CacheError, OSError) as error:
        remedy = (
            f"llmcall cannot store answers in {path}: set another PATH in [Cache] of config.ini"
        )
        return Check("cache", False, str(error), remedy)
    return Check("cache", True, f"{path}: {count}")
