"""A staging instance is derived so that nothing of production is in its reach; each test names one thing that is not."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from stackward.core.model import Publish
from stackward.core.staging import EDGE, PROXY, Facts, Move, Wish, audit, derive, escaped, lifted
from stackward.core.staging_ports import HostPort, published

VOLUME = "/srv/containers"
NIGHTLY = "/srv/containers/.nightly"
OURS = {"stackward.instance": "shop-staging"}
WISH = Wish(name="shop-staging", production="shop")
FACTS = Facts(
    real={
        "/opt/docker/shop/data": "/srv/containers/shop/data",  # a symlink, as `stack convert` leaves it
        "/opt/docker/shop/nginx.conf": "/opt/docker/shop/nginx.conf",
    },
    volumes={"shop_db": "/srv/containers/shop/db", "shop_cache": "/var/lib/docker/volumes/shop_cache/_data"},
    kinds={
        NIGHTLY: "directory",
        f"{NIGHTLY}/shop/data": "directory",
        f"{NIGHTLY}/shop/db": "directory",
        f"{NIGHTLY}/shop/db/sub": "directory",
        f"{NIGHTLY}/shop/secret.txt": "file",
        "/opt/docker/shop/nginx.conf": "file",
        "/opt/docker/shop/secret.txt": "file",
        "/opt/docker/shop/uploads": "directory",
        "/opt/docker/shop/live.sock": "other",
        "/etc/localtime": "file",
        "/run/mysqld": "directory",
        "/etc/stackward/age.key": "file",
    },
    names={"/opt/docker/shop/uploads": "uploads"},
    moves=(Move(VOLUME, NIGHTLY),),
    roots=(VOLUME, "/opt/docker"),
    closed=("/backup/docker", "/var/lib/stackward", "/etc/stackward"),
    variables={"TOKEN": "s3cr$t"},
    proxy_image="stackward:latest",
)


def model(**service):
    """A project of one service `web`, with what a compose file may declare beside it."""
    return {
        "name": "shop",
        "services": {"web": {"image": "nginx", "networks": {"default": None}, **service}},
        "networks": {"default": {"name": "shop_default", "ipam": {}}},
        "volumes": {
            "db": {"name": "shop_db"},
            "cache": {"name": "shop_cache"},
            "foreign": {"name": "other_data", "external": True},
        },
    }


def bind(source, target="/x", **more):
    return {"type": "bind", "source": source, "target": target, "bind": {"create_host_path": True}, **more}


def volume(source, target="/x", **more):
    return {"type": "volume", "source": source, "target": target, "volume": {}, **more}


def staged(whole, wish=WISH, facts=FACTS):
    return derive(whole, wish, facts)


def web(whole, wish=WISH, facts=FACTS):
    derived = staged(whole, wish, facts)
    assert derived.refusals == ()
    return derived.model["services"]["web"]


def refused(whole, wish=WISH, facts=FACTS) -> str:
    (refusal,) = staged(whole, wish, facts).refusals
    return str(refusal)


# Production's volumes


@pytest.mark.parametrize(
    ("mount", "place"),
    [
        (bind("/srv/containers/shop/data"), f"{NIGHTLY}/shop/data"),
        (bind("/opt/docker/shop/data"), f"{NIGHTLY}/shop/data"),
        (volume("db"), f"{NIGHTLY}/shop/db"),
        (volume("db", volume={"subpath": "sub"}), f"{NIGHTLY}/shop/db/sub"),
    ],
)
def test_what_lies_on_the_volume_is_bound_from_the_snapshot(mount, place):
    (found,) = web(model(volumes=[mount]))["volumes"]
    assert found == {"type": "bind", "source": place, "target": "/x", "bind": {"create_host_path": False}}


def test_a_read_only_mount_stays_read_only():
    assert web(model(volumes=[volume("db", read_only=True)]))["volumes"][0]["read_only"] is True


def test_no_volume_of_production_is_declared():
    assert "volumes" not in staged(model(volumes=[volume("db")])).model


@pytest.mark.parametrize("name", ["cache", "shop_cache"])
def test_a_volume_that_may_start_empty_belongs_to_the_instance(name):
    derived = staged(model(volumes=[volume("cache")]), Wish("shop-staging", "shop", empty=(name,)))
    assert derived.refusals == ()
    assert derived.model["volumes"] == {"cache": {"labels": OURS}}
    assert derived.model["services"]["web"]["volumes"] == [{"type": "volume", "source": "cache", "target": "/x"}]


def test_a_directory_that_may_start_empty_is_a_volume_of_the_instance():
    derived = staged(
        model(volumes=[bind("/opt/docker/shop/uploads")]), Wish("shop-staging", "shop", empty=("uploads",))
    )
    assert derived.refusals == ()
    assert derived.model["volumes"] == {"uploads": {"labels": OURS}}


def test_whatever_may_start_empty_gets_a_name_that_compose_takes_and_of_its_own():
    """Trees elsewhere may be called anything, and two things alike."""
    names = {"/mnt/a": "mnt/My Files@1", "/mnt/b": "mnt-My-Files-1", "/mnt/c": "cache"}
    mounts = [bind(place, f"/{number}") for number, place in enumerate(names)]
    mounts += [volume("cache", "/3"), bind("/mnt/a", "/4")]
    facts = replace(FACTS, names=names)
    derived = staged(model(volumes=mounts), Wish("shop-staging", "shop", empty=(*names.values(),)), facts)
    assert derived.refusals == ()
    sources = [mount["source"] for mount in derived.model["services"]["web"]["volumes"]]
    assert sources == ["mnt-My-Files-1", "mnt-My-Files-1-2", "cache", "cache-2", "mnt-My-Files-1"]
    assert set(derived.model["volumes"]) == set(sources)


def test_a_file_of_production_is_mounted_read_only_and_said():
    derived = staged(model(volumes=[bind("/opt/docker/shop/nginx.conf")]))
    (found,) = derived.model["services"]["web"]["volumes"]
    assert found["read_only"] is True
    assert derived.notes == ("web: /opt/docker/shop/nginx.conf is production's, mounted read-only",)


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        (volume("cache"), "the named volume shop_cache has no copy"),
        (volume("foreign"), "the named volume other_data has no copy"),
        (volume("db", volume={"subpath": "../data"}), "leads out of the volume"),
        (volume("cache", read_only=True), "the named volume shop_cache has no copy"),
        (bind("/opt/docker/shop/uploads"), "is written to and has no copy"),
        (bind("/srv/containers/new"), "/srv/containers/.nightly/new is not there"),
        (bind("/opt/docker/shop/gone"), "is not there"),
        (bind("/", read_only=True), "holds all of production"),
        (bind("/srv", read_only=True), "holds all of production"),
        (bind("/opt/docker", read_only=True), "holds all of production"),
        (bind("/backup/docker/data-2026-11-01", read_only=True), "belongs to backups"),
        (bind("/var/lib/stackward/staging"), "belongs to backups or to Stackward itself"),
        (bind("/var/run/docker.sock", read_only=True), "is Docker's socket"),
        (bind("/opt/proxy/docker.sock"), "is Docker's socket"),
        (bind("/run/mysqld", read_only=True), "is a live part of the host"),
        (bind("/opt/docker/shop/live.sock", read_only=True), "is a socket or a device"),
        (bind("/dev/ttyUSB0"), "is a live part of the host"),
        (bind("/var", read_only=True), "holds all of production"),
        ({"type": "npipe", "source": "x", "target": "/x"}, "a mount of the kind npipe"),
    ],
)
def test_what_has_no_copy_and_could_harm_is_refused(mount, why):
    assert why in refused(model(volumes=[mount]))


def test_what_belongs_to_no_host_path_stays():
    derived = staged(model(volumes=[{"type": "tmpfs", "target": "/t"}, {"type": "volume", "target": "/anonymous"}]))
    assert [mount["target"] for mount in derived.model["services"]["web"]["volumes"]] == ["/t", "/anonymous"]
    assert "starts empty" in derived.notes[0]


def test_an_empty_volume_stays_read_only():
    wish = Wish("shop-staging", "shop", empty=("cache",))
    assert web(model(volumes=[volume("cache", read_only=True)]), wish)["volumes"][0]["read_only"] is True


def test_a_read_only_file_of_production_needs_no_note():
    derived = staged(model(volumes=[bind("/opt/docker/shop/nginx.conf", read_only=True)]))
    assert (derived.refusals, derived.notes) == ((), ())


def test_a_drill_maps_to_another_place():
    facts = Facts(moves=(Move("/srv/containers/shop/db", "/backup/x/db"),), volumes=FACTS.volumes,
                  kinds={"/backup/x/db": "directory"}, closed=("/backup",))  # fmt: skip
    assert web(model(volumes=[volume("db")]), facts=facts)["volumes"][0]["source"] == "/backup/x/db"


# Names


def test_names_of_production_are_left_out():
    named = {"container_name": "web", "hostname": "www", "domainname": "example.com", "mac_address": "02:42::03"}
    assert not set(named) & set(web(model(**named)))
    assert staged(model(**named)).model["name"] == "shop-staging"


def test_an_image_that_production_builds_is_used_and_never_built():
    whole = model(build={"context": "/opt/docker/shop"}, develop={"watch": []})
    del whole["services"]["web"]["image"]
    service = web(whole)
    assert (service["image"], service["pull_policy"]) == ("shop-web", "never")
    assert not {"build", "develop"} & set(service)


def test_an_image_is_not_pulled_over_productions():
    assert web(model(pull_policy="always"))["pull_policy"] == "missing"
    assert web(model(pull_policy="never"))["pull_policy"] == "never"


def test_labels_that_others_go_by_are_left_out():
    labels = {"traefik.enable": "true", "caddy": "x", "com.centurylinklabs.watchtower.enable": "true",
              "ofelia.enabled": "true", "diun.enable": "true", "wud.watch": "true", "stackward.backup": "true"}  # fmt: skip
    service = web(model(labels=labels, deploy={"labels": labels}))
    assert service["labels"] == {"com.centurylinklabs.watchtower.enable": "false"}
    assert "deploy" not in service


# Ports


def test_production_ports_are_left_out():
    derived = staged(model(ports=[{"target": 80, "published": "8080"}]))
    assert list(published(derived.model)) == []


def test_ports_that_are_asked_for_lead_through_the_proxy_alone():
    derived = staged(
        model(), Wish("shop-staging", "shop", publish=(Publish(18080, "web", 80, "0.0.0.0"), Publish(18081, "web", 81)))
    )
    proxy = derived.model["services"][PROXY]
    assert proxy["command"] == ["20000:web:80", "20001:web:81"]
    assert [(port["published"], port["target"]) for port in proxy["ports"]] == [("18080", 20000), ("18081", 20001)]
    assert set(proxy["networks"]) == {"default", EDGE}
    assert derived.model["networks"][EDGE] == {"labels": OURS}
    assert set(derived.model["services"]["web"]["networks"]) == {"default"}
    assert list(published(derived.model)) == [HostPort(18080), HostPort(18081, "127.0.0.1")]


@pytest.mark.parametrize(
    ("service", "publish", "why"),
    [
        ({}, (Publish(18080, "nobody", 80), Publish(18081, "web", 80)), "names nobody"),
        ({"network_mode": "none"}, (Publish(18080, "web", 80),), "web has no network"),
    ],
)
def test_a_port_that_leads_nowhere_is_refused(service, publish, why):
    assert why in refused(model(**service), Wish("shop-staging", "shop", publish=publish))


def test_a_port_of_a_service_in_anothers_network_leads_to_that_one():
    whole = model(network_mode="service:vpn")
    whole["services"]["vpn"] = {"image": "vpn", "networks": {"default": None}}
    derived = staged(whole, Wish("shop-staging", "shop", publish=(Publish(18080, "web", 80),)))
    assert derived.refusals == ()
    assert derived.model["services"][PROXY]["command"] == ["20000:vpn:80"]


def test_two_services_that_use_each_others_network_have_none():
    whole = model(network_mode="service:vpn")
    whole["services"]["vpn"] = {"image": "vpn", "network_mode": "service:web"}
    assert "has no network" in refused(whole, Wish("shop-staging", "shop", publish=(Publish(18080, "web", 80),)))


def test_a_prober_needs_an_image_and_networks_but_refuses_nothing():
    wish = Wish("shop-drill", "shop", prober=True)
    assert PROXY not in staged(model(), wish, Facts()).model["services"]
    alone = staged(model(network_mode="none"), wish)
    assert PROXY not in alone.model["services"]
    assert "networks" not in alone.model


def test_without_an_image_for_the_proxy_ports_are_refused():
    facts = Facts(moves=FACTS.moves)
    assert "proxy" in refused(model(), Wish("shop-staging", "shop", publish=(Publish(18080, "web", 80),)), facts)


def test_a_prober_is_in_every_network_and_publishes_nothing():
    derived = staged(model(networks={"front": None, "back": None}), Wish("shop-drill", "shop", prober=True))
    proxy = derived.model["services"][PROXY]
    assert set(proxy["networks"]) == {"front", "back"}
    assert "ports" not in proxy


# Networks, DNS names, outgoing mail


def test_every_network_leads_nowhere():
    whole = model(networks={"default": None, "proxy": None})
    whole["networks"]["proxy"] = {"name": "traefik", "external": True, "driver": "macvlan"}
    networks = staged(whole).model["networks"]
    assert set(networks) == {"default", "proxy"}
    for network in networks.values():
        assert network["internal"] is True
        assert not {"external", "name", "driver", "ipam"} & set(network)


def test_fixed_addresses_are_left_out_and_names_within_the_instance_stay():
    fixed = {"aliases": ["shop.example.com"], "ipv4_address": "10.0.0.3", "mac_address": "02:42::03"}
    assert web(model(networks={"default": fixed}))["networks"] == {"default": {"aliases": ["shop.example.com"]}}


@pytest.mark.parametrize("mode", ["host", "bridge"])
def test_a_service_in_the_hosts_network_gets_the_instances(mode):
    service = web(model(network_mode=mode))
    assert service["networks"] == {"default": None}
    assert "network_mode" not in service


def test_a_way_out_by_name_or_address_is_left_out():
    ways = {"dns": ["1.1.1.1"], "external_links": ["mail_smtp_1:smtp"], "links": ["mail"],
            "extra_hosts": ["smtp=192.0.2.25", "host.docker.internal=host-gateway", "me=127.0.0.1"]}  # fmt: skip
    service = web(model(**ways))
    assert not {"dns", "external_links", "links"} & set(service)
    assert service["extra_hosts"] == ["me=127.0.0.1"]


@pytest.mark.parametrize(("driver", "kept"), [("gelf", False), ("syslog", False), ("json-file", True)])
def test_logs_do_not_go_where_productions_go(driver, kept):
    assert ("logging" in web(model(logging={"driver": driver, "options": {"x": "y"}}))) is kept


def test_no_reverse_proxy_is_told_of_it():
    service = web(model(environment={"VIRTUAL_HOST": "shop.example.com", "LETSENCRYPT_HOST": "x", "A": "b"}))
    assert service["environment"] == {"A": "b"}


# Secrets


def test_secrets_and_configs_are_read_from_the_copy_or_from_production_read_only():
    whole = model(secrets=[{"source": "one", "target": "/run/secrets/one"}], configs=[{"source": "two"}])
    whole["secrets"] = {
        "one": {"name": "shop_one", "file": "/srv/containers/shop/secret.txt"},
        "unused": {"file": "/x"},
    }
    whole["configs"] = {"two": {"name": "shop_two", "file": "/opt/docker/shop/secret.txt"}}
    derived = staged(whole)
    assert derived.refusals == ()
    assert derived.model["secrets"] == {"one": {"file": f"{NIGHTLY}/shop/secret.txt"}}
    assert derived.model["configs"] == {"two": {"file": "/opt/docker/shop/secret.txt"}}
    assert derived.model["services"]["web"]["secrets"] == [{"source": "one", "target": "/run/secrets/one"}]


def test_a_secret_of_the_environment_is_written_beside_the_instance():
    whole = model(secrets=[{"source": "token"}])
    whole["secrets"] = {"token": {"name": "shop_token", "environment": "TOKEN"}}
    derived = staged(whole)
    assert derived.model["secrets"] == {"token": {"file": "./secrets-token"}}
    assert derived.files == {"secrets-token": "s3cr$t"}


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ({"external": True}, "is external"),
        ({"environment": "UNSET"}, "which .env does not set"),
        ({"file": "/opt/docker/shop/none"}, "is not there"),
        ({"file": "/run/x"}, "/run/x"),
        ({"file": "/etc/stackward/age.key"}, "belongs to backups or to Stackward itself"),
        ({}, None),
    ],
)
def test_a_secret_that_cannot_be_had_is_refused(secret, why):
    whole = model(secrets=[{"source": "token"}])
    whole["secrets"] = {"token": secret}
    assert (why in refused(whole)) if why else staged(whole).refusals == ()


def test_a_config_with_its_content_is_taken_as_it_is():
    whole = model(configs=[{"source": "c"}])
    whole["configs"] = {"c": {"name": "shop_c", "content": "x"}}
    assert staged(whole).model["configs"] == {"c": {"content": "x"}}


# Rights


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ({"privileged": True}, "privileged"),
        ({"pid": "host"}, "pid: host"),
        ({"pid": "container:prod"}, "pid: container:prod"),
        ({"ipc": "container:prod"}, "ipc: container:prod"),
        ({"network_mode": "container:vpn"}, "container:vpn"),
        ({"network_mode": "service:gone"}, "service:gone"),
        ({"cap_add": ["SYS_ADMIN"]}, "SYS_ADMIN"),
        ({"cap_add": ["CAP_NET_ADMIN"]}, "NET_ADMIN"),
        ({"cap_add": ["ALL"]}, "ALL"),
        ({"volumes_from": ["container:prod"]}, "container:prod"),
        ({"use_api_socket": True}, "Docker's socket"),
    ],
)
def test_rights_over_the_host_or_production_are_refused(service, why):
    assert why in refused(model(**service))


def test_what_belongs_to_the_host_is_left_out():
    rights = {"devices": [{"source": "/dev/dri"}], "gpus": [{"count": -1}], "userns_mode": "host", "uts": "host",
              "ipc": "host", "cgroup": "host", "cgroup_parent": "x.slice", "device_cgroup_rules": ["c 1:3 rwm"],
              "runtime": "nvidia", "blkio_config": {"weight": 3}, "security_opt": ["seccomp=unconfined"]}  # fmt: skip
    assert not set(rights) & set(web(model(**rights)))


def test_harmless_rights_stay():
    service = web(model(cap_add=["CHOWN"], cap_drop=["ALL"], security_opt=["no-new-privileges:true"]))
    assert (service["cap_add"], service["security_opt"]) == (["CHOWN"], ["no-new-privileges:true"])


def test_a_field_that_nobody_knows_is_left_out_and_said():
    derived = staged(model(teleport="production"))
    assert "teleport" not in derived.model["services"]["web"]
    assert "`teleport` is not known to be safe" in derived.notes[0]


def test_what_makes_the_service_itself_stays():
    fields = {"command": ["a", "$b"], "entrypoint": [], "healthcheck": {"test": ["CMD", "true"]}, "scale": 0,
              "user": "1000", "tmpfs": ["/tmp"], "working_dir": "/x", "stop_grace_period": "5s"}  # fmt: skip
    service = web(model(**fields))
    assert {key: service[key] for key in fields} == fields


@pytest.mark.parametrize(
    ("policy", "becomes"), [({"restart": "always"}, "unless-stopped"), ({"restart": "no"}, None), ({}, None),
                            ({"restart": "unless-stopped"}, "unless-stopped"), ({"restart": "on-failure"}, "on-failure:5"),
                            ({"deploy": {"restart_policy": {"condition": "any"}}}, "unless-stopped"),
                            ({"deploy": {"restart_policy": {"condition": "on-failure"}}}, "on-failure:5")]
)  # fmt: skip
def test_what_production_starts_with_docker_starts_with_docker(policy, becomes):
    assert web(model(**policy)).get("restart") == becomes


def test_limits_and_replicas_stay_and_graphics_cards_do_not():
    limits = {"cpus": "1", "devices": ["x"]}
    resources = {"limits": limits, "reservations": {"devices": [{"driver": "nvidia"}]}}
    derived = staged(model(deploy={"replicas": 2, "resources": resources}))
    kept = {"replicas": 2, "resources": {"limits": {"cpus": "1"}}}
    assert derived.model["services"]["web"]["deploy"] == kept
    assert derived.notes == ("web: graphics cards are left out",)


def test_what_is_shared_within_the_instance_stays_shared():
    whole = model(pid="service:db", ipc="shareable", volumes_from=["db:ro"], network_mode="service:db")
    whole["services"]["db"] = {"image": "db"}
    service = web(whole)
    shared = {"pid": "service:db", "ipc": "shareable", "volumes_from": ["db:ro"], "network_mode": "service:db"}
    assert {key: service[key] for key in shared} == shared


def test_extra_hosts_may_be_a_mapping_or_no_address():
    hosts = {"me": ["127.0.0.1", "::1"], "mail": "192.0.2.1", "odd": "host-gateway"}
    assert web(model(extra_hosts=hosts))["extra_hosts"] == ["me=127.0.0.1", "me=::1"]


# Which services, and what the labels add


def several():
    whole = model(depends_on={"db": {"condition": "service_healthy"}, "mail": {"condition": "service_started"}})
    whole["services"] |= {name: {"image": name} for name in ("db", "mail")}
    whole["services"]["debug"] = {"image": "debug", "profiles": ["debug"]}
    return whole


def test_services_that_are_not_wanted_are_pruned_from_the_others():
    derived = staged(several(), Wish("shop-staging", "shop", services=("web", "db")))
    assert list(derived.model["services"]) == ["web", "db"]
    assert list(derived.model["services"]["web"]["depends_on"]) == ["db"]


def test_a_service_that_is_none_is_refused():
    assert "names wbe" in refused(several(), Wish("shop-staging", "shop", services=("web", "wbe")))


def test_a_profile_runs_where_production_runs_it():
    assert "debug" not in staged(several()).model["services"]
    assert "debug" in staged(several(), Wish("s", "shop", present=frozenset({"debug"}))).model["services"]


def test_a_stack_of_profiles_alone_has_no_instance():
    assert "no service that production runs" in refused(model(profiles=["x"]))


def test_ports_without_a_number_take_none_of_the_hosts_and_a_range_any():
    ports = [{"target": 80, "published": "8000-8001", "host_ip": "::", "protocol": "udp"}, {"target": 81}, "82"]
    taken = list(published({"services": {"web": {"ports": ports}, "db": None}}))
    assert taken == [HostPort(8000, "::", "udp"), HostPort(8001, "::", "udp")]


@pytest.mark.parametrize(
    ("production", "asked", "open_at"),
    [
        ([], "", ["127.0.0.1"]),
        ([{"target": 80, "published": "8080"}], "", [""]),
        ([{"target": 80, "published": "8080", "host_ip": "127.0.0.1"}], "", ["127.0.0.1"]),
        (
            [
                {"target": 80, "published": "8080", "host_ip": "::1"},
                {"target": 80, "published": "8080", "host_ip": "10.0.0.1"},
            ],
            "",
            ["10.0.0.1", "::1"],
        ),
        ([{"target": 80, "published": "8080", "host_ip": "10.0.0.1"}, {"target": 80, "published": "8081"}], "", [""]),
        ([{"target": 80, "published": "8080", "host_ip": "::"}], "", ["::"]),
        ([{"target": 81, "published": "8080"}], "", ["127.0.0.1"]),
        ([{"target": 80, "published": "8080", "protocol": "udp"}], "", ["127.0.0.1"]),
        ([{"target": 80}], "", ["127.0.0.1"]),
        ([], "0.0.0.0", [""]),
        ([{"target": 80, "published": "8080"}], "127.0.0.1", ["127.0.0.1"]),
        ([], "[::1]", ["::1"]),
    ],
)
def test_a_port_is_opened_no_wider_than_productions_unless_asked(production, asked, open_at):
    derived = staged(model(ports=production), Wish("s", "shop", publish=(Publish(18080, "web", 80, asked),)))
    assert [port.address for port in published(derived.model)] == open_at
    assert any("18080 is open at" in note for note in derived.notes) == ("" not in open_at and not asked)


def test_a_port_of_a_service_in_anothers_network_is_opened_as_that_ones():
    whole = model(network_mode="service:vpn")
    whole["services"]["vpn"] = {
        "image": "vpn",
        "networks": {"default": None},
        "ports": [{"target": 80, "published": "8080"}],
    }
    assert list(published(staged(whole, Wish("s", "shop", publish=(Publish(18080, "web", 80),))).model)) == [
        HostPort(18080)
    ]


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (HostPort(80), HostPort(80), True),
        (HostPort(80), HostPort(80, "10.0.0.1"), True),
        (HostPort(80, "::"), HostPort(80, "10.0.0.1"), True),
        (HostPort(80, "127.0.0.1"), HostPort(80, "10.0.0.1"), False),
        (HostPort(80), HostPort(81), False),
        (HostPort(80), HostPort(80, protocol="udp"), False),
    ],
)
def test_two_want_the_same_port_where_their_addresses_meet(one, other, clash):
    assert one.meets(other) is other.meets(one) is clash
    assert (str(HostPort(80, "::1")), str(HostPort(80))) == ("[::1]:80", "80")


def test_whoever_waits_for_a_database_waits_until_it_has_recovered():
    whole = model(depends_on={"db": {"condition": "service_healthy"}, "cache": {"condition": "service_started"}})
    check = {"test": ["CMD", "pg_isready"], "interval": "5s", "retries": 3}
    whole["services"] |= {"db": {"image": "postgres", "healthcheck": check}, "cache": {"image": "redis"}}
    services = staged(whole, Wish("s", "shop", wait_seconds=1200)).model["services"]
    assert services["db"]["healthcheck"] == {**check, "start_period": "1200s"}
    assert "healthcheck" not in services["cache"]


def test_a_service_that_is_not_wanted_is_not_in_it():
    whole = model()
    whole["services"]["staging"] = {"image": "nginx"}
    assert list(staged(whole, Wish("s", "shop", without=("staging",))).model["services"]) == ["web"]


def test_the_environment_that_is_asked_for_wins():
    wish = Wish("shop-staging", "shop", environment=(("MODE", "staging"),))
    assert web(model(environment={"MODE": "production", "A": "b"}), wish)["environment"] == {
        "MODE": "staging",
        "A": "b",
    }


def test_an_override_lifts_exactly_what_it_speaks_of():
    refusals = staged(model(privileged=True, pid="host")).refusals
    left = lifted(refusals, {"services": {"web": {"privileged": False}}})
    assert [refusal.path[-1] for refusal in left] == ["pid"]


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        (bind("/srv/containers/shop/data"), "it may be mounted read-only"),
        (bind("/opt/docker/shop/data"), "it may be mounted read-only"),
        (bind("/var/run/docker.sock", read_only=True), "Docker's socket"),
        (bind("/srv/containers/shop/data", read_only=True), None),
        (bind(f"{NIGHTLY}/shop/data"), None),
        (bind("/srv/elsewhere"), None),
    ],
)
def test_no_override_lets_it_write_to_production(mount, why):
    found = [str(refusal) for refusal in audit({"services": {"web": {"volumes": [mount]}}}, FACTS)]
    assert (why in found[0]) if why else found == []


def test_no_override_takes_a_volume_of_production():
    volumes = {"a": {"external": True}, "b": {"driver_opts": {"device": "/srv/containers/shop/db"}}, "c": None}
    assert len(list(audit({"services": {}, "volumes": volumes}, FACTS))) == 2


def test_dollars_mean_themselves_in_the_file():
    assert escaped({"a$": ["$x", 1, None, {"b": "$$"}]}) == {"a$$": ["$$x", 1, None, {"b": "$$$$"}]}


def test_the_model_of_production_is_left_as_it_is():
    whole = model(volumes=[volume("db")], networks={"default": {"ipv4_address": "10.0.0.2"}}, privileged=True)
    before = copy.deepcopy(whole)
    staged(whole)
    assert whole == before
