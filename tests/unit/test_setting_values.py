"""Checking the values of settings."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.config.names import SETTINGS, Setting
from llmcall.config.values import NORMALIZERS, UNSET, check_value, directory_named, read_boolean, without_password
from llmcall.errors import ConfigError
from llmcall.requests import keys as normalizers

ANY_NUMBER = Setting("x", "S", "X", "number")
ANY_INTEGER = Setting("x", "S", "X", "integer")


def checked(name: str, value: Any) -> Any:
    """Check a value of a setting as if an argument gave it."""
    return check_value(SETTINGS[name], value, "here", "/folder")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_being_written(number: float) -> None:
    """Every finite number is read back from its text, and from itself, as it was."""
    assert check_value(ANY_NUMBER, f"  {number!r} ", "here") == number
    assert check_value(ANY_NUMBER, number, "here") == number


@given(st.integers())
def test_a_whole_number_survives_being_written(number: int) -> None:
    """Every whole number that a float can hold exactly is read back, with or without a point."""
    assert check_value(ANY_INTEGER, number, "here") == number
    small = number % 2**53
    assert check_value(ANY_INTEGER, f"{small}", "here") == check_value(ANY_INTEGER, f"{small}.0", "here") == small


@given(st.text(), st.sampled_from([ANY_NUMBER, ANY_INTEGER]))
def test_a_text_is_a_finite_number_or_refused(text: str, row: Setting) -> None:
    """No text gives anything but a finite number, no value, or an error that names the place."""
    try:
        found = check_value(row, text, "the place")
    except ConfigError as error:
        assert str(error).startswith("the place: ")
    else:
        assert found is UNSET or found is None or math.isfinite(found)


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-Infinity", math.nan, math.inf, "1e999", 10**400, True, "0,5", [], b"1", 1j]
)
@pytest.mark.parametrize("row", [ANY_NUMBER, ANY_INTEGER], ids=["number", "integer"])
def test_what_is_no_number(row: Setting, value: Any) -> None:
    """NaN, the infinities, bools, decimal commas and other types are refused."""
    if row is ANY_INTEGER and value == 10**400:
        assert check_value(row, value, "here") == value
    else:
        with pytest.raises(ConfigError, match=r"is not a (whole )?number"):
            check_value(row, value, "here")


@pytest.mark.parametrize("value", [Decimal("0.5"), Fraction(1, 2), 0.5, "5e-1", ".5"])
def test_other_kinds_of_numbers(value: Any) -> None:
    """Whatever becomes a float is a number."""
    found = checked("temperature", value)
    assert found == 0.5
    assert type(found) is float


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", "-0.1", "a number of at least 0"),
        ("top_p", 1.01, "a number between 0 and 1"),
        ("frequency_penalty", "-2.5", "a number between -2 and 2"),
        ("timeout", "0", "a number of seconds above 0"),
        ("timeout", -3, "a number of seconds above 0"),
        ("deadline", "soon", "a number of seconds above 0"),
        ("max_tokens", "0", "a whole number of at least 1"),
        ("max_tokens", "1.5", "a whole number of at least 1"),
        ("retry_max_attempts", 0, "a whole number of at least 1"),
        ("cache_mode", "on", "one of auto, replay, refresh, off"),
        ("cache_mode", "none", "one of auto, replay, refresh, off"),
        ("cache_mode", False, "one of auto, replay, refresh, off"),
        ("cassette_mode", "all", "one of none, once, new, rewrite"),
        ("on_error", "ignore", "one of raise, none, return"),
        ("reasoning_effort", "most", "one of none, minimal, low, medium, high, xhigh"),
        ("base_url", "localhost:8000/v1", "an address like https://host/v1"),
        ("base_url", "https://", "an address like https://host/v1"),
        ("base_url", "https://good.example\\@evil.example", "an address like https://host/v1"),
        ("model", 4, "a text"),
        ("model", "a\nTEMPERATURE = 1", "one line of text"),
        ("cache_path", b"cache", "a text"),
        ("cache_normalize", "(", "a regular expression"),
        ("cassette_allow", ("ok", "[a"), "a regular expression"),
        ("cassette_allow", 3, "a list of texts"),
        ("cache_normalize", ["times", 3], "a text"),
        ("azure_ad_token_provider", "token", "a function"),
    ],
)
def test_refused_values(name: str, value: Any, expected: str) -> None:
    """A value of the wrong type or range is an error that names the place, the value and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        checked(name, value)
    assert str(caught.value).startswith("here: ")
    assert f"is not {expected}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cache_mode", " Replay ", "replay"),
        ("reasoning_effort", "none", "none"),
        ("on_error", "none", "none"),
        ("cassette_mode", "NONE", "none"),
        ("temperature", "none", None),
        ("base_url", "None", None),
        ("timeout", "none", UNSET),
        ("temperature", "  ", UNSET),
        ("cache_namespace", "", ""),
        ("cache_namespace", "none", "none"),
        ("cache_normalize", "none", ()),
        ("api_key", "none", "none"),
        ("api_key", " sk-1\n", "sk-1"),
        ("base_url", "http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("max_tokens", "128000.0", 128000),
    ],
)
def test_accepted_values(name: str, value: Any, expected: Any) -> None:
    """Words are read in any case; empty text says nothing, "none" that there is no value."""
    assert checked(name, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("times, uuids", ("times", "uuids")),
        ("times\n uuids,addresses \n\n", ("times", "uuids", "addresses")),
        ("times\n\\d{2,4}", ("times", "\\d{2,4}")),
        ("a, times", ("a, times",)),
        (["times", "day [0-9]+, night"], ("times", "day [0-9]+, night")),
        ((), ()),
    ],
)
def test_normalizers(value: Any, expected: tuple[str, ...]) -> None:
    """A line is names with commas between them, or one regular expression, commas and all."""
    assert checked("cache_normalize", value) == expected


def test_a_misspelt_normalizer_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A word that is nearly a normalizer's name is taken as an expression, with a warning."""
    assert checked("cache_normalize", "time, uuids") == ("time, uuids",)
    assert "'time' is read as a regular expression; did you mean 'times'?" in caplog.text


def test_normalizers_are_those_of_the_keys() -> None:
    """The names that settings accept are those that keys know."""
    assert sorted(NORMALIZERS) == sorted(normalizers.NORMALIZERS)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cache", "/folder/cache"),
        ("../x/./y", "/x/y"),
        ("/absolute/", "/absolute"),
        (Path("a") / "b", "/folder/a/b"),
        ("redis://host:6379/0", "redis://host:6379/0"),
    ],
)
def test_paths(value: Any, expected: str) -> None:
    """A relative path starts from its folder; the address of a server stays as it is."""
    assert checked("cache_path", value) == expected


def test_home_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde is the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked("templates_path", "~/templates") == str(tmp_path / "templates")


def test_paths_from_code_start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder, a relative path starts from the working directory."""
    monkeypatch.chdir(tmp_path)
    assert check_value(SETTINGS["cache_path"], "cache", "here") == str(tmp_path / "cache")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("yes", True),
        ("TRUE", True),
        ("On", True),
        ("1", True),
        ("no", False),
        ("false", False),
        ("off", False),
        ("0", False),
    ],
)
def test_booleans(word: str, expected: bool) -> None:
    """The eight words of configparser are read in any case."""
    assert read_boolean(word, "here") is expected


def test_no_boolean() -> None:
    """Any other word is refused."""
    with pytest.raises(ConfigError, match="here: 'maybe' is not one of yes, no"):
        read_boolean("maybe", "here")


@pytest.mark.parametrize("value", ["sk-proj-secret", "Bearer secret", "eyJsecret", "secret" * 20])
@pytest.mark.parametrize("name", ["timeout", "cache_mode", "base_url"])
def test_a_misplaced_key_is_not_repeated(name: str, value: str) -> None:
    """What may be a key in the wrong place does not appear in the message."""
    with pytest.raises(ConfigError) as caught:
        checked(name, value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("value", ["sec ret", ["secret"], 5])
def test_a_key_of_the_wrong_type_is_not_repeated(value: Any) -> None:
    """A key is one word or a function, and never in a message."""
    with pytest.raises(ConfigError) as caught:
        checked("api_key", value)
    assert str(caught.value) == "here: not a key: one word of text, or a function that returns it"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:word@host:1/a@b", "https://***@host:1/a@b"),
        ("redis://:word@host/0", "redis://***@host/0"),
        ("redis://:wo/r?d#@host:1/0", "redis://***@host:1/0"),
        ("redis://host/0?password=w@rd&db=1", "redis://host/0?password=***&db=1"),
        ("rediss://host?ssl_password=word", "rediss://host?ssl_password=***"),
        ("unix:///run/a@b.sock?password=word", "unix:///run/a@b.sock?password=***"),
        ("unix://:word@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("https://host/v1", "https://host/v1"),
        ("no address", "no address"),
        (None, None),
    ],
)
def test_passwords_in_addresses(url: Any, expected: Any) -> None:
    """What stands before @ in the host part is masked, and a password in the query."""
    assert without_password(url) == expected


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [("openai_api_cache.pickle", "openai_api_cache.cache"), ("a/b.pickle", "a/b.cache"), ("cache", "cache"), ("", "")],
)
def test_the_directory_for_a_cache_file(file_name: str, expected: str) -> None:
    """A pickle file's name becomes a directory's; other names stay."""
    assert directory_named(file_name) == expected
