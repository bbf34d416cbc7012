import json
import logging
import os
import subprocess

import pytest

from stackward.tools import logs


@pytest.fixture
def log(tmp_path):
    """A logger of its own whose lines go to the file only."""
    handler = logs.LogFile(tmp_path / logs.DIRECTORY / logs.FILE)
    handler.setFormatter(logs.JsonLines())
    made = logging.Logger("test", logging.INFO)  # noqa: LOG001
    made.addHandler(handler)
    yield made
    handler.close()


@pytest.fixture
def file(tmp_path):
    return tmp_path / logs.DIRECTORY / logs.FILE


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_record_is_a_line_of_json(log, file):
    log.warning("the disk of %s\nis full", "caf\udce9", extra={"job": "backup-data"})
    (line,) = lines(file)
    assert line["message"] == "the disk of caf\udce9\nis full"
    assert (line["level"], line["job"]) == ("warning", "backup-data")


def test_a_file_that_was_moved_away_is_begun_anew(log, file):
    log.info("before")
    file.rename(file.with_suffix(".log.1"))
    log.info("after")
    assert [line["message"] for line in lines(file)] == ["after"]
    assert [line["message"] for line in lines(file.with_suffix(".log.1"))] == ["before"]


def test_a_directory_that_was_removed_is_made_again(log, file):
    log.info("before")
    file.unlink()
    file.parent.rmdir()
    log.info("after")
    assert [line["message"] for line in lines(file)] == ["after"]


def test_no_other_user_reads_it(log, file):
    log.info("a line")
    assert file.stat().st_mode & 0o007 == 0


def test_a_full_disk_is_no_concern_of_who_logs(tmp_path, capsys):
    handler = logs.LogFile(tmp_path / "full")
    os.symlink("/dev/full", tmp_path / "full")
    handler.setFormatter(logs.JsonLines())
    log = logging.Logger("test")  # noqa: LOG001
    log.addHandler(handler)
    log.error("lost")
    handler.close()
    assert capsys.readouterr().err == ""


def test_a_file_where_the_directory_should_be_is_no_concern_of_who_logs(tmp_path, log, file, capsys):
    file.parent.write_text("not a directory")
    log.error("lost")
    file.parent.unlink()
    log.error("kept")
    assert [line["message"] for line in lines(file)] == ["kept"]
    assert capsys.readouterr().err == ""


def test_lines_of_several_processes_do_not_mix(file, tmp_path):
    script = (
        "import logging, sys; from pathlib import Path; from stackward.tools import logs;"
        "logs.keep_in(Path(sys.argv[1])); log = logging.getLogger(); log.setLevel('INFO');"
        "[log.info(sys.argv[2] * 20000) for _ in range(20)]"
    )
    children = [subprocess.Popen(["python3", "-c", script, tmp_path, letter], env=_environment()) for letter in "ab"]
    assert [child.wait() for child in children] == [0, 0]
    assert {message for line in lines(file) for message in set(line["message"])} == {"a", "b"}
    assert len(lines(file)) == 40
    assert all(len(set(line["message"])) == 1 for line in lines(file))


def _environment():
    return {**os.environ, "PYTHONPATH": "agent"}
