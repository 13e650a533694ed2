"""The training process: how it is started, followed, stopped, and what is told when it fails."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from influence_cli.errors import InfluenceError
from influence_cli.schemas.training import TrainingOutcome
from influence_trl.launching import carry_out, training_command
from influence_trl.options import ExpertIterationOptions, KtoOptions
from influence_trl.stage import WEIGHTS, Failure, Finished, Stage, StageFolder, digest_of

from .conftest import FAST, make_rows, rows_for, train_here

OUT_OF_MEMORY = Failure(reason="memory", message="Memory does not suffice for {n} rows at once: 1 GiB.", hint="Less.")


@pytest.fixture
def stage(make_job) -> Stage:
    job = make_job(make_rows(8))
    return Stage(algorithm="expert-iteration", options={}, job=job, model="m", micro_batch=4, fingerprint="f")


def child(script: str):
    """Return what starts a Python script in place of the training process; it is told the stage's file."""
    return lambda stage, options: [sys.executable, "-c", script, str(StageFolder(stage.job.folder).stage)]


PRELUDE = """
import json, os, pathlib, signal, sys, time
stage = json.loads(pathlib.Path(sys.argv[1]).read_text())
folder = pathlib.Path(stage["job"]["folder"])
def say(share, words):
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"share": share, "words": words}) + "\\n")
def finish():
    import hashlib
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    outcome = {"adapter": str(folder / "adapter"), "digest": digest, "rows": stage["micro_batch"], "steps": 1, "tokens": 1}
    (folder / "outcome.json").write_text(json.dumps({"fingerprint": stage["fingerprint"], "outcome": outcome}))
"""


def test_progress_is_passed_on_and_the_outcome_read(stage):
    heard = []
    script = PRELUDE + "say(0.0, 'one'); time.sleep(0.4); say(0.5, 'two'); finish()"
    outcome = carry_out(stage, ExpertIterationOptions(), lambda *told: heard.append(told), command=child(script))
    assert heard == [(0.0, "one"), (0.5, "two"), (1.0, "done")]
    assert outcome.digest == digest_of(StageFolder(stage.job.folder).adapter)


def test_out_of_memory_once_halves_what_is_computed_at_once(stage):
    script = (
        PRELUDE
        + f"""
if stage["micro_batch"] == 4:
    (folder / "failure.json").write_text({OUT_OF_MEMORY.model_dump_json()!r}); sys.exit(1)
finish()
"""
    )
    heard = []
    outcome = carry_out(stage, ExpertIterationOptions(), lambda *told: heard.append(told), command=child(script))
    assert outcome.rows == 2  # the fake tells its micro-batch here
    assert any("Trying 2 at once" in words for _, words in heard)


def test_out_of_memory_twice_is_an_error_with_the_need(stage):
    starts = []

    def command(stage, options):
        starts.append(stage.micro_batch)
        script = PRELUDE + f"(folder / 'failure.json').write_text({OUT_OF_MEMORY.model_dump_json()!r}); sys.exit(1)"
        return child(script)(stage, options)

    with pytest.raises(InfluenceError, match="1 GiB") as caught:
        carry_out(stage, ExpertIterationOptions(), lambda *_: None, command=command)
    assert starts == [4, 2]
    assert "\n" not in str(caught.value)


def test_kto_is_not_halved_below_two_rows(stage):
    starts = []

    def command(stage, options):
        starts.append(stage.micro_batch)
        script = PRELUDE + f"(folder / 'failure.json').write_text({OUT_OF_MEMORY.model_dump_json()!r}); sys.exit(1)"
        return child(script)(stage, options)

    two = stage.model_copy(update={"algorithm": "kto", "micro_batch": 2})
    with pytest.raises(InfluenceError):
        carry_out(two, KtoOptions(micro_batch=2), lambda *_: None, command=command)
    assert starts == [2]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL. This is how a system without memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("print('what a pity'); sys.exit(3)", "ended with status 3: what a pity"),
        ("sys.exit(0)", "ended with status 0"),
        (
            "print('failure: ' + json.dumps({'reason': 'disk', 'message': 'The disk is full.'})); sys.exit(1)",
            "The disk is full",
        ),
    ],
)
def test_a_process_that_dies_is_told_in_one_line(stage, end, told):
    with pytest.raises(InfluenceError, match=told) as caught:
        carry_out(stage, ExpertIterationOptions(), lambda *_: None, command=child(PRELUDE + end))
    assert "\n" not in str(caught.value)


def test_what_hears_of_progress_stops_the_process_and_all_it_started(stage, tmp_path):
    pids = tmp_path / "pids"
    script = (
        PRELUDE
        + f"""
import subprocess
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{other.pid}}")
say(0.1, "go")
time.sleep(60)
"""
    )

    def told(share: float, words: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(stage, ExpertIterationOptions(), told, command=child(script))
    give_up = time.monotonic() + 30
    for pid in map(int, pids.read_text().split()):
        while not ended(pid):
            assert time.monotonic() < give_up
            time.sleep(0.02)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_process_that_heeds_no_signal_is_ended_after_a_while(stage):
    script = PRELUDE + "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(0.1, 'go'); time.sleep(60)"
    begun = time.monotonic()

    def told(share: float, words: str) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        carry_out(stage, ExpertIterationOptions(), told, command=child(script), grace=0.5)
    assert time.monotonic() - begun < 30.0


def test_a_folder_that_cannot_be_written_is_told(stage, tmp_path):
    (tmp_path / "file").write_text("")
    job = stage.job.model_copy(update={"folder": str(tmp_path / "file" / "stage")})
    with pytest.raises(InfluenceError, match="cannot be written"):
        carry_out(stage.model_copy(update={"job": job}), ExpertIterationOptions(), lambda *_: None)


def real(job, model, **options) -> tuple[Stage, ExpertIterationOptions]:
    made = ExpertIterationOptions(**{**FAST, **options})
    stage = Stage(
        algorithm="expert-iteration",
        options=made.model_dump(mode="json"),
        job=job,
        model=str(model),
        micro_batch=made.micro_batch,
        fingerprint="f",
    )
    return stage, made


def test_training_killed_and_run_again_ends_with_the_same_weights(make_job, model):
    """A real process that is killed the moment its first checkpoint is whole; what is left is taken up."""
    rows = rows_for("expert-iteration", 16)
    whole = train_here("expert-iteration", make_job(rows, "whole"), epochs=3, checkpoint_steps=1)
    stage, options = real(make_job(rows, "killed"), model, epochs=3, checkpoint_steps=1)
    folder = StageFolder(stage.job.folder)
    script = (
        "import os, runpy, signal, sys; from influence_trl import training; write = training.write_whole\n"
        "def write_and_die(path, data):\n"
        "    write(path, data)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "training.write_whole = write_and_die\n"
        "runpy.run_module('influence_trl.child', run_name='__main__', alter_sys=False)"
    )
    with pytest.raises(InfluenceError, match="ended by SIGKILL"):
        carry_out(stage, options, lambda *_: None, command=child(script))
    assert folder.whole_checkpoint() is not None
    heard = []
    outcome = carry_out(stage, options, lambda share, words: heard.append(words))
    assert outcome.digest == whole.digest
    assert not [words for words in heard if words.startswith("step 1 of")]
    assert not folder.checkpoints.exists()


def test_a_process_ends_with_its_parent(make_job, model):
    stage, options = real(make_job(rows_for("expert-iteration", 16)), model)
    StageFolder(stage.job.folder).prepare(stage)
    started = subprocess.Popen(
        training_command(stage, options), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    started.stdin.close()  # as the parent's end would
    assert started.wait(60) == 1
    assert StageFolder(stage.job.folder).read_failure().reason == "stopped"


def test_a_full_disk_leaves_the_checkpoint_before(make_job, model):
    """Files of the real process may not grow beyond a size that the checkpoint's optimiser exceeds."""
    import resource

    rows = rows_for("expert-iteration", 16)
    stage, options = real(make_job(rows, "full"), model, checkpoint_steps=1)
    folder = StageFolder(stage.job.folder)

    def limited(stage, options):
        script = (
            "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000)); sys.argv = sys.argv[:1] + sys.argv[1:];"
            "runpy.run_module('influence_trl.child', run_name='__main__', alter_sys=False)"
        )
        return [sys.executable, "-c", script, str(folder.stage)]

    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 60000
    with pytest.raises(InfluenceError, match="disk is full") as caught:
        carry_out(stage, options, lambda *_: None, command=limited)
    assert "\n" not in str(caught.value)
    assert folder.whole_checkpoint() is None
    whole = train_here("expert-iteration", make_job(rows, "whole"), checkpoint_steps=1)
    assert carry_out(stage, options, lambda *_: None).digest == whole.digest


def test_the_outcome_is_not_trusted_if_its_adapter_changed(stage):
    folder = StageFolder(stage.job.folder)
    folder.adapter.mkdir()
    (folder.adapter / WEIGHTS).write_bytes(b"one")
    outcome = TrainingOutcome(adapter=str(folder.adapter), digest=digest_of(folder.adapter), rows=1, steps=1, tokens=1)
    folder.finished.write_text(Finished(fingerprint="f", outcome=outcome).model_dump_json())
    assert folder.outcome("f") == outcome
    assert folder.outcome("g") is None
    (folder.adapter / WEIGHTS).write_bytes(b"two")
    assert folder.outcome("f") is None


def test_signals_reach_the_process_and_it_keeps_a_checkpoint(make_job, model):
    stage, options = real(make_job(rows_for("expert-iteration", 32)), model, epochs=40, checkpoint_steps=1000)
    folder = StageFolder(stage.job.folder)
    folder.prepare(stage)
    started = subprocess.Popen(
        training_command(stage, options), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not folder.progress.exists() or "step 2 of" not in folder.progress.read_text():
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGTERM)
    assert started.wait(60) == 1
    started.stdin.close()
    assert folder.read_failure().reason == "stopped"
    assert folder.whole_checkpoint() is not None
