"""What the outside sees, seen by the real ones: Prometheus, its Pushgateway, promtool; and receivers that decode.

All of it watches one host, whose appliance has backed up once, and on which the stack `site` then lost its files.
"""

import json
import re
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from host.unpacked import program
from unit.receivers import http, receive_gelf_udp

pytestmark = pytest.mark.e2e

MONITORING = Path(__file__).parents[2] / "monitoring"
RULES = MONITORING / "prometheus"
DASHBOARD = json.loads((MONITORING / "grafana" / "stackward.json").read_text())
SCRAPED = "127.0.0.1:9466"  # what is pushed has the host's name as its instance
OPTED_IN = {"archive", "photos", "shop", "site", "wiki"}


def promtool(*words):
    return subprocess.run([program("promtool"), *words], cwd=RULES, capture_output=True, text=True, check=False)


def every_second(text: str) -> str:
    return re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s", text)


class Watched:
    """A host with an appliance that knows whom to tell, and a Prometheus on it, set up as the docs say."""

    def __init__(self, host, webhook, gelf):
        self.host, self.webhook, self.gelf = host, webhook, gelf
        outside = host.run("ip route").stdout.split("default via ")[1].split()[0]
        inside = host.run("docker network inspect bridge -f '{{(index .IPAM.Config 0).Gateway}}'").stdout.strip()
        self.settings = {
            "STACKWARD_NOTIFY_URLS": f"json://{outside}:{webhook.port}/notify",
            "STACKWARD_PING_URL": f"http://{outside}:{webhook.port}/ping",
            "STACKWARD_GELF_URL": f"udp://{outside}:{gelf.getsockname()[1]}",
            "STACKWARD_PUSHGATEWAY_URL": f"http://{inside}:9091",  # the host, as its containers see it
        }

    def start(self):
        self.host.appliance_up(self.settings)
        for name in ("prometheus", "prometheus-pushgateway"):
            self.host.put(program(name), f"/opt/{name}")
        for file in RULES.glob("stackward.rules.yml"):
            self.host.put(file, f"/etc/prometheus/{file.name}")
        self.host.put(every_second(with_pushgateway()), "/etc/prometheus/prometheus.yml")
        options = "--config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/tmp/tsdb"
        self.host.run(f"systemd-run -q --unit=prometheus /opt/prometheus {options}")
        self.host.run("systemd-run -q --unit=pushgateway /opt/prometheus-pushgateway")

    def stop(self):
        self.host.run("systemctl stop prometheus pushgateway; rm -rf /opt/prometheus* /etc/prometheus /tmp/tsdb")
        self.host.stack_reset("site")
        self.host.appliance_reset()

    def api(self, path):
        answer = json.loads(self.host.run(f"curl -sS 'http://127.0.0.1:9090/api/v1/{path}'").stdout)
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, query):
        """[(labels, value)] of an instant query."""
        found = self.api(f"query?query={quote(query)}")["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def messages(self):
        return [json.loads(body)["message"] for _, path, body in self.webhook.requests if path == "/notify"]

    def pings(self):
        return [path for _, path, _ in self.webhook.requests if path.startswith("/ping")]


def with_pushgateway() -> str:
    """The example, with the part that it has as a comment."""
    text = (RULES / "prometheus.yml").read_text()
    return re.sub(r"^  # (- job_name: pushgateway| {2,}\S.*)$", r"  \1", text, flags=re.MULTILINE)


def until(found, timeout=40.0):
    """Wait until `found()` is true, and return it."""
    deadline = time.monotonic() + timeout
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.5)
    return value


@pytest.fixture(scope="module")
def watched(host):
    with http(bind="0.0.0.0") as webhook, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gelf:
        gelf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        gelf.bind(("0.0.0.0", 0))
        one = Watched(host, webhook, gelf)
        one.start()
        try:
            one.first_run = host.stackward("run", "nightly", "--scheduled", check=False)
            one.pings_of_first_run = until(one.pings)
            host.run("rm -rf /opt/docker/site/data/*")
            one.second_run = host.stackward("run", "nightly", "--scheduled", check=False)
            yield one
        finally:
            one.stop()


def test_promtool_accepts_the_rules_and_their_cases_pass():
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    cases = sorted(path.name for path in RULES.glob("*.test.yml"))
    tested = promtool("test", "rules", *cases)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert len(cases) == 2


def test_prometheus_reads_the_appliance_where_compose_publishes_it(watched):
    until(lambda: watched.ask('up{job="stackward"} == 1'))
    protected = {labels["stack"] for labels, _ in watched.ask("stackward_stack_protected")}
    assert protected == OPTED_IN
    jobs = {labels["job"] for labels, _ in watched.ask("stackward_job_last_run_timestamp_seconds")}
    assert {"backup-config", "backup-data", "verify", "nightly"} <= jobs
    undecided = watched.ask(f'stackward_stacks{{state="undecided", instance="{SCRAPED}"}}')
    assert [value for _, value in undecided] == [1]
    listening = watched.host.run("ss -Hltn 'sport = :9466' | awk '{print $4}'").stdout.split()
    assert set(listening) == {SCRAPED}


def test_healthz_is_good(watched):
    answer = watched.host.run("curl -sS -w '%{http_code}' http://127.0.0.1:9466/healthz").stdout
    assert answer.endswith("200"), answer


def test_rules_are_evaluated_and_the_stack_that_lost_its_files_alerts(watched):
    until(lambda: watched.ask('ALERTS{alertname="StackwardTreeShrank", alertstate="firing", stack="site"}'))
    assert watched.ask('ALERTS{alertname="StackwardFailed", stack="site"}')
    assert not watched.ask('ALERTS{alertname=~"StackwardFailed|StackwardTreeShrank", stack!="site"}')
    rules = [rule for group in watched.api("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == 20
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]


def queries():
    found = [
        (panel["title"], target["refId"], target["expr"])
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]
    assert len({title for title, _, _ in found}) > 15
    return found


def test_every_query_of_the_dashboard_returns_data(watched):
    until(lambda: watched.ask("ALERTS"))
    until(lambda: watched.ask("count_over_time(stackward_job_runs_total[1m]) > 2"))
    until(lambda: watched.ask("stackward_container_healthy"))
    empty = [
        (title, reference)
        for title, reference, expression in queries()
        if not watched.ask(expression.replace("$instance", ".*"))
    ]
    assert empty == []


def test_a_person_is_told_of_the_stack_that_failed(watched):
    def told():
        return [text for text in watched.messages() if text.startswith("site failed at ")]

    (message,) = until(told)
    assert re.fullmatch(
        r"site failed at \d\d:\d\d: .+\. Last good: \d\d:\d\d\. The other 4 are fine\. Next: .*`?stackward .*",
        message,
        re.DOTALL,
    ), message


def test_the_dead_mans_switch_hears_of_a_good_night_and_of_a_bad_one(watched):
    assert watched.pings_of_first_run == ["/ping"]
    until(lambda: watched.pings()[-1] == "/ping/fail")


def test_the_log_server_gets_the_outcome_of_a_scheduled_chain(watched):
    records = receive_gelf_udp(watched.gelf, 12)
    name = watched.host.run("hostname").stdout.strip()
    assert {record["host"] for record in records} == {name}
    assert {"backup-config", "backup-data"} <= {record["_job"] for record in records}
    assert {record.get("_stack") for record in records} | {"site"} >= OPTED_IN


def test_a_scheduled_chain_is_pushed_and_reads_as_what_is_scraped(watched):
    def pushed(stack):
        query = f'stackward_job_last_success_timestamp_seconds{{job="backup-data", stack="{stack}"}}'
        return {labels["instance"]: value for labels, value in watched.ask(query)}

    name = watched.host.run("hostname").stdout.strip()
    values = until(lambda: found if len(found := pushed("shop")) == 2 else None)
    assert set(values) == {name, SCRAPED}
    assert len(set(values.values())) == 1
    groups = json.loads(watched.host.run("curl -sS http://127.0.0.1:9091/api/v1/metrics").stdout)["data"]
    assert all(group["last_push_successful"] for group in groups)


def test_flags_push_and_send_too(watched):
    done = watched.host.stackward("backup", "--config", "--push-metrics", "--send-log")
    assert "not pushed" not in done.stderr
    sent = [one for one in drained(watched.gelf) if one["_trigger"] == "cli" and "_stack" not in one]
    assert [one["_job"] for one in sent] == ["backup-config", "prune"]


def drained(receiver):
    """What has arrived by now."""
    found = []
    try:
        while True:
            found += receive_gelf_udp(receiver, 1, timeout=1)
    except TimeoutError:
        return found


def test_what_is_fine_again_is_told_once(watched):
    watched.host.stackward("accept", "site")
    watched.host.stackward("backup", "site")
    until(lambda: [text for text in watched.messages() if text.startswith("site is fine again")])
    until(lambda: not watched.ask(f'ALERTS{{alertname="StackwardTreeShrank", instance="{SCRAPED}"}}'))
    assert len([text for text in watched.messages() if text.startswith("site failed")]) == 1


def test_an_appliance_that_falls_silent_is_noticed(watched):
    watched.host.run("docker stop stackward")
    try:
        until(lambda: watched.ask('ALERTS{alertname="StackwardAbsent"}'))
    finally:
        watched.host.run("docker start stackward")
