"""The table of capabilities: models' context windows, encodings, and the parameters that they
refuse.

The data is in ``models.json``. These are its sources, as of November 2026:

* windows (of input and output together) and largest outputs: Microsoft's "Azure
  OpenAI reasoning models" (learn.microsoft.com, 24 February 2026) for the o-series and gpt-5 to
  gpt-5.4; OpenAI's page of gpt-6.2-sol and Vercel's list of models, which quotes such pages, for
  gpt-5.6 and gpt-6; else models.dev (2 July 2026) and litellm 1.109, for retired models litellm
  1.72; where these differ, OpenAI's own page decides (gpt-4, chatgpt-4o-latest), or the value is left
  out (the output of gpt-4-32k);
* parameters refused while a model reasons, and ``max_completion_tokens``: the same article of
  Microsoft, section "Not Supported"; ``stop`` for o3 and o4-mini and ``dimensions`` for ada-002:
  the docstrings of the openai SDK 3.51;
* gpt-5.1, 5.2 and 5.4 do not reason unless asked (the article's note 4; litellm 1.109 for 5.2 and
  5.4) and take temperature, top_p and logprobs until then, as the clients of Vercel and LangChain
  found; that gpt-5.5, gpt-5.6, gpt-6-sol, gpt-6-luna and gpt-6.1-terra take them with the effort
  ``none`` follows from litellm's table and is the least certain entry;
* GPT-6 calls tools on chat completions only with the effort ``none``, and on the Responses API
  always: OpenAI's pages of its models;
* models that only the Responses API serves: litellm 1.110, for OpenAI and Azure; nearly all are in the
  openai SDK 3.57's ``ResponsesModel``, too;
* gpt-5-chat does not reason: Vercel's client for OpenAI; nor does gpt-5.3-chat: models.dev;
  gpt-5.1-chat (the article) and gpt-5.2-chat (models.dev) do and refuse a temperature;
* the search previews' refusals: the API's own error messages;
* encodings: ``tiktoken.model`` of tiktoken 0.14, which does not know gpt-6; o200k_base serves for
  gpt-6-luna, and for gpt-oss, whose own encoding differs only in its special tokens;
* the window of the embedding models (8192): the docstring of ``embeddings.create`` in the openai
  SDK 3.51.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..support.data import Data
from ..support.system import unwatched


class Capabilities(NamedTuple):
    """The capabilities of a model; unknown ones are ``None``.

    :param context_window: the most input and output tokens together (of an embedding model: the most
        tokens of one input).
    :param max_output_tokens: the most tokens of one answer, reasoning included.
    :param encoding: tiktoken's name of the encoding, e.g. ``"o200k_base"``.
    :param reasoning: ``True`` if the model can reason before it answers.
    :param refused_parameters: parameters that the API refuses in a request that names no
        ``reasoning_effort``.
    :param max_completion_tokens: ``True`` if the limit must be sent as ``max_completion_tokens``, not
        ``max_tokens``.
    :param structured_output: ``True`` if a ``response_format`` of type ``json_schema`` is understood.
    :param embedding: ``True`` if it is an embedding model.
    :param refused_when_reasoning: parameters that are refused only while the model reasons.
    :param tools_on_responses: ``True`` if a reasoning call with tools needs the Responses API.
    :param only_on_responses: ``True`` if only the Responses API serves the model.
    """

    context_window: int | None = None
    max_output_tokens: int | None = None
    encoding: str | None = None
    reasoning: bool = False
    refused_parameters: frozenset[str] = frozenset()
    max_completion_tokens: bool = False
    structured_output: bool = False
    embedding: bool = False
    refused_when_reasoning: frozenset[str] = frozenset()
    tools_on_responses: bool = False
    only_on_responses: bool = False

    def refused(self, reasoning_effort: str | None = None) -> frozenset[str]:
        """Return the parameters that the API refuses in a request with this ``reasoning_effort``.

        :param reasoning_effort: as in the request; ``None`` if it has none.
        :returns: parameter names.
        """
        if reasoning_effort is None:
            return self.refused_parameters
        if reasoning_effort == "none":
            return self.refused_parameters - self.refused_when_reasoning
        return self.refused_parameters | self.refused_when_reasoning


def capabilities(
    model: str, overrides: Mapping[str, Mapping[str, object]] | None = None
) -> Capabilities:
    """Return the capabilities of a model.

    The full name is looked up first, then the name without a provider (``openai/``), a fine-tune's
    wrapper (``ft:gpt-4o:org::id``) and a date (``-2024-08-06``, ``-0613``). Capabilities without an entry
    come from the longest known family that the name begins with. Case does not matter.

    :param model: the name after aliases.
    :param overrides: ``settings.models``: fields by model name, or by ``prefix*``. A longer prefix
        overrides a shorter one, and the exact name any prefix.
    :returns: the capabilities; for an unknown model all are ``None`` or ``False``.
    """
    packaged = _packaged_capabilities(model)
    if not overrides:
        return packaged
    changes: dict[str, Data] = {}
    for field, value in matching_section(model, overrides).items():
        changes[field] = frozenset(value) if isinstance(value, (tuple, list, set)) else value
    if "refused_parameters" in changes:
        changes.setdefault("refused_when_reasoning", frozenset())
    return packaged._replace(**changes)


def matching_section(model: str, sections: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Return the fields of all ``[Model …]`` sections that match a model; the most specific wins.

    :param sections: fields by model name, or by ``prefix*``.
    """
    prefixes = sorted(
        (name for name in sections if name.endswith("*") and model.startswith(name[:-1])), key=len
    )
    fields: dict[str, object] = {}
    for name in (*prefixes, model):
        fields |= sections.get(name, {})
    return fields


def resolve(model: str, aliases: Mapping[str, str]) -> str:
    """Return the model that an alias means.

    :param model: a name or an alias.
    :param aliases: the meaning of each alias, possibly another alias.
    :returns: the first name that is not an alias.
    :raises ConfigError: if aliases form a cycle.
    """
    path = [model]
    while path[-1] in aliases:
        path.append(aliases[path[-1]])
        if path[-1] in path[:-1]:
            cycle = " → ".join(path[path.index(path[-1]) :])
            raise ConfigError(
                f"[Aliases] form a cycle: {cycle}. One of them must point to a model."
            )
    return path[-1]


@cache
def parameters_of(kind: str) -> frozenset[str]:
    """Return the names of an API's parameters.

    :param kind: ``"chat"`` or ``"embedding"``.
    """
    return frozenset({"model", *_packaged_data()[f"{kind}_parameters"]})


@cache
@unwatched()
def _packaged_data() -> dict[str, Data]:
    # By the path's loader, which also reads from a zip: importlib.resources takes 7 ms to import, also for a replay.
    # The module's own may be pytest's, which opens files as programs do: pyfakefs hides the table from it.
    folder = os.path.dirname(__file__)
    spec: Any = PathFinder.find_spec(__name__, [folder])
    data: dict[str, Data] = json.loads(spec.loader.get_data(os.path.join(folder, "models.json")))
    return data


@lru_cache(maxsize=1024)
def _packaged_capabilities(model: str) -> Capabilities:
    data, names = _packaged_data(), list(_lookup_names(model.lower()))
    window, output = next(
        (data["windows"][name] for name in names if name in data["windows"]), (None, None)
    )
    bare_name, families = names[1], data["families"]
    # The longest family that equals the name, or its beginning before a "-" or ".".
    family_ends = [len(bare_name), *(match.start() for match in re.finditer(r"[-.]", bare_name))]
    prefixes = [bare_name[:end] for end in sorted(family_ends, reverse=True)]
    family = next((prefix for prefix in prefixes if prefix in families), None)
    only_on_responses = not set(prefixes).isdisjoint(data["only_on_responses"])
    if family is None:
        return Capabilities(window, output, only_on_responses=only_on_responses)
    kind, encoding = families[family]
    fields: dict[str, Data] = dict(data["family_kinds"][kind])
    fields["only_on_responses"] = only_on_responses
    for name, value in fields.items():
        if isinstance(value, list):  # names of parameters and of groups of parameters
            fields[name] = frozenset(
                parameter
                for item in value
                for parameter in data["parameter_groups"].get(item, (item,))
            )
    return Capabilities(window, output, encoding, **fields)


def _lookup_names(model: str) -> Iterator[str]:
    yield model
    bare_name = model.rpartition("/")[2]
    if bare_name.startswith("ft:"):
        bare_name = bare_name.split(":")[1]
    bare_name = re.sub(r"\.ft-.*", "", bare_name)  # Azure's name for a fine-tuned model
    yield bare_name
    yield re.sub(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$", "", bare_name)
