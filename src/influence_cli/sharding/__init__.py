"""One run, several processes: how it is split, who minds the parts, what their ends mean, and their work brought together.

Invariant: whatever ends a sitting, what the shards have stored is in ``run.db`` when it returns, and a later sitting with
any number of shards, or none, goes on from there.
"""
