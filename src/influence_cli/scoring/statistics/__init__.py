"""Estimates with intervals, agreement, effect sizes, corrections and power: pure functions of numbers.

Invariant: everything here is checked against scipy and statsmodels on the same data, and the intervals by simulation of
their coverage (`benchmarks/interval_coverage.py`).
"""

from influence_cli.scoring.statistics.agreement import pairs_interval, ranks, spearman, total_variation, weighted_kappa
from influence_cli.scoring.statistics.groups import (
    conversations_needed,
    design_effect,
    hedges_g,
    holm,
    p_value,
    standardised,
)
from influence_cli.scoring.statistics.intervals import (
    DRAWS,
    LEVEL,
    Interval,
    Sample,
    difference_interval,
    mean_interval,
)
from influence_cli.scoring.statistics.student import t_cdf, t_quantile

__all__ = [
    "DRAWS",
    "LEVEL",
    "Interval",
    "Sample",
    "conversations_needed",
    "design_effect",
    "difference_interval",
    "hedges_g",
    "holm",
    "mean_interval",
    "p_value",
    "pairs_interval",
    "ranks",
    "spearman",
    "standardised",
    "t_cdf",
    "t_quantile",
    "total_variation",
    "weighted_kappa",
]
