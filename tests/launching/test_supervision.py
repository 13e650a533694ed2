"""What dies or hangs is started again, as often as is allowed, and told."""

import asyncio
from collections import Counter

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.launching.protocol import JobStatus, Task
from influence_cli.launching.supervision import Care, Supervisor, Verdict

QUICK = Care(patience=0.1, retries=2, pause=0.0, poll=0.01)


class FakeJob:
    """Ends with a code when it is given one; a negative code is that of a cancel."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.state = "running"
        self.cancelled = 0
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(self, code: int) -> None:
        self.state = "ended"
        if not self._code.done():
            self._code.set_result(code)

    async def status(self) -> JobStatus:
        return JobStatus(self.state)

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    async def cancel(self) -> None:
        self.cancelled += 1
        self.end(-15)


class FakeLauncher:
    """Plays codes by task: each start ends with the next; None goes on until it is cancelled."""

    def __init__(self, **codes) -> None:
        self.codes = {name: list(own) for name, own in codes.items()}
        self.jobs: list[FakeJob] = []

    async def start(self, task: Task) -> FakeJob:
        job = FakeJob(task.name)
        self.jobs.append(job)
        code = self.codes[task.name].pop(0)
        if isinstance(code, Exception):
            raise code
        if code is not None:
            job.end(code)
        return job


def judged(task: Task, code: int) -> Verdict:
    return Verdict("done") if code == 0 else Verdict("again", f"code {code}")


@pytest.fixture
def mind(tmp_path):
    """Mind tasks by name; returns how they ended and what was told."""

    async def run(launcher, *names, care=QUICK, sign=lambda task: 0, judge=judged, then=None):
        told = []
        supervisor = Supervisor(
            launcher, care, sign=sign, judge=judge, told=lambda task, what: told.append((task.name, what))
        )
        if then is not None:
            asyncio.get_running_loop().call_later(0.05, then, supervisor)
        tasks = [Task(name, ("true",), tmp_path / name) for name in names]
        return await supervisor.mind(tasks), told

    return run


async def test_what_ends_well_is_done(mind):
    endings, told = await mind(FakeLauncher(a=[0], b=[0]), "a", "b")
    assert {name: (end.verdict.what, end.starts) for name, end in endings.items()} == {
        "a": ("done", 1),
        "b": ("done", 1),
    }
    assert told == []


async def test_what_dies_is_started_again_and_given_up_after_so_many_tries(mind):
    endings, told = await mind(FakeLauncher(a=[-9, 1, 0], b=[-9, -9, -9]), "a", "b")
    assert (endings["a"].verdict.what, endings["a"].starts) == ("done", 3)
    assert (endings["b"].verdict, endings["b"].starts) == (Verdict("over", "code -9"), 3)
    assert Counter(told) == Counter(
        [
            ("a", "code -9; started again (1 of 2)"),
            ("a", "code 1; started again (2 of 2)"),
            ("b", "code -9; started again (1 of 2)"),
            ("b", "code -9; started again (2 of 2)"),
            ("b", "code -9; given up after 3 starts"),
        ]
    )


def signs():
    """Return a sign that changes once: a task that began, and then hangs."""
    seen = Counter()

    def sign(task):
        seen[task.name] += 1
        return seen[task.name] > 1

    return sign


async def test_what_hangs_is_ended_and_started_again(mind):
    launcher = FakeLauncher(a=[None, 0])
    endings, told = await mind(launcher, "a", sign=signs())
    assert endings["a"].verdict.what == "done"
    assert launcher.jobs[0].cancelled == 1
    assert told == [("a", "nothing new came of it for 0.1 s; started again (1 of 2)")]


async def test_what_gets_on_or_has_no_room_yet_does_not_hang(mind):
    launcher = FakeLauncher(a=[None], b=[None])

    def end(_):
        launcher.jobs[0].end(0)
        launcher.jobs[1].end(0)

    def later(_):
        launcher.jobs[1].state = "waiting"
        asyncio.get_running_loop().call_later(0.4, end, None)

    began = signs()
    calls = iter(range(10**6))
    endings, told = await mind(
        launcher, "a", "b", sign=lambda task: next(calls) if task.name == "a" else began(task), then=later
    )
    assert [end.verdict.what for end in endings.values()] == ["done", "done"]
    assert told == []


async def test_before_its_first_sign_a_task_may_take_longer(mind):
    launcher = FakeLauncher(a=[None])
    endings, told = await mind(
        launcher, "a", then=lambda _: asyncio.get_running_loop().call_later(0.3, launcher.jobs[0].end, 0)
    )
    assert (endings["a"].verdict.what, told) == ("done", [])


async def test_a_stop_cancels_all_and_begins_nothing(mind):
    launcher = FakeLauncher(a=[None], b=[None])
    endings, told = await mind(launcher, "a", "b", then=lambda supervisor: supervisor.stop())
    assert {end.verdict for end in endings.values()} == {Verdict("over", "stopped")}
    assert [job.cancelled for job in launcher.jobs] == [1, 1]
    assert told == []


@pytest.mark.parametrize("where", ["judge", "launcher"])
async def test_what_no_new_start_mends_ends_everything_and_is_raised(mind, where):
    mistake = InfluenceError("No such thing.")

    def judge(task, code):
        raise mistake

    launcher = FakeLauncher(a=[None], b=[2 if where == "judge" else mistake])
    with pytest.raises(InfluenceError, match="No such thing"):
        await mind(launcher, "a", "b", judge=judge)
    assert launcher.jobs[0].cancelled == 1
