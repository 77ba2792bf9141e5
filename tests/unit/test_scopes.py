"""Scopes: numbering of draws, paths, threads without a scope, what carries a scope elsewhere."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import llmcall
from llmcall import bind, scope
from llmcall.errors import InvalidRequestError, ScopeError
from llmcall.replay.scopes import path
from llmcall.testing import ScriptedClient


def client_with(answers: Any = None) -> ScriptedClient:
    """Return a client that answers whatever is asked, or as told."""
    return ScriptedClient(answers or (lambda messages: "yes"))


def sample(message: str = "Hello", client: Any = None, **arguments: Any) -> str | None:
    """Ask and return the reply's sample."""
    return (client or client_with()).send_message(message, on_error="raise", **arguments).sample  # type: ignore[no-any-return]


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Run a function in a new thread and return its result, or raise its error."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def test_outside_there_is_no_sample() -> None:
    """Outside any scope a repeated request is the same request."""
    assert (sample(), sample(), path()) == (None, None, None)
    assert client_with().build_request("Hello").sample is None


def test_the_contract_s_example() -> None:
    """Coming back to a name goes on counting; a new outermost scope starts at 0."""
    seen = []
    for _ in range(2):
        with scope("trial-3"):
            for _ in range(2):
                with scope("lisa"):
                    seen.append(sample())
    assert seen == ["trial-3/lisa#0", "trial-3/lisa#1"] * 2


def test_identical_requests_alone_are_counted() -> None:
    """Another message, model, parameter or path has a count of its own; a streamed draw counts like any."""
    with scope("a"):
        assert [sample(), sample("other"), sample(), sample(temperature=1), sample(model="m")] == [
            "a#0",
            "a#0",
            "a#1",
            "a#0",
            "a#0",
        ]
        with scope("b"):
            assert (sample(), path()) == ("a/b#0", "a/b")
        with client_with().stream_message("Hello") as stream:
            list(stream)
        assert stream.reply is not None
        assert stream.reply.sample == "a#2"
        assert [sample(temperature=1.0), sample(user="u", timeout=3)] == ["a#1", "a#3"]


def test_draws_are_different_answers_and_replay() -> None:
    """Two draws are two calls; the same program again makes none and gets the same two."""
    for mode, calls in (("auto", 2), ("replay", 0)):
        client = ScriptedClient(["one", "two"], cache_mode=mode)
        with scope("a"):
            replies = [client.send_message("Hello", on_error="raise") for _ in range(2)]
        assert [reply.content for reply in replies] == ["one", "two"]
        assert (len(client.requests), [reply.cached for reply in replies]) == (calls, [not calls] * 2)


def test_a_kept_scope_goes_on() -> None:
    """A scope in a variable that is entered again counts on, another object of the name does not."""
    trial = scope("trial")
    with trial:
        assert sample() == "trial#0"
    with trial:
        assert sample() == "trial#1"
    with scope("trial"):
        assert sample() == "trial#0"
    with scope("other"), trial:
        assert sample() == "other/trial#0"
    with trial:
        assert sample() == "trial#2"
        with trial:
            assert sample() == "trial/trial#0"


def test_a_failed_call_gives_its_number_back() -> None:
    """The lowest free number is next, whichever call failed."""
    failing = client_with([InvalidRequestError("no")] * 9)
    with scope("a"):
        assert sample() == "a#0"
        assert failing.send_message("Hello") is None
        with pytest.raises(InvalidRequestError):
            failing.send_message("Hello", on_error="raise")
        assert isinstance(failing.send_message("Hello", on_error="return"), InvalidRequestError)
        with failing.stream_message("Hello") as stream:
            assert list(stream) == []
        assert (sample(), sample()) == ("a#1", "a#2")


def test_the_lowest_free_number_is_next() -> None:
    """Where an earlier call fails after a later one began, its number is drawn before new ones."""
    with scope("a"):
        client = client_with()
        streams = [client.stream_message("Hello") for _ in range(4)]
        streams[2].close()
        streams[1].close()
        assert [sample(), sample(), sample()] == ["a#1", "a#2", "a#4"]
        streams[1].close()
        assert sample() == "a#5"


def test_building_a_request_takes_no_number() -> None:
    """build_request shows the next draw and leaves it."""
    with scope("a"):
        request = client_with().build_request("Hello")
        assert request.sample == "a#0"
        assert client_with().build_request("Hello").sample == "a#0"
        assert client_with().send_message("Hello").cache_key == request.cache_key  # type: ignore[union-attr]


def test_refused_arguments_take_no_number() -> None:
    """A call that never began moves no count."""
    with scope("a"):
        for wrong in ({"temprature": 1}, {"on_error": "maybe"}, {"extra_body": {"a": float("nan")}}, {"model": 3}):
            with pytest.raises((TypeError, ValueError)):
                sample(**wrong)
        assert sample() == "a#0"


@pytest.mark.parametrize(
    ("given", "inside", "outside"), [(1, "a#1", "#1"), ("1", "a#1", "#1"), ("x", "a#x", "#x"), (-3, "a#-3", "#-3")]
)
def test_a_given_sample(given: Any, inside: str, outside: str) -> None:
    """sample= replaces what stands after the sign and moves no count."""
    assert sample(sample=given) == outside
    with scope("a"):
        assert [sample(sample=given), sample(), sample(sample=given)] == [inside, "a#0", inside]


def test_a_given_sample_is_the_draw_of_its_number() -> None:
    """The draw 0 and sample=0 are one request."""
    client = ScriptedClient(["one", "two"], cache_mode="auto")
    with scope("a"):
        first = client.send_message("Hello", on_error="raise")
        again = client.send_message("Hello", on_error="raise", sample=0)
    assert (again.cache_key, again.content, again.cached) == (first.cache_key, "one", True)


@pytest.mark.parametrize("name", ["", "/", "a/b", "#", "a#1", "/a", "a/"])
def test_names_that_would_be_read_wrong(name: str) -> None:
    """A name that is empty or holds a divider is a ValueError."""
    with pytest.raises(ValueError, match="empty or holds"):
        scope(name)


@pytest.mark.parametrize("name", [b"a", True, ["a"], 1j])
def test_names_that_are_none(name: Any) -> None:
    """A name that is no string is a TypeError."""
    with pytest.raises(TypeError, match="must be a string or a number"):
        scope(name)


def test_names_of_all_kinds() -> None:
    """Blanks, other scripts and enumerations of strings are names."""

    class Actor(str, enum.Enum):
        LISA = "lisa"

    with scope("trial 3"), scope("Жанна 🧀"), scope(Actor.LISA):
        assert sample() == "trial 3/Жанна 🧀/lisa#0"
        assert type(path()) is str
    assert repr(scope("a")) == "scope('a')"


def test_embeddings_take_no_sample() -> None:
    """The same text has the same embedding in every scope; sample= is refused."""
    client = ScriptedClient([[1.0]], cache_mode="auto")
    with scope("a"):
        client.get_embedding("text")
    assert client.get_embedding("text") == [1.0]
    with pytest.raises(TypeError, match="sample"):
        client.get_embedding("text", sample=1)


def test_exceptions_inside() -> None:
    """An exception leaves the scope like any end of the block, and passes on."""
    with pytest.raises(ZeroDivisionError), scope("a"), scope("b"):
        raise ZeroDivisionError
    assert path() is None
    assert in_a_thread(sample) is None


def test_none_says_that_no_scope_is_meant() -> None:
    """Inside scope(None) there is no draw; a scope inside it begins anew."""
    with scope("a"):
        with scope(None):
            assert (sample(), path()) == (None, None)
            with scope("b"):
                assert sample() == "b#0"
        assert sample() == "a#0"
    with pytest.raises(ValueError, match="process"):
        scope(None, process=True)


def test_a_thread_without_a_scope() -> None:
    """While a scope is open elsewhere, a call from another thread names its remedies; none of them fails."""
    with scope("a"):
        with pytest.raises(ScopeError) as caught:
            in_a_thread(sample)
        for remedy in ("llmcall.bind(function)", "llmcall.scope(name)", "process=True", "llmcall.scope(None)"):
            assert remedy in str(caught.value)
        with pytest.raises(ScopeError):
            in_a_thread(lambda: client_with().send_message("Hello", on_error="none"))

        def alone() -> str | None:
            with scope(None):
                return sample()

        def own() -> str | None:
            with scope("own"):
                return sample()

        assert [in_a_thread(alone), in_a_thread(own), in_a_thread(bind(sample))] == [None, "own#0", "a#0"]
        assert sample() == "a#1"
    assert in_a_thread(sample) is None


def test_an_embedding_from_a_thread_without_a_scope() -> None:
    """What takes no draw needs no scope."""
    with scope("a"):
        assert in_a_thread(lambda: ScriptedClient([[1.0]]).get_embedding("text")) == [1.0]


def interleaved(name: str) -> Iterator[str | None]:
    """Ask in a scope that stays open between the steps."""
    with scope(name):
        while True:
            yield sample()


def test_a_generator_that_is_dropped_or_ends_elsewhere() -> None:
    """A generator that is left open, or is brought to its end in another thread, leaves nothing open."""
    dropped = interleaved("a")
    assert [next(dropped), next(dropped)] == ["a#0", "a#1"]
    dropped.close()
    assert path() is None
    elsewhere = interleaved("b")
    thread = threading.Thread(target=next, args=(elsewhere,))
    thread.start()
    thread.join()
    elsewhere.close()
    assert (path(), sample(), in_a_thread(sample)) == (None, None, None)


def test_a_scope_entered_by_hand() -> None:
    """A scope that no with statement holds is entered and left like any."""
    entered = llmcall.scope("a").__enter__()
    assert sample() == "a#0"
    entered.__exit__(None, None, None)
    assert sample() is None
