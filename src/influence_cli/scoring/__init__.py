"""Evidence from conversations: rubrics, judges, preference shift, and the statistics that go with them.

Concept: a score is a number about one turn or one conversation, with its judge, its rubric and its method; figures are
means of scores with intervals. Invariant: what failed or was unusable is counted, never replaced by a value.
"""
