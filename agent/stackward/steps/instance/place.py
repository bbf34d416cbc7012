"""Where an instance is to be, and what is known of the host when it is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from stackward.core.staging import WAIT_SECONDS
from stackward.core.staging_facts import Move


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is kept, what its project is called, and what of production it finds where.

    `is_drill`: it is asked whether it is well and removed again, rather than used. `is_fresh`: the copy that it will have
    is about to be made, of what is on the volume now. `volumes` has the real paths of named volumes, as far as the stack's
    trees do not say them. `wait_seconds` is how long an instance there may take to become well where the stack does not
    say. `subnets` are others', which its networks must not take.
    """

    directory: Path
    project: str
    moves: tuple[Move, ...]
    is_drill: bool = False
    is_fresh: bool = False
    empty: tuple[str, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: float = WAIT_SECONDS
    subnets: tuple[IPv4Network, ...] = ()
