"""What a staging instance mounts: last night's copy of production's data, nothing that production writes to.

A mount's source either lies where a copy was made of (then the copy takes its place), or it stays production's: then it
is mounted read-only, if it is a thing that can be read without harm, or refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from stackward.core.model import display
from stackward.core.staging_facts import Facts, Refusal, Wish, within
from stackward.core.staging_networks import LABEL

# Sockets, devices and the kernel: reading them is no harmless thing.
_CLOSED = ("/dev", "/proc", "/run", "/sys", "/var/run", "/var/lib/docker", "/var/lib/containerd")
_OVERRIDE = "say otherwise in compose.staging.yaml, or leave the service out with stackward.staging.services"


class Stores:
    """The mounts, volumes, secrets and configs of one instance; `refusals`, `notes` and `files` fill as they are asked for."""

    def __init__(self, model: Mapping[str, Any], wish: Wish, facts: Facts) -> None:
        self._model = model
        self._wish = wish
        self._facts = facts
        self._empty: dict[str, str] = {}  # the instance's own volumes: what each is instead of
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []
        self.files: dict[str, str] = {}

    def mounts(self, service: str, said: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        for mount in said:
            found = self._mount(service, mount)
            if found is not None:
                yield found

    def declarations(self, services: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The top-level volumes, secrets and configs that the services of the instance use."""
        used: dict[str, set[str]] = {"secrets": set(), "configs": set()}
        for service in services:
            for section, names in used.items():
                names.update(str(one["source"]) for one in service.get(section) or [])
        found: dict[str, Any] = {
            "volumes": {name: {"labels": {LABEL: self._wish.name}} for name in sorted(self._empty)}
        }
        for section, names in used.items():
            declared = self._model.get(section) or {}
            found[section] = {name: self._content(section, name, declared.get(name) or {}) for name in sorted(names)}
        return {section: names for section, names in found.items() if names}

    def _mount(self, service: str, mount: Mapping[str, Any]) -> dict[str, Any] | None:
        kind, target = mount.get("type"), str(mount.get("target") or "")
        if kind in ("tmpfs", "image"):
            return dict(mount)
        if kind == "bind" and mount.get("source"):
            return self._bind(service, mount, str(mount["source"]), target)
        if kind == "volume" and mount.get("source"):
            return self._volume(service, mount, str(mount["source"]), target)
        if kind == "volume":
            self.notes.append(f"{display(service)}: {display(target)} is a volume without a name, and starts empty")
            return {"type": "volume", "target": target}
        self._refuse(service, f"{display(target)} is a mount of the kind {display(str(kind))}", _OVERRIDE)
        return None

    def _bind(self, service: str, mount: Mapping[str, Any], source: str, target: str) -> dict[str, Any] | None:
        real = self._facts.real.get(source, source)
        if (moved := self._facts.moved(real)) is not None:
            return self._bound(service, mount, moved, target)
        if self._may_be_empty(real, source):
            return self._fresh(_slug(self._facts.names.get(real, "") or target), real, mount, target)
        is_read_only = bool(mount.get("read_only"))
        if reason := harm(real, self._facts) or self._no_file(real):
            self._refuse(service, f"{display(source)} {reason}", _OVERRIDE)
            return None
        if not is_read_only and self._facts.kinds[real] == "directory":
            self._refuse(
                service,
                f"{display(source)} is written to and has no copy",
                _either(self._facts.names.get(real) or os.path.basename(real)),
            )
            return None
        if not is_read_only:
            self.notes.append(f"{display(service)}: {display(source)} is production's, mounted read-only")
        return _bind_mount(source, target, read_only=True)

    def _volume(self, service: str, mount: Mapping[str, Any], key: str, target: str) -> dict[str, Any] | None:
        declared = (self._model.get("volumes") or {}).get(key) or {}
        name = str(declared.get("name") or (key if declared.get("external") else f"{self._wish.production}_{key}"))
        real = self._facts.volumes.get(name)
        moved = self._facts.moved(real) if real else None
        if moved is not None:
            subpath = str((mount.get("volume") or {}).get("subpath") or "")
            if ".." in subpath.split("/"):
                self._refuse(service, f"{display(subpath)} leads out of the volume {display(name)}", _OVERRIDE)
                return None
            return self._bound(service, mount, os.path.join(moved, subpath) if subpath else moved, target)
        if key in self._wish.empty or name in self._wish.empty:
            return self._fresh(key, f"volume {name}", mount, target)
        self._refuse(service, f"the named volume {display(name)} has no copy", _either(key))
        return None

    def _bound(self, service: str, mount: Mapping[str, Any], moved: str, target: str) -> dict[str, Any] | None:
        if reason := self._no_file(moved):
            self._refuse(service, f"{display(moved)} {reason}", _OVERRIDE)
            return None
        return _bind_mount(moved, target, read_only=bool(mount.get("read_only")))

    def _fresh(self, wanted: str, instead_of: str, mount: Mapping[str, Any], target: str) -> dict[str, Any]:
        """An empty volume; the same one wherever the same is mounted, and never one for two things."""
        keys = (wanted if number == 1 else f"{wanted}-{number}" for number in count(1))
        key = next(one for one in keys if self._empty.setdefault(one, instead_of) == instead_of)
        read_only = {"read_only": True} if mount.get("read_only") else {}
        return {"type": "volume", "source": key, "target": target, **read_only}

    def _may_be_empty(self, real: str, source: str) -> bool:
        names = {self._facts.names.get(real, ""), os.path.basename(source.rstrip("/"))} - {""}
        return bool(names & set(self._wish.empty))

    def _no_file(self, real: str) -> str:
        """Why it is no file or directory, or ""."""
        kind = self._facts.kinds.get(real)
        if kind == "other":
            return "is a socket or a device"
        return "" if kind else "is not there"

    def _content(self, section: str, name: str, declared: Mapping[str, Any]) -> dict[str, Any]:
        """A secret or config. Files are mounted read-only by Compose itself."""
        path = (section, name)
        if declared.get("external"):
            self.refusals.append(Refusal(f"the {section[:-1]} {display(name)} is external", "", path))
        elif declared.get("content") is not None:
            return {"content": declared["content"]}
        elif variable := declared.get("environment"):
            if variable in self._facts.variables:
                self.files[f"{section}-{_slug(name)}"] = self._facts.variables[variable]
                return {"file": f"{self._facts.home}/{section}-{_slug(name)}"}
            why = f"the {section[:-1]} {display(name)} comes from the variable {display(variable)}, which .env does not set"
            self.refusals.append(Refusal(why, "", path))
        elif source := declared.get("file"):
            real = self._facts.real.get(source, source)
            moved = self._facts.moved(real)
            where = moved or real
            if self._facts.kinds.get(where) is None:
                self.refusals.append(Refusal(f"{display(where)}, a {section[:-1]}, is not there", "", path))
            elif reason := harm(real, self._facts) if moved is None else "":
                self.refusals.append(Refusal(f"the {section[:-1]} {display(source)} {reason}", "", path))
            return {"file": where}
        return {}

    def _refuse(self, service: str, reason: str, hint: str) -> None:
        self.refusals.append(Refusal(f"{display(service)}: {reason}", hint, ("services", service, "volumes")))


def audit(model: Mapping[str, Any], facts: Facts) -> Iterator[Refusal]:
    """What a hand-written override must not say either: that the instance writes to what is production's."""
    for name, service in (model.get("services") or {}).items():
        for mount in service.get("volumes") or []:
            source = str(mount.get("source") or "")
            if mount.get("type") == "bind" and (reason := _reaches(source, facts, bool(mount.get("read_only")))):
                yield Refusal(f"compose.staging.yaml: {display(name)}: {display(source)} {reason}")
        for other in service.get("volumes_from") or []:
            if str(other).startswith("container:"):
                yield Refusal(
                    f"compose.staging.yaml: {display(name)}: volumes_from {display(str(other))} is not the instance's"
                )
    project = str(model.get("name") or "")
    for name, declared in (model.get("volumes") or {}).items():
        called = str((declared or {}).get("name") or "")
        if called and not called.startswith(f"{project}_"):
            yield Refusal(
                f"compose.staging.yaml: the volume {display(name)} is called {display(called)}: leave `name:` out"
            )
        device = str(((declared or {}).get("driver_opts") or {}).get("device") or "")
        if (declared or {}).get("external"):
            yield Refusal(f"compose.staging.yaml: the volume {display(name)} is external, and so production's")
        elif device.startswith("/") and (reason := _reaches(device, facts, read_only=False)):
            yield Refusal(f"compose.staging.yaml: the volume {display(name)}: {display(device)} {reason}")


def _reaches(source: str, facts: Facts, read_only: bool) -> str:
    real = facts.real.get(source, source)
    if any(within(real, move.new) for move in facts.moves):
        return ""
    if reason := harm(real, facts):
        return reason
    is_production = any(within(real, root) for root in facts.roots) or real in facts.names
    return "is production's: it may be mounted read-only" if is_production and not read_only else ""


def _either(name: str) -> str:
    return f"stackward.staging.empty: {display(name)} lets it start empty, `stackward stack convert` moves it to the volume"


def harm(real: str, facts: Facts) -> str:
    """Why a path of production can not even be mounted read-only, or ""."""
    if real == "/" or any(within(root, real) for root in (*facts.roots, *facts.closed)):
        return "holds all of production"
    if any(within(real, root) for root in facts.closed):
        return "belongs to backups or to Stackward itself"
    if os.path.basename(real) in ("docker.sock", "containerd.sock", "podman.sock"):
        return "is Docker's socket: whoever has it has the host"
    if any(within(real, root) or within(root, real) for root in _CLOSED):
        return "is a live part of the host"
    return ""


def _bind_mount(source: str, target: str, *, read_only: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "bind", "source": source, "target": target}
    if read_only:
        found["read_only"] = True
    return {**found, "bind": {"create_host_path": False}}


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "files"
