"""Data backups on a disposable host: 100,000 files and 1.2 GB on Btrfs, ten changed since the last backup.

Whole commands are timed on the host: `docker exec stackward stackward backup …` with all it does (snapshot, copy, manifest, sync,
publish, the config tarball of that moment too), and `rsync -aHAX --link-dest` with `sync -f`, the backup that many hosts run today.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator

from bench.figures import Figure, paired, seconds
from host import Disks, Host, Run

FILES = 100_000
FILE_BYTES = 12_000
ROUNDS = 5
TREE = "/srv/containers/big/data"
STACK = f"""
services:
  app:
    image: stackward-demo:latest
    pull_policy: never
    command: sleep infinity
    init: true
    volumes:
      - {TREE}:/data
    labels:
      stackward.backup: "true"
      stackward.backup.quiesce: QUIESCE
"""
MAKE = """
import os, sys
root, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.umask(0o022)
block = os.urandom(size * 2)
for number in range(count):
    if number % 1000 == 0:
        here = f"{root}/d{number // 1000}"
        os.makedirs(here, exist_ok=True)
    with open(f"{here}/f{number}", "wb") as file:
        file.write(number.to_bytes(8, "big") + block[number % size : number % size + size - 8])
os.sync()
"""
PEAK = (
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)


def measure(run: Run) -> Iterator[Figure]:
    for backup in ("btrfs:6144", "ext4:6144"):
        yield from _on(run, backup)


def _on(run: Run, backup: str) -> Iterator[Figure]:
    host = Host.start(run.id, Disks("btrfs:8192", backup))
    try:
        _prepare(host, "none")
        host.appliance_up({"STACKWARD_MINIMUM_FREE": "0"})
        kind = backup.partition(":")[0]
        yield _second_backup(host, kind)
        if kind == "btrfs":
            yield _help(host)
            yield _peak_memory(host)
            yield from _standstill(host)
    finally:
        host.destroy()


def _prepare(host: Host, quiesce: str, files: int = FILES) -> None:
    host.run("mkdir -p /opt/docker/big /srv/containers/big")
    host.put(STACK.replace("QUIESCE", quiesce), "/opt/docker/big/compose.yaml")
    host.run(f"mkdir -p {TREE} && cd /opt/docker/big && docker compose up -d")
    make(host, TREE, files)


def make(host: Host, tree: str, files: int, size: int = FILE_BYTES) -> None:
    """Files are made by a container's Python: the host has none."""
    host.put(MAKE, "/srv/containers/make.py")
    image = "docker run --rm --entrypoint python3 -v /srv:/srv stackward:latest"
    host.run(f"{image} /srv/containers/make.py {tree} {files} {size}", timeout=600)


def timed(host: Host, command: str) -> float:
    began = time.monotonic()
    host.run(command, timeout=900)
    return time.monotonic() - began


def touch_ten(host: Host) -> None:
    host.run(
        f"for n in 1 2 3 4 5 6 7 8 9 10; do head -c {FILE_BYTES} /dev/urandom > {TREE}/d$n/f${{n}}042; done; sync -f {TREE}"
    )


def _second_backup(host: Host, kind: str) -> Figure:
    ours = "docker exec stackward stackward backup --data"
    first = timed(host, ours)
    theirs_first = timed(
        host,
        f"mkdir -p /backup/docker/.rsync && rsync -aHAX {TREE}/ /backup/docker/.rsync/0/ && sync -f /backup/docker",
    )
    rounds = 0

    def rsync() -> float:
        nonlocal rounds
        touch_ten(host)
        rounds += 1
        copy = f"rsync -aHAX --link-dest=../{rounds - 1} {TREE}/ /backup/docker/.rsync/{rounds}/"
        return timed(host, f"{copy} && sync -f /backup/docker")

    def stackward() -> float:
        touch_ten(host)
        return timed(host, ours)

    mine, theirs = paired(stackward, rsync, ROUNDS)
    detail = f"{mine:.2f} s against {theirs:.2f} s; first backups {seconds([first, theirs_first])}"
    if kind == "btrfs":
        return Figure(
            "second data backup, BACKUP_ROOT on Btrfs, times faster than rsync", theirs / mine, "x", 3, True, detail
        )
    return Figure("second data backup, BACKUP_ROOT on ext4, of rsync's time", mine / theirs, "x", 1.3, detail=detail)


def _peak_memory(host: Host) -> Figure:
    touch_ten(host)
    argv = f"docker exec stackward python3 -c '{PEAK}' stackward backup --data"
    kibibytes = int(host.run(argv, timeout=900).stdout.split()[-1])
    return Figure("peak memory of a data backup, largest process", kibibytes / 1024, "MiB", 200)


def _standstill(host: Host) -> list[Figure]:
    """The stack is paused for its snapshot while 2 GB that were just written are still dirty pages."""
    medians = {}
    for files in (10_000, FILES):
        host.run("cd /opt/docker/big && docker compose down -t 1")
        host.run(f"rm -rf {TREE}", timeout=600)
        _prepare(host, "pause", files)
        host.run("docker exec stackward stackward backup --data", timeout=900)
        stills = []
        for _ in range(3):
            host.run(f"head -c 2000000000 /dev/zero > {TREE}/fresh", timeout=300)
            stills.append(_standstill_of_a_backup(host))
            host.run(f"rm {TREE}/fresh && sync -f {TREE}")
        medians[files] = statistics.median(stills)
    few, many = medians[10_000], medians[FILES]
    name = "standstill of a paused stack"
    return [
        Figure(f"{name}, {FILES:,} files and 2 GB just written", many, "s", 1),
        Figure(f"{name}, {FILES:,} files against 10,000", many / few, "x", 1.5, detail=seconds([many, few])),
    ]


def _standstill_of_a_backup(host: Host) -> float:
    result = json.loads(host.run("docker exec stackward stackward backup --data", timeout=900).stdout)
    (step,) = (step for step in result["steps"] if step["job"] == "backup-data")
    return float(step["stacks"][0]["standstill_seconds"])


def _help(host: Host) -> Figure:
    script = (
        "import statistics, subprocess, time\n"
        "def once():\n"
        "    began = time.perf_counter()\n"
        "    subprocess.run(['stackward', '--help'], stdout=subprocess.DEVNULL, check=True)\n"
        "    return time.perf_counter() - began\n"
        "print(statistics.median(once() for _ in range(11)))\n"
    )
    return Figure(
        "stackward --help", float(host.run("docker exec -i stackward python3 -", input=script).stdout), "s", 0.3
    )
