"""Executors: a map in other processes, which ask this one."""
