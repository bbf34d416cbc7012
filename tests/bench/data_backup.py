"""Data backups on a disposable host: 100,000 files and 1.2 GB on Btrfs, ten changed since the last backup.

Whole commands are timed on the host: `docker exec stackward stackward backup …` with all it does (snapshot, copy, manifest, sync,
publish, the config tarball of that moment too), and `rsync -aHAX --link-dest` with `sync -f`, the backup that many hosts run today.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator

from bench.big_stack import FILES, OURS, TREE, Rsync, peak_memory, prepare, restic, timed, touch_ten, with_restic
from bench.figures import Figure, in_turn, seconds
from host import Disks, Host, Run

ROUNDS = 5


def measure(run: Run) -> Iterator[Figure]:
    for backup in ("btrfs:6144", "ext4:6144"):
        yield from _on(run, backup)


def _on(run: Run, backup: str) -> Iterator[Figure]:
    host = Host.start(run.id, Disks("btrfs:8192", backup))
    try:
        prepare(host, "none")
        host.appliance_up({"STACKWARD_MINIMUM_FREE": "0"})
        kind = backup.partition(":")[0]
        yield from _second_backup(host, kind)
        if kind == "btrfs":
            yield _help(host)
            touch_ten(host)
            yield Figure("peak memory of a data backup, largest process", peak_memory(host), "MiB", 200)
            yield from _standstill(host)
    finally:
        host.destroy()


def _second_backup(host: Host, kind: str) -> Iterator[Figure]:
    others = Rsync(host)
    firsts = [timed(host, OURS), others.first()]
    tools: dict[str, Callable[[], float]] = {"ours": lambda: timed(host, OURS), "rsync": others.again}
    if kind == "btrfs":
        with_restic(host)
        firsts.append(restic(host))
        tools["restic"] = lambda: restic(host)
    times = in_turn(tools, ROUNDS, before=lambda: touch_ten(host))
    ours, rsync = times["ours"], times["rsync"]
    others.clear()
    name = "data backup, 10 of 100,000 files changed"
    if kind != "btrfs":
        detail = f"{ours:.2f} s against {rsync:.2f} s; first backups {seconds(firsts)}"
        yield Figure(f"{name}, BACKUP_ROOT on ext4, of rsync's time", ours / rsync, "x", 1.3, detail=detail)
        return
    detail = f"{ours:.2f} s; rsync {rsync:.2f} s, restic {times['restic']:.2f} s; first backups {seconds(firsts)}"
    yield Figure(f"{name}, times faster than rsync --link-dest", rsync / ours, "x", 15, True, detail)
    yield Figure(f"{name}, times faster than restic", times["restic"] / ours, "x", 5, True)


def _standstill(host: Host) -> list[Figure]:
    """The stack is paused for its snapshot while 2 GB that were just written are still dirty pages."""
    medians = {}
    for files in (10_000, FILES):
        host.run("cd /opt/docker/big && docker compose down -t 1")
        host.run(f"rm -rf {TREE}", timeout=600)
        prepare(host, "pause", files)
        host.run(OURS, timeout=900)
        stills = []
        for _ in range(ROUNDS):
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
    result = json.loads(host.run(OURS, timeout=900).stdout)
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
