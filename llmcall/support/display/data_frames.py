"""Tables as pandas DataFrames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..surrogates import without_surrogates

if TYPE_CHECKING:
    import pandas


def import_pandas() -> Any:
    """Import pandas, which is optional, and return it.

    :raises ConfigError: if it is not installed.
    """
    try:
        from ..libraries import pandas
    except ImportError as error:
        raise ConfigError(
            "a table is a pandas DataFrame, and pandas is not installed: pip install pandas"
        ) from error
    return pandas


def data_frame(
    rows: Iterable[Sequence[object]], names: Iterable[str], **options: object
) -> pandas.DataFrame:
    """Return rows as a DataFrame that pandas can write to any file.

    :param names: the columns' names.
    :param options: of pandas.
    """
    cells = [[_writable(value) for value in row] for row in rows]
    return import_pandas().DataFrame(cells, columns=list(names), **options)


def _writable(value: object) -> object:
    """Return a cell's value; a text without lone surrogates, which neither UTF-8 nor pyarrow takes."""
    return without_surrogates(value) if isinstance(value, str) else value
