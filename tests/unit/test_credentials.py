"""Credentials in text: what is found, what passes. The fakes are built up so that no scanner of this file finds one."""

from __future__ import annotations

import base64
import hashlib
import random
import string
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall import secrets as credentials
from llmcall.errors import CacheError, ConfigError

LETTERS_DIGITS = string.ascii_letters + string.digits
URL_SAFE = LETTERS_DIGITS + "-_"
CAPITALS = string.ascii_uppercase + "234567"
HEX = string.digits + "abcdef"


def fake(length: int, alphabet: str = LETTERS_DIGITS, seed: int = 0) -> str:
    """Return a random secret with at least one letter and one digit."""
    chosen = random.Random(f"{length}{alphabet}{seed}")
    return "".join(chosen.choices(alphabet, k=length - 2)) + "A7" if "A" in alphabet else chosen_hex(chosen, length)


def chosen_hex(chosen: random.Random, length: int) -> str:
    """Return random hexadecimal digits with at least one letter and one digit."""
    return "".join(chosen.choices(HEX, k=length - 2)) + "a7"


FORMS = {
    "openai": ("sk-" + fake(48), "API key"),
    "openai project": ("sk-" + "proj-" + fake(124, URL_SAFE), "OpenAI"),
    "openai service": ("sk-" + "svcacct-" + fake(80, URL_SAFE), "OpenAI"),
    "anthropic": ("sk-" + "ant-api03-" + fake(95, URL_SAFE), "Anthropic"),
    "openrouter": ("sk-" + "or-v1-" + fake(64, HEX), "API key"),
    "deepseek": ("sk-" + fake(32, HEX), "API key"),
    "aws": ("AK" + "IA" + fake(16, CAPITALS), "AWS access key"),
    "aws session": ("AS" + "IA" + fake(16, CAPITALS), "AWS access key"),
    "aws secret": ("aws_secret_access_" + "key = " + fake(40, LETTERS_DIGITS + "+/"), "AWS secret key"),
    "aws secret in json": ('{"Secret' + 'AccessKey": "' + fake(40) + '"}', "AWS secret key"),
    **{f"github {letter}": (f"gh{letter}" + "_" + fake(36), "GitHub") for letter in "pousr"},
    "github fine-grained": ("github" + "_pat_" + fake(22) + "_" + fake(59), "GitHub"),
    "gitlab": ("gl" + "pat-" + fake(20, URL_SAFE), "GitLab"),
    "google": ("AI" + "za" + fake(35, URL_SAFE), "Google API key"),
    "google oauth": ("ya" + "29." + fake(60, URL_SAFE), "Google access token"),
    **{f"slack {letter}": (f"xo{'x'}{letter}-123456789012-" + fake(24), "Slack") for letter in "abprs"},
    "stripe": ("sk" + "_live_" + fake(24), "Stripe"),
    "stripe restricted": ("rk" + "_live_" + fake(24), "Stripe"),
    "hugging face": ("h" + "f_" + fake(34), "Hugging Face"),
    "groq": ("gs" + "k_" + fake(52), "Groq"),
    "xai": ("xa" + "i-" + fake(80), "xAI"),
    "npm": ("np" + "m_" + fake(36), "npm"),
    "pypi": ("pypi-" + "AgEIcHlwaS5vcmc" + fake(60, URL_SAFE), "PyPI"),
    "jwt": (".".join(("ey" + "J" + fake(33, URL_SAFE), "ey" + "J" + fake(50, URL_SAFE), fake(43))), "JSON Web Token"),
    "pem": ("-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEpAIBAAKCAQEA" + fake(48), "private key"),
    "openssh": ("-----BEGIN OPENSSH PRIVATE" + " KEY-----\\nb3BlbnNzaC1rZXktdjEAAAAA", "private key"),
    "encrypted pem": ("-----BEGIN PRIVATE" + " KEY-----\r\nProc-Type: 4,ENCRYPTED", "private key"),
    "pgp": ("-----BEGIN PGP PRIVATE" + " KEY BLOCK-----\n\nlQOYBF" + fake(58), "private key"),
    "bearer": ("Authorization: Bearer " + fake(40, URL_SAFE), "bearer token"),
    "bearer in json": ('{"authorization": "bearer ' + fake(32, HEX) + '"}', "bearer token"),
    "basic": ("Authorization: Basic " + base64.b64encode(b"alice:" + fake(12).encode()).decode(), "password"),
    "url": ("https://alice:" + fake(12) + "@example.org/x", "password in a URL"),
    "short url": ("https://user:" + "pass@host", "password in a URL"),
    "postgres": ("postgresql+psycopg://app:" + fake(10) + "@10.0.0.3:5432/market", "password in a URL"),
    "redis": ("redis://:" + fake(16) + "@cache:6379/0", "password in a URL"),
    "azure": ("api-" + "key: " + fake(32, HEX), "API key"),
    "azure in code": ("AZURE_OPENAI_API_" + 'KEY="' + fake(84) + '"', "API key"),
    "azure storage": ("AccountName=a;Account" + "Key=" + fake(86, LETTERS_DIGITS + "+/") + "==", "Azure key"),
    "azure bus": ("SharedAccess" + "Key=" + fake(43) + "=", "Azure key"),
    "azure signature": ("SharedAccessSignature sr=x&" + "sig=" + fake(43) + "%3D&se=1", "Azure signature"),
    "azure blob": ("https://a.blob.core.windows.net/c?sv=2024&" + "sig=" + fake(43) + "%3D", "Azure signature"),
}

ORDINARY = [
    "sk-…",
    "sk-...",
    "sk-" + "x" * 48,
    "sk-" + "abc" * 16,
    "sk-proj-" + "X" * 60,
    "sk-proj-your-key-goes-here-please",
    "sk-your-api-key-here-1234567890",
    "OPENAI_API_KEY=your-api-key",
    "api_key = 'YOUR_API_KEY_HERE_0123456789'",
    "export OPENAI_API_KEY=<your key>",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY",
    "Authorization: Bearer <token>",
    "Authorization: Bearer $TOKEN, or Bearer YOUR_ACCESS_TOKEN_GOES_HERE",
    "The bearer of this letter, a Bearer AuthenticationMiddlewareFactory",
    "postgres://user:password@localhost:5432/db",
    "postgres://{user}:{password}@{host}/db and https://${USER}:${TOKEN}@github.com/a/b",
    "mysql://root:***@db/x, redis://localhost:6379, amqp://guest@queue:5672",
    "http://localhost:8080/@vite/client, https://medium.com/@someone, git@github.com:a/b.git",
    "see http://host:8080?to=a@b.org or http://host:80, me@x.org",
    "https://example.org:443/a:b@c",
    "task-force-12345678901234567890-report",
    "a risk-adjusted1234567890abcdefgh return of desk-proj-abcdefghij1234567890",
    "pip install sk-learn scikit-learn==1.5.2 sk-video2",
    "sk-circle-fade-dot sk-SK locale sk-learn_pipeline_with_10_steps",
    "token = get_token()",
    "password = input('Password: ')",
    "client = OpenAI(api_key=os.environ['OPENAI_API_KEY'])",
    "api_key=load_the_secret_from_the_vault_version_2(name)",
    "headers = {'api-key': settings.azure_openai_api_key_for_region_1}",
    "secret_key = derive_key(password, salt, iterations=600_000)",
    "AccountKey=<key>;EndpointSuffix=core.windows.net",
    "sig=nature; &sig=abc",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
    "-----BEGIN CERTIFICATE-----\nMIIDXTCCAkWgAwIBAgIJAKoK",
    "a file with -----BEGIN PRIVATE KEY----- in its first line",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "ASIAPACIFICDEVELOPMENTS, AKIAH, ASIAN KITCHEN",
    "eyJhbGciOiJIUzI1NiJ9 is only a header",
    "xai-driven, npm_config_registry=https://registry.npmjs.org, hf_transfer, gsk_, ghp_",
    "xoxo-with-love, ya29 road",
    "0x7f3a2b1c9d8e, 550e8400-e29b-41d4-a716-446655440000",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "d41d8cd98f00b204e9800998ecf8427e  empty.txt",
    "sha256:" + hashlib.sha256(b"a").hexdigest(),
    "sha512-" + base64.b64encode(hashlib.sha512(b"a").digest()).decode(),
    "cache_key: " + hashlib.sha256(b"b").hexdigest(),
    "data:image/png;base64," + base64.b64encode(random.Random(1).randbytes(60_000)).decode(),
    base64.urlsafe_b64encode(random.Random(2).randbytes(60_000)).decode(),
    "Möchten Sie Brot für 3 € kaufen? 面包多少钱？ хлеб",
]


@pytest.mark.parametrize(("text", "kind"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("around", ["{}", "A key: {}. Thanks!", '{{"a": "{}"}}', "a\n{}\nb", "a\\n{}\\n", "«{}»"])
def test_each_form_is_found(text: str, kind: str, around: str) -> None:
    """Each form is found wherever it stands, with its kind and its first four characters."""
    whole = around.format(text)
    found = credentials.find(whole)
    assert found is not None
    assert kind in found.kind
    assert found.shown == whole[found.start : found.end][:4]
    assert text not in repr(found)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_passes(text: str) -> None:
    """Placeholders, hashes, images, words and code are no credentials."""
    assert credentials.find(text) is None
    credentials.refuse({"request": {"messages": [{"content": f"({text})"}]}}, (), "record 1")


@given(st.text())
def test_any_text_passes(text: str) -> None:
    """Text that is made of random characters passes."""
    assert credentials.find(text) is None


WORDS = " ".join(text for text in ORDINARY[:40] if "earer" not in text).split()


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_ordinary_words_pass_in_any_order(text: str) -> None:
    """Words of ordinary texts pass in any order."""
    found = credentials.find(text)
    assert found is None, found


def test_thousand_identifiers_pass() -> None:
    """A thousand hashes, UUIDs and Base64 texts pass."""
    chosen = random.Random(3)
    for _ in range(250):
        data = chosen.randbytes(48)
        encoded = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
        for text in (data.hex(), str(uuid.UUID(bytes=data[:16])), *encoded):
            assert credentials.find(f"id={text} digest: {text}") is None


@pytest.mark.parametrize(
    ("allow", "passes"),
    [
        ((), False),
        ((r"sk-proj-\w+",), True),
        (
            (
                "nothing",
                r"key=sk-\S*",
            ),
            True,
        ),
        ((r"sk-proj-",), False),
        ((r"",), False),
    ],
)
def test_allow_must_match_the_whole(allow: tuple[str, ...], passes: bool) -> None:
    """An expression lets a credential pass only if it matches all of it."""
    assert (credentials.find("key=sk-" + "proj-" + fake(60), allow) is None) is passes


def test_allowed_credential_hides_no_other() -> None:
    """The second of two credentials is found when the first is allowed."""
    first, second = "sk-" + fake(48, seed=1), "sk-" + fake(48, seed=2)
    found = credentials.find(f"{first} {second}", (first,))
    assert found is not None
    assert found.start == len(first) + 1


@pytest.mark.parametrize("data", ["", "text", {}])
def test_invalid_expression_is_a_config_error(data: Any) -> None:
    """The error names the setting and the expression, whether or not there is anything to search."""
    with pytest.raises(ConfigError, match=r"\[Cassette\] ALLOW: '\(a' is not a regular expression"):
        credentials.refuse(data, ("(a",), "record 1")


SECRET = "gh" + "p_" + fake(36)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"request": {"messages": [{"content": "a"}, {"content": SECRET}]}}, "request.messages[1].content"),
        ({"request": {"messages": [{"content": [{"text": SECRET}]}]}}, "request.messages[0].content[0].text"),
        ({"response": {"a": {SECRET: 1}}}, "a key of response.a"),
        ({SECRET: 1}, "a key of the data"),
        ({"sample": SECRET}, "sample"),
        ({"request": {"headers": {"api-key": fake(32, HEX)}}}, "request.headers.api-key"),
    ],
)
def test_place_is_named_without_the_secret(data: Any, place: str) -> None:
    """A place is a path into the data; a key that is a secret itself is not in it."""
    with pytest.raises(CacheError, match=r"^record 7: ") as caught:
        credentials.refuse(data, (), "record 7")
    message = str(caught.value)
    assert f"record 7: {place} holds" in message
    assert "[Cassette] ALLOW = " in message
    assert SECRET[4:] not in message
    assert fake(32, HEX) not in message


def test_bytes_numbers_and_none_are_not_searched() -> None:
    """Only text can hold a credential."""
    credentials.refuse({"a": [SECRET.encode(), 1, 2.5, None, True]}, (), "record 1")


def test_a_value_is_searched_again_behind_another_name() -> None:
    """A text that was harmless is a credential behind a telling name."""
    digits, searched = fake(32, HEX), set[str]()
    credentials.refuse({"digest": digits, "api-key": "none"}, (), "record 1", searched)
    with pytest.raises(CacheError, match="record 2: api-key holds"):
        credentials.refuse({"api-key": digits}, (), "record 2", searched)


MARKS = ["sk-", "sk-a-", "://", "://a:", "eyJ", "eyJaaaaaaaa.", "api_key=", "bearer ", "-----BEGIN ", "&sig="]


@pytest.mark.parametrize("part", MARKS)
def test_repeated_marks_take_linear_steps(part: str) -> None:
    """A hostile text of 200,000 characters is searched to its end, which in quadratic time would take minutes."""
    assert credentials.find(part * (200_000 // len(part))) is None
