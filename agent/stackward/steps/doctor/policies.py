"""The stacks: what somebody has to decide or mend, and what would surprise them on the day of a restore."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stackward.core import images
from stackward.core.errors import StackwardError
from stackward.core.model import Quiesce, TreeKind, display
from stackward.stacks.trees import SINGLE_FILE_OUTSIDE
from stackward.steps.backup import sources
from stackward.steps.doctor import Facts, Finding, Severity, error, info, ok, warn
from stackward.tools import age

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackward.core.model import Problem, Stack

_ANONYMOUS_NAME = 64  # hexadecimal digits


def look(facts: Facts) -> Iterator[Finding]:
    discovery = facts.discovery
    if discovery is None:
        return
    for problem in discovery.problems:
        yield warn("stacks", problem.message, problem.hint)
    yield from _decided(discovery.stacks)
    for stack in discovery.stacks:
        for problem in stack.problems:
            yield _problem(stack, problem)
        if stack.opted_in:
            yield from _trees(stack)
            yield from _databases(stack)
            yield from _standstill(stack, facts)
    yield from _secrets(facts)
    yield from _shared(discovery.stacks)
    for name, hold in sorted(facts.store.holds().items()):
        advice = f"if that is right: stackward accept {display(name)}"
        yield error("stacks", f"{display(name)} is held, nothing of it is pruned: {hold.reason}", advice)
    for project in discovery.outside:
        if not project.switched_off:
            yield warn(
                "stacks",
                f"the project {project.project} in {display(project.directory)} is not backed up: {project.reason}",
                'move its directory to directly under DOCKER_ROOT, or label it stackward.backup: "false"',
            )


def _decided(stacks: tuple[Stack, ...]) -> Iterator[Finding]:
    undecided = [display(stack.name) for stack in stacks if stack.policy.backup is None and not stack.opted_in]
    if not stacks:
        yield warn("stacks", "no stacks were found", "is DOCKER_ROOT the directory whose subdirectories they are?")
    elif undecided:
        text = f"{len(undecided)} of {len(stacks)} stacks are neither switched on nor off: {', '.join(undecided)}"
        yield warn("stacks", text, "stackward init proposes a policy for each")
    else:
        yield ok("stacks", f"{len(stacks)} stacks, all decided")


def _problem(stack: Stack, problem: Problem) -> Finding:
    severity = Severity.ERROR if problem.key or not stack.resolved else Severity.WARN
    where = f"{display(stack.name)}, service {display(problem.service)}" if problem.service else display(stack.name)
    return Finding(severity, "stacks", f"{where}: {problem.message}", problem.hint or "mend its compose file")


def _trees(stack: Stack) -> Iterator[Finding]:
    for tree in stack.trees:
        name = f"{display(stack.name)}: {display(tree.source)}"
        if tree.covered and tree.kind is TreeKind.VOLUME and tree.volume and _is_anonymous(tree.volume):
            advice = "name it in the compose file, so that recreating the container does not lose it"
            yield warn("trees", f"{display(stack.name)}: {tree.mount_name} is an anonymous volume", advice)
        elif tree.covered and not tree.path.is_dir():
            yield warn("trees", f"{name} does not exist", "start the stack once, or mount its disk")
        elif not tree.covered and tree.reason.startswith("not mounted into the appliance"):
            yield error("trees", f"{name} is in no backup: it is not visible in here", tree.reason.partition(": ")[2])
        elif tree.writable and tree.reason == SINGLE_FILE_OUTSIDE:
            advice = (
                f"move it into {display(stack.directory)}, which the config backup holds,"
                f" or say so: stackward.backup.skip: {display(tree.source)}"
            )
            yield warn("trees", f"{name}, which the stack can write to, is {tree.reason}", advice)
        elif not tree.covered and tree.writable and "remote" in tree.reason:
            advice = f"back it up there, or say so: stackward.backup.skip: {display(tree.volume or str(tree.source))}"
            yield info("trees", f"{name} is in no backup: {tree.reason}", advice)


def _databases(stack: Stack) -> Iterator[Finding]:
    for service in stack.services:
        kind = images.database(service.image)
        if kind is not None and not service.policy.dumps:
            yield info(
                "dumps",
                f"{display(stack.name)}: {display(service.name)} looks like {kind}, and has no logical dump",
                f"label it stackward.backup.dump: {kind} to be able to restore into another version of it",
            )


def _standstill(stack: Stack, facts: Facts) -> Iterator[Finding]:
    plan = sources.plan(
        [tree for tree in stack.covered_trees if tree.path.is_dir()], facts.settings.volume, facts.mounts
    )
    automatic = [service for service in stack.services if service.policy.quiesce is Quiesce.AUTO]
    if automatic and not plan.one_snapshot:
        yield info(
            "standstill",
            f"{display(stack.name)} is stopped while its data is copied: it is not all on one Btrfs subvolume",
            "stackward.backup.quiesce: pause, or none for services that may be copied while they write",
        )


def _secrets(facts: Facts) -> Iterator[Finding]:
    stacks = facts.discovery.stacks if facts.discovery else ()
    wanting = [display(stack.name) for stack in stacks if stack.opted_in and stack.secret_files]
    if recipients := facts.settings.age_recipients:
        try:
            age.check_recipients(recipients)
        except StackwardError as failure:
            yield error("secrets", f"no configuration can be backed up: {failure.message}", failure.hint)
        else:
            count = len(recipients)
            yield ok("secrets", f"secrets are encrypted to {count} recipient{'' if count == 1 else 's'}")
    elif wanting:
        text = f"the secrets of {', '.join(wanting)} (.env files, keys) are in no backup"
        yield error("secrets", text, "stackward init makes a key; then set STACKWARD_AGE_RECIPIENTS")
    else:
        yield info("secrets", "no age recipient is set; no stack that is backed up has secrets yet", "stackward init")


def _shared(stacks: tuple[Stack, ...]) -> Iterator[Finding]:
    users: dict[Path, list[str]] = defaultdict(list)
    for stack in stacks:
        for tree in stack.covered_trees if stack.opted_in else ():
            users[tree.path].append(display(stack.name))
    for path, names in sorted(users.items()):
        if len(names) > 1:
            advice = "stackward.backup.skip in all but one of them, if once is enough"
            yield info("trees", f"{display(path)} is backed up {len(names)} times: with {', '.join(names)}", advice)


def _is_anonymous(volume: str) -> bool:
    return len(volume) == _ANONYMOUS_NAME and all(character in "0123456789abcdef" for character in volume)
