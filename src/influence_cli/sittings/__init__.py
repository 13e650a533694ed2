"""One sitting of a command: its work prepared, begun or taken up, and run to its end or to where it can be taken up.

Invariant: whoever watches is told by a :class:`~influence_cli.listening.Listener`: nothing here knows a terminal.
"""
