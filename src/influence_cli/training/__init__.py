"""Training: selection, training rows, the loop over iterations.

Invariant: a stage is recorded before the next one begins, so that a stopped run repeats no finished stage.
"""
