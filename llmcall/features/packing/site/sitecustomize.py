"""Traces each Python process that a packed program starts, and imports the next ``sitecustomize``.

Only the standard library is imported: the process may be of a Python without llmcall.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys


def _run(spec: importlib.machinery.ModuleSpec | None, name: str) -> None:
    if spec is not None and spec.loader is not None:
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def _begin() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    if "_LLMCALL_TRACE" in os.environ:
        child = os.path.join(os.path.dirname(here), "packed_program.py")
        name = "_llmcall_packing_child"
        _run(importlib.util.spec_from_file_location(name, child), name)
        sys.modules.pop(name).trace_started_process()
    _run(importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path), "sitecustomize")


_begin()
