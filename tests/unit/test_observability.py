import time
from dataclasses import replace
from pathlib import Path

import pytest

from stackward.core.checks import Check
from stackward.core.model import Container, Outcome, Stack
from stackward.core.progress import Silent
from stackward.jobs import observability
from stackward.tools import http
from stackward.week import afterwards
from unit import receivers
from unit.hosts import NOW, SmallHost

PROMETHEUS = Container("c1", "prometheus", "monitoring", "prometheus", "running", image="prom/prometheus")


def monitoring(*containers):
    return Stack("monitoring", Path("/opt/docker/monitoring"), "monitoring", containers=containers)


def ask(host, *containers, docker_error="", **changes):
    settings = replace(host.settings, **changes)
    stacks = [monitoring(*containers)]
    return observability.run(settings=settings, stacks=stacks, docker_error=docker_error, progress=Silent())


@pytest.fixture
def host(tmp_path):
    return SmallHost(tmp_path)


def test_nobody_is_asked_where_there_is_nobody(host):
    assert ask(host).outcome is Outcome.SKIPPED


def test_off_is_off_though_one_is_there(host):
    assert ask(host, PROMETHEUS, checks=()).outcome is Outcome.SKIPPED


def test_containers_of_the_kind_are_looked_at_by_themselves(host):
    (part,) = ask(host, PROMETHEUS).stacks
    assert (part.stack, part.outcome) == ("prometheus", Outcome.OK)


def test_an_unhealthy_container_is_down(host):
    (part,) = ask(host, replace(PROMETHEUS, health="unhealthy")).stacks
    assert (part.outcome, part.reasons) == (Outcome.FAILED, ("its container is unhealthy",))


def test_one_that_somebody_stopped_is_down_only_if_it_is_asked_for_by_name(host):
    stopped = replace(PROMETHEUS, state="exited", restart_policy="unless-stopped")
    assert ask(host, stopped).stacks[0].outcome is Outcome.SKIPPED
    named = (Check("prometheus", container="prometheus"),)
    assert ask(host, stopped, checks=named).stacks[0].outcome is Outcome.FAILED


def test_a_container_that_is_asked_for_and_not_there_is_down(host):
    (part,) = ask(host, checks=(Check("logs", container="fluentbit"),)).stacks
    assert part.reasons == ("there is no container fluentbit",)


def test_where_docker_does_not_answer_urls_are_asked_all_the_same(host):
    with receivers.http(receivers.fine) as receiver:
        checks = (Check("a", url=f"http://{receiver.address}/"), Check("b", container="b"))
        result = ask(host, checks=checks, docker_error="no Docker Engine answers")
    assert [part.outcome for part in result.stacks] == [Outcome.OK, Outcome.FAILED]


def test_a_dry_run_says_whom_it_would_ask_and_no_secret(host):
    checks = (Check("a", url="http://me:secret@127.0.0.1:1/health?token=secret"),)
    settings = replace(host.settings, checks=checks)
    result = observability.run(settings=settings, stacks=[], progress=Silent(), dry_run=True)
    assert result.reasons == ("would ask a (http://127.0.0.1:1/health)",)


def test_people_are_told_when_one_goes_down_and_when_it_is_up_again_and_not_in_between(host):
    def look(health):
        afterwards.tell(host.store, "observability", ask(host, replace(PROMETHEUS, health=health)), NOW)
        return [notice.message.title for notice in host.store.due_notices(NOW)]

    assert look("healthy") == []
    assert look("unhealthy") == ["prometheus: observability failed"]
    assert look("unhealthy") == ["prometheus: observability failed"]
    assert look("healthy") == ["prometheus: observability failed", "prometheus: observability fine again"]
    assert len(look("healthy")) == 2


class TestUrls:
    def test_up_and_down(self):
        with receivers.http(receivers.fine) as up, receivers.http(receivers.refuses) as down:
            urls = [f"http://{up.address}/-/healthy", f"http://{down.address}/"]
            answers = http.ask_all(urls, attempts=2, pause_seconds=0.01)
        assert answers == {urls[0]: "", urls[1]: "it answers 500 out of order"}
        assert len(down.requests) == 2
        assert len(up.requests) == 1

    def test_nobody_there(self):
        assert http.ask_all(["http://127.0.0.1:1/"])["http://127.0.0.1:1/"] == "Connection refused"

    def test_one_that_never_comes_to_an_end_is_left_behind(self):
        began = time.monotonic()
        with receivers.http(receivers.hangs) as slow, receivers.http(receivers.fine) as up:
            urls = [f"http://{slow.address}/", f"http://{up.address}/"]
            answers = http.ask_all(urls, answer_seconds=10, pause_seconds=0)
        assert list(answers.values()) == ["no answer within 10 s", ""]
        assert time.monotonic() - began < 60

    def test_user_and_password_go_into_a_header(self):
        seen = []

        def answer(handler):
            seen.append(handler.headers["Authorization"])
            receivers.fine(handler)

        with receivers.http(answer) as receiver:
            assert http.ask(f"http://me:s%40crt@{receiver.address}/") == ""
        assert seen == ["Basic bWU6c0BjcnQ="]

    def test_what_is_no_http_is_down(self):
        def garbage(handler):
            handler.wfile.write(b"SSH-2.0\r\n\r\n")

        with receivers.http(garbage) as receiver:
            assert http.ask(f"http://{receiver.address}/") != ""

    def test_no_proxy_is_asked(self, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        with receivers.http(receivers.fine) as receiver:
            assert http.ask(f"http://{receiver.address}/") == ""
