"""A bug in a backend leaves its traceback in the run's log, and a line on stderr."""

import logging
import sys

from influence_cli.sittings.logs import LOG_FILE, logged


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def test_tracebacks_go_to_the_file_and_a_line_to_stderr(tmp_path, capsys):
    log = logging.getLogger("influence_cli.simulation.calls")
    with logged(tmp_path / "logs", say):
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            log.exception("A backend failed in the role %s", "agent")
        log.info("of no interest")
    text = (tmp_path / "logs" / LOG_FILE).read_text()
    assert "ERROR influence_cli.simulation.calls: A backend failed in the role agent" in text
    assert "RuntimeError: boom" in text
    assert "of no interest" not in text
    assert capsys.readouterr().err == "A backend failed in the role agent\n"


def test_without_a_warning_there_is_no_file(tmp_path):
    with logged(tmp_path / "logs", say):
        pass
    assert list((tmp_path / "logs").iterdir()) == []


def test_where_no_file_can_be_made_the_lines_remain(tmp_path, capsys):
    (tmp_path / "logs").write_text("in the way")
    with logged(tmp_path / "logs", say):
        logging.getLogger("x").warning("still said")
    assert "still said" in capsys.readouterr().err


def test_handlers_are_taken_away_again(tmp_path):
    before = list(logging.getLogger().handlers)
    with logged(tmp_path / "logs", say):
        assert len(logging.getLogger().handlers) == len(before) + 2
    assert logging.getLogger().handlers == before


def test_a_log_that_cannot_be_written_makes_no_noise(tmp_path, capsys):
    with logged(tmp_path / "logs", say):
        (tmp_path / "logs").rmdir()
        logging.getLogger("x").warning("first")
        logging.getLogger("x").warning("second")
    assert capsys.readouterr().err == "first\nsecond\n"
