"""What callbacks send is unrecorded.

Each recording is compared with a fresh one of the same answers without what that code sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from clients import KEY, Server, client_for, http, plain_program
from commands import PRICED, under_run
from pytest_httpserver import HTTPServer
from servers import NumberedServer, chunk, completion

import llmcall
from llmcall import LLMClient
from llmcall.types import CallInfo, Listener

HELLO = [{"role": "user", "content": "Hello"}]
BODY = {"model": "gpt-4o-mini", "messages": HELLO, "temperature": 1}
Ask = Callable[[dict[str, Any]], Any]


@pytest.fixture
def model(httpserver: HTTPServer) -> NumberedServer:
    """A model's server, which code of the user's asks."""
    llmcall.configure(cache_mode="off")
    return NumberedServer(httpserver)


# How user code sends: by which library, and where


def by_httpx(address: str, body: dict[str, Any]) -> Any:
    """Ask by httpx, or httpx2."""
    with http.Client(verify=False) as client:
        return client.post(f"{address}/chat/completions", json=body).json()


def by_requests(address: str, body: dict[str, Any]) -> Any:
    """Ask by requests."""
    return requests.post(f"{address}/chat/completions", json=body, timeout=60).json()


def by(sdk: openai.OpenAI, body: dict[str, Any]) -> Any:
    """Ask by a client of the OpenAI SDK."""
    return json.loads(sdk.chat.completions.with_raw_response.create(**body).text)


def by_an_sdk(address: str, body: dict[str, Any]) -> Any:
    """Ask by the OpenAI SDK."""
    with (
        openai.DefaultHttpxClient(verify=False) as http_client,
        openai.OpenAI(base_url=address, api_key=KEY, http_client=http_client) as sdk,
    ):
        return by(sdk, body)


def by_llmcall(address: str, body: dict[str, Any]) -> Any:
    """Ask by another client of llmcall."""
    inner = client_for(address, on_error="raise", model=body["model"])
    reply = inner.send_message(body["messages"], temperature=1)
    assert reply is not None
    return reply.raw


def by_a_recorded_client(address: str, body: dict[str, Any]) -> Any:
    """Ask by an SDK with a client that records what a program sends."""
    with openai.OpenAI(base_url=address, api_key=KEY, http_client=llmcall.http_client()) as sdk:
        return by(sdk, body)


async def in_a_task(address: str, body: dict[str, Any]) -> Any:
    """Ask by httpx in a task of its own."""

    async def post() -> Any:
        async with http.AsyncClient(verify=False) as client:
            return (await client.post(f"{address}/chat/completions", json=body)).json()

    return await asyncio.create_task(post())


def in_a_loop(address: str, body: dict[str, Any]) -> Any:
    """Ask in an event loop of its own."""
    return asyncio.run(in_a_task(address, body))


LIBRARIES = [by_httpx, by_requests, by_an_sdk, by_llmcall, by_a_recorded_client, in_a_loop]


def do(work: Callable[[], Any]) -> Any:
    """Do some work: the name by which its caller is counted."""
    return work()


def here(work: Callable[[], Any]) -> Any:
    """Work in this thread."""
    return work()


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Work in a thread that is started for it."""
    results: list[Any] = []
    thread = threading.Thread(target=do, args=(lambda: results.append(work()),))
    thread.start()
    thread.join()
    return results[0]


def in_a_pool(work: Callable[[], Any]) -> Any:
    """Work in a pool."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(do, lambda: work()).result()


def in_a_thread_of_a_pool(work: Callable[[], Any]) -> Any:
    """Work in a thread that a pool's work starts."""
    return in_a_pool(lambda: in_a_thread(work))


PLACES = [here, in_a_thread, in_a_pool, in_a_thread_of_a_pool]
BLOCKS: dict[str, Callable[[str], contextlib.AbstractContextManager[Any]]] = {
    "cassette": llmcall.cassette,
    "patched": lambda path: opened(llmcall.patched(), llmcall.cassette(path)),
    "patched inside": lambda path: opened(llmcall.cassette(path), llmcall.patched()),
}


@contextlib.contextmanager
def opened(*blocks: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Open blocks, the outermost first."""
    with contextlib.ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block)
        yield


class Sending(LLMClient):
    """A client of one's own that asks elsewhere."""

    api_type = "sending"

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        super().__init__(model="gpt-4o-mini", cache_mode="off", on_error="raise")

    def send(self, request: Any, timeout: float | None) -> Any:
        """Return another's answer."""
        return self.ask(request.body)

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Ask another for each piece, and after the last one."""
        body = {"model": request.model, "messages": request.messages}
        for _ in range(2):
            yield chunk(text_of(self.ask(body)))
        yield chunk(None, "stop")
        self.ask(body)


class SendingAsync(Sending):
    """A client of one's own that asks elsewhere in the event loop."""

    async def asend(self, request: Any, timeout: float | None) -> Any:
        """Return another's answer."""
        return await self.ask(request.body)

    async def astream(self, request: Any, timeout: float | None) -> AsyncIterator[Any]:
        """Ask another for each piece, and after the last one."""
        body = {"model": request.model, "messages": request.messages}
        for _ in range(2):
            yield chunk(text_of(await self.ask(body)))
        yield chunk(None, "stop")
        await self.ask(body)


def text_of(response: Any) -> str:
    """Return the text of an answer."""
    return str(response["choices"][0]["message"]["content"])


def canned() -> Ask:
    """Return what answers as the model's server does, and sends nothing."""
    numbers = itertools.count()
    return lambda body: completion(f"answer {next(numbers)}")


def canned_async() -> Ask:
    """Return the same for an event loop."""
    answer = canned()

    async def aanswer(body: dict[str, Any]) -> Any:
        return answer(body)

    return aanswer


# What the program does with its clients


def whole(client: LLMClient) -> list[Any]:
    """Ask the same twice in a scope."""
    with llmcall.scope("ada"):
        return [client.send_message("Hello", temperature=1).content for _ in range(2)]  # type: ignore[union-attr]


def whole_async(client: LLMClient) -> list[Any]:
    """Ask the same twice in a scope, in an event loop."""

    async def main() -> list[Any]:
        replies = [await client.asend_message("Hello", temperature=1) for _ in range(2)]
        return [reply.content for reply in replies if reply is not None]

    with llmcall.scope("ada"):
        return asyncio.run(main())


def streamed(client: LLMClient) -> list[Any]:
    """Ask for the same stream twice in a scope."""
    with llmcall.scope("ada"):
        return ["".join(client.stream_message("Hello", temperature=1)) for _ in range(2)]


def streamed_async(client: LLMClient) -> list[Any]:
    """Ask for the same stream twice in a scope, in an event loop."""

    async def main() -> list[Any]:
        texts = []
        for _ in range(2):
            async with client.astream_message("Hello", temperature=1) as stream:
                texts.append("".join([text async for text in stream]))
        return texts

    with llmcall.scope("ada"):
        return asyncio.run(main())


def of_the_program(server: Server) -> list[Any]:
    """Ask the same at once by the program's own client in a pool's work, whose callers are numbered."""
    sdk = plain_program(server)

    def ask() -> Any:
        return sdk.chat.completions.create(model="m", messages=HELLO).choices[0].message.content  # type: ignore[arg-type]

    with ThreadPoolExecutor(1) as pool:
        return [pool.submit(do, lambda: ask()).result() for _ in range(2)]


def recorded(
    path: str, asking: Callable[[LLMClient], list[Any]], client: LLMClient, block: str = "cassette"
) -> tuple[list[Any], str]:
    """Return the answers of a run, and its usage without the latency."""
    with BLOCKS[block](path), llmcall.track() as usage:
        answers = [*asking(client), *of_the_program(Server())]
    return answers, f"{usage.calls} {usage.input_tokens} {usage.cost} {usage.errors}"


def check(
    asking: Callable[[LLMClient], list[Any]],
    sending: LLMClient,
    fresh: LLMClient,
    model: NumberedServer,
    block: str = "cassette",
) -> None:
    """Check that a recording is that of a client that sends nothing, and that its replay repeats the run."""
    found = recorded("sent.jsonl", asking, sending, block)
    count = len(model.asked)
    assert count
    assert found == recorded("fresh.jsonl", asking, fresh, block)
    assert Path("sent.jsonl").read_bytes() == Path("fresh.jsonl").read_bytes()
    assert len({*found[0][:2]}) == len({*found[0][2:]}) == 2
    answers, _ = recorded("sent.jsonl", asking, sending, block)
    assert answers == found[0]
    assert len(model.asked) == count


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("library", LIBRARIES)
def test_what_a_transport_sends_is_recorded_nowhere(
    library: Callable[..., Any], place: Callable[..., Any], model: NumberedServer
) -> None:
    """Each call is one record, whatever library its transport uses, and in whichever thread."""
    sending = Sending(lambda body: place(lambda: library(model.address, body)))
    check(whole, sending, Sending(canned()), model)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("asking", [whole, whole_async, streamed, streamed_async])
def test_each_way_to_ask_a_transport_that_sends(
    asking: Callable[..., Any], block: str, model: NumberedServer
) -> None:
    """Also for each chunk of a stream, and after the last one."""
    sending = Sending(lambda body: in_a_pool(lambda: by_httpx(model.address, body)))
    check(asking, sending, Sending(canned()), model, block)


@pytest.mark.parametrize("asking", [whole_async, streamed_async])
def test_what_an_asynchronous_transport_sends_is_recorded_nowhere(
    asking: Callable[..., Any], model: NumberedServer
) -> None:
    """Its tasks send for it."""
    sending = SendingAsync(lambda body: in_a_task(model.address, body))
    check(asking, sending, SendingAsync(canned_async()), model)


# Other code that llmcall calls


class Issuer(NumberedServer):
    """A model's server, and one that gives tokens to who posts JSON."""

    def __init__(self, server: HTTPServer) -> None:
        super().__init__(server)
        self.tokens = 0
        server.expect_request("/v1/responses").respond_with_handler(self._token)

    def _token(self, request: Any) -> Any:
        from werkzeug import Response

        self.tokens += 1
        return Response(json.dumps({"token": f"secret-{self.tokens}"}), mimetype="application/json")

    def token(self) -> str:
        """Post for a token, as a program asks a model."""
        body = {"model": "m", "input": "a token, please"}
        with http.Client(verify=False) as client:
            return str(client.post(f"{self.address}/responses", json=body).json()["token"])

    async def atoken(self) -> str:
        """Post for a token in the event loop."""
        body = {"model": "m", "input": "a token, please"}
        async with http.AsyncClient(verify=False) as client:
            answer = await client.post(f"{self.address}/responses", json=body)
            return str(answer.json()["token"])


@pytest.fixture
def issuer(httpserver: HTTPServer) -> Issuer:
    """A model's server that needs tokens."""
    llmcall.configure(cache_mode="off")
    return Issuer(httpserver)


@pytest.mark.parametrize("name", ["token", "atoken"])
@pytest.mark.parametrize("asking", [whole, whole_async])
def test_what_a_key_function_sends_is_recorded_nowhere(
    asking: Callable[..., Any], name: str, issuer: Issuer, httpserver: HTTPServer
) -> None:
    """The token that it posts for stands in no file, and a replay does not call it."""
    client = client_for(issuer.address, api_key=getattr(issuer, name), model="m", on_error="raise")
    with llmcall.cassette("sent.jsonl"):
        answers = asking(client)
    assert issuer.tokens == 2
    with pytest.raises(llmcall.CacheMissError), llmcall.cassette("sent.jsonl", mode="none"):
        assert asking(client) == answers == ["answer 0", "answer 1"]
        client.send_message("not recorded")
    assert issuer.tokens == 2
    httpserver.clear()
    NumberedServer(httpserver)
    with llmcall.cassette("fresh.jsonl"):
        asking(client_for(issuer.address, api_key="a-key", model="m", on_error="raise"))
    assert Path("sent.jsonl").read_bytes() == Path("fresh.jsonl").read_bytes()


@pytest.mark.parametrize("mode", ["none", "replay"])
@pytest.mark.parametrize("asking", [whole, whole_async, streamed, streamed_async])
def test_a_transport_is_not_called_where_nothing_may_be_sent(
    asking: Callable[..., Any], mode: str
) -> None:
    """A call that is not recorded is a miss."""
    called = []
    with llmcall.cassette("tape.jsonl"):
        Sending(canned()).send_message("another")
    with pytest.raises(llmcall.CacheMissError), llmcall.cassette("tape.jsonl", mode=mode):
        asking(Sending(called.append))
    assert not called


class Actor:
    """Names the actor of each request, and asks a model on the way."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.statuses: list[int] = []

    def __call__(self, request: Any) -> str:
        """Ask who it is."""
        with http.Client(verify=False) as client:
            self.statuses.append(
                client.post(f"{self.address}/chat/completions", json=BODY).status_code
            )
        return "ada"


def test_what_an_actor_function_sends_is_recorded_nowhere(model: NumberedServer) -> None:
    """A replay calls it, too, but asks no model for it."""
    actor = Actor(model.address)
    with llmcall.cassette("sent.jsonl", actor=actor):
        answers = of_the_program(Server())
    assert actor.statuses == [200, 200]
    with llmcall.cassette("fresh.jsonl", actor=lambda request: "ada"):
        assert of_the_program(Server()) == answers
    assert Path("sent.jsonl").read_bytes() == Path("fresh.jsonl").read_bytes()
    with (
        pytest.raises(llmcall.LLMCallError, match="never records requests from functions"),
        llmcall.cassette("sent.jsonl", mode="none", actor=actor),
    ):
        assert of_the_program(Server()) == answers
    assert actor.statuses == [200, 200, 409, 409]
    assert len(model.asked) == 2


class Telling(Listener):
    """Tells a server what it hears."""

    def __init__(self, address: str) -> None:
        self.address = address

    def answered(self, call: CallInfo, record: Any) -> None:
        """Post it, as a program asks a model."""
        by_httpx(self.address, BODY)

    def opened(self, path: str) -> None:
        """Post it likewise."""
        by_httpx(self.address, BODY)


def test_what_a_listener_sends_is_recorded_nowhere(
    model: NumberedServer, request: pytest.FixtureRequest
) -> None:
    """Neither while a cassette opens nor after an answer."""
    told = Telling(model.address)
    told.start()
    request.addfinalizer(told.stop)
    found = recorded("sent.jsonl", whole, Sending(canned()))
    assert len(model.asked) == 5
    told.stop()
    assert found == recorded("fresh.jsonl", whole, Sending(canned()))
    assert Path("sent.jsonl").read_bytes() == Path("fresh.jsonl").read_bytes()


def test_what_a_registered_factory_sends_is_recorded_nowhere(model: NumberedServer) -> None:
    """It may ask before the first call."""

    def factory(settings: Any) -> LLMClient:
        by_httpx(model.address, BODY)
        return Sending(canned())

    llmcall.register_client("sending", factory)
    with llmcall.cassette("sent.jsonl"):
        whole(llmcall.client("sending"))
    with llmcall.cassette("fresh.jsonl"):
        whole(Sending(canned()))
    assert len(model.asked) == 1
    assert Path("sent.jsonl").read_bytes() == Path("fresh.jsonl").read_bytes()


# What is outside


def test_a_pools_thread_that_a_transport_has_started_goes_on_for_the_program(
    model: NumberedServer,
) -> None:
    """Its work is of whom submits it."""
    with ThreadPoolExecutor(1) as pool, llmcall.cassette("tape.jsonl") as tape:
        sending = Sending(lambda body: pool.submit(by_httpx, model.address, body).result())
        sending.send_message("Good morning!")
        assert pool.submit(by_httpx, model.address, BODY).result()
        sending.send_message("Good night!")
    questions = [record.request["messages"][0]["content"] for record in tape.all_records()]
    assert sorted(questions) == ["Good morning!", "Good night!", "Hello"]
    assert len(model.asked) == 3


def test_what_a_recorded_function_sends_is_the_programs(model: NumberedServer) -> None:
    """llmcall runs it, but it is the program's own code."""

    @llmcall.recorded
    def look_up() -> str:
        return text_of(by_httpx(model.address, BODY))

    with llmcall.cassette("tape.jsonl") as tape:
        assert look_up() == "answer 0"
    assert sorted(record.kind for record in tape.all_records()) == ["chat", "function"]


def test_a_programs_own_server_that_a_passing_request_reaches_is_recorded(
    model: NumberedServer,
) -> None:
    """It answers in this process, and asks a model for its answer."""

    def answer(request: Any) -> Any:
        return http.Response(200, json={"told": text_of(by_httpx(model.address, BODY))})

    for _ in range(2):
        with (
            llmcall.cassette("tape.jsonl") as tape,
            http.Client(transport=http.MockTransport(answer)) as client,
        ):
            assert client.get("http://shop.test/price").json() == {"told": "answer 0"}
    assert len(model.asked) == len(list(tape.all_records())) == 1


def test_a_call_inside_a_transport_keeps_to_budgets(model: NumberedServer) -> None:
    """It is paid for, though it is nobody's record."""
    sending = Sending(lambda body: by_llmcall(model.address, body))
    with llmcall.budget(calls=1), pytest.raises(llmcall.BudgetExceededError):
        sending.send_message("Hello")
    assert not model.asked


RUN = """
    import llmcall
    from concurrent.futures import ThreadPoolExecutor
    def do(work): return work()
    def answer(text):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(do, lambda: ask(text)).result()
    class Sending(llmcall.LLMClient):
        def send(self, request, timeout):
            text = answer(request.messages[-1]["content"])
            return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    sending = Sending(model="m", cache_mode="off")
    with ThreadPoolExecutor(1) as pool:
        with llmcall.scope("ada"):
            for _ in range(2):
                print(sending.send_message("Hello", temperature=1).content)
        for _ in range(2):
            print(pool.submit(do, lambda: ask("Hello")).result())
"""


@pytest.mark.ci
def test_what_a_transport_sends_under_llmcall_run_is_recorded_nowhere(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run and its replay print the same; it has a record for each call of the program."""
    model = NumberedServer(httpserver)
    monkeypatch.setenv("MODEL_AT", model.address)
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    printed = []
    for mode in ("once", "none"):
        found, _ = under_run(RUN, "--cassette", "tape.jsonl", "--mode", mode)
        printed.append(found.split("\n")[:4])
    assert printed == [[f"answer {number}" for number in range(4)]] * 2
    assert len(model.asked) == 4
    samples = sorted(str(record.sample) for record in llmcall.cassette("tape.jsonl").all_records())
    assert samples == ["ada#0", "ada#1", "run#0", "run#1"]
