import os
from datetime import UTC, datetime, timedelta

from stackward.steps.sizes import Size, Sizes, measure

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_files_bytes_and_what_they_take_on_disk(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"x" * 5000)
    os.link(tmp_path / "d" / "a", tmp_path / "again")
    (tmp_path / "link").symlink_to("/etc")
    os.truncate(os.open(tmp_path / "sparse", os.O_CREAT | os.O_RDWR), 1 << 30)
    size = measure(tmp_path, seconds=5)
    assert (size.files, size.bytes, size.complete) == (2, 5000 + (1 << 30), True)
    assert 5000 <= size.allocated_bytes < 1 << 20


def test_time_that_runs_out_is_said(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert measure(tmp_path, seconds=-1) == Size(complete=False)


def test_what_is_not_there_is_empty(tmp_path):
    assert measure(tmp_path / "none", seconds=1) == Size()


def test_a_tree_within_another_counts_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_bytes(b"12345")
    sizes = Sizes(tmp_path / "sizes.json", NOON)
    assert sizes.total([tmp_path / "a" / "b", tmp_path / "a", tmp_path / "none"]).bytes == 5


def test_what_is_remembered_lasts_an_hour(tmp_path):
    file = tmp_path / "sizes.json"
    at = f'"at": "{NOON.isoformat()}", "files": 7, "bytes": 8, "allocated_bytes": 9, "complete": true'
    file.write_text(f'{{"{tmp_path}": {{{at}}}}}')
    assert Sizes(file, NOON + timedelta(minutes=59)).of(tmp_path).files == 7
    for now in (NOON + timedelta(minutes=61), NOON - timedelta(minutes=1)):
        assert Sizes(file, now).of(tmp_path).files == 1


def test_a_damaged_memory_is_none(tmp_path):
    for text in ("{", "[]", '{"/": 3}'):
        (tmp_path / "sizes.json").write_text(text)
        assert Sizes(tmp_path / "sizes.json", NOON).of(tmp_path / "none") == Size()
