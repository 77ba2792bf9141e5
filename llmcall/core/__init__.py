"""One call: prepared, looked up, shared, permitted, sent, tried again, counted, stored.

Read ``calls.py`` (a call as data) first, then ``lookup.py`` (a replay needs no more) and ``answer.py`` (its
steps in order). ``prepare.py`` makes a call from its arguments and its ``options.py``. The steps use
``flights.py`` (identical calls under way), ``sending.py`` and ``failover.py`` within the deadline of
``options.py``, and end with ``reply.py``, what the caller gets. They await ``effects.py``, which ``threads.py``
and ``loops.py`` execute by ``callbacks.py``; ``procedure_transport.py`` makes a transport of such steps.
``kinds.py`` contains what differs between chats, embeddings and others. ``seams.py`` and ``parents.py`` say
what other folders give to the pipeline.
"""
