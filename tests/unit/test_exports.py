"""The names that llmcall exports, pinned: adding one is a decision, losing one breaks somebody."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest
from programs import ran

import llmcall
from llmcall import _version

ROOT = Path(llmcall.__file__).parent
# Of the public contract, sections 1 to 5 and what stands below them.
EXPORTED = {
    "__version__",
    # clients and their registry
    "LLMClient", "OpenAIClient", "AzureClient", "LocalClient", "Transport", "AsyncTransport", "Stream", "AsyncStream",
    "client", "register_client", "force_api_type", "force_api_cache", "reset",
    # settings
    "Settings", "Endpoint", "settings", "configure", "configured",
    # values
    "Request", "Record", "Reply", "TokenUsage",
    # cache, replay, usage
    "ResponseCache", "scope", "bind", "Usage", "usage", "track", "count_tokens",
    # templates and typed output
    "LLMCall", "llm", "Answer",
    # errors
    "LLMCallError", "ConfigError", "APIError", "InvalidRequestError", "ContextLengthError", "AuthenticationError",
    "RateLimitError", "QuotaExceededError", "ServiceError", "RequestTimeoutError", "ContentFilterError",
    "EmptyAnswerError", "CacheError", "CacheMissError", "CacheCorruptError", "ScopeError", "BudgetExceededError",
    "TemplateError", "OutputError",
}  # fmt: skip


def test_names() -> None:
    """Every promised name is exported, and dir() and __all__ agree."""
    assert set(llmcall.__all__) >= EXPORTED
    assert len(llmcall.__all__) == len(set(llmcall.__all__))
    assert set(llmcall.__all__) <= set(dir(llmcall))


@pytest.mark.parametrize("name", sorted(llmcall.__all__))
def test_each_name_is_there_and_documented(name: str) -> None:
    """Every name can be had, is the same each time, and says what it is."""
    value = getattr(llmcall, name)
    assert getattr(llmcall, name) is value
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__
        assert value.__module__.startswith("llmcall")


def test_star_import() -> None:
    """from llmcall import * gives just these names."""
    names: dict[str, object] = {}
    exec("from llmcall import *", names)
    assert set(llmcall.__all__) <= names.keys()


def test_an_unknown_name() -> None:
    """A name that there is not is an AttributeError, or an ImportError, that says so."""
    with pytest.raises(AttributeError, match="module 'llmcall' has no attribute 'send'"):
        _ = llmcall.send
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from llmcall import no_such_name")


def test_type_checkers_see_the_same_names() -> None:
    """What is imported under TYPE_CHECKING is what is exported."""
    source = (ROOT / "__init__.py").read_text(encoding="utf-8")
    block = source.partition("if TYPE_CHECKING:")[2].partition("\n\n")[0]
    listed = {name.strip(" ,()") for line in block.splitlines() for name in line.rpartition(" import ")[2].split(",")}
    assert {name for name in listed if name} >= set(llmcall.__all__) - {"__version__"}


def test_the_package_is_typed_and_versioned() -> None:
    """There is py.typed, and one version."""
    assert (ROOT / "py.typed").exists()
    assert llmcall.__version__ == _version.__version__
    assert all(part.isdigit() for part in llmcall.__version__.split(".")[:2])


def test_submodules_that_the_contract_names() -> None:
    """llmcall.testing has ScriptedClient."""
    assert inspect.isclass(importlib.import_module("llmcall.testing").ScriptedClient)


def test_importing_costs_nothing() -> None:
    """Importing the package, and touching its errors, values and scopes, imports no library."""
    heavy = ["openai", "tiktoken", "pydantic", "jinja2", "httpx", "tqdm", "diskcache", "tenacity", "dotenv"]
    program = """
        import json
        llmcall.Reply, llmcall.APIError, llmcall.scope, llmcall.usage
        print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
    """
    assert not set(json.loads(ran(program))) & set(heavy)


def test_a_hit_imports_no_sdk(tmp_path: Path) -> None:
    """A recorded answer needs none of the SDK, diskcache, tenacity and pydantic."""
    ran('ScriptedClient(["yes"], cache_mode="auto", cache_path=sys.argv[1]).send_message("Hello")', tmp_path / "cache")
    program = """
        import json
        client = llmcall.OpenAIClient(cache_path=sys.argv[1], cache_mode="replay")
        with llmcall.scope(None):
            assert client.send_message("Hello").content == "yes"
        print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
    """
    heavy = {"openai", "tiktoken", "pydantic", "jinja2", "httpx", "httpx2", "tqdm", "diskcache", "tenacity"}
    assert not set(json.loads(ran(program, tmp_path / "cache"))) & heavy
