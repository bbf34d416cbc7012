"""What a backup costs when little changed: among a million files, in a file of 2 GB, in room, and in standstill of staging."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.big_stack import (
    BESIDE,
    FILES,
    OURS,
    TREE,
    Rsync,
    make,
    peak_memory,
    prepare,
    restic,
    timed,
    touch_ten,
    with_restic,
)
from bench.figures import Figure, in_turn, seconds
from host import Disks, Host, Run

MANY = 1_000_000
MANY_BYTES = 1_200  # each: 1.2 GB in all, as the smaller tree has
PLACES, PLACE_BYTES = 32, 4096
LARGE = 2_000_000_000
RSYNC_LIMIT_SECONDS = 600  # with a million files it makes as many links anew
ROUNDS = 5


def measure(run: Run) -> Iterator[Figure]:
    with _host(run, "btrfs:20480") as host:
        with_restic(host)
        yield from _staging(host)
        yield from _large_file(host)
    with _host(run, "btrfs:40960") as host:
        with_restic(host)
        yield from _many_files(host)


@contextmanager
def _host(run: Run, backup: str) -> Iterator[Host]:
    host = Host.start(run.id, Disks("btrfs:16384", backup))
    try:
        prepare(host, "none")
        host.appliance_up({"STACKWARD_MINIMUM_FREE": "0"})
        yield host
    finally:
        host.destroy()


def _large_file(host: Host) -> Iterator[Figure]:
    """A file of 2 GB beside the 100,000 small ones."""
    large = f"{TREE}/large"
    host.run(f"head -c {LARGE} /dev/urandom > {large} && sync -f {TREE}", timeout=300)
    rsync = Rsync(host)
    timed(host, OURS), rsync.first(), restic(host)
    dice = random.Random(1)

    def overwrite() -> None:
        places = sorted(dice.randrange(LARGE // PLACE_BYTES) for _ in range(PLACES))
        dd = f"dd if=/dev/urandom of={large} bs={PLACE_BYTES} count=1 conv=notrunc status=none"
        host.run(" && ".join(f"{dd} seek={place}" for place in places) + f" && sync -f {TREE}")

    tools = {"ours": lambda: timed(host, OURS), "rsync": rsync.again, "restic": lambda: restic(host)}
    times = in_turn(tools, ROUNDS, before=overwrite)
    rsync.clear()
    detail = (
        f"rsync --link-dest {times['rsync']:.2f} s, restic {times['restic']:.2f} s; bound by reading the file and its copy"
        " once each, for its SHA-256 and the comparison; only the places are written"
    )
    yield Figure(f"a file of 2 GB with {PLACES} places overwritten", times["ours"], "s", detail=detail)
    yield _room(host, "10 of 100,000 files changed", lambda: touch_ten(host), 10 * 12_288)
    yield _room(host, f"{PLACES} places of a 2 GB file overwritten", overwrite, PLACES * PLACE_BYTES)
    host.run(f"rm {large}")


def _ten(host: Host) -> float:
    touch_ten(host)
    return timed(host, OURS)


def _room(host: Host, what: str, change: Callable[[], None], changed: int) -> Figure:
    """What a backup newly takes on the disk of BACKUP_ROOT, of what it may take."""
    timed(host, OURS)
    change()
    before = _used(host)
    timed(host, OURS)
    after = _used(host)
    manifest = int(host.run(f"stat -c %s $(ls -d {BESIDE}/data-* | tail -1)/MANIFEST.sha256").stdout)
    data, metadata = after["Data"] - before["Data"], after["Metadata"] - before["Metadata"]
    detail = f"data {data:,} B, metadata {metadata:,} B; {changed:,} B changed, the manifest has {manifest:,} B"
    name = f"room newly taken, {what}, of 2 × what changed + the manifest"
    return Figure(name, data / (2 * changed + manifest), "x", 1, detail=detail)


def _used(host: Host) -> dict[str, int]:
    """Bytes in use by kind, of what is committed to the disk."""
    host.run(f"sync -f {BESIDE}")
    lines = host.run(f"btrfs filesystem df --raw {BESIDE}").stdout.splitlines()
    return {line.split(",")[0]: int(line.rpartition("used=")[2]) for line in lines}


def _staging(host: Host) -> Iterator[Figure]:
    """The rebuild's own part of an instance's standstill, which its stop and its start are not."""
    host.put('services: {app: {labels: {stackward.staging: "true"}}}', "/opt/docker/big/compose.override.yaml")
    swaps = []
    for _ in range(ROUNDS + 1):
        done = json.loads(host.run("docker exec stackward stackward staging refresh", timeout=600).stdout)
        if done["outcome"] != "ok":
            raise AssertionError(f"the rebuild failed: {done}")
        swaps.append(float(done["details"]["swap_seconds"]))
    host.run("docker exec stackward stackward staging down", timeout=300)
    host.run("rm /opt/docker/big/compose.override.yaml")
    yield Figure(
        "standstill of a staging instance by its rebuild, without its own stop and start",
        statistics.median(swaps[1:]),
        "s",
        1,
        detail=seconds(swaps[1:]),
    )


def _many_files(host: Host) -> Iterator[Figure]:
    timed(host, OURS)
    few = statistics.median(_ten(host) for _ in range(ROUNDS))
    host.run(f"rm -rf {TREE} && mkdir {TREE}", timeout=900)
    make(host, TREE, MANY, MANY_BYTES)
    host.run(f"docker exec stackward stackward accept big && {OURS}", timeout=1800)
    rsync = Rsync(host)
    rsync.first(), restic(host)
    many = statistics.median(_ten(host) for _ in range(ROUNDS))
    touch_ten(host)
    others = restic(host), rsync.again(RSYNC_LIMIT_SECONDS)
    no_less = "not done after " if others[1] == RSYNC_LIMIT_SECONDS else ""
    detail = f"{many:.2f} s against {few:.2f} s; restic {others[0]:.2f} s, rsync --link-dest {no_less}{others[1]:.2f} s"
    yield Figure(
        f"data backup of {MANY:,} files, 10 changed, of its time at {FILES:,}", many / few, "x", 2, detail=detail
    )
    touch_ten(host)
    yield Figure(f"peak memory at {MANY:,} files, largest process", peak_memory(host), "MiB", 300)
    yield Figure(f"peak memory at {MANY:,} files, full scan", peak_memory(host, "--full-scan"), "MiB", 300)
