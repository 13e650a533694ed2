"""Asking models: the protocol, limits, retries, choice scoring over an API, the answer cache.

Invariant: a backend answers or raises ``CallFailedError``; it never invents a default.
"""
