"""Pydantic models that cross rooms: messages, requests, distributions, environments, records, configurations.

Invariant: every model is frozen and refuses unknown keys; data is validated at the border and trusted inside.
"""
