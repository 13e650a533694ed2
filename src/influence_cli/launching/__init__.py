"""Starting commands where there is room for them: on this machine, on a cluster; watching and ending them.

Invariant: a launcher knows processes and what they need, nothing of runs; what a task does is decided by its command alone.
"""
