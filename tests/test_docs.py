"""The documentation is true."""

import inspect
import re
from pathlib import Path

from influence_cli.benchmarking import sycophancy, toxicity
from influence_cli.benchmarking.items import Beginning
from influence_cli.cli.score.scoring import score
from influence_cli.cli.simulate import FLAGS
from influence_cli.cli.sweep.running import FLAGS as SWEEP_FLAGS
from influence_cli.cli.train import FLAGS as TRAIN_FLAGS
from influence_cli.report.measures import BASE
from influence_cli.schemas.configs import TrainConfig
from influence_cli.schemas.environment import EnvironmentSpec, Scenario
from influence_cli.schemas.rubrics import Rubric
from influence_cli.schemas.sweeps import SweepConfig
from influence_cli.settings import setting_names
from influence_cli.sweeps.keys import SHORT_NAMES
from influence_cli.sweeps.objectives import KINDS

_CITED = re.compile(
    r"\b(?!January|February|March|April|May|June|July|August|September|October|November|December)"
    r"([A-Z][a-z]+)(?: et al\.|(?:,| and) [A-Z][^|;()]*?)?,? \(?((?:18|19|20)\d{2})\b(?!-)"
)
"""Author and year, as in *Rao and Wu, 1988*."""


def text(repository: Path, name: str) -> str:
    return (repository / name).read_text()


def test_every_setting_and_flag_is_documented(repository):
    documented = text(repository, "docs/settings.md")
    leaves = [
        name
        for name in setting_names(TrainConfig)
        if not any(o.startswith(f"{name}.") for o in setting_names(TrainConfig))
    ]
    assert [name for name in leaves if f"`{name}`" not in documented] == []
    assert [flag for flag in {**FLAGS, **TRAIN_FLAGS}.values() if f"`{flag}`" not in documented] == []


def test_every_setting_flag_and_objective_of_a_sweep_is_documented(repository):
    documented = text(repository, "docs/sweeps.md")
    keys = [*SweepConfig.model_fields, *KINDS, *SHORT_NAMES]
    assert [key for key in keys if not re.search(rf"`{key}[`.]", documented)] == []
    assert [flag for flag in SWEEP_FLAGS.values() if flag not in documented] == []


def test_every_key_of_an_environment_is_documented(repository):
    documented = text(repository, "docs/environments.md")
    keys = set(EnvironmentSpec.model_fields) | set(Scenario.model_fields)
    assert [key for key in keys if not re.search(rf"`(roles\.)?{key}\b", documented)] == []


def test_every_flag_of_scoring_and_every_key_of_a_rubric_is_documented(repository):
    documented = text(repository, "docs/scoring.md")
    flags = re.findall(r'"(--?[a-z-]+)"', (repository / "src/influence_cli/cli/score/scoring.py").read_text())
    named = [f"--{name.replace('_', '-')}" for name in inspect.signature(score).parameters]
    wanted = {
        *flags,
        *(name for name in named if name not in ("--ctx", "--run", "--names", "--option", "--assignments")),
    }
    assert [flag for flag in sorted(wanted) if f"`{flag}`" not in documented and flag != "-q"] == []
    assert [key for key in Rubric.model_fields if f"`{key}`" not in documented] == []


def test_every_flag_of_launching_is_documented(repository):
    documented = text(repository, "docs/clusters.md")
    flags = re.findall(r'"(--[a-z-]+)", (?:min|help)', text(repository, "src/influence_cli/cli/launching.py"))
    assert {"--shards", "--shard", "--launcher", "--detach", "--restarts"} <= set(flags)
    assert [flag for flag in flags if f"`{flag}`" not in documented] == []


def test_every_measure_is_documented(repository):
    feedback, answers = sycophancy.Answers("x", {"rating": 5.0}), sycophancy.Answers("x", {})
    found = sycophancy.measures({"feedback": [feedback], "answer": [answers]})
    item = toxicity.Continued(Beginning(id="x", prompt="x"), ["x"], [0.5])
    bench = {row["id"] for row in [*found, *toxicity.measures([item], 1)]}
    documented = text(repository, "docs/bench.md")
    names = {name if name.startswith("toxicity") else name.partition(":")[0] for name in bench}
    assert [name for name in names if not re.search(rf"`{name}[:`]", documented)] == []
    every = text(repository, "docs/measures.md")
    objectives = [name for name, kind in KINDS.items() if kind.steps]
    wanted = [*names, *objectives, *(each.id for each in BASE)]
    assert [name for name in wanted if not re.search(rf"`{name}[:`]", every)] == []


def test_every_source_that_is_cited_is_listed_and_every_listed_one_is_cited(repository):
    page, _, sources = text(repository, "docs/measures.md").partition("## Sources")
    listed = [" ".join(each.split()) for each in sources.split("\n* ")[1:]]
    pages = [path.read_text() for path in (repository / "docs").glob("*.md") if path.name != "measures.md"]
    found = {each.groups() for each in _CITED.finditer("\n".join([page, *pages, text(repository, "README.md")]))}
    assert len(found) >= 30
    assert [cited for cited in sorted(found) if not any(_names(source, *cited) for source in listed)] == []
    assert [source for source in listed if not any(_names(source, *cited) for cited in found)] == []


def _names(source: str, author: str, year: str) -> bool:
    return source.startswith(author) and re.search(rf"\b{year}\b", source) is not None


def test_links_between_documents_lead_somewhere(repository):
    for path in [repository / "README.md", *(repository / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", path.read_text()):
            generated = target.startswith("reference/") and f": {target}\n" in text(repository, "mkdocs.yml")
            assert generated or (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_navigation_names_every_page(repository):
    named = set(re.findall(r": (\S+\.md)$", text(repository, "mkdocs.yml"), flags=re.MULTILINE))
    assert {name for name in named if not name.startswith("reference/")} == {
        path.name for path in (repository / "docs").glob("*.md")
    }


def test_every_promise_names_a_test_that_exists(repository):
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text(repository, "docs/reliability.md"))
    assert len(named) >= 30
    for file, test in named:
        path = repository / file
        assert path.is_file(), file
        assert not test or re.search(rf"^(?:async )?def {test}\(", path.read_text(), re.MULTILINE), f"{file}::{test}"
