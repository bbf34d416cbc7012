import json
from dataclasses import replace
from pathlib import Path

import pytest

from stackward.core import smart
from stackward.core.model import Outcome
from stackward.core.progress import Silent
from stackward.core.remarks import Severity
from stackward.jobs import host_report
from stackward.steps.report.host_document import Btrfs, Facts, Space, make_document
from stackward.tools import btrfs_health, machine
from stackward.tools.host import Bridge, HostFacts
from unit.hosts import NOW, SmallHost

ATA = {
    "smart_status": {"passed": True},
    "temperature": {"current": 31},
    "power_on_time": {"hours": 20000},
    "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 8}}, {"id": 197, "raw": {"value": 0}}]},
}
NVME = {
    "smart_status": {"passed": False},
    "nvme_smart_health_information_log": {"percentage_used": 101, "media_errors": 3},
}
USAGE = """Overall:
    Device size:\t\t         268435456
    Device allocated:\t\t          92274688
    Device unallocated:\t\t         176160768
    Device missing:\t\t         268435456
    Device slack:\t\t                 0
    Used:\t\t\t            294912
    Free (estimated):\t\t         184549376\t(min: 96468992)
    Free (statfs, df):\t\t         183500800
    Data ratio:\t\t\t              1.00
    Global reserve:\t\t           5767168\t(used: 0)
    Multiple profiles:\t\t                no
"""
FINE = btrfs_health.Usage(size=100 << 30, allocated=10 << 30, unallocated=90 << 30, used=1, free_estimated=1)
ROOM = Space(Path("/backup"), ("BACKUP_ROOT",), "ext4", "/dev/sda", 1024, 500, 1000, 500)


@pytest.fixture
def host(tmp_path):
    made = SmallHost(tmp_path)
    made.settings.log_dir.mkdir()
    return made


def run(host, **options):
    return host_report.run(
        settings=host.settings,
        docker=None,
        bridge=Bridge(host.settings.run_dir),
        host_name="box",
        now=NOW,
        progress=Silent(),
        **options,
    )


def found(**facts):
    return [(one.severity, one.text) for one in host_report.find(Facts(machine.read(), **facts))]


def test_the_report_is_written_and_says_what_it_could_not_see(host):
    run(host)
    document = json.loads((host.settings.log_dir / host_report.FILE).read_text())
    assert (document["format"], document["job"], document["host"]) == (1, "host-report", "box")
    assert document["disks"] == document["systemd"]["failed_units"] == "not readable here"
    assert document["docker"] is None
    assert len(document["missing"]) == 2
    assert document["hardware"]["cores"] >= 1
    assert document["hardware"]["memory_bytes"]["total"] > document["hardware"]["memory_bytes"]["available"] > 0


def test_places_on_one_file_system_are_told_once(host):
    run(host)
    document = json.loads((host.settings.log_dir / host_report.FILE).read_text())
    (space,) = document["filesystems"]
    assert space["places"] == ["DOCKER_ROOT", "BACKUP_ROOT", "Docker's volumes", "Stackward's state", "logs"]
    assert 0 < space["free_bytes"] < space["size_bytes"]
    assert space["minimum_bytes"] == host.settings.minimum_free_bytes


def test_a_dry_run_writes_nothing(host):
    assert run(host, dry_run=True).details["format"] == 1
    assert list(host.settings.log_dir.iterdir()) == []


def test_what_is_fine_is_not_told():
    devices = (btrfs_health.Device("/dev/sda", {"write_io_errs": 0}),)
    seen = HostFacts(smart={"/dev/sda": ATA | {"ata_smart_attributes": {"table": []}}})
    assert found(spaces=(ROOM,), btrfs=(Btrfs(Path("/srv"), devices, FINE),), host=seen) == []


def test_a_disk_that_fails_is_an_error_and_its_worries_a_warning():
    seen = HostFacts(smart={"/dev/sda": ATA, "/dev/nvme0": NVME})
    assert found(host=seen) == [
        (Severity.WARN, "the disk /dev/sda tells of 8 reallocated sectors"),
        (Severity.ERROR, "the disk /dev/nvme0 says that it is failing (3 media errors, 101 % of its life used)"),
    ]


def test_an_error_makes_the_job_fail_so_that_somebody_is_told(host):
    class Failing(Bridge):
        def facts(self):
            return HostFacts(smart={"/dev/nvme0": NVME}, failed_units=("a.service",))

    result = host_report.run(
        settings=host.settings,
        docker=None,
        bridge=Failing(host.settings.run_dir),
        host_name="box",
        now=NOW,
        progress=Silent(),
    )
    assert result.outcome is Outcome.FAILED
    assert result.reasons[0].startswith("the disk /dev/nvme0 says that it is failing")
    assert result.reasons[1] == "the unit a.service has failed"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"free_bytes": 40}, "/backup has 40 B free of 1 KiB"),
        ({"minimum_bytes": 600}, "/backup has 500 B free of 1 KiB"),
        ({"free_files": 3}, "/backup has room for 3 more files only"),
    ],
)
def test_a_file_system_that_fills_is_told(changes, text):
    assert found(spaces=(replace(ROOM, **changes),)) == [(Severity.WARN, text)]


def test_btrfs_errors_are_errors():
    devices = (btrfs_health.Device("/dev/sdb", {"read_io_errs": 0, "corruption_errs": 2}),)
    assert found(btrfs=(Btrfs(Path("/srv"), devices, FINE, missing_devices=1),)) == [
        (Severity.ERROR, "Btrfs counts errors of /dev/sdb (/srv): corruption_errs 2"),
        (Severity.ERROR, "the Btrfs file system /srv misses 1 of its devices"),
    ]


def test_btrfs_without_room_for_new_chunks_is_told_where_it_is_large_enough_to_matter():
    full = replace(FINE, unallocated=1 << 20)
    ((severity, text),) = found(btrfs=(Btrfs(Path("/srv"), (), full),))
    assert severity is Severity.WARN
    assert "btrfs balance start" in text
    assert found(btrfs=(Btrfs(Path("/srv"), (), replace(full, size=1 << 30)),)) == []


def test_the_space_of_btrfs_is_read_from_what_its_command_prints():
    assert btrfs_health.parse_usage(USAGE) == btrfs_health.Usage(
        size=268435456, allocated=92274688, unallocated=176160768, used=294912, free_estimated=184549376
    )


def test_output_that_is_none_is_refused():
    with pytest.raises(ValueError, match="does not tell: Device size"):
        btrfs_health.parse_usage("ERROR: not a btrfs filesystem\n")


class TestSmart:
    def test_of_an_ata_disk(self):
        assert smart.read(ATA) == smart.Smart(True, 31, 20000, reallocated=8, pending=0)

    def test_of_an_nvme_disk(self):
        assert smart.read(NVME) == smart.Smart(False, wear_percent=101, media_errors=3)

    @pytest.mark.parametrize(
        "document",
        [{}, {"smart_status": []}, {"smart_status": {"passed": "yes"}}, {"ata_smart_attributes": {"table": [1, {}]}}],
    )
    def test_of_nothing_or_nonsense(self, document):
        assert not smart.read(document).known


def test_disks_are_told_with_what_lies_on_them():
    tree = {
        "path": "/dev/sda", "type": "disk", "size": 500, "model": " WD Red ", "rota": True,
        "children": [{"path": "/dev/sda1", "type": "part", "fstype": "ext4", "mountpoint": "/"}],
    }  # fmt: skip
    facts = Facts(machine.read(), host=HostFacts(disks=(tree,), smart={"/dev/sda": ATA}))
    disk, part = make_document(facts, [], host_name="box", now=NOW)["disks"]
    assert (disk["path"], disk["model"], disk["smart"]["reallocated"]) == ("/dev/sda", "WD Red", 8)
    assert (part["parent"], part["filesystem"], part["smart"]) == ("/dev/sda", "ext4", None)


def test_a_disk_that_tells_nothing_is_not_readable():
    facts = Facts(machine.read(), host=HostFacts(disks=({"path": "/dev/vda", "type": "disk"},)))
    assert make_document(facts, [], host_name="box", now=NOW)["disks"][0]["smart"] == "not readable here"


def test_a_machine_that_tells_nothing_of_itself(tmp_path):
    told = machine.read(tmp_path, tmp_path)
    assert (told.cpu, told.uptime_seconds, told.load, told.product) == ("", 0.0, (), {})
    assert make_document(Facts(told), [], host_name="box", now=NOW)["kernel"]["booted_at"] is None
