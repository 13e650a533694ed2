"""Benchmarks of an agent outside of conversations: sycophancy, toxicity; and how training carries over: transfer.

Concept: a benchmark asks an agent about items; a measure is the mean over items of a number that each item's answers give,
with an interval over items. Invariant: an item that lacks an answer enters no measure that needs it, and is counted.
"""
