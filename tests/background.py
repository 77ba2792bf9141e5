"""A server on the loopback that makes responses in the background, as OpenAI's guide says."""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

from pytest_httpserver import HTTPServer
from servers import Answer, completion, embeddings
from werkzeug import Request, Response

RESPONSE_USAGE = {"input_tokens": 10, "output_tokens": 10, "total_tokens": 20}


class BackgroundServer:
    """Begin responses, say how they are, cancel and delete them.

    A response answers with the last message of its request and its own number: "Hello 1".

    :param looks: after how many looks a response is complete.
    :ivar responses: those that the server has, by their ids.
    :ivar counts: how often each operation was asked: "create", "look", "cancel", "delete"; and "chat"
        and "embeddings", which are answered at once.
    :ivar bodies: of the requests that began a response.
    :ivar ends: what becomes of further responses: the fields of each in turn; then they are complete.
    :ivar failures: answers to give in place of the operations in turn, by operation.
    :ivar at_once: whether it knows no background mode, and answers at once.
    :ivar before: is called with each operation and the response's id, before the answer.
    """

    def __init__(self, server: HTTPServer, *, looks: int = 1) -> None:
        self.base_url = f"http://127.0.0.1:{server.port}/v1"
        self.looks = looks
        self.responses: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.failures: dict[str, list[Answer]] = {}
        self.at_once = False
        self.before: Callable[[str, str | None], object] = lambda operation, identifier: None
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._looked: Counter[str] = Counter()
        server.expect_request(re.compile("/v1/.*")).respond_with_handler(self._respond)

    def settle(self) -> None:
        """Wait until it has answered all that was sent, whoever waits for it: it answers in turn."""
        with urlopen(f"{self.base_url}/settled") as answer:
            answer.read()

    def _respond(self, request: Request) -> Response:
        operation, identifier = self._operation(request)
        if operation == "settled":
            return Response()
        self.before(operation, identifier)
        with self._lock:
            self.counts[operation] += 1
            failures = self.failures.get(operation)
            answer = failures.pop(0) if failures else self._answer(request, operation, identifier)
        return Response(answer.text(), answer.status, answer.headers, mimetype="application/json")

    def _operation(self, request: Request) -> tuple[str, str | None]:
        parts = request.path.removeprefix("/v1/").split("/")
        if parts[0] != "responses":
            return parts[0], None
        if len(parts) == 1:
            return "create", None
        return {"GET": "look", "DELETE": "delete", "POST": "cancel"}[request.method], parts[1]

    def _answer(self, request: Request, operation: str, identifier: str | None) -> Answer:
        if operation in ("chat", "embeddings"):
            return Answer(200, completion("At once.") if operation == "chat" else embeddings([1.0]))
        if operation == "create":
            return Answer(200, self._begin(request.get_json()))
        response = self.responses.get(identifier or "")
        if response is None:
            return Answer(404, {"error": {"message": "no such response", "code": "not_found"}})
        if operation == "delete":
            del self.responses[response["id"]]
            return Answer(200, {"id": response["id"], "object": "response", "deleted": True})
        if operation == "cancel":
            response["status"] = "cancelled"
        elif response["status"] == "queued":
            self._looked[response["id"]] += 1
            if self._looked[response["id"]] >= self.looks:
                response.update(response.pop("end"))
        return Answer(200, {name: value for name, value in response.items() if name != "end"})

    def _begin(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        number = next(self._numbers)
        content = body["input"][-1]["content"]
        part = {"type": "output_text", "text": f"{content} {number}", "annotations": []}
        end = {
            "status": "completed",
            "output": [{"type": "message", "role": "assistant", "content": [part]}],
            "usage": RESPONSE_USAGE,
        }
        response = {
            "id": f"resp_{number}",
            "object": "response",
            "created_at": 1764000000,
            "status": "queued",
            "background": body.get("background"),
            "model": body["model"],
            "output": [],
            "error": None,
            "end": {**end, **(self.ends.pop(0) if self.ends else {})},
        }
        self.responses[response["id"]] = response
        if self.at_once:
            response.update(response.pop("end"), background=False)
        return {name: value for name, value in response.items() if name != "end"}
