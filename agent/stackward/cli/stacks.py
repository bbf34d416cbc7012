"""stackward stacks: each stack, its trees with their sizes, what covers them and why something is not covered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from stackward.cli.choosing import choose
from stackward.cli.render import table
from stackward.core.model import display
from stackward.core.units import format_bytes
from stackward.steps.report import coverage
from stackward.steps.sizes import Size, Sizes, cache_file

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from rich.console import Console

    from stackward.cli.context import Context
    from stackward.core.model import Stack, Tree
    from stackward.stacks import Discovery
    from stackward.steps.catalog import Artifact
    from stackward.wiring import Appliance


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("stacks", nargs="*", metavar="STACK", help="only these")
    parser.add_argument("--no-sizes", action="store_true", help="do not look how large the trees are")


@dataclass(frozen=True, slots=True)
class _TreeRow:
    tree: Tree
    size: Size | None
    covered_by: str  # "" where nothing covers it; then `why_not` says why
    why_not: str
    last_backup: str


def run(arguments: Namespace, context: Context) -> int:
    appliance = context.appliance
    discovery = appliance.discovery
    chosen = choose(discovery, arguments.stacks)
    sizes = None if arguments.no_sizes else sizes_of(appliance)
    artifacts = coverage.backups(appliance.settings, appliance.now())
    rows = {stack.name: _tree_rows(appliance, stack, artifacts, sizes) for stack in chosen}
    outside = discovery.outside if not arguments.stacks else ()

    def human(console: Console) -> None:
        _draw_general(console, discovery)
        for stack in chosen:
            _draw(console, stack, rows[stack.name])
        if outside:
            console.print(Text("Compose projects that run elsewhere, not backed up:", "bold yellow"))
            console.print(
                table(
                    "",
                    ("  project", "directory", "containers", "why"),
                    [
                        (f"  {p.project}", display(p.directory), f"{p.running}/{p.containers}", p.reason)
                        for p in outside
                    ],
                )
            )

    document = {
        "stacks": [_document(stack, rows[stack.name]) for stack in chosen],
        "outside": [asdict(project) for project in outside],
        "problems": [asdict(problem) for problem in discovery.problems],
        "docker_error": discovery.docker_error,
    }
    context.output.show(document, human)
    return 0


def sizes_of(appliance: Appliance) -> Sizes:
    return Sizes(cache_file(appliance.settings.state_dir), appliance.now())


def size_text(size: Size | None) -> str:
    if size is None:
        return ""
    return ("" if size.complete else "over ") + format_bytes(size.bytes)


def _tree_rows(
    appliance: Appliance, stack: Stack, artifacts: Sequence[Artifact], sizes: Sizes | None
) -> list[_TreeRow]:
    rows = []
    for one in coverage.of_stack(stack, appliance.settings.volume, artifacts):
        size = sizes.of(one.tree.path) if sizes is not None and not _is_foreign(one.tree) else None
        rows.append(_TreeRow(one.tree, size, one.covered_by, one.why_not, one.last_backup))
    return rows


def _is_foreign(tree: Tree) -> bool:
    """Not worth a walk: the system's directories, other machines' disks, single files."""
    return not tree.covered and not tree.reason.startswith(("read-only", "skipped", "only `data`"))


def _draw_general(console: Console, discovery: Discovery) -> None:
    if discovery.docker_error:
        console.print(Text(f"Docker does not answer: {discovery.docker_error}", "yellow"))
    for problem in discovery.problems:
        console.print(Text(f"{problem.message} ({problem.hint})", "yellow"))
    if not discovery.stacks:
        console.print("no stacks were found")


def _draw(console: Console, stack: Stack, rows: Sequence[_TreeRow]) -> None:
    decision = Text("backed up", "green") if stack.opted_in else Text("not backed up", "dim")
    running = sum(container.state == "running" for container in stack.containers)
    heading = Text.assemble((display(stack.name), "bold"), "  ", decision, f" ({stack.opted_reason})")
    project = f", project {stack.project}" if stack.project != stack.name else ""
    heading.append(f"  {running} of {len(stack.containers)} containers running{project}")
    console.print(heading)
    if rows:
        cells = [
            (
                f"  {row.tree.mount_name}",
                display(row.tree.source),
                size_text(row.size),
                row.covered_by or Text(row.why_not, "yellow" if row.tree.writable else "dim"),
                row.last_backup,
            )
            for row in rows
        ]
        console.print(table("", ("  tree", "path", "size", "covered by, or why not", "last backup"), cells))
    for problem in stack.problems:
        where = f" (service {display(problem.service)})" if problem.service else ""
        console.print(Text(f"  problem: {problem.message}{where}", "yellow"))
        if problem.hint:
            console.print(f"    {problem.hint}")
    console.print()


def _document(stack: Stack, rows: Sequence[_TreeRow]) -> dict[str, Any]:
    return {
        "name": display(stack.name),
        "directory": display(stack.directory),
        "project": stack.project,
        "opted_in": stack.opted_in,
        "why": stack.opted_reason,
        "resolved": stack.resolved,
        "containers": [{"name": c.name, "service": c.service, "state": c.state} for c in stack.containers],
        "problems": [asdict(problem) for problem in stack.problems],
        "trees": [
            {
                "name": row.tree.mount_name,
                "kind": row.tree.kind.value,
                "source": display(row.tree.source),
                "path": display(row.tree.path),
                "volume": row.tree.volume,
                "services": row.tree.services,
                "writable": row.tree.writable,
                "covered": bool(row.covered_by),
                "covered_by": row.covered_by,
                "why_not": row.why_not,
                "last_backup": row.last_backup,
                "size": asdict(row.size) if row.size else None,
            }
            for row in rows
        ],
    }
