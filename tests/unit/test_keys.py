"""Keys: pinned digests, the same everywhere; and the canonical form that they are made of."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import golden_requests
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.errors import ConfigError
from llmcall.requests import keys
from llmcall.requests.keys import normalizer
from llmcall.requests.plain_data import plain
from llmcall.testing import ScriptedClient

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(golden_requests.__file__)

# A change here makes every recorded answer unfindable: raise KEY_VERSION, and see to it that old records are rekeyed.
GOLDEN = {
    "one message": "3ac4e67215523b6c531162ff45ae1f6709e49d8da22602ab90fb471767797bbf",
    "a history in several scripts": "cde8b9dd86c09fa51db7d18f3fbf330ecebd7e9427a8a63921a83a3764a60427",
    "sampling parameters": "32442c0dfebe310fce7ed68cbacd4863e3084e98266effc67527fd81eb411bcd",
    "a tool": "c9e907c4c55393fa6081938e90078e01d7472c663ec0fae8abe9127d67dd61ab",
    "a used tool": "478dea174f8a6e01889f4bdb6d3b73ebfc55b6f5a06d8f324bf15fff48272229",
    "images": "a40d85830ee75a19cd0267c48f0f6734d0d1e0366f0fcf5854c66898f4ecb23a",
    "audio": "4e16385835bf747d565fec230519848de01b5348bb8b9279c79bc65d365a5c9b",
    "JSON and a server's own parameters": "96f60e360e6e8291a2e42bab37cb5ce0817df0d783487dba356587c82920081f",
    "reasoning": "840bdc2fa14786a78ec3804f96c46c5bf0058b6eb13da3f9430db777d99914aa",
    "a given sample": "980a3a65c8eb8a229085c83720f102a2dd4baad733ce82b0cdcc8cd7436b8994",
    "a second draw in a nested scope": "dc45f1040389417ba42a2abe68f2c994d3cda0a54ea72aa739b0172cb299a338",
    "a namespace": "94db097fdb55c0e83e93d1456bd720fe6d25d586a2d9011ca3620978e9e1df9d",
    "a text without its times": "9d530ba3283f9110b7defc8a23e8e30155ab53d2b67a2f33aa8f48fc3b405ae3",
    "an embedding": "942701ddffc1b17fac329b5551828e5ca7bfec45361115994a465f50825de949",
    "a short embedding": "f5b3d5f7300360dd5ae0b6c76c267f7d4175320164211c58467f8c25d6ac5daf",
    "a pydantic model": "f58ed2804890505c6a2c00d55d1444bba9ef3573f3e4f3c07ec00e6367abccde",
    "a function as a tool": "2a50ddd047588b56b29ac8d0c1498c23cd64dfc60cea7081a4c4daf71f8344bf",
    "a pydantic model as a tool": "84148f2e00b90614db61e6044e1b7a8660514d091d740d22af1f8853dd582bde",
}

TEXT = {"type": "text", "text": "\ud83d"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def keys_printed_by(python: str | Path, *arguments: str, **environment: str) -> dict[str, str]:
    """Run the program of golden requests with a Python and return the keys that it prints."""
    done = subprocess.run(
        [str(python), str(PROGRAM), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", GOLDEN)
def test_pinned_digests(name: str) -> None:
    """The layout of a key never changes unnoticed."""
    assert {**golden_requests.PLAIN, **golden_requests.TYPED}[name]() == GOLDEN[name]


def test_every_golden_request_is_pinned() -> None:
    """No golden request is left out of the table, and no two share a key."""
    assert GOLDEN.keys() == {**golden_requests.PLAIN, **golden_requests.TYPED}.keys()
    assert len(set(GOLDEN.values())) == len(GOLDEN)


def test_key_is_what_the_docstring_says() -> None:
    """A key is the SHA-256 of a text that anybody can write down."""
    text = (
        '{"key":1,"kind":"chat","request":{"messages":[{"content":"Hellö","role":"user"}],'
        '"model":"m","temperature":1},"sample":"lisa#0"}'
    )
    asked = {"temperature": 1, "model": "m", "messages": [{"role": "user", "content": "Hellö"}]}
    assert keys.key_of("chat", asked, "lisa#0") == hashlib.sha256(text.encode()).hexdigest()
    unsampled = text.replace('"lisa#0"', "null")
    assert keys.sampled_key(keys.identity("chat", asked), None) == hashlib.sha256(unsampled.encode()).hexdigest()


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_same_in_another_process(seed: str) -> None:
    """Neither the process nor the seed of hashes matters."""
    assert keys_printed_by(sys.executable, PYTHONHASHSEED=seed) == GOLDEN


@pytest.mark.parametrize("minor", range(10, 20))
def test_same_on_other_pythons(minor: int) -> None:
    """Every Python of this machine gives the same keys; bare ones build all requests that need no library."""
    home = Path(f"~{getpass.getuser()}").expanduser()  # not the tests' own, which is empty
    found = sorted((home / ".pyenv" / "versions").glob(f"3.{minor}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python 3.{minor} here")
    expected = {name: GOLDEN[name] for name in golden_requests.PLAIN}
    assert keys_printed_by(found[-1], "plain") == expected


@given(JSON)
def test_canonical_json_reads_back(value: object) -> None:
    """The canonical form is JSON in UTF-8 that holds the very data."""
    assert json.loads(keys.canonical(plain(value, "value"))) == value


@given(JSON)
def test_canonical_form_is_a_fixed_point(value: object) -> None:
    """Data that went through JSON keeps its canonical form."""
    once = keys.canonical(plain(value, "value"))
    assert keys.canonical(plain(json.loads(once), "value")) == once


@given(st.integers(min_value=-(2**53), max_value=2**53))
def test_whole_floats_are_integers(number: int) -> None:
    """1 and 1.0 are one number, zero has no sign."""
    assert keys.canonical(plain(float(number), "n")) == keys.canonical(number)
    assert keys.canonical(plain(-0.0, "n")) == b"0"


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"current_messages": "a\ud800"}, "request.messages[0].content"),
        ({"current_messages": ["x", {"role": "user", "content": "\udfffa"}]}, "request.messages[1].content"),
        ({"current_messages": [{"role": "user", "content": [TEXT]}]}, "messages[0].content[0].text"),
        ({"current_messages": [{"role": "user", "content": "x", "name": "\udc00"}]}, "request.messages[0].name"),
        ({"current_messages": "x", "stop": ["a", "\ud800"]}, "request.stop[1]"),
        ({"current_messages": "x", "extra_body": {"\ud800": 1}}, "request.extra_body"),
        ({"current_messages": "x", "model": "m\ud800"}, "request.model"),
        ({"current_messages": "x", "sample": "\ud800"}, "sample"),
    ],
)  # fmt: skip
def test_lone_surrogates_are_refused(arguments: dict[str, object], place: str) -> None:
    """Half a character is a ValueError that names its place, before anything is sent."""
    messages = arguments.pop("current_messages")
    if isinstance(messages, list) and messages[0] == "x":
        messages[0] = {"role": "user", "content": "x"}
    client = ScriptedClient(["never"])
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        client.send_message(messages, **arguments)
    assert place in str(caught.value)
    assert not client.requests


def test_whole_surrogate_pairs_are_text() -> None:
    """A character beyond the basic plane is no lone surrogate."""
    assert ScriptedClient().build_request("\U0001f9c0").cache_key


def test_too_deep_a_nesting_is_refused() -> None:
    """Data nested beyond what JSON writers take is a ValueError, not a crash."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        keys.canonical(deep)


def test_no_normalizer_costs_nothing() -> None:
    """Without names there is nothing to replace."""
    assert normalizer([]) is None


def test_broken_expression_names_the_known_ones() -> None:
    """What is neither a name nor an expression is a ConfigError that lists the names."""
    with pytest.raises(ConfigError, match=r"NORMALIZE.*'\(\['.*times, uuids, addresses, temporary_paths"):
        normalizer(["(["])
