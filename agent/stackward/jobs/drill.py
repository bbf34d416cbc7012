"""drill: proves that a backup restores, by restoring it: beside production, booted, probed, and removed again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Network
from pathlib import Path

from stackward.config import Settings
from stackward.core.counts import Counted
from stackward.core.errors import ExitCode, RefusedError, StackwardError
from stackward.core.model import JobResult, Outcome, Stack, StackResult, display
from stackward.core.progress import Progress
from stackward.core.staging import PROXY
from stackward.stacks.membership import DRILL_SUFFIX
from stackward.steps import catalog, crashpoints
from stackward.steps.catalog import Artifact
from stackward.steps.instance import (
    drill_boot,
    drill_config,
    drill_copy,
    drill_source,
    staging,
    staging_look,
    strangers,
)
from stackward.steps.instance.drill_copy import Copy
from stackward.steps.instance.drill_source import NotDerivableError, Source
from stackward.steps.instance.place import Place
from stackward.steps.instance.staging import Plan
from stackward.steps.undo import Step, Undo, WayBackError
from stackward.store import Drill, Store, is_damaged
from stackward.tools import filesystem
from stackward.tools.docker import Docker, DockerError

WAIT_SECONDS = 1800.0  # a database that recovers may need minutes
_LOG_LINES = 1000
_LOGS_KEPT = 5
_DAMAGED_SHOWN = 5


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
    """What a drill showed. `counted` is what the next one is held against; None leaves what is known."""

    proofs: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    counted: Counted | None = None
    damaged: bool = False


def require_wanted(
    settings: Settings, stacks: Sequence[Stack], names: Sequence[str], wanted: str, now: datetime
) -> None:
    """What `--from` names must be there before anything begins: for each of the `names`, or for any stack.

    Raises:
        SettingsError: it is not; the hint has what is there.
        RefusedError: BACKUP_ROOT cannot be read.
    """
    drill_source.require_wanted(catalog.catalog(settings, now), _chosen(stacks, names), wanted, named=bool(names))


def run(
    means: Means,
    stacks: Sequence[Stack],
    names: Sequence[str] = (),
    wanted: str | None = None,
    *,
    dry_run: bool = False,
    unsigned: bool = False,
) -> JobResult:
    """Drill the named stacks, or every one that is backed up and does not say `off`. One's failure is its own.

    Config backups that this appliance did not sign are drilled only with `unsigned`: they decide what is run.

    A stack that no instance can be derived of, or copied for, is skipped, and says why. The caller shares BACKUP_ROOT's lock.

    Raises:
        RefusedError: Docker does not answer, or BACKUP_ROOT cannot be read.
    """
    if means.docker is None:
        raise RefusedError("no Docker Engine answers: nothing can be booted", hint="start Docker")
    artifacts = catalog.catalog(means.settings, means.now)
    chosen = _chosen(stacks, names)
    if not chosen:
        return JobResult(Outcome.SKIPPED, ("no stack is backed up",))
    if dry_run:
        foreseen = {display(stack.name): _foreseen(means, stack, artifacts, wanted) for stack in chosen}
        return JobResult(Outcome.OK, details={"dry_run": True, "stacks": list(foreseen), "foreseen": foreseen})
    image = staging.own_image(means.docker)
    parts = []
    proofs: dict[str, list[str]] = {}
    damaged = False
    for number, stack in enumerate(chosen):
        seen = _Seen()
        if alike := next(strangers.called_alike(stack.project + DRILL_SUFFIX, stacks), None):
            part = StackResult(stack.name, Outcome.SKIPPED, (str(alike),))
        else:
            part, seen = _drill(means, means.docker, stack, artifacts, wanted, image, number, unsigned=unsigned)
        parts.append(part)
        damaged = damaged or seen.damaged
        proofs[display(stack.name)] = list(seen.proofs)
        means.store.record_drill(
            stack.name, means.now, part.outcome, part.artifact, seen.proofs, part.reasons, seen.counted
        )
    return JobResult(
        Outcome.worst([part.outcome for part in parts]),
        stacks=tuple(parts),
        exit_code=ExitCode.DAMAGED if damaged else ExitCode.OK,
        details={"proofs": proofs},
    )


def _chosen(stacks: Sequence[Stack], names: Sequence[str]) -> list[Stack]:
    return [one for one in stacks if (one.name in names if names else one.opted_in and one.policy.drill != "off")]


def _foreseen(means: Means, stack: Stack, artifacts: Sequence[Artifact], wanted: str | None) -> str:
    """From which backup it would be tried, or why it would not."""
    try:
        source = drill_source.choose(artifacts, stack, wanted)
    except StackwardError as error:
        return f"cannot be tried: {error.message}"
    why = drill_copy.no_room(means.settings, source, stack.name)
    return f"cannot be tried: {why}" if why else f"from {source.name}"


def _drill(
    means: Means,
    docker: Docker,
    stack: Stack,
    artifacts: Sequence[Artifact],
    wanted: str | None,
    image: str,
    number: int,
    *,
    unsigned: bool,
) -> tuple[StackResult, _Seen]:
    name = ""
    try:
        source = drill_source.choose(artifacts, stack, wanted)
        name = source.name
        seen = _seen(means, docker, stack, artifacts, source, image, number, unsigned=unsigned)
    except NotDerivableError as error:
        return StackResult(stack.name, Outcome.SKIPPED, (error.message,), artifact=name), _Seen()
    except (StackwardError, OSError) as error:
        why = error.message if isinstance(error, StackwardError) else str(error)
        return StackResult(stack.name, Outcome.FAILED, (display(why),), artifact=name), _Seen()
    if seen.wrong:
        return StackResult(stack.name, Outcome.FAILED, (*seen.wrong, *seen.warnings), artifact=name), seen
    outcome = Outcome.WARN if seen.warnings else Outcome.OK
    return StackResult(stack.name, outcome, seen.warnings, artifact=name), seen


def _seen(
    means: Means,
    docker: Docker,
    stack: Stack,
    artifacts: Sequence[Artifact],
    source: Source,
    image: str,
    number: int,
    *,
    unsigned: bool,
) -> _Seen:
    """Lay the backup out, boot it, look, and remove every trace, whatever happens."""
    home = Path(os.path.realpath(means.settings.state_dir)) / "drills" / "instances" / stack.name
    data = drill_copy.data_place(means.settings, means.run_id, number)
    left = [Step("discard", str(home), str(data), project=stack.project + DRILL_SUFFIX)]
    try:
        with means.undo.promised(f"drill of {stack.name}", left), ExitStack() as held:
            means.progress.step(f"{display(stack.name)}: laying out {source.name}")
            filesystem.remove_tree(home)
            damaged = drill_copy.place_data(
                means.settings, source, stack.name, data, proven=_is_proven(means, source), progress=means.progress
            )
            unpacked = drill_config.place(
                means.settings, artifacts, source.config, stack, home, held, unsigned=unsigned
            )
            means.reach("drill-placed")
            copy = drill_copy.read(data, unpacked, source)
            routes = staging_look.host_routes(means.settings, docker, image)
            place = _place(stack, copy, home, routes)
            plan = staging.derive(means.settings, docker, copy.stack, place, image)
            if plan.refusals:
                raise NotDerivableError(drill_copy.told(plan.refusals, data, unpacked, source))
            staging.write(plan)
            return _with_damage(_boot(means, docker, copy, plan, source), source, damaged)
    except WayBackError as error:
        return _Seen(wrong=(f"not all of the drill could be removed yet: {error.message}",))


def _is_proven(means: Means, source: Source) -> bool:
    """Whether the data backup was read since it was made, and nothing of it is known to be damaged."""
    said = means.store.verified().get(source.name)
    return source.data is not None and said is not None and not is_damaged(said) and said.at >= source.data.made_at


def _with_damage(seen: _Seen, source: Source, damaged: Sequence[str]) -> _Seen:
    """What boots without its damaged files proves them no more."""
    if not damaged:
        return seen
    more = " …" if len(damaged) > _DAMAGED_SHOWN else ""
    named = "; ".join(damaged[:_DAMAGED_SHOWN])
    files = "file" if len(damaged) == 1 else "files"
    wrong = f"{source.name} is damaged, {len(damaged)} {files} of it left out: {named}{more}"
    return replace(seen, wrong=(wrong, *seen.wrong), counted=None, damaged=True)


def _place(stack: Stack, copy: Copy, home: Path, routes: tuple[IPv4Network, ...]) -> Place:
    return Place(
        home,
        stack.project + DRILL_SUFFIX,
        copy.moves,
        is_drill=True,
        empty=copy.empty,
        volumes=copy.volumes,
        wait_seconds=WAIT_SECONDS,
        subnets=routes,
    )


def _boot(means: Means, docker: Docker, copy: Copy, plan: Plan, source: Source) -> _Seen:
    if strayed := staging.strayed(plan.model):
        return _Seen(wrong=tuple(strayed), warnings=copy.warnings)
    last = means.store.drills().get(copy.stack.name)
    at = min(source.at, means.now)  # a clock that was ahead must not make this the measure for ever
    tools = drill_boot.Tools(
        docker,
        copy.stack,
        at,
        _held_against(means, last),
        plan.wait_seconds(WAIT_SECONDS),
        means.progress.step,
        means.reach,
    )
    seen = drill_boot.boot(tools, plan)
    wrong = [*seen.wrong, *_keep_logs(means, docker, plan)] if seen.wrong else []
    is_newest = last is None or last.counted is None or last.counted.at <= at
    counted = Counted(at, seen.measure) if is_newest and not wrong else None
    return _Seen(tuple(seen.proofs), tuple(wrong), (*copy.warnings, *seen.warnings), counted)


def _held_against(means: Means, last: Drill | None) -> Counted | None:
    """What was counted last; nothing where somebody has said since that the stack is as it is meant to be."""
    if last is None or last.counted_at is None:
        return None
    accepted = means.store.accepted_at(last.stack)
    return None if accepted is not None and accepted > last.counted_at else last.counted


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
