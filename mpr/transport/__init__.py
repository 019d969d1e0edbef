"""Messages, sockets and shared memory between two processes. Only this package knows ZeroMQ.

Covers: message types and their encoding, sockets, the outbox, the page that a worker shares with its parent.
Does not cover: what a message means (`producer`, `aggregator`, `scheduler`).
May import: nothing but the floor.
"""
