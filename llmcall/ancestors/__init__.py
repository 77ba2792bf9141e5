"""What scripts of TinyTroupe, XAgent and DB-GPT expect: their functions, and TinyTroupe's cache."""
