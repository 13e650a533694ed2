"""What a processor computes by code of our own in C, compiled when it is first needed.

Concept: torch needs some forty operators for a layer of a pass of few rows, each of which costs more than its numbers do;
in C a layer is nine steps over memory that the engine's tables name. Invariant: whatever is computed here, torch computes
as well, and does where there is no C compiler or where a trial finds other numbers.
"""
