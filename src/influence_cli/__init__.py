"""Does this language model learn to influence the people it talks to?

The command line is ``influence``; programs import :mod:`influence_cli.api`.
"""

__version__ = "0.1.0"
