"""Functions and classes that an option names, as MODULE:NAME."""

from __future__ import annotations

import pkgutil
import sys
from typing import Any


def object_named(name: str, folder: str = "") -> Any:
    """Return what a name stands for; its module is searched in a folder first.

    :param folder: the working directory if it is empty.
    :raises ImportError: if there is no such module, or it cannot be imported.
    :raises AttributeError: if the module has no such name.
    :raises ValueError: if it is not the name of an object.
    """
    sys.path.insert(0, folder)
    try:
        return pkgutil.resolve_name(name)
    finally:
        sys.path.remove(folder)
