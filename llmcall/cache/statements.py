"""The SQL of the store, on the tables that diskcache makes."""

from __future__ import annotations

__all__ = ["ADD", "CLEAR", "COUNT", "DELETE", "FIND", "LAST", "PAGE_OF_ROWS", "RAW", "SET", "STARTING"]

RAW = 1  # diskcache.core.MODE_RAW, 5.6.3: the bytes as they are
PLAIN = f"raw = 1 AND mode = {RAW} AND filename IS NULL AND typeof(value) = 'blob'"
# The key is read from the row itself: where the index is damaged, it may lead to another one.
FIND = (
    "SELECT value, store_time, key FROM Cache "
    f"WHERE rowid = (SELECT rowid FROM Cache WHERE key = ? AND raw = 1) AND {PLAIN}"
)
PAGE_OF_ROWS = (
    f"SELECT rowid, key, CASE WHEN {PLAIN} THEN value END, store_time FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT ?"
)
ADD = (
    "INSERT OR IGNORE INTO Cache (key, raw, store_time, access_time, access_count, size, mode, filename, value) "
    f"VALUES (?, 1, ?, 0, 0, 0, {RAW}, NULL, ?)"
)
SET = ADD.replace("OR IGNORE ", "") + (
    " ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time, size = 0, mode = excluded.mode, "
    "filename = NULL, value = excluded.value WHERE Cache.key = excluded.key"
)
STARTING = "SELECT key FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key LIMIT ?"
DELETE = "DELETE FROM Cache WHERE key = ?"
CLEAR = "DELETE FROM Cache"
LAST = "SELECT max(rowid) FROM Cache"
COUNT = "SELECT value FROM Settings WHERE key = 'count'"  # kept by diskcache's triggers
