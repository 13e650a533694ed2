"""What is known of the rubrics and metrics that runs hold scores of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.report.measures import Catalogue
from influence_cli.resolution import find_environments
from influence_cli.sanitize import visible
from influence_cli.scoring.plan import metric_score
from influence_cli.scoring.rubric_files import pick_rubrics, shipped_rubrics
from influence_cli.store.run_directory import RunDirectory

_log = logging.getLogger(__name__)


def catalogue_of(
    registry: PluginRegistry,
    directories: Sequence[RunDirectory],
    files: Sequence[Path] = (),
    *,
    told: Callable[[str], None] = _log.warning,
) -> Catalogue:
    """Return what is known of the rubrics (of ``files`` too) and metrics of ``directories``.

    ``told`` hears of an environment that is gone; the log, unless somebody else is to.
    """
    metrics = {}
    for name in dict.fromkeys(name for directory in directories for name in _environments(directory)):
        try:
            environment = find_environments(registry, [name])[0]
        except InfluenceError as error:
            if any(name in directory.manifest.environments for directory in directories):
                shown = visible(name, newlines=False)
                told(f"Which way the metrics of {shown} are harmful is not known: {error}")
            continue
        metrics[environment.name] = {
            metric.id if metric.visits else metric_score(environment.name, metric.id): metric
            for metric in environment.spec.metrics
        }
    own = {rubric.id: rubric for rubric in pick_rubrics([], files)}
    return Catalogue({**shipped_rubrics(), **own}, metrics)


def _environments(directory: RunDirectory) -> list[str]:
    return list(directory.manifest.environments) or list(directory.manifest.config.environments)
