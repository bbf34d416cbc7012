"""A staging instance: a stack's resolved compose model becomes another project that cannot reach production. Pure.

What production owns (data, names, ports, networks, the way out) is replaced or left out; what cannot be made safe is
a refusal. Of each service only fields that are known to be safe are taken over, so one that a later Compose brings is
left out, and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stackward.core import staging_mounts, staging_networks, staging_ports, staging_services
from stackward.core.model import display
from stackward.core.staging_facts import WAIT_SECONDS, Facts, Move, Refusal, Wish
from stackward.core.staging_mounts import audit

__all__ = [
    "EDGE",
    "PROXY",
    "WAIT_SECONDS",
    "Derived",
    "Facts",
    "Move",
    "Refusal",
    "Wish",
    "audit",
    "derive",
    "escaped",
    "lifted",
]

PROXY = "stackward-proxy"
EDGE = "stackward-edge"
_PROXY_PORT = 20000


@dataclass(frozen=True, slots=True)
class Derived:
    """`model` is the instance (`$` not escaped yet); `files` are secrets to be written beside it, by name.

    It may be run only if there are no `refusals`. `notes` say what is otherwise than in production.
    """

    model: dict[str, Any]
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


def derive(model: Mapping[str, Any], wish: Wish, facts: Facts) -> Derived:
    """The instance of a stack whose resolved model this is."""
    services: Mapping[str, Mapping[str, Any]] = model.get("services") or {}
    refusals: list[Refusal] = []
    notes: list[str] = []
    chosen = _chosen(services, wish, refusals, notes)
    stores = staging_mounts.Stores(model, wish, facts)
    out: dict[str, dict[str, Any]] = {}
    for name in chosen:
        service = staging_services.Staged(name, services[name], chosen, wish)
        out[name] = service.fields()
        if mounts := list(stores.mounts(name, services[name].get("volumes") or [])):
            out[name]["volumes"] = mounts
        refusals += service.refusals
        notes += service.notes
    _give_time(out, wish)
    networks = sorted({net for service in out.values() for net in service.get("networks") or {}})
    derived: dict[str, Any] = {
        "name": wish.name,
        "services": out,
        "networks": {net: staging_networks.inner(wish.name) for net in networks},
    }
    derived |= stores.declarations(services[name] for name in chosen)
    refusals += stores.refusals
    notes += stores.notes
    if wish.publish or wish.prober:
        _add_proxy(derived, wish, facts, refusals)
        _publish(derived, services, wish, notes)
    _allot(derived, facts, refusals)
    return Derived(derived, tuple(refusals), tuple(dict.fromkeys(notes)), stores.files)


def lifted(refusals: Sequence[Refusal], override: Mapping[str, Any]) -> tuple[Refusal, ...]:
    """The refusals that are left where a hand-written override says otherwise about exactly what was refused.

    (What Stackward left out stays out; the override's own word is merged over it.)
    """
    return tuple(refusal for refusal in refusals if not _says(override, refusal.path))


def escaped(value: Any) -> Any:
    """For a compose file: `$` means a variable there."""
    if isinstance(value, Mapping):
        return {escaped(key): escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _says(document: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(document, Mapping) or key not in document:
            return False
        document = document[key]
    return bool(path)


def _chosen(
    services: Mapping[str, Mapping[str, Any]], wish: Wish, refusals: list[Refusal], notes: list[str]
) -> tuple[str, ...]:
    """The services of the instance: those that are named, or those that production runs."""
    strange = [name for name in wish.services if name not in services]
    refusals += [Refusal(f"stackward.staging.services names {display(name)}, which is no service") for name in strange]
    if wish.services:
        return tuple(name for name in services if name in wish.services)
    asked = {name: one for name, one in services.items() if name not in wish.without}
    chosen = tuple(name for name, one in asked.items() if not one.get("profiles") or name in wish.present)
    left = [name for name in asked if name not in chosen]
    notes += [f"{display(name)}: it has a profile that production does not run, left out" for name in left]
    if not chosen:
        refusals.append(Refusal("it has no service that production runs"))
    return chosen


def _give_time(services: dict[str, dict[str, Any]], wish: Wish) -> None:
    """A database that recovers is not unhealthy yet: Compose would give up on those that wait for it.

    The copy was taken while production ran, so it recovers even where production's never had to.
    """
    for service in services.values():
        for name, how in (service.get("depends_on") or {}).items():
            check = dict(services[name].get("healthcheck") or {})
            if how.get("condition") == "service_healthy" and not check.get("disable"):
                services[name]["healthcheck"] = {**check, "start_period": f"{wish.wait_seconds:.0f}s"}


def _add_proxy(derived: dict[str, Any], wish: Wish, facts: Facts, refusals: list[Refusal]) -> None:
    """A small container that is in the instance's networks and in one with a way in; only it publishes ports."""
    services = derived["services"]
    networks: set[str] = set()
    for name in (one.service for one in wish.publish):
        if name not in services:
            refusals.append(Refusal(f"stackward.staging.publish names {display(name)}, which is not in the instance"))
        elif not (found := _networks_of(services, name)):
            refusals.append(Refusal(f"stackward.staging.publish: {display(name)} has no network"))
        else:
            networks |= found
    if wish.prober:
        networks |= set(derived["networks"])
    if not networks:
        return
    if not facts.proxy_image:
        if wish.publish:
            hint = "run Stackward as the container that compose.yaml describes"
            refusals.append(
                Refusal("its ports need a proxy, whose image is the appliance's own: it is not known", hint)
            )
        return
    ways = [f"{_PROXY_PORT + n}:{_host_of(services, one.service)}:{one.target}" for n, one in enumerate(wish.publish)]
    services[PROXY] = {
        "image": facts.proxy_image,
        "pull_policy": "never",
        "entrypoint": ["python3", "-m", "stackward.tools.proxy"],
        "command": ways,
        "restart": "unless-stopped",
        "init": True,
        "user": "65534:65534",
        "read_only": True,
        "cap_drop": ["ALL"],
        "healthcheck": {"disable": True},
        "labels": dict(staging_services.LABELS),
        "networks": dict.fromkeys(sorted(networks)),
    }


def _publish(
    derived: dict[str, Any], production: Mapping[str, Mapping[str, Any]], wish: Wish, notes: list[str]
) -> None:
    """Open the proxy's ports, none of them wider than production's, and note where one is not open at all addresses."""
    if not wish.publish or PROXY not in derived["services"]:
        return
    ports: list[dict[str, Any]] = []
    for number, one in enumerate(wish.publish):
        found = staging_ports.addresses(production, one, _host_of(production, one.service))
        if not one.address and "" not in found:
            where = ", ".join(found)
            notes.append(
                f"port {one.port} is open at {where} alone, no wider than production's; stackward.staging.publish can say more"
            )
        for address in found:
            host_ip = {"host_ip": address} if address else {}
            way = {"target": _PROXY_PORT + number, "published": str(one.port), "protocol": "tcp"}
            ports.append({"mode": "host", **host_ip, **way})
    derived["services"][PROXY]["networks"][EDGE] = None
    derived["services"][PROXY]["ports"] = ports
    derived["networks"][EDGE] = staging_networks.edge(wish.name)


def _allot(derived: dict[str, Any], facts: Facts, refusals: list[Refusal]) -> None:
    """Its networks' subnets are not those that Docker has for production's."""
    if not derived["networks"]:
        del derived["networks"]
    elif facts.room.ranges:
        containers = staging_networks.containers_of(derived["services"])
        for name, subnet in staging_networks.allot(derived["name"], containers, facts.room).items():
            if subnet is None:
                ranges = facts.room.called or ", ".join(map(str, facts.room.ranges))
                hint = "STACKWARD_STAGING_SUBNETS: a larger range, or one that nothing else on the host uses"
                refusals.append(Refusal(f"no subnet in {ranges} is free for its network {display(name)}", hint))
            else:
                derived["networks"][name]["ipam"] = {"config": [{"subnet": str(subnet)}]}


def _host_of(services: Mapping[str, Any], name: str) -> str:
    """The service whose network this one uses."""
    seen = {name}
    if name not in services:
        return name
    while (mode := str(services[name].get("network_mode") or "")).startswith("service:"):
        name = mode.removeprefix("service:")
        if name in seen or name not in services:
            break
        seen.add(name)
    return name


def _networks_of(services: Mapping[str, Any], name: str) -> set[str]:
    return set(services.get(_host_of(services, name), {}).get("networks") or {})
