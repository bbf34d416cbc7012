from pathlib import Path

import pytest

from stackward.core.checks import Check, guessed, named, parse_checks
from stackward.core.model import Container, Stack


def test_checks_are_read_as_a_person_writes_them():
    text = "prometheus=http://prometheus:9090/-/healthy?a=1,2 , Log server=container:graylog-1,\n grafana=https://g/"
    assert parse_checks(text) == (
        Check("prometheus", url="http://prometheus:9090/-/healthy?a=1,2"),
        Check("Log server", container="graylog-1"),
        Check("grafana", url="https://g/"),
    )


def test_off_is_none_at_all_and_auto_is_what_is_found():
    assert parse_checks(" Off ") == ()
    assert parse_checks("auto") is None


@pytest.mark.parametrize(
    "text",
    ["prometheus", "prometheus=", "=http://x/", "a=ftp://x/", "a=http://", "a=container:", "a=container:-x", "a=x"],
)
def test_what_is_no_check_is_refused(text):
    with pytest.raises(ValueError, match=r"must be NAME=http://"):
        parse_checks(text)


def test_a_name_stands_for_one_check():
    with pytest.raises(ValueError, match="once"):
        parse_checks("a=http://x/,a=http://y/")


def container(number, image, service="", name=""):
    return Container(f"c{number}", name or f"n{number}", "p", service or f"s{number}", "running", image=image)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("graylog/graylog:6.1", "graylog"),
        ("prom/prometheus", "prometheus"),
        ("quay.io/prometheus/prometheus:v3", "prometheus"),
        ("grafana/grafana-oss@sha256:0", "grafana"),
        ("fluent/fluent-bit:3.2", "fluentbit"),
        ("cr.fluentbit.io/fluent/fluent-bit", "fluentbit"),
    ],
)
def test_what_watches_is_found_by_its_image(image, name):
    stack = Stack("monitoring", Path("/m"), "m", containers=(container(1, "nginx"), container(2, image)))
    assert guessed([stack]) == (Check(name, container="c2", guessed=True),)


def test_what_only_sounds_alike_is_not_found():
    images = ("prom/node-exporter", "grafana/loki", "my/prometheus-exporter", "me/graylog-sidecar")
    stack = Stack("m", Path("/m"), "m", containers=tuple(container(n, image) for n, image in enumerate(images)))
    assert guessed([stack]) == ()


def test_two_of_a_kind_are_told_apart():
    stack = Stack("m", Path("/m"), "m", containers=(container(1, "prom/prometheus"), container(2, "prom/prometheus")))
    assert [check.name for check in guessed([stack])] == ["prometheus (n1)", "prometheus (n2)"]


def test_a_container_is_meant_by_its_name_its_id_or_a_service_that_is_only_once_there():
    one, two, other = container(1, "", "web", "web"), container(2, "", "db"), container(3, "", "web")
    assert named("web", [other, one]) is one
    assert named("c2", [one, two]) is two
    assert named("db", [one, two]) is two
    assert named("s", [one, two]) is None
    assert named("web", [other, container(4, "", "web")]) is None
