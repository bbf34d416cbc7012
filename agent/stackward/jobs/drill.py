"""drill: proves that a backup restores, by restoring it: beside production, booted, probed, and removed again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stackward.config import Settings
from stackward.core.errors import RefusedError, StackwardError
from stackward.core.model import JobResult, Outcome, Stack, StackResult, display
from stackward.core.progress import Progress
from stackward.core.staging import PROXY
from stackward.stacks.membership import DRILL_SUFFIX
from stackward.steps import catalog, crashpoints
from stackward.steps.catalog import Artifact
from stackward.steps.instance import drill_copy, healthy, probes, staging
from stackward.steps.instance.drill_copy import Copy, NotDerivableError
from stackward.steps.instance.staging import Place, Plan
from stackward.steps.restore import restore_plan
from stackward.steps.undo import Step, Undo, WayBackError
from stackward.store import Store
from stackward.tools import compose, filesystem
from stackward.tools.docker import Docker, DockerError

WAIT_SECONDS = 1800.0  # a database that recovers may need minutes
_LOG_LINES = 1000
_LOGS_KEPT = 5


@dataclass(frozen=True, slots=True)
class Means:
    """What a drill works with."""

    settings: Settings
    store: Store
    docker: Docker | None
    undo: Undo
    now: datetime
    run_id: str
    progress: Progress

    def reach(self, point: str) -> None:
        crashpoints.reach(point, self.settings.crash_point)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a drill showed."""

    proofs: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def run(
    means: Means,
    stacks: Sequence[Stack],
    names: Sequence[str] = (),
    wanted: str | None = None,
    *,
    dry_run: bool = False,
) -> JobResult:
    """Drill the named stacks, or every one that is backed up and does not say `off`. One's failure is its own.

    A stack that no instance can be derived of, or copied for, is skipped, and says why. The caller shares BACKUP_ROOT's lock.

    Raises:
        RefusedError: Docker does not answer, or BACKUP_ROOT cannot be read.
    """
    if means.docker is None:
        raise RefusedError("no Docker Engine answers: nothing can be booted", hint="start Docker")
    artifacts = catalog.catalog(means.settings)
    chosen = [one for one in stacks if (one.name in names if names else one.opted_in and one.policy.drill != "off")]
    if not chosen:
        return JobResult(Outcome.SKIPPED, ("no stack is backed up",))
    if dry_run:
        foreseen = {display(stack.name): _foreseen(means, stack, artifacts, wanted) for stack in chosen}
        return JobResult(Outcome.OK, details={"dry_run": True, "stacks": list(foreseen), "foreseen": foreseen})
    image = staging.own_image(means.docker)
    parts = []
    proofs: dict[str, list[str]] = {}
    for number, stack in enumerate(chosen):
        proven: tuple[str, ...] = ()
        if alike := next(staging.called_alike(stack.project + DRILL_SUFFIX, stacks), None):
            part = StackResult(stack.name, Outcome.SKIPPED, (str(alike),))
        else:
            part, proven = _drill(means, means.docker, stack, artifacts, wanted, image, number)
        parts.append(part)
        proofs[display(stack.name)] = list(proven)
        means.store.record_drill(stack.name, means.now, part.outcome, part.artifact, proven, part.reasons)
    return JobResult(Outcome.worst([part.outcome for part in parts]), stacks=tuple(parts), details={"proofs": proofs})


def _foreseen(means: Means, stack: Stack, artifacts: Sequence[Artifact], wanted: str | None) -> str:
    """From which backup it would be tried, or why it would not."""
    try:
        artifact = restore_plan.choose(artifacts, stack.name, wanted)
    except StackwardError as error:
        return f"cannot be tried: {error.message}"
    why = drill_copy.no_room(means.settings, artifact, stack.name)
    return f"cannot be tried: {why}" if why else f"from {artifact.name.name}"


def _drill(
    means: Means,
    docker: Docker,
    stack: Stack,
    artifacts: Sequence[Artifact],
    wanted: str | None,
    image: str,
    number: int,
) -> tuple[StackResult, tuple[str, ...]]:
    name = ""
    try:
        artifact = restore_plan.choose(artifacts, stack.name, wanted)
        name = artifact.name.name
        seen = _seen(means, docker, stack, artifacts, artifact, image, number)
    except NotDerivableError as error:
        return StackResult(stack.name, Outcome.SKIPPED, (error.message,), artifact=name), ()
    except (StackwardError, OSError) as error:
        why = error.message if isinstance(error, StackwardError) else str(error)
        return StackResult(stack.name, Outcome.FAILED, (display(why),), artifact=name), ()
    if seen.wrong:
        return StackResult(stack.name, Outcome.FAILED, (*seen.wrong, *seen.warnings), artifact=name), seen.proofs
    outcome = Outcome.WARN if seen.warnings else Outcome.OK
    return StackResult(stack.name, outcome, seen.warnings, artifact=name), seen.proofs


def _seen(
    means: Means,
    docker: Docker,
    stack: Stack,
    artifacts: Sequence[Artifact],
    artifact: Artifact,
    image: str,
    number: int,
) -> _Seen:
    """Lay the backup out, boot it, look, and remove every trace, whatever happens."""
    home = Path(os.path.realpath(means.settings.state_dir)) / "drills" / "instances" / stack.name
    data = drill_copy.data_place(means.settings, means.run_id, number)
    left = [Step("discard", str(home), str(data))]
    try:
        with means.undo.promised(f"drill of {stack.name}", left):
            means.progress.step(f"{display(stack.name)}: laying out {artifact.name.name}")
            filesystem.remove_tree(home)
            drill_copy.place_data(means.settings, artifact, stack.name, data)
            warnings = drill_copy.place_config(means.settings, artifacts, artifact, stack, home)
            means.reach("drill-placed")
            copy = drill_copy.read(data, home, artifact, stack, warnings)
            plan = _plan(means, docker, stack, copy, home, image)
            staging.write(plan)
            means.progress.step(f"{display(stack.name)}: starting it from {artifact.name.name}")
            return _boot(means, docker, copy, plan)
    except WayBackError as error:
        return _Seen(wrong=(f"not all of the drill could be removed yet: {error.message}",))


def _plan(means: Means, docker: Docker, stack: Stack, copy: Copy, home: Path, image: str) -> Plan:
    """Raises NotDerivableError with every reason."""
    empty = staging.uncopied(stack.trees)
    place = Place(
        home,
        stack.project + DRILL_SUFFIX,
        copy.moves,
        prober=True,
        empty=empty,
        volumes=copy.volumes,
        wait_seconds=WAIT_SECONDS,
    )
    plan = staging.derive(means.settings, docker, copy.stack, place, image)
    if plan.refusals:
        raise NotDerivableError("; ".join(map(str, plan.refusals)))
    return plan


def _boot(means: Means, docker: Docker, copy: Copy, plan: Plan) -> _Seen:
    if strayed := staging.strayed(plan.model):
        return _Seen(wrong=tuple(strayed), warnings=copy.warnings)
    try:
        limit = plan.wait_seconds(WAIT_SECONDS)
        compose.up(plan.directory, wait_seconds=limit)
        means.reach("drill-started")
        means.progress.step(f"{display(plan.stack.name)}: waiting until it is well")
        found = healthy.wait(docker, plan.project, plan.services, limit_seconds=limit)
    except StackwardError as error:
        return _Seen(wrong=(error.message, *_keep_logs(means, docker, plan)), warnings=copy.warnings)
    proofs = [f"{display(one.service)}: {one.why}" for one in found if one.good and one.service != PROXY]
    wrong = [f"{display(one.service)} {one.why}" for one in found if not one.good]
    if not wrong:
        means.progress.step(f"{display(plan.stack.name)}: probing it")
        services = [service for service in copy.stack.services if service.name in plan.services]
        tried = probes.prove(docker, services, copy.stack.raw, docker.containers(plan.project))
        proofs += [str(proof) for proof in tried if proof.good]
        wrong = [str(proof) for proof in tried if not proof.good]
    if wrong:
        wrong += _keep_logs(means, docker, plan)
    return _Seen(tuple(proofs), tuple(wrong), copy.warnings)


def _keep_logs(means: Means, docker: Docker, plan: Plan) -> list[str]:
    """What the containers of a failed drill said; where it is kept, in words. The newest few of each stack stay."""
    directory = means.settings.state_dir / "drills" / "logs"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    said = []
    try:
        for one in docker.containers(plan.project):
            if one.service != PROXY:
                said.append(f"==> {one.name}: {one.state}, exit code {one.exit_code} {one.error}\n")
                said.append(docker.logs(one.id, lines=_LOG_LINES))
    except DockerError as error:
        said.append(f"{error.message}\n")
    stem = plan.stack.name
    path = directory / f"{stem}-{means.now:%Y%m%d_%H%M%S}.log"
    filesystem.write_durably(path, "".join(said).encode("utf-8", "backslashreplace"))
    older = sorted(name for name in os.listdir(directory) if name.startswith(f"{stem}-") and name.endswith(".log"))
    for name in older[:-_LOGS_KEPT]:
        (directory / name).unlink(missing_ok=True)
    return [f"its logs are kept: {display(path)}"]
