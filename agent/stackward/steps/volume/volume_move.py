"""Makes a named volume one that is bound to a directory of ours, or a plain one again.

Docker cannot change a volume: it is removed and made again, under its name and with its labels, so that Compose takes it for
its own. A volume that any container has, also a stopped one, cannot be removed: the stack's own, stopped before, are
removed too, and Compose makes them again, with the anonymous volumes that they had. One that Compose would not make again
is in the way. What the volume held is kept in another one.

For a moment what production looks for is not under the volume's name. Where everything ends in that moment, a host that
boots starts the stack on an empty volume. So whoever finds an exchange broken off finishes it if it had come that far: such
a stack is stopped, what it wrote is kept, and it goes on with its data. An exchange that had not come that far is
none: the stack may have been at work since, on what it always had.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from stackward.core import artifacts, records
from stackward.core.errors import StackwardError
from stackward.core.fields import Fields
from stackward.core.model import Container, display
from stackward.tools import filesystem
from stackward.tools.docker import PROJECT_LABEL, Docker, DockerError
from stackward.tools.docker_values import VolumeInfo

KEPT_SUFFIX = ".before-stackward"
MEANWHILE_SUFFIX = ".meanwhile-stackward"
KEPT_LABEL = "stackward.kept"


@dataclass(frozen=True, slots=True)
class VolumeMove:
    """`target` is the directory that the volume is bound to; "" makes it a plain one with what was kept."""

    name: str
    target: str
    labels: dict[str, str]

    @property
    def kept(self) -> str:
        return self.name + KEPT_SUFFIX

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def read(written: str) -> VolumeMove:
    """What `to_json` wrote, in this version or another one.

    Raises:
        NewerRecordError: it requires what this version does not know.
        ValueError: it is none.
    """
    found = Fields(records.known(VolumeMove, records.parse(written)), "a move of a volume")
    return VolumeMove(artifacts.require_name(found.text("name")), found.path("target", ""), found.words("labels"))


def options_for(target: Path) -> dict[str, str]:
    return {"type": "none", "o": "bind", "device": str(target)}


def exchange(docker: Docker, written: str, reached: Callable[[str], None] = lambda _point: None) -> None:
    """Do what `to_json` wrote, from the beginning. Whoever uses the volume has been stopped.

    Raises:
        DockerError: somebody runs on the volume, and nothing was changed; or Docker could not do it.
    """
    with _explained(written) as move:
        info = docker.volume(move.name)
        if info is None or bool(info.options) == bool(move.target):
            return
        _free(docker, move.name)
        reached("convert-freed")
        if move.target:
            _pour(info, docker.volume(move.kept) or _create_kept(docker, move.kept, move.name))
            reached("convert-poured")
        docker.remove_volume(move.name)
        reached("convert-removed")
        _finish(docker, move)


def having(containers: Iterable[Container], names: Collection[str]) -> tuple[Container, ...]:
    """Those that have one of the volumes, also while they do not run."""
    return tuple(one for one in containers if any(mount.name in names for mount in one.mounts))


def lasting(containers: Sequence[Container]) -> str:
    """Which of the containers, if removed, nobody would make again, in words; or ""."""
    for one in containers:
        if one.one_off or not one.service or not one.project:
            how = "`docker compose run` made it" if one.one_off else "it is of no compose file"
            return (
                f"container {display(one.name)} has it, and would be lost: {how}."
                f" Remove it if it is not needed any more (docker rm {display(one.name)})"
            )
    return ""


def settle(docker: Docker, written: str) -> None:
    """After an exchange that ended in any way: finish it if production's data is away, else leave all as it is.

    May be done twice.

    Raises:
        DockerError: Docker could not do it.
    """
    with _explained(written) as move:
        docker.remove_needless_stand_ins()
        info, kept = docker.volume(move.name), docker.volume(move.kept)
        if kept is None or (info is not None and info.options):
            return
        if not os.listdir(kept.mountpoint):
            docker.remove_volume(move.kept)  # nothing had been put into it, or all of it is back
            return
        if info is not None:
            _stop(docker, move)
            _free(docker, move.name)
            _keep_meanwhile(docker, info)
            if move.target:
                docker.remove_volume(move.name)
        _finish(docker, move)


def _finish(docker: Docker, move: VolumeMove) -> None:
    """From where what production had is in the kept volume, and nothing of it under its own name."""
    if move.target:
        docker.create_volume(move.name, driver="local", options=options_for(Path(move.target)), labels=move.labels)
        return
    kept = docker.volume(move.kept)
    plain = docker.volume(move.name) or docker.create_volume(move.name, driver="local", options={}, labels=move.labels)
    if kept is not None:
        _pour(kept, plain)
        docker.remove_volume(move.kept)


@contextmanager
def _explained(written: str) -> Iterator[VolumeMove]:
    move = read(written)
    try:
        yield move
    except (StackwardError, OSError) as error:
        what, hint = (error.message, error.hint) if isinstance(error, StackwardError) else (str(error), "")
        raise DockerError(f"volume {move.name}: {what}", hint=hint) from error


def _stop(docker: Docker, move: VolumeMove) -> None:
    """Stop the stack's own containers that were started on the volume while it was empty."""
    project = move.labels.get(PROJECT_LABEL)
    for container in having(docker.containers(project), [move.name]):
        if container.runs:
            docker.stop(container.id)


def _free(docker: Docker, name: str) -> None:
    """Remove the stopped containers that have the volume; what keeps their anonymous volumes takes their places.

    Raises:
        DockerError: one of them runs, or nobody would make it again; nothing was changed.
    """
    found = having(docker.containers(), [name])
    for container in found:
        if container.runs:
            raise DockerError(f"{container.name} runs on it", hint="stop it, and try again")
    if why := lasting(found):
        raise DockerError(why)
    if len(projects := {one.project for one in found}) > 1:
        raise DockerError(f"several projects have it: {', '.join(map(display, sorted(projects)))}")
    for container in found:
        docker.replace_by_stand_in(container.id)


def _keep_meanwhile(docker: Docker, info: VolumeInfo) -> None:
    """What was written into the volume while it was empty goes to one that nobody uses."""
    if not os.listdir(info.mountpoint):
        return
    suffixes = (MEANWHILE_SUFFIX if number == 1 else f"{MEANWHILE_SUFFIX}-{number}" for number in count(1))
    name = next(name for suffix in suffixes if docker.volume(name := info.name + suffix) is None)
    _pour(info, _create_kept(docker, name, info.name))


def _create_kept(docker: Docker, name: str, of: str) -> VolumeInfo:
    return docker.create_volume(name, driver="local", options={}, labels={KEPT_LABEL: of})


def _pour(source: VolumeInfo, target: VolumeInfo) -> None:
    """What is in one volume is in the other, which was empty, in one step."""
    if os.listdir(target.mountpoint):
        raise OSError(f"{target.mountpoint} is not empty")
    if not filesystem.exchange(source.mountpoint, target.mountpoint):
        raise OSError(f"{source.mountpoint} cannot be exchanged with another directory")
    for one in (source, target):
        filesystem.sync_path(one.mountpoint.parent)
