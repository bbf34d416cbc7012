"""Staging instances as they run: started, stopped, looked at. Nothing here touches a container of production."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stackward.config import Settings
from stackward.core.errors import StackwardError
from stackward.core.model import Container, display
from stackward.core.staging import PROXY
from stackward.core.unit_names import STAGING_TARGET, staging_unit
from stackward.steps.instance import healthy, staging, strangers, troubles
from stackward.steps.instance.staging import COMPOSE_FILE, Plan
from stackward.steps.undo import Step
from stackward.tools import compose, filesystem
from stackward.tools.compose_files import load_yaml
from stackward.tools.docker import Docker, DockerError, HookTimeout
from stackward.tools.docker_values import directory_label
from stackward.tools.host import Bridge, BridgeError, BridgeUnavailableError

POST_SECONDS = 600.0
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Hands:
    """How instances are started: through the host's systemd where `bridge` answers, else by Compose."""

    settings: Settings
    docker: Docker
    bridge: Bridge | None

    @classmethod
    def find(cls, settings: Settings, docker: Docker) -> Hands:
        bridge = Bridge(settings.run_dir)
        try:
            bridge.ping()
        except (BridgeUnavailableError, BridgeError):
            return cls(settings, docker, None)
        return cls(settings, docker, bridge)


def ways_back(hands: Hands, plans: Sequence[Plan]) -> list[Step]:
    """What starts the instances again after a crash: those that are wanted, and the users' own units."""
    steps = [Step("up", str(one.directory), one.service) for one in plans if not one.refusals]
    return [*steps, Step("unit", STAGING_TARGET, str(hands.settings.run_dir))]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong; `stack` is "" where it is no instance's fault."""

    stack: str
    said: str

    def __str__(self) -> str:
        return f"{display(self.stack)}: {self.said}" if self.stack else self.said


def stop(hands: Hands, plans: Sequence[Plan]) -> list[Trouble]:
    """Stop and remove every instance, those that no stack wants any more too. Returns what went wrong."""
    found: list[Trouble] = []
    if hands.bridge is not None:
        try:
            hands.bridge.stop(STAGING_TARGET)
        except (BridgeError, BridgeUnavailableError) as error:
            found.append(Trouble("", error.message))
    acts = [(one.stack.name, partial(compose.stop, one.directory, (one.service,))) for one in plans if one.service]
    acts += [(directory.name, partial(_down, hands, directory)) for directory in generated(hands.settings)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for failed in pool.map(lambda act: _tried(act[1], act[0]), acts):
            found += failed
    return found


def stop_one(hands: Hands, chosen: Plan) -> None:
    """Stop one stack's instance; a generated one is removed with all it wrote outside the snapshot.

    Raises:
        StackwardError: it could not be stopped.
    """
    if chosen.service:
        compose.stop(chosen.directory, (chosen.service,))
        return
    if not (chosen.directory / COMPOSE_FILE).is_file():
        return
    if hands.bridge is not None:
        hands.bridge.stop(staging_unit(chosen.stack.name))
    _down(hands, chosen.directory)


def start(hands: Hands, chosen: Plan, before: Mapping[str, int], *, limit_seconds: float) -> list[str]:
    """Start an instance and wait until it is well. Returns what is wrong with it, in words; nothing: it is well.

    `before` are the `healthy.restart_counts` of its project.
    """
    try:
        if chosen.service:
            compose.up(chosen.directory, (chosen.service,), wait_seconds=limit_seconds)
        elif strayed := staging.strayed(chosen.model):
            return strayed
        else:
            staging.write(chosen)
            _up(hands, chosen, limit_seconds)
        return wait(hands.docker, chosen, before, limit_seconds=limit_seconds)
    except BridgeError as error:
        own = troubles.of_containers(hands.docker, chosen.project, chosen.services)
        return own or [error.message, *(troubles.explained(display(line)) for line in error.lines[-5:])]
    except StackwardError as error:
        return troubles.of_start(hands.docker, chosen.project, chosen.services, error)
    except OSError as error:
        return [str(error)]


def wait(docker: Docker, chosen: Plan, before: Mapping[str, int], *, limit_seconds: float) -> list[str]:
    """Wait until it is well, then run its `stackward.staging.post` commands. Returns what is wrong."""
    found = healthy.wait(docker, chosen.project, chosen.services, limit_seconds=limit_seconds, before=before)
    wrong = [f"{display(health.service)} {health.why}" for health in found if not health.good]
    return wrong or _after_start(docker, chosen)


def containers(docker: Docker | None, chosen: Plan) -> tuple[Container, ...]:
    if docker is None:
        return ()
    found = docker.containers(chosen.project)
    return tuple(one for one in found if not one.one_off and (not chosen.service or one.service == chosen.service))


def generated(settings: Settings) -> list[Path]:
    """The directories that hold a generated project."""
    root = settings.state_dir / "staging"
    if not root.is_dir():
        return []
    return sorted(root / name for name in os.listdir(root) if (root / name / COMPOSE_FILE).is_file())


def forget_others(hands: Hands, plans: Sequence[Plan]) -> list[str]:
    """Remove generated projects that no stack wants any more, as far as they are down. Returns their names.

    Raises:
        DockerError: it cannot be asked what is down.
    """
    wanted = {one.directory for one in plans if not one.refusals}
    up = {one.working_dir for one in hands.docker.containers()}
    unwanted = [one for one in generated(hands.settings) if one not in wanted]
    gone = [one for one in unwanted if not up & {directory_label(one), directory_label(os.path.realpath(one))}]
    for directory in gone:
        filesystem.remove_tree(directory)
    return [directory.name for directory in gone]


def _up(hands: Hands, chosen: Plan, limit_seconds: float) -> None:
    """The host's unit knows the project only where the state directory is at its usual place."""
    if hands.bridge is not None and hands.settings.state_dir == Settings().state_dir:
        bridge = replace(hands.bridge, act_seconds=limit_seconds + hands.bridge.act_seconds)
        bridge.start(staging_unit(chosen.stack.name))
    else:
        compose.up(chosen.directory, wait_seconds=limit_seconds)


def _down(hands: Hands, directory: Path) -> None:
    """Remove it, with its volumes, unless something of somebody else's would go with it."""
    with suppress(OSError, ValueError):  # what it cannot read Compose tells in its own words
        model = load_yaml(directory / COMPOSE_FILE)
        if what := strangers.taken_along(hands.settings, hands.docker, model):
            raise DockerError(f"not removed: the {what}, which is called as what is the instance's, is somebody else's")
    compose.down(directory)


def _tried(act: Callable[[], None], name: str) -> list[Trouble]:
    try:
        act()
    except StackwardError as error:
        return [Trouble(name, troubles.words_of(error))]
    return []


def _after_start(docker: Docker, chosen: Plan) -> list[str]:
    """`SERVICE: COMMAND`, or a bare command where there is one service only. The first that fails ends it."""
    services = [name for name in chosen.services if name != PROXY]
    running = {one.service: one for one in containers(docker, chosen) if one.state == "running"}
    for line in chosen.stack.policy.staged.post:
        name, colon, command = line.partition(":")
        if not colon or name.strip() not in services:
            name, command = services[0] if len(services) == 1 else "", line
        container = running.get(name.strip())
        if container is None:
            return [f"stackward.staging.post: {display(line)}: say which service (`SERVICE: COMMAND`)"]
        try:
            done = docker.exec(container.id, ["sh", "-c", command.strip()], timeout_seconds=POST_SECONDS)
        except (DockerError, HookTimeout) as error:
            return [f"stackward.staging.post: {error.message}"]
        if done.exit_code:
            return [
                f"stackward.staging.post: {display(line)}: exit code {done.exit_code}: {display(done.output_tail)[-300:]}"
            ]
    return []
