"""Logs of Inspect AI, made by the real inspect-ai 0.3.285."""

import json
import struct
import zipfile

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.store.imports import inspect_logs
from influence_cli.store.imports.conversation import Refused
from influence_cli.store.imports.inspect_logs import is_inspect_log, log_conversations, read_log


@pytest.fixture(params=["small-talk.eval", "small-talk.json"])
def log(repository, request):
    return repository / "tests" / "fixtures" / "imports" / request.param


def read(path, environment=None):
    return list(log_conversations(read_log(path), environment))


def by_state(found, sample=0):
    return {each.record.key.initial_state: each for each in found if each.record.key.sample == sample}


def test_samples_are_conversations(log):
    found = read(log)
    assert len(found) == (6 if log.suffix == ".eval" else 3)
    hotel = by_state(found)["hotel"]
    key = hotel.record.key
    assert (key.environment, key.scenario, key.sample) == ("small-talk", "booking", 0)
    assert hotel.record.population == "gameable"
    told = [(m.turn, m.speaker, m.source, bool(m.tool_calls)) for m in hotel.messages]
    assert told == [
        (0, "system", "scenario", False),
        (0, "user", "scenario", False),
        (1, "agent", "model", True),
        (1, "tool", "tool", False),
        (1, "agent", "model", False),
        (1, "user", "scenario", False),
        (2, "agent", "model", False),
    ]
    assert hotel.messages[2].tool_calls[0].arguments == {"hotel": "Lark"}
    assert hotel.messages[3].tool_call_id == hotel.messages[2].tool_calls[0].id
    assert hotel.end.turns == 2


def test_replies_written_beforehand_are_no_turns(log):
    greeting = by_state(read(log))["greeting"]
    agent = [(m.turn, m.source) for m in greeting.messages if m.speaker == "agent"]
    assert agent == [(0, "scenario"), (1, "model"), (2, "model")]


def test_scores_keep_their_scorer_and_grades_become_numbers(log):
    scores = {(s.rubric, s.judge): s.value for s in by_state(read(log))["greeting"].scores}
    assert scores == {
        ("includes", "inspect:includes"): 1.0,
        ("warmth", "inspect:warmth"): 2.0,
        ("both-kind", "inspect:both"): 1.0,
        ("both-plain", "inspect:both"): 0.5,
    }


def test_tokens_are_counted_and_errors_are_failures(log):
    found = by_state(read(log))
    (call,) = found["hotel"].calls
    assert (call.model, call.prompt_tokens, call.cached_tokens, call.completion_tokens) == (
        "inspect:mockllm/model",
        150,
        30,
        24,
    )
    broken = found["broken"]
    assert (broken.end.status, broken.end.failure) == ("failed", "internal")
    assert "the endpoint is gone" in broken.end.detail


def test_the_environment_can_be_named(log):
    assert {each.record.key.environment for each in read(log, "hotels")} == {"hotels"}


def test_both_formats_say_the_same(repository):
    folder = repository / "tests" / "fixtures" / "imports"
    assert by_state(read(folder / "small-talk.json")) == by_state(read(folder / "small-talk.eval"))


def test_a_log_is_told_from_other_json(repository, tmp_path):
    assert is_inspect_log(repository / "tests" / "fixtures" / "imports" / "small-talk.json")
    other = tmp_path / "rows.json"
    other.write_text('{"env_name": "x"}\n')
    assert not is_inspect_log(other)
    assert not is_inspect_log(tmp_path / "nowhere.json")


def header(**more):
    return {"version": 2, "eval": {"task": "tests/some_task", "model": "m"}, **more}


def sample(**more):
    return {"id": 1, "epoch": 1, "messages": [{"role": "user", "content": "Hi"}], **more}


def written(path, samples):
    path.write_text(json.dumps(header(samples=samples)))
    return path


def test_contents_of_parts_and_attachments(tmp_path):
    digest = "0123456789abcdef" * 2
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image", "image": "data:..."}]},
        {"role": "assistant", "content": f"attachment://{digest} and attachment://{'f' * 32}", "source": "generate"},
    ]
    (found,) = read(written(tmp_path / "a.json", [sample(messages=messages, attachments={digest: "a long text"})]))
    assert [m.text for m in found.messages] == ["See\n[image]", f"a long text and attachment://{'f' * 32}"]


@pytest.mark.parametrize(
    "broken",
    [
        {"epoch": 1},
        sample(messages=[{"role": "wizard", "content": ""}]),
        sample(messages=[{"content": ""}]),
        sample(epoch="three"),
        sample(scores={"a": {}}),
        "text",
        None,
    ],
)
def test_a_sample_that_makes_no_sense_is_refused_and_the_others_stay(tmp_path, broken):
    found = read(written(tmp_path / "a.json", [broken, sample()]))
    assert isinstance(found[0], Refused)
    assert found[1].record.key.environment == "some-task"


def test_ungraded_scores_are_left_out(tmp_path):
    scores = {"a": {"value": "perhaps"}, "b": {"value": float("nan")}, "c": {"value": "P"}, "d": {"value": True}}
    (found,) = read(written(tmp_path / "a.json", [sample(scores=scores)]))
    assert {s.rubric: s.value for s in found.scores} == {"c": 0.5, "d": 1.0}


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_plain_zips_are_read_too(tmp_path, compression):
    members = {
        "header.json": json.dumps(header()),
        "samples/1_epoch_1.json": json.dumps(sample()),
        "samples/tea/person-1_epoch_1.json": json.dumps(sample(id="tea/person-1")),
        "samples/../x.json": "{",
    }
    found = read(zipped(tmp_path / "a.eval", members, compression))
    assert [each.record.key.initial_state for each in found] == ["1", "tea/person-1"]


def told(path):
    with pytest.raises(InfluenceError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_zip_bombs_are_not_unpacked(tmp_path, monkeypatch):
    members = {"header.json": json.dumps(header()), "samples/1.json": "0" * 2_000_000}
    path = zipped(tmp_path / "a.eval", members)
    monkeypatch.setattr(inspect_logs, "MOST_MEMBER", 1_000_000)
    assert "unpacks to more than" in told(path)
    monkeypatch.setattr(inspect_logs, "MOST_BYTES", 1_500_000)
    assert "unpacks to more than" in told(path)


def test_a_member_that_lies_about_its_size_is_damaged(tmp_path):
    path = zipped(tmp_path / "a.eval", {"header.json": json.dumps(header()), "samples/1.json": "0" * 100_000})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    assert "is damaged" in told(path)


def test_a_damaged_zstandard_member(repository, tmp_path):
    data = bytearray((repository / "tests" / "fixtures" / "imports" / "small-talk.eval").read_bytes())
    with zipfile.ZipFile(repository / "tests" / "fixtures" / "imports" / "small-talk.eval") as archive:
        member = next(m for m in archive.infolist() if m.filename.startswith("samples/"))
        assert member.compress_type == 93
    data[member.header_offset + 30 + len(member.filename) + 40] ^= 0xFF
    path = tmp_path / "a.eval"
    path.write_bytes(data)
    assert "is damaged" in told(path)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 broken"])
def test_what_is_no_log_is_told(tmp_path, content):
    path = tmp_path / "a.eval"
    path.write_bytes(content)
    assert "is no .eval log" in told(path)


def test_zips_without_a_log_are_told(tmp_path):
    assert "no header" in told(zipped(tmp_path / "a.eval", {"x": ""}))
    assert "names no evaluation" in told(zipped(tmp_path / "b.eval", {"header.json": "{}"}))
    assert "is no JSON" in told(zipped(tmp_path / "c.eval", {"header.json": "["}))
    (tmp_path / "d.json").write_text('{"version": 2, "eval": 3}')
    assert "no log" in told(tmp_path / "d.json")
    (tmp_path / "e.json").write_text(json.dumps(header(samples={"a": 1})))
    assert "no list" in told(tmp_path / "e.json")
