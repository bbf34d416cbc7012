"""A policy proposed for a stack that nobody decided about yet: values that a person reads, changes and takes over."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackward.core import images
from stackward.core.labels import EXTENSION, PREFIX
from stackward.core.units import format_bytes

if TYPE_CHECKING:
    from stackward.core.model import Stack, Tree

_REBUILT = re.compile(r"(?:^|[+_.-])(?:cache|caches|tmp|temp|transcodes?|thumbs|thumbnails)$", re.IGNORECASE)
_LARGE_BYTES = 100 << 30
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_YAML_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


@dataclass(frozen=True, slots=True)
class Proposal:
    """`dumps` are service -> dump; `skips` are trees that look as if they were rebuilt: proposed, never taken over."""

    stack: str
    dumps: dict[str, str]
    skips: tuple[str, ...]
    notes: tuple[str, ...]
    carrier: str = ""  # the service that stack labels would stand on

    def as_extension(self) -> str:
        """A top-level `x-stackward` block of YAML."""
        lines = [f"{EXTENSION}:", "  backup: true"]
        if self.skips:
            lines.append(f"  # backup.skip: {json.dumps(list(self.skips))}")
        if self.dumps:
            lines.append("  services:")
            for service, dump in self.dumps.items():
                lines += [f"    {_key(service)}:", f"      backup.dump: {dump}"]
        return "\n".join(lines) + "\n"

    def as_labels(self) -> str:
        """The same as labels on services."""
        labels: dict[str, list[str]] = {}
        if self.carrier:
            labels[self.carrier] = [f'{PREFIX}backup: "true"']
            if self.skips:
                labels[self.carrier].append(f"# {PREFIX}backup.skip: {json.dumps(','.join(self.skips))}")
        for service, dump in self.dumps.items():
            labels.setdefault(service, []).append(f"{PREFIX}backup.dump: {dump}")
        lines = ["services:"]
        for service, entries in labels.items():
            lines += [f"  {_key(service)}:", "    labels:", *(f"      {entry}" for entry in entries)]
        return "\n".join(lines) + "\n"


def propose(stack: Stack, sizes: Mapping[Tree, int]) -> Proposal:
    """`sizes` are the bytes of the stack's covered trees, as far as they are known."""
    by_name = {service.name: service for service in stack.services}
    dumps = {name: kind for name, service in sorted(by_name.items()) if (kind := images.database(service.image))}
    skips = tuple(tree.mount_name for tree in stack.covered_trees if _looks_rebuilt(tree, stack))
    notes = []
    if not stack.covered_trees:
        notes.append("it has no trees of its own: its configuration is what is backed up")
    notes += [
        f"{tree.mount_name} is large ({format_bytes(sizes[tree])}); if it can be had elsewhere, skip it"
        for tree in stack.covered_trees
        if sizes.get(tree, 0) >= _LARGE_BYTES
    ]
    if skips:
        notes.append(f"{', '.join(skips)}: by the name it can be rebuilt; take the # away to leave it out")
    databases = [name for name in dumps if name in by_name]
    carrier = next(iter([*databases, *sorted(by_name)]), "")
    return Proposal(stack.name, dumps, skips, tuple(notes), carrier)


def _looks_rebuilt(tree: Tree, stack: Stack) -> bool:
    if _REBUILT.search(tree.mount_name):
        return True
    users = [service for service in stack.services if service.name in tree.services]
    return bool(users) and all(images.is_cache(service.image) for service in users)


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name.lower() not in _YAML_WORDS else json.dumps(name)
