"""Conversations that somebody else made, read into a run.

Concept: every format yields :class:`Conversation` after conversation, or the reason why an entry is none. Invariants: a
file is data and never runs code; sizes are bounded before memory is; a conversation is stored whole or not at all, and
once, however often its file is imported.
"""
