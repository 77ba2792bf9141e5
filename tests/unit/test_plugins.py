"""Clients that an installed package brings."""

from __future__ import annotations

from pathlib import Path

from programs import ran

PLUGIN = """
from llmcall import LLMClient

class PluggedClient(LLMClient):
    api_type = "plugged"

    def send(self, request, timeout):
        return {"choices": [{"message": {"role": "assistant", "content": "plugged in"}, "finish_reason": "stop"}]}
"""


def install(folder: Path, entry_points: str) -> None:
    """Put a distribution into a folder, as pip would."""
    (folder / "llmcall_plugged.py").write_text(PLUGIN)
    metadata = folder / "llmcall_plugged-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: llmcall-plugged\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[llmcall.clients]\n{entry_points}\n")
    (metadata / "RECORD").write_text("")


def test_a_plug_in_package(tmp_path: Path) -> None:
    """An installed package's entry point is found by its name, listed among the known, and its failure named."""
    install(
        tmp_path, "plugged = llmcall_plugged:PluggedClient\nbroken = llmcall_plugged:Missing\nabsent = not_there:Client"
    )
    program = """
        sys.path.insert(0, sys.argv[1])
        print(llmcall.client("plugged").send_message("Hello")["content"])
        for name in ("pluged", "broken", "absent"):
            try:
                llmcall.client(name)
            except llmcall.ConfigError as error:
                print(error)
    """
    printed = ran(program, tmp_path, LLMCALL_CACHE_MODE="off").splitlines()
    assert printed[0] == "plugged in"
    assert "did you mean 'plugged'? Known are absent, azure, broken, local, openai, plugged" in printed[1]
    assert "llmcall_plugged:Missing for the api_type 'broken' cannot be loaded" in printed[2]
    assert "not_there:Client for the api_type 'absent' cannot be loaded" in printed[3]
