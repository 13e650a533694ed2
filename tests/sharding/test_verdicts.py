"""What it means that a shard ended."""

import pytest

from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED
from influence_cli.launching.protocol import LOST
from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.sharding.verdicts import BUDGET, Held, held, of_scoring, of_simulation, user_mistake
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.shards import Shard

WANTED = 4


def having(ended: int = WANTED, stop: str | None = None, **failed: int) -> Held:
    return Held(failed, stop, ended)


@pytest.mark.parametrize(
    ("code", "found", "what", "why"),
    [
        (EXIT_DONE, having(), "done", ""),
        (EXIT_FAILURES, having(), "done", ""),
        (EXIT_DONE, having(ended=WANTED - 1), "again", "died with exit code 0"),
        (EXIT_FAILURES, None, "again", "died with exit code 1"),
        (EXIT_DONE, having(timeout=2, connection=1), "again", "3 conversations failed (connection, timeout)"),
        (EXIT_FAILURES, having(rate_limited=1), "again", "1 conversations failed (rate limited)"),
        (EXIT_FAILURES, having(stop="alike"), "over", "all its conversations failed alike"),
        (EXIT_FAILURES, having(stop="alike", timeout=4), "again", "4 conversations failed (timeout)"),
        (EXIT_STOPPED, having(ended=1, stop="tokens"), "over", BUDGET),
        (EXIT_STOPPED, having(ended=1, stop="cost"), "over", BUDGET),
        (EXIT_STOPPED, having(ended=1, stop="signal"), "again", "was stopped"),
        (EXIT_STOPPED, None, "again", "died with exit code 3"),
        (70, having(), "again", "died with exit code 70"),
        (-9, having(), "again", "died of signal 9"),
        (LOST, having(), "again", "was lost: nobody knows how it ended"),
    ],
)
def test_a_shard_of_a_simulation_is_judged_by_its_code_and_by_what_it_holds(code, found, what, why):
    verdict = of_simulation(code, found, WANTED)
    assert (verdict.what, verdict.why) == (what, why)


@pytest.mark.parametrize(
    ("code", "told", "what", "why"),
    [
        (EXIT_DONE, {}, "done", ""),
        (EXIT_FAILURES, {}, "again", "died with exit code 1"),
        (EXIT_FAILURES, {"ended": True, "failed": {"refused": 3}}, "done", ""),
        (EXIT_FAILURES, {"ended": True, "failed": {"refused": 3, "timeout": 1}}, "again", "1 scores failed (timeout)"),
        (EXIT_STOPPED, {"stop": "cost"}, "over", BUDGET),
        (EXIT_STOPPED, {"stop": "signal"}, "again", "was stopped"),
        (-9, {"ended": True, "failed": {}}, "again", "died of signal 9"),
    ],
)
def test_a_shard_of_scoring_is_judged_by_its_code_and_by_what_it_told_last(code, told, what, why):
    verdict = of_scoring(code, told)
    assert (verdict.what, verdict.why) == (what, why)


def test_what_is_not_there_holds_nothing(tmp_path):
    manifest = RunManifest(run_id="run", command="simulate", created="2026-01-01", config=SimulationConfig())
    assert held(RunDirectory(tmp_path, manifest, Shard(1, 2))) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("warning\nerror: There is no such model. Name another.\nafter\n", "There is no such model. Name another."),
        ("Traceback\nValueError: 1\n", "ValueError: 1"),
        ("", "see {log}"),
    ],
)
def test_a_mistake_of_the_users_is_told_as_the_shard_told_it(tmp_path, said, told):
    log = tmp_path / "shard.log"
    log.write_text(said)
    assert str(user_mistake(Shard(2, 4), log)) == f"Shard 2/4 cannot go on: {told.format(log=log)}"
