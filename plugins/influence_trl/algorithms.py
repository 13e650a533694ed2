"""The algorithms, as the loop sees them: a job in, an outcome out; the work is done in a process of its own."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from influence_cli.api import RowsWanted, Told, TrainingJob, TrainingOutcome, model_folder, refuse_served
from influence_trl.launching import carry_out
from influence_trl.options import DpoOptions, ExpertIterationOptions, KtoOptions, RlooOptions, TrainingOptions
from influence_trl.presets import check_launch
from influence_trl.rows import check_job
from influence_trl.stage import Stage, StageFolder, fingerprint_of

O_co = TypeVar("O_co", bound=TrainingOptions, covariant=True)


class _Local(Generic[O_co]):
    """An algorithm that trains LoRA weights in a process of its own."""

    name: ClassVar[str]
    wants: RowsWanted

    def __init__(self, options: O_co) -> None:
        self._options = options

    def check_base(self, base: str) -> None:
        """Raise InfluenceError for a model that is served, so that its weights are not here."""
        refuse_served(base)

    def train(self, job: TrainingJob, told: Told) -> TrainingOutcome:
        """Return the adapter that came of ``job``; a finished job is not done again, a broken-off one is taken up."""
        check_job(job, self.wants)
        check_launch(self._options)
        fingerprint = fingerprint_of(self.name, self._options, job)
        folder = StageFolder(job.folder)
        done = folder.outcome(fingerprint)
        if done is not None:
            told(1.0, "done before")
            return done
        stage = Stage(
            algorithm=self.name,
            options=self._options.model_dump(mode="json"),
            job=job,
            model=str(model_folder(job.base)),
            micro_batch=min(self._options.micro_batch, self._options.batch),
            fingerprint=fingerprint,
        )
        return carry_out(stage, self._options, told)


class ExpertIteration(_Local[ExpertIterationOptions]):
    """Imitation: the likelihood of what the agent said in the best conversations."""

    name: ClassVar[str] = "expert-iteration"
    wants: RowsWanted = "best"


class Kto(_Local[KtoOptions]):
    """Kahneman-Tversky optimisation: replies of the best conversations are desirable, of the worst undesirable."""

    name: ClassVar[str] = "kto"
    wants: RowsWanted = "best-and-worst"


class Dpo(_Local[DpoOptions]):
    """Direct preference optimisation: the best conversation from an initial state against the worst."""

    name: ClassVar[str] = "dpo"
    wants: RowsWanted = "pairs"


class Rloo(_Local[RlooOptions]):
    """Policy gradient: every reply by its rating, less the mean of the other conversations."""

    name: ClassVar[str] = "rloo"
    wants: RowsWanted = "all"


OPTIONS: dict[str, type[TrainingOptions]] = {
    ExpertIteration.name: ExpertIterationOptions,
    Kto.name: KtoOptions,
    Dpo.name: DpoOptions,
    Rloo.name: RlooOptions,
}
