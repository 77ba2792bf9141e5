"""Raw HTTP records: the model that a request names, and the model's answer."""

from __future__ import annotations

from collections.abc import Mapping

from ..apis.bodies import answer_in
from ..apis.token_usage import TokenUsage
from ..keys.request import Data
from ..support.lazy_names import pattern

# The ends of the paths at which a model answers, where the host is known.
MODEL_PATHS = (
    *("/chat/completions", "/completions", "/embeddings", "/responses", "/decisions"),
    *("/interactions", "/v1/messages"),
)
MODEL_IN_PATH = pattern(r"/models/([^/:]+):")


def requested_model(kind: str, request: Mapping[str, Data]) -> str | None:
    """Return the model that a request names, or ``None``."""
    body = request.get("body") if kind == "http" else request
    model = (body.get("model") or body.get("agent")) if isinstance(body, dict) else None
    if kind == "http" and model is None:  # Gemini's API names it in the path
        named = MODEL_IN_PATH.search(str(request.get("path")))
        model = named[1] if named else None
    return model if isinstance(model, str) and model else None


def model_answer_in(request: Mapping[str, Data], response: Mapping[str, Data]) -> dict[str, Data]:
    """Return a model's answer in a raw HTTP record, or an empty dict.

    The answer is a model's if the request went to a known API's path, or if the answer reports tokens.
    """
    value = response.get("value")
    body = value.get("body") if isinstance(value, dict) else None
    if not isinstance(body, str):
        return {}
    answer = answer_in(body)
    path = str(request.get("path")).rstrip("/")
    is_at_model = "host" not in request or path.endswith(MODEL_PATHS)
    return answer if is_at_model or TokenUsage.of(answer) != TokenUsage() else {}
