"""One call: prepared, looked up, shared, permitted, sent, tried again, counted, stored.

Read ``calls.py`` first, a call as data, and then ``pipeline.py``, its steps in their order; ``prepare.py``
makes a call of its arguments. The steps of a sent call stand inside one another: ``share.py``, ``retry.py``,
``send.py`` (with ``failover.py``), ``callbacks.py``. ``waiting.py`` has their waits, ``kinds.py`` what differs between
chats, embeddings and others, and ``reply.py`` what a chat returns. ``seams.py`` and ``parents.py`` say what other
folders give to the pipeline.
"""
