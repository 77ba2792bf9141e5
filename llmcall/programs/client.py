"""The client that makes a program's calls to one address."""

from __future__ import annotations

from ..additions import additions
from ..clients.openai import OpenAIClient
from ..config.endpoints import Endpoint
from ..core.calls import Call, Resolved
from ..core.kinds import ProgramChat, ProgramEmbeddings
from ..keys.request import Data
from .transport import ProgramTransport

LIMIT = "max_completion_tokens"  # another name for max_tokens


class ProgramClient(OpenAIClient):
    """A client that makes a program's calls to one address, with the credentials and headers of each request."""

    takes_defaults = False

    def _resolve(self) -> Resolved:
        """Return the resolved settings. Of the default parameters, only those given in code apply:
        the program's requests stay its own. Its own HTTP client sets the timeouts.
        """
        resolved = super()._resolve()
        options = resolved.options._replace(timeout=None, on_error="raise")
        overridden = {
            name: value for name, value in resolved.defaults.items() if name in self._overrides
        }
        return resolved._replace(defaults=overridden, options=options)

    def effort(self, model: str) -> dict[str, Data]:
        """Return nothing: a program's request gets no effort that it does not name."""
        return {}

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints that serve a model; one in this process, if that answers whatever the address is."""
        api_type = self.settings.api_type
        if api_type in additions("program_senders"):
            return [Endpoint(api_type, (model,), api_type)]
        return super().endpoints(model)

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        api_type = endpoint.api_type or ""
        return api_type if api_type in additions("program_senders") else super().host(endpoint)

    def with_own_body(self, call: Call, transport: ProgramTransport) -> Call:
        """Return a call that the program's transport sends, with the program's own body: only an alias or
        an override changes a field of it. What llmcall knows about the model changes nothing.
        """
        request, body = call.request, transport.to_record.body
        sent = dict(body)
        if body.get("model") is not None or "model" in self._overrides:
            sent["model"] = request.model
        if request.kind == "embedding":
            sent["input"] = request.body["input"]
        else:
            for name, default in self.resolved.defaults.items():
                is_limited = name == "max_tokens" and body.get(LIMIT) is not None
                if body.get(name) is None and not is_limited:
                    sent[name] = default
        is_chat = request.kind == "chat"
        return call._replace(
            kind=ProgramChat(transport) if is_chat else ProgramEmbeddings(transport),
            request=request._replace(body=sent, expected=None),  # the program reads the answer
            is_streamed=is_chat and transport.to_record.requests_stream,
        )
