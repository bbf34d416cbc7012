"""What a staging instance is derived from, beside the stack's model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from stackward.core.model import Publish
from stackward.core.staging_networks import Room

WAIT_SECONDS = 900.0  # for an instance to become well, where its stack does not say


@dataclass(frozen=True, slots=True)
class Wish:
    """What the instance is to be.

    `name` is its project, `production` that of the stack. `services` are the only ones wanted (none named: all that
    production runs: those without a profile, and those that are `present` as containers), but never those `without`. With
    `prober`, a container that can reach every service is added, whatever is published. `wait_seconds` is how long it may
    take to become well.
    """

    name: str
    production: str
    services: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    present: frozenset[str] = frozenset()
    publish: tuple[Publish, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    empty: tuple[str, ...] = ()
    prober: bool = False
    wait_seconds: float = WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class Move:
    """What lies at or below `old` (a real path) is at the same place below `new` for the instance."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What was looked up.

    `real` has the real path of each bind's source and secret's file, `volumes` that of each named volume by its full
    name; `kinds` says "directory", "file" or "other" of a real path, and nothing of one that is not there. `names` are the
    trees' names by their real path. Unless it was moved, nothing is mounted that is or holds one of `roots`, or that is,
    holds or lies in one of `closed`. `variables` are those that secrets and configs name, as far as the stack's
    `.env` sets them; `home` is where the instance is written, `room` where its networks' subnets may be.
    """

    real: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    moves: tuple[Move, ...] = ()
    roots: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    proxy_image: str = ""
    home: str = "."
    room: Room = field(default_factory=Room)

    def moved(self, real: str) -> str | None:
        """Where the instance finds it; None for what is nowhere but in production. The longest match counts."""
        for move in sorted(self.moves, key=lambda one: -len(one.old)):
            if within(real, move.old):
                rest = os.path.relpath(real, move.old)
                return move.new if rest == "." else os.path.join(move.new, rest)
        return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there can be no instance. `path` leads to what is refused in the compose file: an override may say otherwise."""

    reason: str
    hint: str = ""
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.reason} ({self.hint})" if self.hint else self.reason


def within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
