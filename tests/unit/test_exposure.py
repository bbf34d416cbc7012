from dataclasses import replace
from pathlib import Path

import pytest

from stackward.core.exposure import Listener, others, published, reach
from stackward.core.model import Container, PublishedPort, Stack

WEB = PublishedPort("0.0.0.0", 8080, 80, "tcp")
CONTAINER = Container("c1", "shop-web-1", "shop", "web", "running", ports=(WEB,))
SHOP = Stack("shop", Path("/opt/docker/shop"), "shop", containers=(CONTAINER,))


def listener(address, port=8080, protocol="tcp"):
    return Listener(protocol, address, port, ("docker-proxy",))


@pytest.mark.parametrize(
    ("address", "how_far"),
    [("0.0.0.0", "all"), ("::", "all"), ("127.0.0.1", "host"), ("::1", "host"), ("192.168.1.5", "address")],
)
def test_how_far_an_address_reaches(address, how_far):
    assert reach(address) == how_far


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "::"])
def test_a_published_port_is_matched_with_who_listens(address):
    (found,) = published([SHOP], [CONTAINER], [listener("0.0.0.0", 81), listener(address)])
    assert (found.stack, found.reach, found.listener) == ("shop", "all", listener(address))


@pytest.mark.parametrize(
    "other", [listener("127.0.0.1"), listener("0.0.0.0", 8081), listener("0.0.0.0", protocol="udp")]
)
def test_another_address_port_or_protocol_is_another_listener(other):
    (found,) = published([SHOP], [CONTAINER], [other])
    assert found.listener is None
    assert others([other], [WEB]) == [other]


def test_one_address_of_several_is_matched_with_its_own_listener():
    port = replace(WEB, address="10.0.0.1")
    container = replace(CONTAINER, ports=(port,))
    (found,) = published([], [container], [listener("10.0.0.2"), listener("10.0.0.1%eth0")])
    assert found.listener == listener("10.0.0.1%eth0")
    assert found.stack == ""


def test_ports_come_in_order_and_those_of_containers_are_not_told_twice():
    ports = (PublishedPort("0.0.0.0", 9000, 1, "tcp"), PublishedPort("0.0.0.0", 53, 53, "udp"))
    found = published([], [replace(CONTAINER, ports=ports)], [])
    assert [one.port.port for one in found] == [53, 9000]
    sshd = Listener("tcp", "0.0.0.0", 22, ("sshd",))
    assert others([listener("0.0.0.0", 53, "udp"), sshd], [one.port for one in found]) == [sshd]
