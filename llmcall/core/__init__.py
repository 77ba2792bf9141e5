"""One call: prepared, looked up, shared, permitted, sent, tried again, counted, stored.

Read ``calls.py`` (a call as data) first, then ``pipeline.py`` (its steps in order). ``prepare.py`` makes a call
from its arguments. The steps of a sent call are nested: ``share.py``, ``retry.py``, ``send.py`` (with ``failover.py``),
``callbacks.py``. They await ``effects.py``, which ``threads.py`` and ``loops.py`` execute. ``kinds.py`` contains what
differs between chats, embeddings and others, and ``reply.py`` what a chat returns. ``seams.py`` and ``parents.py`` say
what other folders give to the pipeline.
"""
