"""What a restore would do: which backup, which of its trees, and where each of them belongs now.

Only trees of the stack as its compose file is now are put into place; what a backup holds beyond that is named, and goes
nowhere but to a directory of the caller's choice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stackward.core.artifacts import ArtifactKind
from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.core.index import TreeEntry
from stackward.core.model import Container, Mount, Stack, Tree, TreeKind, display
from stackward.steps import catalog
from stackward.steps.catalog import Artifact


@dataclass(frozen=True, slots=True)
class Target:
    """A tree of the backup and the directory it belongs into; `tree` is None for a `data` directory that is gone."""

    entry: TreeEntry
    source: Path
    place: Path
    tree: Tree | None = None

    @property
    def volume(self) -> str | None:
        return self.tree.volume if self.tree else None


@dataclass(frozen=True, slots=True)
class Inside:
    """A path within one tree of a backup; `path` is relative to the tree, "." for all of it."""

    entry: TreeEntry
    source: Path
    path: PurePosixPath


def choose(artifacts: Sequence[Artifact], stack: str, wanted: str | None) -> Artifact:
    """The data backup to restore from: the newest that holds `stack`, or the one called `wanted` (or of that date).

    Raises:
        SettingsError: there is none.
        RefusedError: it is one that only a newer version of the appliance understands.
    """
    artifact = _chosen(artifacts, stack, wanted)
    if artifact.newer:
        raise RefusedError(
            f"{artifact.name.name} is not for this version of the appliance: {artifact.problem}",
            hint="update the appliance, or restore an older one with --from DATE",
        )
    return artifact


def _chosen(artifacts: Sequence[Artifact], stack: str, wanted: str | None) -> Artifact:
    having = catalog.data_with(artifacts, stack)
    if not having:
        known = sorted({name for a in artifacts if a.kind is ArtifactKind.DATA for name in a.stacks})
        held = ", ".join(map(display, known)) or "no stack at all"
        raise SettingsError(f"no backup holds {display(stack)}", hint=f"there are backups of: {held}")
    if wanted is None:
        whole = [a for a in having if not a.incomplete(stack)] or having
        return next((a for a in whole if not a.replaced), whole[0])
    for artifact in having:
        if artifact.name.name in (wanted, f"data-{wanted}"):
            return artifact
    dates = ", ".join(artifact.name.name.removeprefix("data-") for artifact in having[:7])
    raise SettingsError(f"{display(wanted)} is no backup of {display(stack)}", hint=f"--from one of: {dates}")


def targets(artifact: Artifact, stack: Stack) -> tuple[tuple[Target, ...], tuple[TreeEntry, ...]]:
    """Each tree of the backup with its place now, and the trees that have none.

    Raises:
        RefusedError: a link is in the place of one of them.
    """
    found, homeless = [], []
    for entry in artifact.trees(stack.name):
        tree = _tree_for(entry, stack.trees)
        source = artifact.place(entry.path)
        if tree is not None:
            found.append(Target(entry, source, tree.path, tree))
        elif entry.kind == TreeKind.DATA:
            found.append(Target(entry, source, Path(os.path.realpath(stack.directory / "data"))))
        else:
            homeless.append(entry)
    return tuple(found), tuple(homeless)


def not_restored(
    artifact: Artifact, stack: Stack, found: Sequence[Target], homeless: Sequence[TreeEntry]
) -> tuple[str, ...]:
    """What a restore of the whole stack leaves as it is, in words."""
    notes = [f"{display(e.mount_name)}: it is no tree of the stack any more; get it with --to DIR" for e in homeless]
    places = [target.place for target in found]
    for tree in stack.trees:
        if not any(tree.path == place or place in tree.path.parents for place in places):
            why = f" ({tree.reason})" if tree.reason else ""
            notes.append(f"{display(tree.source)}: it is not in the backup{why}")
    if stack.policy.exclude:
        notes.append(f"what stackward.backup.exclude leaves out ({', '.join(map(display, stack.policy.exclude))})")
    entry = artifact.index.stacks.get(stack.name) if artifact.index else None
    notes += [
        f"the {dump.kind} dump of {dump.service} stays where it is: {display(artifact.path / dump.path)}"
        for dump in (entry.dumps if entry else ())
    ]
    return tuple(notes)


def locate(artifact: Artifact, stack: str, path: str, directory: Path | None) -> Inside:
    """The file or directory that `path` means.

    In this order: absolute as it was on the host or relative to the stack's directory; beginning with a tree's name;
    relative to any tree.

    Raises:
        SettingsError: it leads outside, or means several.
        StackwardError: the backup does not hold it.
    """
    roots = [(tree, artifact.place(tree.path)) for tree in artifact.trees(stack)]
    return locate_in(roots, path, directory, f"{artifact.name.name} holds no {display(path)} of {display(stack)}")


def locate_in(roots: Sequence[tuple[TreeEntry, Path]], path: str, directory: Path | None, absent: str) -> Inside:
    """As `locate`, among trees that lie at the given places. Raises StackwardError(absent) where none holds it."""
    wanted = PurePosixPath(os.path.normpath(path or "."))
    if ".." in wanted.parts:
        raise SettingsError(f"{display(path)} leads out of the stack")
    trees = [tree for tree, _root in roots]
    places = {tree.mount_name: root for tree, root in roots}
    for candidates in (_by_source(trees, wanted, directory), _by_name(trees, wanted), [(t, wanted) for t in trees]):
        held = [
            Inside(tree, places[tree.mount_name], relative)
            for tree, relative in candidates
            if not relative.is_absolute() and holds(places[tree.mount_name], relative)
        ]
        if len(held) > 1:
            several = ", ".join(display(f"{inside.entry.mount_name}/{wanted}") for inside in held)
            raise SettingsError(f"{display(path)} is in several trees", hint=f"say which: {several}")
        if held:
            return held[0]
    raise StackwardError(absent, hint="`stackward find NAME` looks through all backups")


def holds(root: Path, relative: PurePosixPath) -> bool:
    """Whether `relative` is there below `root` without a symbolic link on the way: one could lead anywhere."""
    return first_link(root, relative) is None and os.path.lexists(root / relative)


def first_link(root: Path, relative: PurePosixPath) -> Path | None:
    """The first of the directories on the way to `relative` that is a symbolic link."""
    for parent in reversed([p for p in relative.parents if p.parts]):
        if os.path.islink(root / parent):
            return root / parent
    return None


def refuse_other_users(stack: Stack, found: Sequence[Target], containers: Sequence[Container]) -> None:
    """A tree must not be swapped under a container that is not stopped with the stack.

    Raises:
        RefusedError: another project's running container has one of the trees mounted.
    """
    for container in containers:
        if container.project == stack.project or not container.runs:
            continue
        for target in found:
            if any(_uses(mount, target) for mount in container.mounts):
                raise RefusedError(
                    f"{container.name}, which is not of this stack, uses {display(target.place)}",
                    hint=f"docker stop {container.name}, or --force to go on under it",
                )


def _uses(mount: Mount, target: Target) -> bool:
    """Whether the mount is the tree or within it. Whoever has all of DOCKER_ROOT mounted sees the new tree, too."""
    if target.volume is not None and mount.name == target.volume:
        return True
    source = Path(os.path.realpath(mount.source)) if mount.source else None
    return source is not None and (source == target.place or target.place in source.parents)


def _tree_for(entry: TreeEntry, trees: Sequence[Tree]) -> Tree | None:
    """The stack's tree that the backup's tree was made from; names may have changed, places not."""
    for tree in trees:
        if entry.volume is not None and tree.volume == entry.volume:
            return tree
    for tree in trees:
        if entry.source and str(tree.source) == entry.source:
            return tree
    for tree in trees:
        if tree.mount_name == entry.mount_name and (entry.volume is None) == (tree.volume is None):
            return tree
    return None


def _by_source(
    trees: Sequence[TreeEntry], wanted: PurePosixPath, directory: Path | None
) -> list[tuple[TreeEntry, PurePosixPath]]:
    full = wanted if wanted.is_absolute() else PurePosixPath(directory or "/nowhere") / wanted
    found = []
    for tree in trees:
        for base in dict.fromkeys((tree.source, tree.real_path)):
            if base and full.is_relative_to(base):
                found.append((tree, full.relative_to(base)))
                break
    return found


def _by_name(trees: Sequence[TreeEntry], wanted: PurePosixPath) -> list[tuple[TreeEntry, PurePosixPath]]:
    return [(tree, PurePosixPath(*wanted.parts[1:])) for tree in trees if wanted.parts[:1] == (tree.mount_name,)]
