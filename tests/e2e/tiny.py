"""Stacks that cost nothing: containers that sleep, a file or two, and every way to stand still."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from host import Host
    from host.shell import Completed

ROOT = "/opt/docker"
BACKUPS = "/backup/docker"
STATE = "/var/lib/stackward"
# Sleeps as the init's child: a stop takes no time, unless a test wants it to.
SERVICE: dict[str, Any] = {
    "image": "stackward-demo:latest",
    "pull_policy": "never",
    "entrypoint": ["sleep", "inf"],
    "init": True,
    "stop_grace_period": "1s",
    "restart": "unless-stopped",
}
OPTED_IN = {"stackward.backup": "true"}


def service(*volumes: str, labels: Mapping[str, str] = OPTED_IN, **more: Any) -> dict[str, Any]:
    """A service that sleeps; `more` replaces what SERVICE says."""
    return {**SERVICE, "volumes": list(volumes), "labels": dict(labels), **more}


def sleeper(*volumes: str, **labels: str) -> dict[str, Any]:
    """The compose model of a stack with one service `app`; a label's name leaves out `stackward.backup.`."""
    ours = {f"stackward.backup.{name.replace('_', '-')}": value for name, value in labels.items()}
    return {"services": {"app": service(*(volumes or ("./data:/data",)), labels=OPTED_IN | ours)}}


def up(host: Host, name: str, model: Mapping[str, Any] | str, files: Mapping[str, str | bytes] | None = None) -> None:
    """Write the stack (JSON is YAML) with its `files`, and start it."""
    write(host, name, model, files)
    host.run(f"cd {shlex.quote(f'{ROOT}/{name}')} && docker compose up -d --remove-orphans")


def write(
    host: Host, name: str, model: Mapping[str, Any] | str, files: Mapping[str, str | bytes] | None = None
) -> None:
    """Write the stack's directory and start nothing."""
    text = model if isinstance(model, str) else json.dumps(model, indent=1)
    host.put(text, f"{ROOT}/{name}/compose.yaml")
    for path, content in (files if files is not None else {"data/file": f"{name}\n"}).items():
        host.put(content, path if path.startswith("/") else f"{ROOT}/{name}/{path}")


def down(host: Host) -> None:
    """No stack, no container but the appliance's, no volume, no file under DOCKER_ROOT or on the Btrfs volume."""
    host.run(
        "docker ps -aq --no-trunc | grep -vxF \"$(docker inspect -f '{{.Id}}' stackward)\" | xargs -r docker rm -fv;"
        "docker volume ls -q | xargs -r docker volume rm; docker network prune -f;"
        f"find {ROOT} -mindepth 1 -maxdepth 1 -exec rm -rf -- {{}} +;"
        "find /srv/containers -mindepth 1 -maxdepth 1 ! -name .stackward -exec rm -rf -- {} +",
        check=False,
    )


def states(host: Host) -> dict[str, str]:
    """Every container but the appliance, and its state: running, paused, exited, created."""
    listed = host.run("docker ps -a --format '{{.Names}} {{.State}}'").stdout.splitlines()
    return {name: state for name, state in (line.split() for line in listed) if name != "stackward"}


def backup_names(host: Host) -> list[str]:
    """Everything in BACKUP_ROOT but the ID file, half-made things too."""
    return sorted(set(host.run(f"ls -A {BACKUPS}").stdout.split()) - {".stackward-id"})


def listed(host: Host) -> list[str]:
    """What `stackward list` calls a backup."""
    return [one["name"] for one in host.stackward_json("list")]


def assert_nothing_half_done(host: Host, *, snapshots: int = 0) -> None:
    """No half artifact, no open undo record, no helper container is left; of each subvolume only the last snapshot."""
    assert not [name for name in backup_names(host) if name.startswith(".")]
    script = (
        f"ls -A {STATE}/undo | grep -v '[.]tmp$'; docker ps -aq --filter label=stackward.helper=1;"
        f"ls -A /srv/containers/.stackward/backup | tail -n +{snapshots + 1}"
    )
    assert host.run(script, check=False).stdout == ""


def assert_no_open_undo(host: Host) -> None:
    """Nothing is stopped or moved that nobody has put back."""
    assert ".json" not in host.run(f"ls -A {STATE}/undo").stdout


def by_stack(result: Mapping[str, Any], job: str = "backup-data") -> dict[str, dict[str, Any]]:
    """The parts of a chain's JSON for one job, by stack."""
    step = next(step for step in result["steps"] if step["job"] == job)
    return {part["stack"]: part for part in step["stacks"]}


def said(done: Completed | Sequence[Any] | Mapping[str, Any]) -> str:
    """Everything that was said, in one line."""
    text = json.dumps(done) if not hasattr(done, "stdout") else f"{done.stdout} {done.stderr}"
    return " ".join(text.split())
