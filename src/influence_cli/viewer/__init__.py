"""The terminal UI: runs, their conversations, comparisons and labels; the same in a browser.

Invariant: the viewer reads runs and writes only labels, control files and exports; every text of a model passes through
:mod:`influence_cli.viewer.cells` before it is drawn; workers post messages, and only handlers touch widgets.
"""
