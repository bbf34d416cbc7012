import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from stackward.core.errors import StackwardError
from stackward.core.exposure import Listener
from stackward.core.model import Container, Outcome, PublishedPort
from stackward.core.progress import Silent
from stackward.core.remarks import Severity, image
from stackward.jobs import audit
from stackward.stacks import Discovery, Outside
from stackward.steps.report.audit_report import Facts, make_document
from stackward.tools.host import Bridge, HostFacts
from unit.hosts import NOW, SmallHost

WEB = """
    services:
      web:
        image: nginx
        privileged: true
        volumes: [./data:/d, ./notes:/n, /proc:/host/proc]
        labels:
          stackward.backup: "true"
          traefik.http.middlewares.auth.basicauth.users: "me:$$apr1$$secret"
"""


@pytest.fixture
def host(tmp_path, needs_compose):
    made = SmallHost(tmp_path)
    made.settings.log_dir.mkdir()
    made.stack("shop", WEB, data__a="", notes__b="")
    return made


def socket_of(host):
    return host.settings.run_dir / "host.sock"


def run(host, **options):
    return audit.run(
        settings=host.settings,
        docker=None,
        bridge=Bridge(host.settings.run_dir),
        discovery=host.discover(),
        host_name="box",
        now=NOW,
        progress=Silent(),
        **options,
    )


def written(host):
    return json.loads((host.settings.log_dir / audit.FILE).read_text())


def findings(document, topic):
    return [(one["severity"], one["stack"], one["text"]) for one in document["findings"] if one["topic"] == topic]


def test_the_report_is_written_whole_for_root_and_its_group_only(host):
    run(host)
    path = host.settings.log_dir / audit.FILE
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(host.settings.log_dir.iterdir()) == [path]
    found = written(host)
    assert (found["format"], found["job"], found["host"], found["at"]) == (1, "audit", "box", NOW.isoformat())


def test_what_cannot_be_seen_is_told_and_without_docker_it_is_a_warning(host):
    result = run(host)
    assert result.outcome is Outcome.WARN
    assert written(host)["missing"] == [
        "containers, their ports and images are not told: no Docker Engine answers",
        f"who listens on the host is not told: the host bridge does not answer at {socket_of(host)}: it is not installed",
    ]


def test_each_tree_has_what_covers_it_or_why_nothing_does(host):
    run(host)
    (stack,) = written(host)["stacks"]
    assert stack["backed_up"]
    covered = {Path(tree["source"]).name: (tree["covered"], tree["why_not"]) for tree in stack["trees"]}
    assert covered == {"data": (True, ""), "notes": (True, ""), "proc": (False, "belongs to the system")}


def test_a_writable_tree_of_a_stack_that_is_backed_up_and_is_not_covered_is_told(host):
    run(host)
    assert ("warn", "shop", "/proc is not backed up: belongs to the system") in findings(written(host), "coverage")


def test_compose_files_are_linted_and_the_worst_is_counted(host):
    run(host)
    (stack,) = written(host)["stacks"]
    assert ("critical", "CL-0002", "web", "compose.yaml") in {
        (one["severity"], one["rule"], one["service"], one["file"]) for one in stack["lint"]
    }
    assert written(host)["summary"]["lint"]["critical"] >= 1
    assert any("critical" in text for _, _, text in findings(written(host), "lint"))


def test_a_stack_that_compose_cannot_read_is_an_error_and_the_others_are_looked_at(host):
    host.stack("broken", "services: [")
    result = run(host)
    assert any("broken: Compose cannot read it" in reason for reason in result.reasons)
    stacks = {stack["name"]: stack for stack in written(host)["stacks"]}
    assert (stacks["broken"]["valid"], stacks["shop"]["valid"]) == (False, True)
    assert stacks["broken"]["lint_errors"]


@pytest.mark.parametrize("name", ["compose.yaml", "base.yaml"])
def test_no_file_of_the_appliances_own_is_linted_and_quoted(host, name):
    (host.settings.config_dir / "age.key").write_text("services: {web: [AGE-SECRET-KEY-1PRECIOUS\n")
    directory = host.stack("nosy", "services: {web: {extends: {file: base.yaml, service: x}}}", data__a="")
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(host.settings.config_dir / "age.key")
    run(host)
    text = (host.settings.log_dir / audit.FILE).read_text()
    assert "PRECIOUS" not in text
    assert "belongs to the appliance itself" in text


def test_values_of_labels_that_may_hold_secrets_are_left_out(host):
    run(host)
    assert "secret" not in (host.settings.log_dir / audit.FILE).read_text()
    (service,) = written(host)["stacks"][0]["services"]
    assert service["labels"] == {
        "stackward.backup": "true",
        "traefik.http.middlewares.auth.basicauth.users": None,
    }


def test_names_that_are_not_utf8_come_out_readable(host):
    host.stack(b"caf\xe9", WEB, data__a="")
    run(host)
    assert "caf\\xe9" in {stack["name"] for stack in written(host)["stacks"]}


def test_a_dry_run_writes_nothing_and_shows_the_report(host):
    result = run(host, dry_run=True)
    assert not (host.settings.log_dir / audit.FILE).exists()
    assert result.details["stacks"][0]["name"] == "shop"


def test_where_it_cannot_be_written_it_fails_with_what_to_do(host):
    host.settings.log_dir.rmdir()
    with pytest.raises(StackwardError, match=r"docker-audit.json cannot be written: No such file") as caught:
        run(host)
    assert "STACKWARD_LOG_DIR" in caught.value.hint


class TestFindings:
    """From facts as a host with Docker and the bridge gives them."""

    DB = Container(
        "c1", "shop-db-1", "shop", "db", "running", image="postgres:14", image_id="sha256:1",
        ports=(PublishedPort("0.0.0.0", 5432, 5432, "tcp"), PublishedPort("::", 5432, 5432, "tcp")),
    )  # fmt: skip

    def found(self, discovery=None, **facts):
        return audit.find(discovery or Discovery(()), Facts(**facts), NOW)

    def test_a_database_that_everybody_can_reach_is_told_once(self):
        (finding,) = self.found(containers=(self.DB,))
        assert finding.text == ("shop-db-1 publishes port 5432 on all addresses; behind it is usually PostgreSQL")

    def test_one_that_only_the_host_reaches_is_not(self):
        port = PublishedPort("127.0.0.1", 5432, 5432, "tcp")
        assert self.found(containers=(replace(self.DB, ports=(port,)),)) == []

    @pytest.mark.parametrize(
        ("days", "told"), [(10, []), (366, ["postgres:14 was built 366 days ago (in use by shop-db-1)"])]
    )
    def test_an_old_image_is_told(self, days, told):
        info = {"id": "sha256:1", "created_at": (NOW - timedelta(days=days)).isoformat()}
        assert [one.text for one in self.found(images=(image(info, [self.DB]),))] == told

    @pytest.mark.parametrize("created", ["", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "yesterday", "2020-01-01"])
    def test_an_image_whose_date_says_nothing_has_no_age(self, created):
        assert image({"id": "sha256:1", "created_at": created}, [self.DB]).age_days(NOW) is None

    def test_projects_elsewhere_are_told_but_not_our_own(self):
        outside = (Outside("stackward", "/opt/stackward", 1, 1, "r"), Outside("game", "/home/g", 2, 1, "r"))
        (finding,) = self.found(Discovery((), outside), own_project="stackward")
        assert "game runs elsewhere" in finding.text

    def test_the_worst_comes_first(self, host):
        host.stack("broken", "services: [")
        discovery = host.discover()
        found = self.found(discovery, containers=(self.DB,))
        assert [one.severity for one in found] == sorted((one.severity for one in found), key=list(Severity).index)
        assert found[0].stack == "broken"

    def test_ports_are_told_with_who_listens(self):
        seen = HostFacts(
            listeners=(Listener("tcp", "0.0.0.0", 5432, ("docker-proxy",)), Listener("tcp", "*", 22, ("sshd",)))
        )
        facts = Facts(containers=(self.DB,), host=seen)
        document = make_document(Discovery(()), facts, [], host_name="box", now=NOW)
        assert [(p["address"], p["listening"], p["programs"]) for p in document["ports"]] == [
            ("0.0.0.0", True, ["docker-proxy"]),
            ("::", True, ["docker-proxy"]),
        ]
        assert [(one["port"], one["programs"]) for one in document["listeners"]] == [(22, ["sshd"])]
        assert document["summary"]["ports_on_all_addresses"] == 2
