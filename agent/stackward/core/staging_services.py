"""A service of a staging instance: which of its fields are taken over, changed, left out, or refused."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stackward.core.model import display
from stackward.core.staging_facts import Refusal, Wish


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Watchtower updates whatever does not tell it to leave it alone; nothing else reads labels of an instance.
LABELS = {"com.centurylinklabs.watchtower.enable": "false"}

_KEPT = _words(
    "cap_drop command cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset"
    " entrypoint expose group_add healthcheck image init mem_limit mem_reservation mem_swappiness memswap_limit"
    " oom_kill_disable oom_score_adj pids_limit platform post_start pre_stop read_only scale shm_size stdin_open"
    " stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits user working_dir"
)
# Nobody misses them: they speak to the outside, name things that there can be only one of, or are read by Compose alone.
_LEFT_OUT = _words(
    "annotations attach blkio_config build cgroup cgroup_parent container_name credential_spec develop"
    " device_cgroup_rules dns dns_opt dns_search domainname env_file hostname isolation label_file labels mac_address"
    " ports profiles runtime userns_mode uts"
)
_REWRITTEN = _words(
    "cap_add configs depends_on deploy environment extra_hosts ipc links logging network_mode networks pid privileged"
    " pull_policy restart secrets security_opt volumes volumes_from"
)
_NOTED = {
    "devices": "its devices are production's, left out",
    "gpus": "graphics cards are left out",
    "external_links": "links to containers of other projects are left out",
}
_REFUSED = {
    "use_api_socket": "it is given Docker's socket, and so the host",
    "provider": "it is no container",
    "models": "it uses models that are shared with production",
}
# Docker's own default set, and a few that reach nothing outside the container.
_CAPABILITIES = _words(
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID IPC_LOCK KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID"
    " SYS_CHROOT SYS_NICE"
)
_LOCAL_LOGS = frozenset({"json-file", "local", "journald", "none"})
_ANNOUNCING = re.compile(r"VIRTUAL_(HOST|PORT|PATH|PROTO)\w*|LETSENCRYPT_\w+|ACME_\w+|HTTPS_METHOD")
_PUBLISHERS = "it is what nginx-proxy goes by, left out"


class Staged:
    """One service on its way into the instance; `refusals` and `notes` say what came up."""

    def __init__(self, name: str, service: Mapping[str, Any], chosen: Sequence[str], wish: Wish) -> None:
        self._name = name
        self._service = service
        self._chosen = frozenset(chosen)
        self._wish = wish
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []

    def fields(self) -> dict[str, Any]:
        """The service without its volumes, secrets and configs, whose sources are looked at elsewhere."""
        said = {key: value for key, value in self._service.items() if _is_said(key, value)}
        for key in said:
            if key in _REFUSED:
                self._refuse(key, _REFUSED[key])
            elif key in _NOTED:
                self._note(_NOTED[key])
            elif key not in _KEPT | _LEFT_OUT | _REWRITTEN:
                self._note(f"`{display(key)}` is not known to be safe in a staging instance, left out")
        out = {key: self._service[key] for key in said if key in _KEPT}
        out["image"] = str(self._service.get("image") or f"{self._wish.production}-{self._name}")
        local = not self._service.get("image") or self._service.get("pull_policy") == "never"
        out["pull_policy"] = "never" if local else "missing"
        out["labels"] = dict(LABELS)
        own = (
            ("environment", self._environment()),
            ("cap_add", self._capabilities()),
            ("security_opt", self._security()),
            ("extra_hosts", self._hosts()),
            ("logging", self._logging()),
            ("depends_on", self._depends_on()),
            ("links", [link for link in said.get("links", []) if link.partition(":")[0] in self._chosen]),
            ("volumes_from", self._volumes_from()),
            ("restart", self._restart()),
            ("deploy", self._deploy()),
            ("secrets", list(said.get("secrets", []))),
            ("configs", list(said.get("configs", []))),
        )
        out |= {key: value for key, value in own if value}
        if said.get("privileged"):
            self._refuse("privileged", "it is privileged: it could do anything to the host")
        for key in ("post_start", "pre_stop"):
            if any((hook or {}).get("privileged") for hook in said.get(key) or []):
                self._refuse(key, "it has a privileged hook: that could do anything to the host")
        self._namespaces(out)
        self._networks(out)
        return out

    def _environment(self) -> dict[str, Any]:
        found = dict(self._service.get("environment") or {})
        announcing = [name for name in found if _ANNOUNCING.fullmatch(name)]
        for name in announcing:
            del found[name]
            self._note(f"{name}: {_PUBLISHERS}")
        return found | dict(self._wish.environment)

    def _capabilities(self) -> list[str]:
        asked = [str(one).upper().removeprefix("CAP_") for one in self._service.get("cap_add") or []]
        for one in asked:
            if one not in _CAPABILITIES:
                self._refuse("cap_add", f"it has the capability {display(one)}, which reaches beyond the instance")
        return [one for one in asked if one in _CAPABILITIES]

    def _security(self) -> list[str]:
        found = [str(one) for one in self._service.get("security_opt") or []]
        loose = [one for one in found if re.search(r"[:=](unconfined|disable)$", one)]
        for one in loose:
            self._note(f"{display(one)} is left out")
        return [one for one in found if one not in loose]

    def _hosts(self) -> list[str]:
        """Names that stand for the container itself; any other one leads to production."""
        kept = []
        for entry in _host_entries(self._service.get("extra_hosts")):
            if _is_loopback(re.split("[=:]", entry, maxsplit=1)[-1]):
                kept.append(entry)
            else:
                self._note(f"extra_hosts: {display(entry)} leads out of the instance, left out")
        return kept

    def _logging(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._service.get("logging") or {}
        driver = str(found.get("driver") or "json-file")
        if driver in _LOCAL_LOGS:
            return found
        self._note(f"its log would go to production's {display(driver)}, left out")
        return {}

    def _depends_on(self) -> dict[str, Any]:
        needed: Mapping[str, Any] = self._service.get("depends_on") or {}
        for name in needed:
            if name not in self._chosen:
                self._note(f"it does not wait for {display(name)}, which is not in the instance")
        return {name: how for name, how in needed.items() if name in self._chosen}

    def _volumes_from(self) -> list[str]:
        kept = []
        for source in self._service.get("volumes_from") or []:
            if source.partition(":")[0] in self._chosen:
                kept.append(source)
            else:
                self._refuse("volumes_from", f"it takes the volumes of {display(source)}, which is not in the instance")
        return kept

    def _restart(self) -> str:
        """As production's: an instance is there again when Docker or the host is. A failure is tried again five times."""
        policy = str(self._service.get("restart") or "")
        deployed = str(((self._service.get("deploy") or {}).get("restart_policy") or {}).get("condition") or "")
        if policy in ("always", "unless-stopped") or (not policy and deployed == "any"):
            return "unless-stopped"
        return "" if policy in ("", "no") and deployed in ("", "none") else "on-failure:5"

    def _deploy(self) -> dict[str, Any]:
        deploy: Mapping[str, Any] = self._service.get("deploy") or {}
        resources = deploy.get("resources") or {}
        kept: dict[str, Any] = {"replicas": deploy["replicas"]} if deploy.get("replicas") is not None else {}
        if limits := resources.get("limits"):
            kept["resources"] = {"limits": {key: value for key, value in limits.items() if key != "devices"}}
        if (resources.get("reservations") or {}).get("devices"):
            self._note("graphics cards are left out")
        return kept

    def _namespaces(self, out: dict[str, Any]) -> None:
        for key in ("pid", "ipc"):
            mode = str(self._service.get(key) or "")
            if mode in ("private", "shareable", "none") or self._is_of_instance(mode):
                out[key] = mode
            elif mode == "host" and key == "ipc":
                self._note("it has an ipc namespace of its own")
            elif mode:
                self._refuse(key, f"`{key}: {display(mode)}` shares what belongs to the host or to production")

    def _networks(self, out: dict[str, Any]) -> None:
        mode = str(self._service.get("network_mode") or "")
        if mode == "none" or self._is_of_instance(mode):
            out["network_mode"] = mode
            return
        if mode.startswith(("container:", "service:")):
            self._refuse("network_mode", f"it uses the network of {display(mode)}, which is not in the instance")
            return
        networks: Mapping[str, Any] = self._service.get("networks") or {"default": None}
        if mode:
            if mode != "bridge":
                self._note(f"`network_mode: {display(mode)}`: it has the instance's own network instead")
            networks = {"default": None}
        aliases = {name: (how or {}).get("aliases") for name, how in networks.items()}
        out["networks"] = {name: {"aliases": list(names)} if names else None for name, names in aliases.items()}

    def _is_of_instance(self, mode: str) -> bool:
        return mode.startswith("service:") and mode.removeprefix("service:") in self._chosen

    def _refuse(self, key: str, reason: str) -> None:
        hint = f"say `{key}` otherwise in compose.staging.yaml, or leave {display(self._name)} out with"
        self.refusals.append(
            Refusal(
                f"{display(self._name)}: {reason}", f"{hint} stackward.staging.services", ("services", self._name, key)
            )
        )

    def _note(self, text: str) -> None:
        self.notes.append(f"{display(self._name)}: {text}")


def _is_said(key: str, value: Any) -> bool:
    """Compose writes much that is empty; of these only an empty command says something: none, also not the image's."""
    if value is None or value is False:
        return False
    return bool(value) or isinstance(value, int) or (key in ("command", "entrypoint") and value == [])


def _host_entries(said: Any) -> list[str]:
    if isinstance(said, Mapping):
        return [
            f"{name}={address}" for name, one in said.items() for address in (one if isinstance(one, list) else [one])
        ]
    return [str(entry) for entry in said or []]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False
