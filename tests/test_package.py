"""The package itself: the names that it exports, its types and version, and what importing it
costs.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from programs import ran

import llmcall

ROOT = Path(llmcall.__file__).parent
EXPORTED = """
    __version__ LLMClient OpenAIClient AzureClient LocalClient Transport AsyncTransport Stream AsyncStream client
    register_client force_api_type force_api_cache reset Settings Endpoint settings configure configured Request Record
    Reply TokenUsage ResponseCache scope bind cassette recorded compare Usage usage track count_tokens budget map imap
    LLMCall llm Answer http_client async_http_client patched chatcompletion_request LLMCallError ConfigError APIError
    InvalidRequestError ContextLengthError AuthenticationError RateLimitError QuotaExceededError ServiceError
    RequestTimeoutError ContentFilterError EmptyAnswerError CacheError CacheMissError CacheCorruptError ScopeError
    BudgetExceededError TemplateError OutputError
"""
HEAVY = {
    "openai",
    "tiktoken",
    "bpe_openai",
    "requests",
    "pydantic",
    "jinja2",
    "httpx",
    "httpx2",
    "tqdm",
    "diskcache",
    "tenacity",
    "dotenv",
}


def test_names() -> None:
    """Every promised name is exported, there and documented; a star import gives just these; type
    checkers see them.
    """
    assert set(EXPORTED.split()) <= set(llmcall.__all__) <= set(dir(llmcall))
    assert len(llmcall.__all__) == len(set(llmcall.__all__))
    for name in llmcall.__all__:
        value = getattr(llmcall, name)
        assert getattr(llmcall, name) is value
        assert not (inspect.isclass(value) or inspect.isfunction(value)) or value.__doc__
    assert llmcall.aio.__name__ == "llmcall.aio" and llmcall.testing.__name__ == "llmcall.testing"
    names: dict[str, object] = {}
    exec("from llmcall import *", names)
    assert set(llmcall.__all__) <= names.keys()
    block = (
        (ROOT / "__init__.py")
        .read_text(encoding="utf-8")
        .partition("if TYPE_CHECKING:")[2]
        .partition("\n\n")[0]
    )
    listed = {
        name.strip(" ,()")
        for line in block.splitlines()
        for name in line.rpartition(" import ")[2].split(",")
    }
    with pytest.raises(AttributeError, match="module 'llmcall' has no attribute 'send'"):
        _ = llmcall.send
    assert listed >= set(llmcall.__all__) - {"__version__"} and (ROOT / "py.typed").exists()


def test_importing_costs_nothing(tmp_path: Path) -> None:
    """Neither importing the package, nor an estimate of tokens, nor a recorded answer imports a
    library.
    """
    program = """
        import json
        llmcall.Reply, llmcall.APIError, llmcall.scope, llmcall.usage
        print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
    """
    assert not set(json.loads(ran(program))) & HEAVY
    ran(
        'ScriptedClient(["yes"], cache_mode="auto", cache_path=sys.argv[1]).send_message("Hello")',
        tmp_path / "cache",
    )
    program = """
        import json
        client = llmcall.OpenAIClient(cache_path=sys.argv[1], cache_mode="replay")
        with llmcall.scope(None):
            assert client.send_message("Hello").content == "yes"
        assert llmcall.count_tokens("hello", "some-model").estimated
        print(json.dumps(sorted(name for name in sys.modules if "." not in name or "redis" in name)))
    """
    found = set(json.loads(ran(program, tmp_path / "cache")))
    assert not found & (HEAVY - {"dotenv"}) and not [name for name in found if "redis" in name]
