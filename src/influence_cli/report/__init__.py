"""What runs show, for a person: figures with intervals, comparisons, one self-contained page.

Concept: runs become tables of columns (one row a complete conversation), tables become one documented object
(``influence.report/1``, ``influence.compare/1``), and pages only render that object. Invariant: which iteration is reported
is fixed beforehand (the last one), never chosen by its result; failures and unusable judgements enter counts, not means.
"""
