"""Docker's words for a network that it could not make, with what to do."""

from __future__ import annotations

_NO_ROOM = ("have been fully subnetted", "non-overlapping IPv4 address pool")
_TAKEN = "Pool overlaps with other one on this address space"


def explained(said: str) -> str:
    """What Docker said, and, where it is about subnets, how there can be one."""
    if any(words in said for words in _NO_ROOM):
        return (
            f"{said}; HINT: Docker has given all its subnets away: `docker network prune` frees those of no use,"
            " `default-address-pools` in /etc/docker/daemon.json gives it more and smaller ones"
        )
    if _TAKEN in said:
        return f"{said}; HINT: STACKWARD_STAGING_SUBNETS: a range that nothing else on the host uses"
    return said
