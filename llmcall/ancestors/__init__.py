"""The functions that scripts of TinyTroupe, XAgent and DB-GPT expect, and TinyTroupe's cache."""
