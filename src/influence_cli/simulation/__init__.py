"""Simulating conversations: one (``conversation``), many (``runner``), and what they may use (``tally``).

Invariant: conversations never wait for each other; every answer is stored before anything is built on it; a failed call
is data about its conversation and never cancels a sibling.
"""
