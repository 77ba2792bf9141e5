"""Executors: a map in other processes, whose calls this one answers."""
