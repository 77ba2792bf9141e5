"""Watches a Python child process of ``llmcall run``.

Python imports the first module of this name on its path when it starts, and ``llmcall run`` puts
this folder first. The interpreter may be one without llmcall, so this uses the standard library
alone.
"""

import importlib
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def _watch() -> None:
    """Load the module that watches connections, which is beside this folder, and begin."""
    name = "llmcall_child_connections"
    file = os.path.join(os.path.dirname(HERE), "connections.py")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    module.watch_child()


def _import_hidden() -> None:
    """Import the module of this name that this one hides, if there is one."""
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != HERE]
    importlib.invalidate_caches()
    own_module = sys.modules.pop("sitecustomize", None)
    if importlib.util.find_spec("sitecustomize") is not None:
        importlib.import_module("sitecustomize")
    elif own_module is not None:
        sys.modules["sitecustomize"] = own_module


_watch()
_import_hidden()
