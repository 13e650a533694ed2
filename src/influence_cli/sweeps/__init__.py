"""Sweeps: one experiment over many settings.

A sweep proposes parameters, starts an ordinary run for each trial, watches it, and keeps what it came to. Invariant: a
trial's parameters are stored before its run begins, and what it came to before anybody is told; so a sweep that is
killed at any instant repeats no finished trial and takes up an unfinished one with the same parameters.
"""
