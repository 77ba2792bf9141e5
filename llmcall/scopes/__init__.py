"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays.

Read ``position.py`` first: the caller, as plain data and as threads and tasks hold it. ``active.py`` finds the scope
in which code runs, and ``draws.py`` counts its draws, a map's items too (``draw_numbers.py``: which number is whose,
and whether a replay's callers ask what they asked). ``scope.py`` and ``arm_branches.py`` enter scopes, and bind
functions to them. ``rules.py`` refuses a call where timing would decide its draw, by the scopes that other threads and
processes have open. ``callers.py`` names tasks and threads, ``repeated.py`` warns.
"""
