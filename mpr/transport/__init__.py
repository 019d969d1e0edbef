"""Connects two processes by messages, sockets and shared memory. Only this package uses ZeroMQ.

Covers: message types and their encoding, sockets, the outbox, a worker's status page and its journal of results.
Does not cover: the meaning of a message (`producer`, `aggregator`, `scheduler`).
May import: nothing but the floor.
"""
