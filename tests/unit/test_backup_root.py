import os
from datetime import UTC, datetime

import pytest

from stackward.config import Settings
from stackward.core.artifacts import ID_FILE
from stackward.core.errors import RefusedError
from stackward.steps import backup_root

NOW = datetime(2026, 11, 3, 2, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "backups").mkdir()
    return Settings(backup_root=tmp_path / "backups", state_dir=tmp_path / "state", minimum_free_bytes=0)


def test_the_first_claim_writes_an_id_that_later_claims_find_again(settings):
    identity = backup_root.claim(settings, NOW)

    assert (settings.backup_root / ID_FILE).read_text().splitlines()[0] == identity
    assert backup_root.claim(settings, NOW) == identity


def test_an_empty_mount_point_in_place_of_the_disk_is_refused_and_left_alone(settings):
    backup_root.claim(settings, NOW)
    (settings.backup_root / ID_FILE).unlink()

    with pytest.raises(RefusedError, match=r"no ID file[\s\S]*is the disk mounted\?"):
        backup_root.claim(settings, NOW)
    assert os.listdir(settings.backup_root) == []


def test_another_disk_is_refused(settings):
    backup_root.claim(settings, NOW)
    (settings.backup_root / ID_FILE).write_text("another\n")

    with pytest.raises(RefusedError, match="another ID file"):
        backup_root.claim(settings, NOW)


def test_a_new_host_takes_over_the_old_disk_as_it_is(settings):
    (settings.backup_root / ID_FILE).write_text("the-old-id\n")

    assert backup_root.claim(settings, NOW) == "the-old-id"
    assert (settings.state_dir / backup_root.REMEMBERED).read_text() == "the-old-id\n"


@pytest.mark.parametrize(
    ("make", "message"), [(lambda _: None, "No such file"), (lambda p: p.touch(), "not a directory")]
)
def test_a_root_that_is_no_directory_is_refused(settings, make, message):
    settings.backup_root.rmdir()
    make(settings.backup_root)

    with pytest.raises(RefusedError, match=message):
        backup_root.claim(settings, NOW)
    assert not settings.state_dir.exists()


def test_too_little_space_is_refused_with_both_figures(settings):
    crowded = Settings(backup_root=settings.backup_root, state_dir=settings.state_dir, minimum_free_bytes=1 << 60)

    with pytest.raises(RefusedError, match=r"MiB free, 1099511627776 MiB are the least"):
        backup_root.claim(crowded, NOW)


def test_leftovers_of_a_killed_run_are_removed_and_named_and_nothing_else(settings):
    root = settings.backup_root
    (root / ".incoming-data-1" / "deep").mkdir(parents=True)
    (root / ".incoming-configs-1").write_text("half")
    (root / "data-2026-11-02").mkdir()
    (root / ".incoming-link").symlink_to(root / "data-2026-11-02")

    assert backup_root.clean_incoming(settings, ".incoming-data-") == [".incoming-data-1"]
    assert backup_root.clean_incoming(settings) == [".incoming-configs-1", ".incoming-link"]
    assert os.listdir(root) == ["data-2026-11-02"]
