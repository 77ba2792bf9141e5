"""The features, each in a folder that can be deleted: ``llmcall/additions.py`` has the table of them."""
