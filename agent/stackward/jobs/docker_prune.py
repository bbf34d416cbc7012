"""docker-prune: removes what Docker has no use for, and keeps what a way back needs.

Like `docker system prune`, less what that takes along: the old images of updates and backups, the containers of stacks
that somebody stopped, and the networks without which those cannot start again. Volumes are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stackward.config import Settings
from stackward.core.model import JobResult, Outcome, Stack, display
from stackward.core.progress import Progress
from stackward.core.units import format_bytes
from stackward.stacks.membership import STAGING_SUFFIX
from stackward.steps.catalog import Artifact
from stackward.steps.report import coverage
from stackward.tools.docker import Docker, DockerError, DockerUnavailableError
from stackward.tools.docker_leftovers import Leftover

# An image that an update has replaced is kept under a tag of this repository.
ROLLBACK_REPOSITORY = "stackward-rollback/"


@dataclass(frozen=True, slots=True)
class Needs:
    """What must stay: images (IDs and digests `repository@sha256:…`), compose projects, names of networks.

    `docker_root` tells projects whose directory is gone from those that only run elsewhere.
    """

    images: frozenset[str]
    projects: frozenset[str]
    networks: frozenset[str]
    docker_root: Path


@dataclass(frozen=True, slots=True)
class Item:
    """Something that nothing uses, and what becomes of it. `kind` is container, image or network."""

    kind: str
    leftover: Leftover
    keep: bool
    reason: str


def run(
    *,
    settings: Settings,
    docker: Docker,
    stacks: Sequence[Stack],
    now: datetime,
    progress: Progress,
    dry_run: bool = False,
) -> JobResult:
    """Remove it, item by item; what Docker refuses stays, with a warning.

    Raises:
        DockerError: what is there cannot be listed; nothing was removed.
    """
    plan = make_plan(docker, needs(stacks, coverage.backups(settings, now), settings.docker_root))
    if dry_run:
        return JobResult(Outcome.OK, ("nothing was done: this is the plan",), details={"items": _described(plan)})
    return act(docker, plan, progress)


def needs(stacks: Sequence[Stack], artifacts: Sequence[Artifact], docker_root: Path) -> Needs:
    """What the stacks and the newest backup of each need."""
    projects = {stack.project for stack in stacks}
    networks = {name for stack in stacks for name in stack.external_networks}
    return Needs(
        images=frozenset(_recorded_images(artifacts)),
        projects=frozenset(projects | {f"{project}{STAGING_SUFFIX}" for project in projects}),
        networks=frozenset(networks),
        docker_root=docker_root,
    )


def make_plan(docker: Docker, what: Needs) -> list[Item]:
    """Containers first: an image or a network that one of them used can go only after it."""
    judged: tuple[tuple[str, Iterable[Leftover], Callable[[Leftover, Needs], str]], ...] = (
        ("container", docker.stopped_containers(), why_keep_container),
        ("image", docker.untagged_images(), why_keep_image),
        ("network", docker.unused_networks(), why_keep_network),
    )
    return [
        Item(kind, one, keep=bool(why := judge(one, what)), reason=why or "nothing uses it")
        for kind, found, judge in judged
        for one in found
    ]


def act(docker: Docker, plan: Sequence[Item], progress: Progress) -> JobResult:
    remove = {"container": docker.remove_container, "image": docker.remove_image, "network": docker.remove_network}
    warnings: list[str] = []
    gone: list[Item] = []
    cache_bytes = images_bytes = 0
    away = ""
    try:
        before = docker.images_size_bytes()
        for item in plan:
            if item.keep:
                continue
            progress.step(f"removing {item.kind} {display(item.leftover.name)}")
            try:
                remove[item.kind](item.leftover)
            except DockerUnavailableError:
                raise
            except DockerError as error:
                warnings.append(error.message)
            else:
                gone.append(item)
        images_bytes = _difference(before, docker.images_size_bytes())
        progress.step("pruning the build cache")
        cache_bytes = docker.prune_build_cache()
    except DockerUnavailableError as error:
        away = f"{error.message}, in the middle of it"
    freed = images_bytes + cache_bytes
    details = {
        "removed": {kind: [display(one.leftover.name) for one in gone if one.kind == kind] for kind in remove},
        "kept": [item for item in _described(plan) if item["keep"]],
        "freed_bytes": freed,
        "freed_build_cache_bytes": cache_bytes,
    }
    outcome = Outcome.FAILED if away else Outcome.WARN if warnings else Outcome.OK
    reasons = (*([away] if away else []), _told(gone, freed), *warnings)
    return JobResult(outcome, reasons, details=details)


def why_keep_container(one: Leftover, what: Needs) -> str:
    """Why a stopped container stays, or ""."""
    return _why_keep_of_compose(one, what)


def why_keep_image(one: Leftover, what: Needs) -> str:
    """Why an untagged image stays, or ""."""
    if any(tag.startswith(ROLLBACK_REPOSITORY) for tag in one.tags):
        return "an update may be taken back to it"
    if one.id in what.images or any(digest in what.images for digest in one.digests):
        return "a stack's newest backup was made with it"
    return ""


def why_keep_network(one: Leftover, what: Needs) -> str:
    """Why a network that no container belongs to stays, or ""."""
    if one.name in what.networks:
        return "a stack names it as an external one"
    return _why_keep_of_compose(one, what)


def _why_keep_of_compose(one: Leftover, what: Needs) -> str:
    """Of a project that is no stack we know only that it is gone where its directory was under DOCKER_ROOT, and is."""
    if not one.project:
        return ""
    if one.project in what.projects:
        return f"it belongs to the stack {display(one.project)}"
    directory = Path(one.directory)
    if one.directory and directory.parent == what.docker_root and not os.path.lexists(directory):
        return ""
    return f"it belongs to the compose project {display(one.project)}, which is not ours to judge"


def _recorded_images(artifacts: Sequence[Artifact]) -> Iterable[str]:
    """IDs and digests of the images that ran when the newest backup of each stack was made."""
    seen: set[str] = set()
    for artifact in artifacts:
        for name, entry in (artifact.index.stacks if artifact.index else {}).items():
            if name in seen:
                continue
            seen.add(name)
            for image in entry.images.values():
                yield str(image.get("id") or "")
                yield from map(str, image.get("digests") or ())


def _described(plan: Sequence[Item]) -> list[dict[str, object]]:
    return [
        {"kind": item.kind, "name": display(item.leftover.name), "keep": item.keep, "reason": item.reason}
        for item in plan
    ]


def _difference(before: int | None, after: int | None) -> int:
    return max(0, before - after) if before is not None and after is not None else 0


def _told(gone: Sequence[Item], freed: int) -> str:
    counted = [
        f"{count} {kind}{'' if count == 1 else 's'}"
        for kind in ("container", "image", "network")
        if (count := sum(item.kind == kind for item in gone))
    ]
    return f"removed {', '.join(counted) or 'nothing'}; freed {format_bytes(freed)}"
