"""The conformance suite for algorithms: what every one promises, as tests.

Subclass it where your tests are, and give it your algorithm, with options under which a few rows are learnt in seconds,
and the name of a model that it can train::

    class TestMyAlgorithm(AlgorithmConformance):
        base = "transformers:/a/folder"

        @pytest.fixture
        def algorithm(self):
            return MyAlgorithm(MyOptions(learning_rate=1e-2))

The rows are short conversations about nothing; override ``conversation`` if your model needs others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.training import RowsWanted, TrainingJob, TrainingOutcome, TrainingPair, TrainingRow
from influence_cli.training.protocol import Algorithm

WEIGHTS = "adapter_model.safetensors"


class _EnoughError(Exception):
    """Raised by whoever hears of progress, to break off."""


class AlgorithmConformance:
    """Tests of one algorithm; override ``algorithm`` and ``base``.

    ``folders`` is False for algorithms whose adapter is a name that a provider gave; what concerns files is skipped.
    """

    base: str = ""
    folders = True
    states = 4
    samples = 4

    @pytest.fixture
    def algorithm(self) -> Algorithm:
        """Return the algorithm under test; called once a test."""
        raise NotImplementedError

    @pytest.fixture
    def make_job(self, tmp_path: Path, algorithm: Algorithm) -> Callable[..., TrainingJob]:
        """Return a function that makes a job in a folder of its own, of the rows that the algorithm wants."""

        def make(name: str = "job", *, adapter: str | None = None, lines: Sequence[str] | None = None) -> TrainingJob:
            folder = tmp_path / name
            folder.mkdir()
            rows = folder / "rows.jsonl"
            rows.write_text("\n".join(self.rows(algorithm.wants) if lines is None else lines))
            return TrainingJob(iteration=0, base=self.base, adapter=adapter, rows=str(rows), folder=str(folder), seed=7)

        return make

    def conversation(self, state: int, sample: int) -> tuple[ChatMessage, ...]:
        """Return what was said; the third message was written beforehand."""
        said = (
            ("system", "You are a friend."),
            ("user", f"Good morning. It is day {state}."),
            ("assistant", "Good morning to you."),
            ("user", "What shall we do?"),
            ("assistant", f"Let us walk {sample + 1} miles. " + "Then we rest. " * sample),
        )
        return tuple(ChatMessage.model_validate({"role": role, "content": text}) for role, text in said)

    def rows(self, wants: RowsWanted) -> list[str]:
        """Return the lines of a rows file, as the loop writes it."""
        made = [[self._row(state, sample) for sample in range(self.samples)] for state in range(self.states)]
        if wants == "pairs":
            return [TrainingPair(chosen=rows[-1], rejected=rows[0]).model_dump_json() for rows in made]
        best = wants == "best"
        return [row.model_dump_json() for rows in made for row in rows if row.desirable or not best]

    def _row(self, state: int, sample: int) -> TrainingRow:
        said = self.conversation(state, sample)
        return TrainingRow(
            episode_id=state * self.samples + sample,
            environment="conformance",
            scenario="walk",
            initial_state=str(state),
            sample=sample,
            turn=2,
            messages=said,
            learnt=(len(said) - 1,),
            reward=float(sample),
            turn_reward=float(sample),
            desirable=sample >= self.samples // 2,
        )

    def test_it_wants_rows_that_the_loop_can_give(self, algorithm: Algorithm) -> None:
        """What it wants is one of the known kinds."""
        assert algorithm.wants in get_args(RowsWanted)

    def test_the_outcome_says_what_was_done(self, algorithm: Algorithm, make_job: Callable[..., TrainingJob]) -> None:
        """Rows are counted, losses are numbers, progress only grows, and the desirable replies have moved."""
        heard: list[float] = []
        job = make_job()
        outcome = algorithm.train(job, lambda share, _words: heard.append(share))
        assert 0 < outcome.rows <= len(self.rows(algorithm.wants))
        assert outcome.dropped == 0
        assert all(math.isfinite(loss) for loss in outcome.losses)
        assert outcome.moved is None or outcome.moved != 0.0
        assert heard == sorted(heard)
        assert heard[-1] == 1.0
        if self.folders:
            assert outcome.steps == len(outcome.losses) > 0
            assert outcome.tokens > 0
            self._check_files(job, outcome)

    def test_the_same_job_gives_the_same_weights(
        self, algorithm: Algorithm, make_job: Callable[..., TrainingJob]
    ) -> None:
        """Another folder, the same weights; the same folder, the same outcome, whatever lies about there."""
        self._only_folders()
        first, second = make_job("first"), make_job("second")
        (Path(second.folder) / "adapter").mkdir()
        (Path(second.folder) / "adapter" / WEIGHTS).write_bytes(b"half of what should be")
        outcome = algorithm.train(first, _ignore)
        again = algorithm.train(second, _ignore)
        assert again.digest == outcome.digest
        assert again.losses == outcome.losses
        self._check_files(second, again)
        assert algorithm.train(first, _ignore) == outcome

    def test_training_goes_on_from_the_adapter_before(
        self, algorithm: Algorithm, make_job: Callable[..., TrainingJob]
    ) -> None:
        """The second iteration ends elsewhere than the first, which stays as it was."""
        self._only_folders()
        first = algorithm.train(make_job("first"), _ignore)
        second = algorithm.train(make_job("second", adapter=first.adapter), _ignore)
        assert second.digest != first.digest
        assert _sha256(Path(first.adapter) / WEIGHTS) == first.digest

    def test_what_hears_of_progress_can_break_off(
        self, algorithm: Algorithm, make_job: Callable[..., TrainingJob]
    ) -> None:
        """Its exception comes through, no whole adapter is there, and the next call does the work as if undisturbed."""
        self._only_folders()
        job = make_job("broken")

        def enough(share: float, _words: str) -> None:
            if share > 0.0:
                raise _EnoughError

        with pytest.raises(_EnoughError):
            algorithm.train(job, enough)
        taken_up = algorithm.train(job, _ignore)
        assert taken_up.digest == algorithm.train(make_job("unbroken"), _ignore).digest

    @pytest.mark.parametrize("lines", [[], ["{}"], ["no JSON"]])
    def test_rows_that_are_none_are_the_users_mistake(
        self, algorithm: Algorithm, make_job: Callable[..., TrainingJob], lines: list[str]
    ) -> None:
        """No rows, and lines that are no rows, are told in one line."""
        with pytest.raises(InfluenceError) as caught:
            algorithm.train(make_job(lines=lines), _ignore)
        assert "\n" not in str(caught.value)

    def test_an_adapter_that_is_none_is_the_users_mistake(
        self, algorithm: Algorithm, make_job: Callable[..., TrainingJob], tmp_path: Path
    ) -> None:
        """A folder without weights is told in one line."""
        self._only_folders()
        with pytest.raises(InfluenceError) as caught:
            algorithm.train(make_job(adapter=str(tmp_path / "nothing")), _ignore)
        assert "\n" not in str(caught.value)

    def _check_files(self, job: TrainingJob, outcome: TrainingOutcome) -> None:
        """Check that the adapter is under the job's folder, whole, in safetensors only, and has the digest told."""
        adapter = Path(outcome.adapter)
        assert adapter.is_relative_to(job.folder)
        assert (adapter / "adapter_config.json").is_file()
        assert _sha256(adapter / WEIGHTS) == outcome.digest
        assert not [path for path in adapter.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]

    def _only_folders(self) -> None:
        if not self.folders:
            pytest.skip("its adapters are no folders")


def _ignore(_share: float, _words: str) -> None:
    """Hear of progress, and do nothing."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
