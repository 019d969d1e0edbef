"""Starts processes, and pickles what travels to them.

Covers: start methods (fork server, spawn, zygote), the main module, pickling of functions, arguments and results.
Does not cover: how many workers there are and what they do (`scheduler`, `worker`).
May import: transport.
"""
