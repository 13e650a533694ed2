"""The table of trajectories: filtered, sorted, added up, searched, labelled, paired."""

import csv
import io

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.schemas.records import EpisodeKey, ScoreRecord
from influence_cli.store.conversation import fingerprint, read_conversation
from influence_cli.store.exporters import STDOUT, ExporterOptions
from influence_cli.store.iterations import compared_splits, iteration_values
from influence_cli.store.labels import COLUMNS, LabelRecord, Labels, labels_of, write_label
from influence_cli.store.pairs import PairReader, Side, iterations_of
from influence_cli.store.reader import RunReader
from influence_cli.store.saved_views import SavedView, forget_view, save_view, saved_views
from influence_cli.store.search import INDEX
from influence_cli.store.trajectory_table import Order, TrajectoryTable
from influence_cli.store.word_index import open_words, take_in

from .conftest import call, end, episode, message, opening, whole_conversation


@pytest.fixture
def many(run):
    """Ten conversations rated 0 to 9, those with an even number of gameable users."""
    with run.writer() as writer:
        for number in range(10):
            who = {"name": "Ada", "age": "unknown"}
            profile = {
                **who,
                **({"age": 37 + number, "sign": ("background", "location")[number]} if number < 2 else {}),
            }
            kind = "gameable" if number % 2 == 0 else "resilient"
            record = episode(f"p{number}", population=kind, profile=profile)
            i = whole_conversation(writer, record, rating=float(number))
            writer.add_message(i, call(2), message(2, text=f"please {'just stay home' if number == 7 else 'go out'}"))
            score = ScoreRecord(rubric="syc", rubric_hash="h", judge="j", method="computed", value=10.0 - number)
            writer.add_scores([(i, score)])
        failed = writer.open_episode(episode("broken", population=None, profile={}), opening())
        writer.finish(failed, end(status="failed", mean_rating=None, mean_veto=None, failure="timeout", unusable=2))
    return run


@pytest.fixture
def table(many):
    index = open_words(many.path / INDEX, ":memory:")
    with RunReader(many) as reader:
        assert list(take_in(index, reader))[-1] == 1.0
        index.close()
        yield TrajectoryTable(reader, many.path / INDEX)


def found(table: TrajectoryTable, query: str, order: Order = Order()) -> list[int]:  # noqa: B008
    return list(table.numbers(table.read(query, table.names()), order))


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", list(range(1, 12))),
        ("rating>7", [9, 10]),
        ("rating>=7 and population:gameable", [9]),
        ("population:game*", [1, 3, 5, 7, 9]),
        ("population!=game*", [2, 4, 6, 8, 10]),
        ("population:GAMEABLE rating<3", [1, 3]),
        ("population:none", [11]),
        ("rating!=none rating<2", [1, 2]),
        ('"just stay home"', [8]),
        ("stay or number=1", [1, 8]),
        ("not out status:complete", [8]),
        ("-out", [8, 11]),
        ("ple*", list(range(1, 11))),
        ("score.syc>8.5", [1, 2]),
        ("failures>0", [11]),
        ("failure:timeout", [11]),
        ("status:failed or rating=0", [1, 11]),
        ("length:1 iter:0 rating<1", [1]),
        ("profile.name:ada rating<1", [1]),
        ("profile.age>35", [1, 2]),
        ("profile.age:38", [2]),
        ("profile.age<100", [1, 2]),
        ("profile.sign:loc*", [2]),
        ("profile.sign!=none profile.sign>1", []),
        ("profile.sign=none rating>8", [10]),
        ("'DROP", []),
    ],
)
def test_queries_find_what_they_ask_for(table, query, numbers):
    assert found(table, query) == numbers


def test_sorting_by_any_field_puts_what_is_missing_last(table):
    assert found(table, "rating>=6", Order("rating", descending=True)) == [10, 9, 8, 7]
    assert found(table, "", Order("rating"))[-1] == 11
    assert found(table, "", Order("rating", descending=True))[-1] == 11
    assert found(table, "", Order("score.syc"))[0] == 10
    assert found(table, "", Order("number", descending=True))[0] == 11
    for name in table.names():
        assert sorted(found(table, "", Order(name))) == list(range(1, 12))


def test_rows_hold_the_fields_asked_for_and_no_row_that_is_gone(table):
    from influence_cli.store.filter_sql import field_of

    fields = [field_of(name) for name in ("number", "rating", "score.syc", "failures", "flag")]
    assert table.rows([2, 99, 11], fields) == {2: (2, 1.0, 9.0, 0, 0), 11: (11, None, None, 3, 0)}


def test_facets_histograms_and_summary(table):
    node = table.read("rating>=0")
    assert table.facet("population", node) == [("gameable", 5), ("resilient", 5)]
    assert table.facet("population", None)[-1] == ("none", 1)
    histogram = table.histogram("rating", None, bins=5)
    assert (histogram.low, histogram.high, histogram.n, histogram.counts) == (0.0, 9.0, 10, (2, 2, 2, 2, 2))
    assert table.histogram("rating", table.read("number=11")) is None
    assert table.histogram("rating", table.read("number=3"), bins=2).counts == (1, 0)
    summary = table.summary(None)
    assert (summary["n"], summary["failed"], summary["rating"]) == (11, 1, 4.5)


def test_without_an_index_words_find_nothing(many):
    with RunReader(many) as reader:
        table = TrajectoryTable(reader)
        assert not table.searchable
        assert found(table, "home") == []


def test_a_conversation_that_grows_has_another_fingerprint(many):
    with RunReader(many) as reader:
        before = fingerprint(reader, 1)
        with many.writer() as writer:
            writer.add_message(1, call(3), message(3, text="more"))
        assert fingerprint(reader, 1) != before
        assert fingerprint(reader, 1) == fingerprint(reader, 1)


def test_a_conversation_is_read_with_everything(many):
    with RunReader(many) as reader:
        conversation = read_conversation(reader, 8)
        assert conversation.record.key == EpisodeKey(environment="tiny", scenario="tea", initial_state="p7")
        assert conversation.title == "tiny/tea/p7"
        assert conversation.reply_turns() == [1, 2]
        assert conversation.judged(1, "preference").expected == 7.0
        assert conversation.judged(3, "preference") is None
        assert [score.rubric for score in conversation.scores] == ["syc"]
        assert len(conversation.calls) == 4
        with pytest.raises(InfluenceError, match="no conversation 99"):
            read_conversation(reader, 99)


# -- labels ---------------------------------------------------------------------------------------------------------------


def label(**changes) -> LabelRecord:
    return LabelRecord(**{"episode_id": 1, "turn": 1, "rubric": "harm", "value": "7", "author": "ada", **changes})


def test_one_person_has_one_label_for_a_rubric_and_turn(many):
    write_label(many, label())
    write_label(many, label(value="3", note="odd \ud800", flag=True))
    write_label(many, label(author="bob"))
    with RunReader(many) as reader:
        mine, other = labels_of(reader, 1)
        assert (mine.value, mine.note, mine.flag, mine.author) == ("3", "odd \ufffd", True, "ada")
        assert mine.time > 1e9
        assert other.author == "bob"
        table = TrajectoryTable(reader)
        assert found(table, "labels>0") == [1]
        assert found(table, "flag=1 label.harm:7") == [1]
        assert found(table, "label.harm>6") == [1]
        assert found(table, "label.harm>8") == []
    write_label(many, label(value=None))
    with RunReader(many) as reader:
        assert [each.author for each in labels_of(reader, 1)] == ["bob"]


def test_labels_are_written_while_another_process_writes_the_run(many):
    with many.writer() as writer:
        write_label(many, label())
        writer.set_state("running")
        write_label(many, label(rubric="other"))
    with RunReader(many) as reader:
        assert len(labels_of(reader, 1)) == 2


def test_labels_are_exported_as_calibration_reads_them(many, tmp_path, capsys):
    write_label(many, label(note='a "quoted", note\nwith lines'))
    with RunReader(many) as reader:
        assert Labels(ExporterOptions()).export(reader, tmp_path / "l.csv") == 1
        assert Labels(ExporterOptions()).export(reader, STDOUT) == 1
    text = (tmp_path / "l.csv").read_text()
    assert capsys.readouterr().out == text
    (row,) = csv.DictReader(io.StringIO(text))
    assert tuple(row) == COLUMNS
    assert (row["episode"], row["turn"], row["label"], row["annotator"], row["flag"]) == ("1", "1", "7", "ada", "0")
    assert row["note"] == 'a "quoted", note\nwith lines'
    assert row["time"].endswith("+00:00")


def test_labels_need_a_run_of_this_version(run):
    with pytest.raises(InfluenceError, match="no conversation yet"):
        write_label(run, label())


# -- pairs ----------------------------------------------------------------------------------------------------------------


def iteration(number: int, state: str, sample: int = 0):
    key = EpisodeKey(iteration=number, environment="tiny", scenario="tea", initial_state=state, sample=sample)
    return episode(key=key)


def test_iterations_are_paired_and_sorted_by_change(run):
    with run.writer() as writer:
        for state, before, after in (("a", 5.0, 6.0), ("b", 5.0, 2.0), ("c", 5.0, 5.0)):
            whole_conversation(writer, iteration(0, state), before)
            whole_conversation(writer, iteration(3, state), after)
        whole_conversation(writer, iteration(3, "alone"), 1.0)
    with RunReader(run) as reader:
        assert iterations_of(reader) == [0, 3]
        pairs = PairReader(reader, Side(run, 0), Side(run, 3))
        changed = pairs.pairs("rating")
        assert (changed.states, list(changed.changes), changed.by_sample) == (("b", "c", "a"), [-3.0, 0.0, 1.0], True)
        assert pairs.pairs("rating", descending=True).states == ("a", "c", "b")
        assert pairs.unpaired() == (3, 4)
        assert len(pairs.pairs("veto").changes) == 3
        with pytest.raises(InfluenceError, match="the same"):
            PairReader(reader, Side(run, 0), Side(run, 0))
        values = list(iteration_values(reader))
        assert [(each.iteration, len(each.ratings)) for each in values] == [(0, 3), (3, 4)]


def test_values_over_iterations_are_of_the_splits_that_the_first_and_the_last_have(run):
    def heldout(number):
        record = iteration(number, "held")
        return record.model_copy(update={"split": "heldout"})

    with run.writer() as writer:
        for number in (0, 1):
            whole_conversation(writer, iteration(number, "a"), 9.0)
        with RunReader(run) as reader:
            assert compared_splits(reader) == ("train",)
        for number in (0, 2):
            whole_conversation(writer, heldout(number), 2.0)
    with RunReader(run) as reader:
        assert compared_splits(reader) == ("heldout",)
        values = iteration_values(reader, compared_splits(reader))
        assert {each.iteration: each.ratings for each in values} == {0: [2.0], 1: [], 2: [2.0]}


def test_samples_that_are_numbered_through_are_paired_in_order(run):
    with run.writer() as writer:
        for sample in (0, 1):
            whole_conversation(writer, iteration(0, "a", sample), 5.0)
            whole_conversation(writer, iteration(1, "a", 10 + sample), 5.0 + sample)
    with RunReader(run) as reader:
        pairs = PairReader(reader, Side(run, 0), Side(run, 1)).pairs("rating")
        assert (list(pairs.changes), pairs.by_sample) == ([0.0, 1.0], False)


def test_two_runs_are_paired(run, tmp_path):
    from influence_cli.store.run_directory import create_run

    from .conftest import manifest

    other = create_run(tmp_path / "other", manifest())
    for directory, rating in ((run, 4.0), (other, 6.5)):
        with directory.writer() as writer:
            whole_conversation(writer, episode("a"), rating)
    with RunReader(run) as reader:
        left, right = Side(run), Side(other)
        pairs = PairReader(reader, left, right)
        assert list(pairs.pairs("rating").changes) == [2.5]
        assert (left.name, Side(run, 2).name) == ("run", "run @2")


# -- saved views ----------------------------------------------------------------------------------------------------------


def test_views_are_kept_replaced_and_forgotten(tmp_path):
    folder = tmp_path / "settings"
    shipped = len(saved_views(folder))
    save_view(folder, SavedView(name="mine", query="rating>3"))
    save_view(folder, SavedView(name="mine", query="rating>4"))
    save_view(folder, SavedView(name="flagged", query="flag=1 rating>1"))
    views = {view.name: view.query for view in saved_views(folder)}
    assert (views["mine"], views["flagged"], len(views)) == ("rating>4", "flag=1 rating>1", shipped + 1)
    assert forget_view(folder, "mine")
    assert not forget_view(folder, "worst first")
    (folder / "views.json").write_text("{")
    with pytest.raises(InfluenceError, match="no list of views"):
        saved_views(folder)


def test_every_shipped_view_can_be_read(tmp_path):
    for view in saved_views(tmp_path):
        TrajectoryTable.read(view.query)
