"""The statements that read and write rows in diskcache's database.

Values are cast, since those of others may be texts that cannot be decoded. raw = 1 is a key that is not
pickled, and mode = 1 bytes as they are (diskcache.core.MODE_RAW, 5.6.3).
"""

# Reading

FIND = "SELECT CAST(value AS BLOB), store_time FROM Cache WHERE key = ? AND raw = 1"
PAGE_OF_ROWS = "SELECT rowid, key, CAST(value AS BLOB), store_time FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT ?"
KEYS_WITH_PREFIX = (
    "SELECT key FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key LIMIT ?"
)
COUNT = "SELECT value FROM Settings WHERE key = 'count'"  # kept by diskcache's triggers

# Reading what is damaged

ROWS_BETWEEN = "SELECT key, CAST(value AS BLOB), store_time FROM Cache WHERE rowid BETWEEN ? AND ?"
ROW_AT = "SELECT key, CAST(value AS BLOB), store_time FROM Cache WHERE rowid = ?"
LAST = "SELECT max(rowid) FROM Cache"
# If the table's last page is damaged:
LAST_BY_INDEX = "SELECT max(rowid) FROM Cache INDEXED BY Cache_key_raw"
INDEXED = (
    "SELECT key, rowid FROM Cache INDEXED BY Cache_key_raw WHERE key >= ? AND key < ? AND raw = 1"
)

# Writing

ADD = "INSERT INTO Cache (key, raw, store_time, access_time, access_count, size, mode, filename, value) VALUES "
NEW_ROW = "(?, 1, ?, 0, 0, 0, 1, NULL, ?)"  # its key, when it is stored, and its value
OR_KEEP = " ON CONFLICT (key, raw) DO NOTHING"
OR_REPLACE = (
    " ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time, size = 0, mode = 1, filename = NULL, "
    "value = excluded.value"
)
DELETE = "DELETE FROM Cache WHERE key = ?"
CLEAR = "DELETE FROM Cache"
MOVE = "UPDATE Cache SET key = ?, value = ? WHERE key = ? AND raw = 1"

# Budgets

BUDGETS = "CREATE TABLE IF NOT EXISTS Budgets (name TEXT PRIMARY KEY, state TEXT)"
BUDGET = "SELECT state FROM Budgets WHERE name = ?"
SET_BUDGET = "INSERT OR REPLACE INTO Budgets VALUES (?, ?)"


def add(count: int, *, replace: bool) -> str:
    """Return the statement that adds so many rows.

    :param replace: whether they replace those of the same keys; else they are left out.
    """
    return ADD + ", ".join([NEW_ROW] * count) + (OR_REPLACE if replace else OR_KEEP)
