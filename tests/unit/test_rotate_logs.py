import gzip
import re
import shutil
from pathlib import Path

import pytest

from stackward.core.model import Outcome
from stackward.core.progress import Silent
from stackward.jobs import rotate_logs
from stackward.tools.process import CommandError
from unit.hosts import SmallHost

_ROOT = Path(__file__).parents[2]
CONFIGURATION = _ROOT / "image/logrotate.conf"
needs_logrotate = pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")


@pytest.fixture
def host(tmp_path):
    made = SmallHost(tmp_path)
    (made.settings.log_dir / "ct-controller").mkdir(parents=True)
    return made


def rotate(host, **options):
    return rotate_logs.run(settings=host.settings, progress=Silent(), configuration=CONFIGURATION, **options)


def a_day_later(host):
    """logrotate goes by the dates in its memory: one long ago in each makes everything due."""
    memory = host.settings.state_dir / "logrotate.status"
    memory.write_text(re.sub(r"\d{4}-\d+-\d+-\d+:\d+:\d+", "2026-1-1-0:0:0", memory.read_text()))


def write(host, text, *names):
    for name in names or ("ct-controller/stackward.log", "docker-host.json", "docker-audit.json"):
        (host.settings.log_dir / name).write_text(text)


def names(host):
    directory = host.settings.log_dir
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_where_the_host_rotates_nothing_is_done(host):
    (host.settings.config_dir / "host-units").mkdir()
    (host.settings.config_dir / "host-units/record").write_text("the host rotates the logs\n")
    result = rotate(host)
    assert (result.outcome, result.reasons) == (Outcome.SKIPPED, ("the host rotates them itself",))


def test_outside_the_image_nothing_is_done(host):
    result = rotate_logs.run(settings=host.settings, progress=Silent(), configuration=Path("/nonexistent"))
    assert result.outcome is Outcome.SKIPPED


def test_the_configuration_speaks_of_the_directory_that_settings_name():
    plan = rotate_logs.make_plan(CONFIGURATION.read_text(), Path("/mnt/logs"), by_host=False)
    assert re.findall(r"^(/\S+) \{", plan.text, re.MULTILINE) == [
        "/mnt/logs/ct-controller/*.log",
        "/mnt/logs/docker-host.json",
        "/mnt/logs/docker-audit.json",
    ]


@needs_logrotate
def test_a_log_is_put_aside_compressed_a_day_later_and_gone_after_seven(host):
    write(host, "first\n")
    rotate(host)
    for day in range(1, 11):
        write(host, f"day {day}\n")
        a_day_later(host)
        result = rotate(host)
        assert result.details["rotated"] == ["ct-controller/stackward.log", "docker-audit.json", "docker-host.json"]
    logs = [name for name in names(host) if name.startswith("ct-controller/")]
    assert logs == ["ct-controller/stackward.log.1", *(f"ct-controller/stackward.log.{n}.gz" for n in range(2, 8))]
    oldest = gzip.decompress((host.settings.log_dir / "ct-controller/stackward.log.7.gz").read_bytes())
    assert oldest == b"day 4\n"


@needs_logrotate
def test_the_latest_report_stays_where_it_is(host):
    write(host, "{}\n")
    rotate(host)
    a_day_later(host)
    rotate(host)
    assert (host.settings.log_dir / "docker-audit.json").read_text() == "{}\n"
    assert (host.settings.log_dir / "docker-audit.json.1").read_text() == "{}\n"


@needs_logrotate
def test_what_is_not_due_stays(host):
    write(host, "today\n")
    rotate(host)
    assert rotate(host).details["rotated"] == []


@needs_logrotate
def test_a_dry_run_moves_nothing(host):
    write(host, "today\n")
    rotate(host)
    a_day_later(host)
    before = names(host)
    rotate(host, dry_run=True)
    assert names(host) == before


@needs_logrotate
def test_without_any_log_all_is_well(host):
    shutil.rmtree(host.settings.log_dir)
    assert rotate(host).outcome is Outcome.OK


@needs_logrotate
def test_what_cannot_be_rotated_is_a_failure(host):
    write(host, "today\n")
    rotate(host)
    a_day_later(host)
    (host.settings.log_dir / "ct-controller/stackward.log.1").mkdir()
    with pytest.raises(CommandError, match="logrotate"):
        rotate(host)
