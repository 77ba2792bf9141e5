"""Functions for scripts of TinyTroupe, XAgent and DB-GPT, and a reader of TinyTroupe's cache."""
