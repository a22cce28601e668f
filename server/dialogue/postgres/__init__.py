"""The store of responses and conversations in PostgreSQL, which several servers can share.

It does the same as the SQLite store (server/dialogue/sqlite_store.py).  Because all servers have the same
store, any of them can continue any conversation.

store.py        the operations of a `Store`
tables.py       the tables, and how they are kept within their bounds
connections.py  connections, and the threads that use them
"""
