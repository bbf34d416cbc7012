"""Staging instances as they are planned from real compose files: overrides, ports, secrets, what the host has."""

from __future__ import annotations

import os
import stat
import uuid
from ipaddress import IPv4Network

import pytest
import yaml

from stackward.core import staging_networks
from stackward.steps.instance import staging
from stackward.tools import compose
from stackward.tools.docker import Docker
from unit.hosts import DOCKER_HOST, SmallHost

pytestmark = pytest.mark.usefixtures("needs_compose")


@pytest.fixture
def host(tmp_path):
    small = SmallHost(tmp_path / "host")
    for path in ("shop", ".nightly/shop"):
        (small.settings.volume / path).mkdir(parents=True)
    yield small
    small.store.close()


def web(more: str = "", staged: str = "staging: true") -> str:
    return f"""
        x-stackward: {{{staged}}}
        services:
          web: {{image: nginx, volumes: ["{{volume}}/shop:/data"], {more}}}
    """


@pytest.fixture
def stack(host):
    def written(name, text, **files):
        host.stack(name, text.replace("{volume}", str(host.settings.volume)), **files)

    return written


def plan_of(host, *, fresh=False):
    return {one.stack.name: one for one in staging.plans(host.settings, None, host.discover().stacks, fresh=fresh)}


def reasons(plan) -> str:
    return "\n".join(map(str, plan.refusals))


def test_only_stacks_that_ask_for_it_have_an_instance(host, stack):
    stack("shop", web())
    stack("wiki", web(staged="staging: false"))
    assert list(plan_of(host)) == ["shop"]


def test_a_name_that_no_compose_file_can_carry_is_refused_beforehand(host, stack):
    odd = os.fsdecode(os.fsencode(host.settings.volume) + b"/caf\xe9")
    os.mkdir(odd)
    (host.settings.volume / "shop").rmdir()
    (host.settings.volume / "shop").symlink_to(odd)
    os.mkdir(os.fsdecode(os.fsencode(host.settings.volume) + b"/.nightly/caf\xe9"))
    stack("shop", web())
    assert r"caf\xe9: no compose file can carry a name that is not UTF-8" in reasons(plan_of(host)["shop"])


def test_what_is_written_is_what_compose_understands(host, stack):
    stack("shop", web("environment: {A: 'a$$b'}, command: ['echo', '$$HOME']"), _dot_env="X=1\n")
    plan = plan_of(host)["shop"]
    staging.write(plan)
    model = compose.resolve(plan.directory)
    assert model["name"] == "shop-staging"
    assert model["services"]["web"]["environment"] == {"A": "a$b"}
    assert model["services"]["web"]["command"] == ["echo", "$HOME"]
    assert model["services"]["web"]["volumes"][0]["source"] == str(host.settings.volume / ".nightly/shop")
    assert model["networks"]["default"]["internal"] is True


def test_the_file_and_its_secrets_are_roots_alone(host, stack):
    text = "\n        secrets: {token: {environment: TOKEN}}\n"
    stack("shop", web("secrets: [token]") + text, _dot_env="TOKEN=s3cr$$t\n")
    plan = plan_of(host)["shop"]
    assert reasons(plan) == ""
    staging.write(plan)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in plan.directory.iterdir()}
    assert modes["compose.yaml"] == 0o600
    assert stat.S_IMODE(plan.directory.stat().st_mode) == 0o700
    declared = yaml.safe_load((plan.directory / "compose.yaml").read_text())["secrets"]["token"]["file"]
    assert declared == str(plan.directory / "secrets-token")
    assert (plan.directory / "secrets-token").read_text().startswith("s3cr$")


def test_trees_elsewhere_that_may_start_empty_are_volumes_that_compose_takes(host, stack, tmp_path):
    """Whatever they are called: `stackward stacks` names them."""
    places = [tmp_path / "My Files@1", tmp_path / "ünï", tmp_path / "a+b/data"]
    for place in places:
        place.mkdir(parents=True)
    text = "\n".join(f"            - '{place}:/x{number}'" for number, place in enumerate(places))
    written = (
        "x-stackward: {staging: {enabled: true, empty: '%s'}}\nservices:\n  web:\n    image: nginx\n    volumes:\n"
        + text
    )
    stack("shop", written % "none")
    names = [tree.mount_name for tree in host.found("shop").trees if tree.path in places]
    assert len(names) == len(places)
    stack("shop", written % ",".join(names))
    plan = plan_of(host)["shop"]
    assert reasons(plan) == ""
    staging.write(plan)
    model = compose.resolve(plan.directory)
    assert [mount["type"] for mount in model["services"]["web"]["volumes"]] == ["volume"] * 3
    assert len(model["volumes"]) == 3


def test_variables_that_compose_cannot_read_any_more_refuse_their_instance_alone(host, stack):
    secret = "\n        secrets: {token: {environment: TOKEN}}\n"
    stack("shop", web("secrets: [token]") + secret, _dot_env="TOKEN=x\n")
    stack("wiki", web())
    stacks = host.discover().stacks
    (host.settings.docker_root / "shop/.env").write_text("TOKEN='x\n")
    found = {one.stack.name: one for one in staging.plans(host.settings, None, stacks)}
    assert "Compose cannot read what secrets and configs are set to" in reasons(found["shop"])
    assert reasons(found["wiki"]) == ""


def test_before_the_first_night_it_counts_what_the_snapshot_will_hold(host, stack):
    stack("shop", web())
    (host.settings.volume / ".nightly/shop").rmdir()
    assert "is not there" in reasons(plan_of(host)["shop"])
    assert reasons(plan_of(host, fresh=True)["shop"]) == ""


def test_an_override_wins_and_lifts_what_it_speaks_of(host, stack):
    override = "services: {web: {privileged: false, command: [sleep, '1'], volumes: ['./own:/own:ro']}}"
    (host.settings.docker_root / "shop/own").mkdir(parents=True)
    stack("shop", web("privileged: true"), **{"compose.staging.yaml": override})
    plan = plan_of(host)["shop"]
    assert reasons(plan) == ""
    service = plan.model["services"]["web"]
    assert service["command"] == ["sleep", "1"]
    assert {mount["target"] for mount in service["volumes"]} == {"/data", "/own"}
    assert plan.model["name"] == "shop-staging"


def test_an_override_that_is_a_link_to_the_appliances_own_is_not_read_and_quoted(host, stack):
    (host.settings.config_dir / "age.key").write_text("services: {web: [AGE-SECRET-KEY-1PRECIOUS\n")
    stack("shop", web())
    (host.settings.docker_root / "shop/compose.staging.yaml").symlink_to(host.settings.config_dir / "age.key")
    said = reasons(plan_of(host)["shop"])
    assert "belongs to the appliance itself" in said
    assert "PRECIOUS" not in said


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("services: [", "compose.staging.yaml cannot be used"),
        ("services: {web: {nonsense: 1}}", "compose.staging.yaml cannot be used"),
        ("services: {web: {volumes: ['{volume}/shop:/live']}}", "it may be mounted read-only"),
        ("services: {web: {volumes: ['/var/run/docker.sock:/x']}}", "Docker's socket"),
        ("volumes: {all: {external: true}}\nservices: {web: {volumes: ['all:/x']}}", "external"),
        ("volumes: {all: {name: shop_cache}}\nservices: {web: {volumes: ['all:/x']}}", "leave `name:` out"),
        ("services: {web: {volumes_from: ['container:shop-web-1']}}", "volumes_from"),
    ],
)
def test_an_override_that_cannot_be_used_refuses_the_instance(host, stack, override, why):
    stack("shop", web(), **{"compose.staging.yaml": override.replace("{volume}", str(host.settings.volume))})
    assert why in reasons(plan_of(host)["shop"])


def test_a_volume_that_an_override_adds_is_the_instances_own(host, stack):
    added = "volumes: {more: {}}\nservices: {web: {volumes: ['more:/x']}}"
    stack("shop", web(), **{"compose.staging.yaml": added})
    assert reasons(plan_of(host)["shop"]) == ""


def test_no_instance_takes_the_place_of_another_stack(host, stack):
    stack("shop", web())
    stack("shop-staging", "services: {web: {image: nginx}}")
    assert "its instance would be called shop-staging, as the stack shop-staging is" in reasons(plan_of(host)["shop"])


@pytest.mark.parametrize(
    ("kind", "name", "labels", "refused"),
    [
        ("volume", "anything", {"com.docker.compose.project": "PROJECT"}, True),
        ("network", "anything", {"com.docker.compose.project": "PROJECT"}, True),
        ("volume", "more", {}, True),
        ("volume", "more", {"com.docker.compose.project": "PROJECT", "stackward.instance": "PROJECT"}, False),
        ("volume", "anything", {}, False),
    ],
)
def test_no_instance_takes_what_a_project_that_is_down_has(host, stack, api, kind, name, labels, refused):
    """No container tells of it, and going down the instance would take it along."""
    stack_name = f"unit{uuid.uuid4().hex[:8]}"
    project = f"{stack_name}-staging"
    added = "volumes: {more: {}}\nservices: {web: {volumes: ['more:/x']}}"
    stack(stack_name, web(), **{"compose.staging.yaml": added})
    made = {key: value.replace("PROJECT", project) for key, value in labels.items()}
    name = f"{project}_{name}"
    if kind == "volume":
        api.create_volume(name, labels=made)
    else:
        api.create_network(name, internal=True, labels=made)
    try:
        (plan,) = staging.plans(host.settings, Docker(DOCKER_HOST), host.discover().stacks)
    finally:
        api.remove_volume(name) if kind == "volume" else api.remove_network(name)
    assert (f"the {kind} {name}, which is called so, is somebody else's" in reasons(plan)) is refused
    assert (reasons(plan) == "") is not refused


def test_all_that_an_override_adds_is_marked_as_the_instances(host, stack):
    added = "volumes: {more: {}, far: {external: true}}\nnetworks: {x: {}}\nservices: {web: {volumes: ['more:/x']}}"
    stack("shop", web(), **{"compose.staging.yaml": added})
    model = plan_of(host)["shop"].model
    made = [model["volumes"]["more"], *model["networks"].values()]
    assert [one["labels"] for one in made] == [{"stackward.instance": "shop-staging"}] * len(made)


def test_no_instance_takes_a_subnet_that_the_host_has_a_route_to(host, stack):
    stack("shop", web())
    stacks = host.discover().stacks
    lower, upper = IPv4Network("198.19.0.0/16").subnets()
    for routes, refused in (((lower,), True), ((upper,), False), (tuple(lower.subnets())[:1], False)):
        (plan,) = staging.plans(host.settings, None, stacks, routes=routes)
        assert ("no subnet in the lower half of 198.19.0.0/16 is free" in reasons(plan)) is refused
        assert refused or not any(
            one.overlaps(route) for one in staging_networks.subnets(plan.model) for route in routes
        )


def test_of_two_that_want_one_port_the_second_is_refused(host, stack):
    override = "services: {web: {ports: ['18080:80']}}"
    stack("shop", web(), **{"compose.staging.yaml": override})
    stack("wiki", web(), **{"compose.staging.yaml": override})
    plans = plan_of(host)
    assert reasons(plans["shop"]) == ""
    assert "port 18080" in reasons(plans["wiki"])
    assert "the instance of wiki is to have, is taken by the instance of shop" in reasons(plans["wiki"])


@pytest.mark.parametrize(("wanted", "refused"), [("127.0.0.1:8080:80", True), ("10.0.0.1:8081:80", False)])
def test_no_instance_takes_a_port_of_production_not_even_while_that_is_down(host, stack, wanted, refused):
    stack("wiki", "services: {web: {image: nginx, ports: ['8080:80', '127.0.0.1:8081:80']}}")
    stack("shop", web(), **{"compose.staging.yaml": f"services: {{web: {{ports: ['{wanted}']}}}}"})
    assert ("is taken by wiki itself" in reasons(plan_of(host)["shop"])) is refused


def test_a_hand_written_service_is_taken_as_it_is(host, stack):
    policy = "x-stackward: {staging: {enabled: true, service: staging}}"
    stack("shop", policy + "\nservices: {web: {image: nginx}, staging: {image: nginx}}")
    plan = plan_of(host)["shop"]
    assert (plan.service, plan.project, plan.directory.name) == ("staging", "shop", "shop")
    assert reasons(plan) == ""


def test_a_hand_written_service_that_is_none_is_refused(host, stack):
    stack("shop", web(staged="staging: {enabled: true, service: stging}"))
    assert "names stging, which is none" in reasons(plan_of(host)["shop"])


def test_a_stack_that_compose_cannot_read_has_no_instance(host, stack):
    stack("shop", web("nonsense: 1, labels: {stackward.staging: 'true'}"))
    assert "Compose cannot read shop" in reasons(plan_of(host)["shop"])


def test_last_nights_copy_is_no_tree_of_the_stack(host, stack):
    stack("shop", web().replace("/shop:/data", "/.nightly/shop:/data"))
    (tree,) = host.found("shop").trees
    assert not tree.covered
    assert tree.reason.startswith("a snapshot of the volume")


def test_a_link_in_the_copy_that_leads_to_production_is_not_followed(host, stack):
    stack("shop", web())
    plan = plan_of(host)["shop"]
    assert staging.strayed(plan.model) == []
    copy = host.settings.volume / ".nightly/shop"
    copy.rmdir()
    copy.symlink_to(host.settings.volume / "shop")
    (why,) = staging.strayed(plan.model)
    assert f"leads to {host.settings.volume}/shop" in why


GREEDY = {
    "privileged: true": "is privileged",
    "pid: host": "has `pid: host`",
    "ipc: host": "has `ipc: host`",
    "network_mode: host, networks: !reset {}": "has `network_mode: host`",
    "network_mode: 'container:production', networks: !reset {}": "has `network_mode: container:production`",
    "userns_mode: host": "says `userns_mode`",
    "uts: host": "says `uts`",
    "cgroup: host": "says `cgroup`",
    "cgroup_parent: /": "says `cgroup_parent`",
    "runtime: other": "says `runtime`",
    "build: .": "says `build`",
    "devices: ['/dev/sda']": "has devices of the host",
    "device_cgroup_rules: ['a *:* rwm']": "says `device_cgroup_rules`",
    "cap_add: [SYS_ADMIN]": "has cap_add SYS_ADMIN",
    "cap_add: [NET_RAW]": "has cap_add NET_RAW",
    "security_opt: ['apparmor:unconfined']": "has security_opt apparmor:unconfined",
    "post_start: [{command: [id], privileged: true}]": "has a privileged hook",
    "volumes: ['/:/host:ro']": "mounts /",
    "volumes: ['/etc:/host-etc:ro']": "mounts /etc",
    "volumes: ['/var/run/docker.sock:/s:ro']": "mounts /var/run/docker.sock",
}


@pytest.mark.parametrize("said", GREEDY)
def test_an_override_that_its_own_containers_can_write_gives_an_instance_no_rights(host, stack, said):
    """A container with `.:/app` writes it itself, and would be root on the host the next night."""
    mounted = '["{volume}/shop:/data", ".:/app"]'.replace("{volume}", str(host.settings.volume))
    text = web().replace('["{volume}/shop:/data"]', mounted)
    stack("shop", text, **{"compose.staging.yaml": f"services: {{web: {{{said}}}}}"})
    assert f"compose.staging.yaml: web {GREEDY[said]}" in reasons(plan_of(host)["shop"])


@pytest.mark.parametrize(
    "added",
    [
        "volumes: {vol: {driver_opts: {type: none, o: bind, device: /etc}}}",
        "volumes: {vol: {driver: sshfs}}",
        "networks: {n: {external: true}}",
        "networks: {n: {driver: macvlan, driver_opts: {parent: eth0}}}",
        "secrets: {s: {file: /etc/hostname}}",
        "configs: {c: {file: /etc/hostname}}",
    ],
)
def test_nor_does_what_it_declares_lead_out_of_the_instance(host, stack, added):
    mounted = '["{volume}/shop:/data", ".:/app"]'.replace("{volume}", str(host.settings.volume))
    kind, name = added.partition(":")[0], added.partition("{")[2].partition(":")[0]
    use = {"volumes": "volumes: ['vol:/v']", "networks": "networks: [n]"}.get(kind, f"{kind}: [{name}]")
    override = f"services: {{web: {{{use}}}}}\n{added}\n"
    stack("shop", web().replace('["{volume}/shop:/data"]', mounted), **{"compose.staging.yaml": override})
    assert f"the {kind.removesuffix('s')} {name} " in reasons(plan_of(host)["shop"])


def test_what_is_harmless_is_merged_as_before_also_where_containers_write(host, stack):
    mounted = '["{volume}/shop:/data", ".:/app"]'.replace("{volume}", str(host.settings.volume))
    said = (
        "services: {web: {command: [sleep, '1'], environment: {A: b}, healthcheck: {test: [CMD, 'true']}, user: '1000',"
        " privileged: false, cap_drop: [ALL], volumes: ['cache:/cache'], mem_limit: 64m}}\nvolumes: {cache: {}}"
    )
    stack("shop", web("privileged: true").replace('["{volume}/shop:/data"]', mounted), **{"compose.staging.yaml": said})
    found = plan_of(host)["shop"]
    told = reasons(found)
    assert "no instance may" not in told
    assert "privileged" not in told
    assert found.model["services"]["web"]["command"] == ["sleep", "1"]


def test_an_override_that_only_the_user_can_write_is_the_users_word(host, stack):
    stack(
        "shop", web(), **{"compose.staging.yaml": "services: {web: {cap_add: [NET_RAW], volumes: ['./own:/own:ro']}}"}
    )
    (host.settings.docker_root / "shop/own").mkdir()
    assert reasons(plan_of(host)["shop"]) == ""
