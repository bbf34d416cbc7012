"""Where the networks of instances have their addresses: out of the way of production's, and of each other's."""

from __future__ import annotations

import uuid
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.core import staging_networks
from stackward.core.staging import Facts, Wish, derive
from stackward.core.staging_networks import Room, allot
from stackward.core.values import parse_subnets
from stackward.tools import routes
from stackward.tools.docker import Docker
from stackward.tools.docker_values import HELPER_LABEL
from unit.hosts import DOCKER_HOST

RANGE = IPv4Network("198.19.0.0/17")
NAMES = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 200), max_size=12)
SUBNETS = st.builds(
    lambda number, prefix: IPv4Network((int(RANGE.network_address) + number, prefix), strict=False),
    st.integers(0, (1 << 15) - 1),
    st.integers(20, 30),
)


@given(NAMES, st.lists(SUBNETS, max_size=8))
def test_each_network_has_room_and_none_overlaps_with_anything(wanted, taken):
    found = allot("shop", wanted, Room((RANGE,), tuple(taken)))
    assert set(found) == set(wanted)
    chosen = [one for one in found.values() if one is not None]
    assert len(chosen) == len(wanted) or sum(one.num_addresses for one in taken) > 1 << 13
    for number, one in enumerate(chosen):
        assert one.subnet_of(RANGE)
        assert not any(one.overlaps(other) for other in (*chosen[:number], *taken))
    for name, one in found.items():
        assert one is None or one.num_addresses - 3 >= wanted[name]


def test_a_thousand_networks_have_room():
    found = allot("shop", {str(number): 3 for number in range(1000)}, Room((RANGE,)))
    assert None not in found.values()
    assert None in allot("shop", {"a": 3, "b": 3}, Room((IPv4Network("10.0.0.0/27"),))).values()


def test_several_ranges_are_all_used():
    ranges = (IPv4Network("10.0.0.0/27"), IPv4Network("10.1.0.0/26"), IPv4Network("10.2.0.0/28"))
    found = allot("shop", dict.fromkeys("abcd", 1), Room(ranges))
    assert sorted(map(str, found.values())) == ["10.0.0.0/27", "10.1.0.0/27", "10.1.0.32/27", "None"]


def test_only_subnets_of_version_four_are_compared():
    assert list(staging_networks.parsed(["", "fd00::/64", "0.0.0.0/0", "10.0.0.9/24"])) == [IPv4Network("10.0.0.0/24")]
    model = {"networks": {"a": None, "b": {"ipam": {"config": [{}, {"subnet": "10.0.0.0/24"}]}}}}
    assert list(staging_networks.subnets(model)) == [IPv4Network("10.0.0.0/24")]


def test_what_it_has_stays_as_long_as_nobody_else_has_it():
    (first,) = allot("shop", {"default": 1}, Room((RANGE,))).values()
    (second,) = allot("shop", {"default": 1}, Room((RANGE,), (first,))).values()
    assert second not in (None, first)
    own = {"default": second}
    assert allot("shop", {"default": 1}, Room((RANGE,), (), own)) == own
    assert allot("shop", {"default": 1}, Room((RANGE,), (second,), own)) == {"default": first}
    foreign = {"default": IPv4Network("172.18.0.0/16")}
    assert allot("shop", {"default": 1}, Room((RANGE,), (), foreign)) == {"default": first}


def test_an_instance_asks_for_subnets_of_ours_and_is_refused_where_there_is_none():
    web = {"image": "nginx", "networks": {"default": None}, "deploy": {"replicas": 40}}
    whole = {"services": {"web": web, "db": {"image": "db", "networks": {"default": None, "back": None}}}}
    derived = derive(whole, Wish("shop-staging", "shop"), Facts(room=Room((RANGE,))))
    asked = list(staging_networks.subnets(derived.model))
    assert [one.prefixlen for one in asked] == [27, 26]
    assert all(one.subnet_of(RANGE) for one in asked)
    (refusal,) = derive(
        whole, Wish("x", "shop"), Facts(room=Room((RANGE,), (*asked, *RANGE.subnets(new_prefix=26))[:-1]))
    ).refusals
    assert "no subnet in 198.19.0.0/17 is free" in str(refusal)
    assert "STACKWARD_STAGING_SUBNETS" in str(refusal)
    left = derive(whole, Wish("shop-staging", "shop"), Facts()).model["networks"]
    assert "ipam" not in left["default"]


def test_routes_are_read_as_the_kernel_writes_them():
    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "wg0\t0080A8C0\t00000000\t0001\t0\t0\t0\t0080FFFF\t0\t0\t0\n"
    )
    assert list(staging_networks.parsed(routes.subnets(table))) == [IPv4Network("192.168.128.0/17")]
    halves = "tun0\t00000000\t0\t3\t0\t0\t0\t00000080\t0\ntun0\t00000080\t0\t3\t0\t0\t0\t00000080\t0\n"
    assert routes.subnets(halves + table) == routes.subnets(table)  # a VPN's way to lay itself over the default route
    assert routes.subnets("cat: no such file or directory, and five more words\n") == ()


def test_the_hosts_routes_are_asked_for_and_nothing_is_left_of_it(image, api):
    """Docker's own bridge has one; only a container in the host's network sees it."""
    owner = uuid.uuid4().hex
    bridge = api.inspect_network("bridge")["IPAM"]["Config"][0]["Subnet"]
    found = staging_networks.parsed(Docker(DOCKER_HOST, owner=owner).host_routes(image))
    assert IPv4Network(bridge) in found
    assert api.containers(all=True, filters={"label": f"{HELPER_LABEL}={owner}"}) == []


def test_a_range_is_one_of_version_four_and_not_tiny():
    assert parse_subnets("10.9.0.0/16, 10.10.0.0/20") == (IPv4Network("10.9.0.0/16"), IPv4Network("10.10.0.0/20"))
    assert parse_subnets("docker") == ()
    for text in ("10.9.0.1/16", "fd00::/64", "10.9.0.0/25", "x"):
        with pytest.raises(ValueError, match="must be subnets"):
            parse_subnets(text)
