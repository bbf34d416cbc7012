"""Rights that a hand-written override may not give an instance, where its author may not be trusted. Pure.

`compose.staging.yaml` may come from a backup, or lie where the stack's own containers can write. Then it may take rights
away and change what is harmless, but give nothing that reaches the host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from stackward.core.model import display
from stackward.core.staging_facts import Refusal, within


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What an override may say of a service; all else is refused, so that a key of a later Compose is, too.
_HARMLESS = _words(
    "attach annotations cap_drop command configs container_name cpu_count cpu_percent cpu_period cpu_quota cpu_shares cpus"
    " cpuset depends_on deploy dns dns_opt dns_search domainname entrypoint environment expose extra_hosts group_add"
    " healthcheck hostname image init labels links logging mac_address mem_limit mem_reservation mem_swappiness"
    " memswap_limit networks oom_kill_disable oom_score_adj pids_limit platform ports profiles pull_policy read_only"
    " restart scale secrets shm_size stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits user"
    " working_dir"
)
# These are compared with what was derived, or looked at more closely.
_COMPARED = _words(
    "cap_add devices ipc network_mode pid post_start pre_stop privileged security_opt volumes volumes_from"
)
_MOUNTS = ("bind", "volume", "tmpfs", "image")
_OWN_NAMESPACES = ("", "none", "private", "shareable", "bridge", "default")


def excess(
    model: Mapping[str, Any],
    derived: Mapping[str, Any],
    places: Collection[str],
    real: Mapping[str, str],
    *,
    called: str,
) -> Iterator[Refusal]:
    """Refuse what the merged `model` has beyond the `derived` one; the messages call the override `called`.

    `places` are the directories (real paths) that hold the instance's own copies, `real` the real path of each bind's source.
    """
    services: Mapping[str, Mapping[str, Any]] = derived.get("services") or {}
    for name, service in (model.get("services") or {}).items():
        for why in _of_service(service, services.get(name) or {}, model, places, real):
            yield _refusal(called, f"{display(name)} {why}")
    for section in ("volumes", "networks", "secrets", "configs"):
        known: Mapping[str, Any] = derived.get(section) or {}
        for name, declared in (model.get(section) or {}).items():
            if why := _of_declared(section, declared or {}, known.get(name) or {}, places, real):
                yield _refusal(called, f"the {section.removesuffix('s')} {display(name)} {why}")


def _refusal(called: str, what: str) -> Refusal:
    return Refusal(
        f"{called}: {what}, which no instance may", "only production's own compose file can give an instance more"
    )


def _of_service(
    service: Mapping[str, Any],
    derived: Mapping[str, Any],
    model: Mapping[str, Any],
    places: Collection[str],
    real: Mapping[str, str],
) -> Iterator[str]:
    for key, value in service.items():
        if key not in _HARMLESS | _COMPARED and value and derived.get(key) != value:
            yield f"says `{display(key)}`"
    yield from _of_rights(service, derived)
    yield from _of_namespaces(service, derived, model)
    yield from _of_mounts(service, derived, places, real)


def _of_rights(service: Mapping[str, Any], derived: Mapping[str, Any]) -> Iterator[str]:
    if service.get("privileged"):
        yield "is privileged"
    if service.get("devices") or any(_deployed_devices(service)):
        yield "has devices of the host"
    for key in ("cap_add", "security_opt"):
        known = {str(one) for one in derived.get(key) or []}
        for one in service.get(key) or []:
            if str(one) not in known:
                yield f"has {key} {display(str(one))}"
    for key in ("post_start", "pre_stop"):
        if any((hook or {}).get("privileged") for hook in service.get(key) or []):
            yield f"has a privileged hook ({key})"


def _of_namespaces(service: Mapping[str, Any], derived: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    services = model.get("services") or {}
    for key in ("pid", "ipc", "network_mode"):
        mode = str(service.get(key) or "")
        own = mode in _OWN_NAMESPACES or (mode.startswith("service:") and mode.removeprefix("service:") in services)
        if not own and mode != derived.get(key):
            yield f"has `{key}: {display(mode)}`"
    for other in service.get("volumes_from") or []:
        if str(other).partition(":")[0] not in services:
            yield f"takes the volumes of {display(str(other))}"


def _of_mounts(
    service: Mapping[str, Any], derived: Mapping[str, Any], places: Collection[str], real: Mapping[str, str]
) -> Iterator[str]:
    sources = {real.get(str(mount.get("source")), str(mount.get("source"))) for mount in derived.get("volumes") or []}
    for mount in service.get("volumes") or []:
        source, kind = str(mount.get("source") or ""), str(mount.get("type"))
        where = real.get(source, source)
        if kind == "bind" and where not in sources and not any(within(where, one) for one in places):
            yield f"mounts {display(source)}"
        elif kind not in _MOUNTS:
            yield f"mounts something of the kind {display(kind)}"


def _deployed_devices(service: Mapping[str, Any]) -> Iterator[str]:
    resources: Mapping[str, Any] = (service.get("deploy") or {}).get("resources") or {}
    for part in ("limits", "reservations"):
        for one in (resources.get(part) or {}).get("devices") or []:
            yield str(one.get("driver") or "of the host")


def _of_declared(
    section: str,
    declared: Mapping[str, Any],
    derived: Mapping[str, Any],
    places: Collection[str],
    real: Mapping[str, str],
) -> str:
    if declared == derived:
        return ""
    if declared.get("external"):
        return "is not the instance's own"
    if section in ("volumes", "networks"):
        driver = str(declared.get("driver") or "")
        if driver not in ("", "local", "bridge") or (declared.get("driver_opts") or {}) != (
            derived.get("driver_opts") or {}
        ):
            return "has a driver, or options of one"
        return ""
    file = str(declared.get("file") or "")
    where = real.get(file, file)
    if file and declared.get("file") != derived.get("file") and not any(within(where, one) for one in places):
        return f"is the file {display(file)}"
    return "is looked up elsewhere" if declared.get("driver") or declared.get("template_driver") else ""
