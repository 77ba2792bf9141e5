"""Scopes: inside one, a repeated request is a new draw, and each draw has a number that replays.

Read ``position.py`` first: the caller, as plain data and as threads and tasks hold it. ``active.py`` finds the scope
in which code runs, and ``draws.py`` counts its draws (``draw_numbers.py``: which number is whose), a map's items too.
``scope.py`` and ``arm_branches.py`` enter scopes, and bind functions to them. ``rules.py`` refuses a call where
timing would decide its draw; ``workers.py`` knows which scopes other threads and processes have open. ``callers.py``
names tasks and threads, ``replayed_callers.py`` compares what they ask with the recording, ``repeated.py`` warns.
"""
