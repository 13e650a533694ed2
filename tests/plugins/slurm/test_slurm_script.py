"""What a batch script asks SLURM for, and what it does when SLURM speaks to it: run by a real bash."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from influence_cli.api import InfluenceError, Resources, Task
from influence_slurm.cluster import meaning, read_sacct, read_scontrol
from influence_slurm.launcher import SlurmLauncher
from influence_slurm.options import SlurmOptions
from influence_slurm.script import code_file, render_script


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def python(folder: Path, code: str, name: str = "task", **more) -> Task:
    return Task(name, (sys.executable, "-c", code), folder / f"{name}.log", **more)


def test_one_task_asks_for_what_it_needs(tmp_path):
    resources = Resources(gpus=2, cpus=8, memory_gb=1.5, minutes=240)
    options = SlurmOptions(partition="big", account="lab", qos="high", constraint="a|b", directives=("--exclusive",))
    task = Task("shard-1of4", ("true",), tmp_path / "shard.log", resources)
    assert directives(render_script([task], options, tmp_path)) == [
        "--job-name=shard-1of4",
        "--partition=big",
        "--account=lab",
        "--qos=high",
        "--constraint='a|b'",
        "--cpus-per-task=8",
        "--gres=gpu:2",
        "--mem=1536M",
        "--time=240",
        f"--output={tmp_path}/slurm-%j.out",
        f"--chdir={tmp_path}",
        "--open-mode=append",
        "--nodes=1",
        "--ntasks=1",
        "--requeue",
        "--signal=B:USR1@120",
        "--exclusive",
    ]


def test_several_tasks_are_an_array(tmp_path):
    tasks = [python(tmp_path, "", f"shard-{number}") for number in range(3)]
    asked = directives(render_script(tasks, SlurmOptions(at_once=2), tmp_path))
    assert "--array=0-2%2" in asked
    assert f"--output={tmp_path}/slurm-%A_%a.out" in asked
    assert not [line for line in asked if "gres" in line or "mem" in line or "time" in line]


def test_strange_names_stay_one_word(tmp_path):
    folder = tmp_path / "a 100% 'b'"
    script = render_script([Task("x y;z", ("true",), folder / "log")], SlurmOptions(), folder)
    assert "--job-name=x-y-z" in directives(script)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert [line for line in directives(script) if "100%%" in line]


@pytest.fixture
def batch(tmp_path):
    """Run a script as a node would: returns the process; what scontrol is asked stands in a file."""
    stub = tmp_path / "bin" / "scontrol"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    stub.chmod(0o755)
    started = []

    def run(tasks, options=None, **variables) -> subprocess.Popen:
        script = tmp_path / "script.sh"
        script.write_text(render_script(tasks, options or SlurmOptions(), tmp_path))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
        env = {**clean, "PATH": path, "SLURM_JOB_ID": "77", **variables}
        started.append(subprocess.Popen(["bash", str(script)], env=env, cwd=tmp_path, start_new_session=True))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def said(task: Task, word: str) -> None:
    """Wait until a task has said something."""
    until = time.monotonic() + 60
    while not (task.log.exists() and word in task.log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.02)


STOPPABLE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), sys.exit({code})))
print("begun", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_exit_code_is_the_commands_own_and_is_left(batch, tmp_path, code):
    task = python(tmp_path, f"print('said'); raise SystemExit({code})", environment={"A": "b 'c' $d"})
    assert batch([task]).wait(60) == code
    assert code_file(task).read_text() == f"{code}\n"
    assert task.log.read_text() == "said\n"
    assert not (tmp_path / "asked").exists()


def test_a_task_of_an_array_runs_its_own_command(batch, tmp_path):
    tasks = [
        python(tmp_path, f"import os; print({n}, os.environ.get('A'))", f"t{n}", environment={"A": f"$ {n}"})
        for n in range(3)
    ]
    assert batch(tasks, SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="1").wait(60) == 0
    assert [task.log.exists() for task in tasks] == [False, True, False]
    assert tasks[1].log.read_text() == "1 $ 1\n"


def test_before_its_time_is_up_a_job_stops_and_is_requeued(batch, tmp_path):
    task = python(tmp_path, STOPPABLE.format(code=3))
    process = batch([task], SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="0")
    said(task, "begun")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 3
    assert (tmp_path / "asked").read_text() == "requeue 70_0\n"
    assert not code_file(task).exists()
    assert "told\nThe time of job 70_0 is nearly up: requeued." in task.log.read_text()


@pytest.mark.parametrize(
    ("number", "code", "variables"),
    [
        (signal.SIGUSR1, 0, {}),  # it came to its end all the same
        (signal.SIGUSR1, 3, {"SLURM_RESTART_COUNT": "100"}),  # requeued often enough
        (signal.SIGTERM, 3, {}),  # cancelled
    ],
)
def test_otherwise_it_is_not_requeued(batch, tmp_path, number, code, variables):
    task = python(tmp_path, STOPPABLE.format(code=code))
    process = batch([task], **variables)
    said(task, "begun")
    process.send_signal(number)
    assert process.wait(60) == code
    assert code_file(task).read_text() == f"{code}\n"
    assert not (tmp_path / "asked").exists()


def test_setup_comes_before_the_command_and_its_failure_is_told(batch, tmp_path):
    task = python(tmp_path, "import os; print(os.environ['MADE'])")
    assert batch([task], SlurmOptions(setup=("export MADE=here",))).wait(60) == 0
    assert task.log.read_text() == "here\n"
    assert batch([task], SlurmOptions(setup=("no-such-module load cuda",))).wait(60) == 1
    assert "This line of the launcher's setup failed: no-such-module load cuda" in task.log.read_text()
    assert code_file(task).read_text() == "1\n"


@pytest.mark.parametrize(
    ("state", "code", "means"),
    [
        ("COMPLETED", "0:0", 0),
        ("FAILED", "3:0", 3),
        ("FAILED", "0:9", -9),
        ("CANCELLED by 0", "0:0", -15),
        ("CANCELLED", "0:15", -15),
        ("TIMEOUT", "0:0", -15),
        ("OUT_OF_MEMORY", "0:125", -9),
        ("NODE_FAIL", "0:0", -9),
        ("FAILED", "0:0", 1),
        ("RUNNING", "0:0", None),
        ("PENDING", "0:0", None),
        ("", "", None),
    ],
)
def test_what_slurm_remembers_of_a_job_is_an_exit_code(state, code, means):
    assert meaning(state, code) == means
    assert read_sacct(f"{state}|{code}\n") == means
    assert read_scontrol(f"JobId=7 JobState={state.split(' ')[0]} Requeue=1 ExitCode={code} X=") == means


@pytest.fixture
def refusing(tmp_path, monkeypatch):
    """A cluster that refuses every job."""
    folder = tmp_path / "refusing"
    folder.mkdir()
    (folder / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


async def test_what_the_cluster_refuses_is_one_line(refusing, tmp_path):
    launcher = SlurmLauncher(SlurmOptions())
    with pytest.raises(InfluenceError, match="SLURM refuses the job: invalid partition specified: x"):
        await launcher.start(python(tmp_path, ""))
    await launcher.aclose()


async def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfluenceError, match="There is no command 'sbatch'. Run this where SLURM is installed"):
        await SlurmLauncher(SlurmOptions()).start(python(tmp_path, ""))
