"""docs/jobs.md has the fields of both reports that there are, and none else; it names what is watched and kept."""

import re
from pathlib import Path

import pytest

from stackward.core.checks import parse_checks
from stackward.core.exposure import Listener
from stackward.core.model import Container, Problem, PublishedPort, Service, Stack, Tree, TreeKind
from stackward.core.progress import Silent
from stackward.core.remarks import Finding, Severity, image
from stackward.core.week import WEEK
from stackward.jobs import docker_prune, host_report
from stackward.stacks import Discovery, Outside
from stackward.steps.report import audit_report, host_document
from stackward.steps.report.audit_report import Facts
from stackward.steps.report.coverage import Coverage
from stackward.tools import btrfs_health
from stackward.tools.compose_lint import Linted, Remark
from stackward.tools.host import Bridge, HostFacts
from unit.hosts import NOW, SmallHost

_PAGE = (Path(__file__).parents[2] / "docs/jobs.md").read_text()


def section(title):
    return _PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def documented(title):
    """Path of a field -> the words in code behind it; `a`, `b` in the first column are fields of the document."""
    rows = re.findall(r"^\| (`.*?`) \| (.*) \|$", section(title), re.MULTILINE)
    found = {"": set()}
    for first, second in rows:
        names = re.findall(r"`([^`]+)`", first)
        if "[]" not in first:
            found[""] |= set(names)
        if len(names) == 1:
            found[names[0]] = set(re.findall(r"`([^`]+)`", second))
    return found


def audit():
    container = Container("c", "n", "p", "s", "running", ports=(PublishedPort("0.0.0.0", 80, 80, "tcp"),))
    tree = Tree("shop", "data", TreeKind.DATA, Path("/d"), Path("/d"), writable=True)
    stack = Stack("shop", Path("/s"), "shop", (Service("web"),), (tree,), problems=(Problem("shop", "m"),))
    facts = Facts(
        containers=(container,),
        images=(image({"id": "i"}, [container]),),
        host=HostFacts(listeners=(Listener("tcp", "*", 22),)),
        linted={"shop": Linted((Remark("low", "r", "s", "m"),))},
        covered={"shop": [Coverage(tree, "b", "", "")]},
    )
    found = [Finding(Severity.INFO, "lint", "t")]
    discovery = Discovery((stack,), (Outside("p", "d", 1, 1, "r"),))
    return audit_report.make_document(discovery, facts, found, host_name="h", now=NOW)


def host_doc(tmp_path):
    small = SmallHost(tmp_path)
    seen = host_report.observe(small.settings, None, Bridge(small.settings.run_dir), Silent())
    usage = btrfs_health.Usage(1, 1, 1, 1, 1)
    seen.btrfs = (host_document.Btrfs(Path("/b"), (btrfs_health.Device("/dev/x", {"read_io_errs": 0}),), usage),)
    disk = {"path": "/dev/x", "type": "disk"}
    seen.host = HostFacts(disks=(disk,), smart={"/dev/x": {"smart_status": {"passed": True}}})
    seen.docker = {}
    found = [Finding(Severity.INFO, "disks", "t")]
    return host_document.make_document(seen, found, host_name="h", now=NOW)


def test_the_audit_has_the_fields_that_docs_name():
    page, document = documented("audit"), audit()
    assert page[""] == set(document)
    assert page["summary"] == set(document["summary"])
    assert set(document["summary"]["lint"]) <= page["stacks[].lint"]
    for name in ("findings", "ports", "listeners", "images", "stacks", "outside"):
        (one,) = document[name]
        assert set(one) <= page[name], name
        assert page[name] - set(one) <= words(), name
    for name in ("problems", "lint", "services", "trees"):
        (one,) = document["stacks"][0][name]
        assert set(one) <= page[f"stacks[].{name}"], name
        assert page[f"stacks[].{name}"] - set(one) <= words(), name


def test_the_host_report_has_the_fields_that_docs_name(tmp_path):
    page, document = documented("host-report"), host_doc(tmp_path)
    assert page[""] == set(document)
    for name in ("hardware", "kernel", "docker", "systemd"):
        assert set(document[name]) <= page[name], name
    assert page["hardware"] - set(document["hardware"]) == set(document["hardware"]["memory_bytes"])
    for name in ("findings", "filesystems", "btrfs", "disks"):
        assert set(document[name][0]) <= page[name], name
        assert page[name] - set(document[name][0]) <= words(), name
    assert page["disks[].smart"] == set(document["disks"][0]["smart"])


def words():
    """Values that docs name beside fields."""
    return {
        *(severity.value for severity in Severity),
        *("critical", "high", "medium", "low", "all", "address", "host"),
        *("ports", "images", "compose", "coverage", "lint", "disks", "btrfs", "space", "systemd"),
    }


def test_the_example_of_checks_is_read():
    (example,) = re.findall(r"^STACKWARD_CHECKS=(.*)$", _PAGE, re.MULTILINE)
    assert [check.name for check in parse_checks(example)] == ["prometheus", "grafana", "fluentbit"]


@pytest.mark.parametrize("job", ["health", "observability", "docker-prune", "rotate-logs", "audit", "host-report"])
def test_each_job_has_its_section_and_its_time(job):
    assert section(job)
    assert job in {row.name for row in WEEK}


def test_what_an_update_keeps_is_called_as_it_is():
    assert f"`{docker_prune.ROLLBACK_REPOSITORY}…`" in section("docker-prune")
