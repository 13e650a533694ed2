"""Continuous batching over any Hugging Face causal language model.

Concept: all tokens to be computed in one step, of all running sequences, are packed into one row and sent through the
model's own forward pass; only attention is ours (registered with ``AttentionInterface``), reading keys and values from
segments that sequences with a common beginning share. Rooms, from the bottom: ``segments`` (memory), ``tree`` (what is
cached), ``attention`` (reading it), ``forward`` (one pass), ``sampling`` and ``choices`` (what logits become),
``sequences``, ``scheduler`` (who runs next), ``worker`` (the thread).
"""
