"""What is known of jobs that go on by themselves, whoever else remembers one at that moment."""

from concurrent.futures import ThreadPoolExecutor

from influence_cli.launching.protocol import Task
from influence_cli.launching.records import add_record, drop_records, read_records, record_of


def test_records_that_are_made_and_dropped_side_by_side_are_all_kept_and_gone(tmp_path):
    def remember(number: int) -> None:
        for part in range(10):
            name = f"{number}-{part}"
            task = Task(name, ("influence",), tmp_path / f"{name}.log")
            add_record(tmp_path, record_of(task, name, "slurm", {}, "2026-01-01T00:00:00+00:00"))
            if part % 2:
                drop_records(tmp_path, [name])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remember, range(8)))
    kept = {f"{number}-{part}" for number in range(8) for part in range(0, 10, 2)}
    assert {record.id for record in read_records(tmp_path)} == kept


def test_to_drop_what_is_not_there_leaves_nothing_behind(tmp_path):
    drop_records(tmp_path, ["shard-1"])
    assert list(tmp_path.iterdir()) == []
