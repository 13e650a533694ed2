"""Conversations step by step, for learners in the style of Gym: the agent's part is played from outside.

Concept: a conversation is the simulation's own; its agent is a backend that hands every request out as an observation and
waits for the reply. Invariant: the k-th conversation of an environment is the k-th of ``influence simulate`` with the same
settings, and the same replies lead through it in the same way.
"""
