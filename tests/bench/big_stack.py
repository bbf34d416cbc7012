"""A disposable host with one stack of many files, and the usual tools beside the appliance, all on the same two disks."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from host import Host
from host.engine import apt_install
from host.seed import APPLIANCE

FILES = 100_000
FILE_BYTES = 12_000
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
OURS = "docker exec stackward stackward backup --data"
BESIDE = "/backup/docker"  # where the others keep theirs, on the disk of BACKUP_ROOT
RESTIC = f"RESTIC_PASSWORD=bench restic --quiet --repo {BESIDE}/.restic"
PEAK = (
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)


def prepare(host: Host, quiesce: str, files: int = FILES) -> None:
    host.run("mkdir -p /opt/docker/big /srv/containers/big")
    host.put(STACK.replace("QUIESCE", quiesce), "/opt/docker/big/compose.yaml")
    host.run(f"mkdir -p {TREE} && cd /opt/docker/big && docker compose up -d")
    make(host, TREE, files)


def make(host: Host, tree: str, files: int, size: int = FILE_BYTES) -> None:
    """Files are made by a container's Python: the host has none."""
    host.put(MAKE, "/srv/containers/make.py")
    image = f"docker run --rm --entrypoint python3 -v /srv:/srv {APPLIANCE}"
    host.run(f"{image} /srv/containers/make.py {tree} {files} {size}", timeout=1200)


def timed(host: Host, command: str) -> float:
    began = time.monotonic()
    host.run(command, timeout=1800)
    return time.monotonic() - began


def touch_ten(host: Host) -> None:
    host.run(
        f"for n in 1 2 3 4 5 6 7 8 9 10; do head -c {FILE_BYTES} /dev/urandom > {TREE}/d$n/f${{n}}042; done; sync -f {TREE}"
    )


def with_restic(host: Host) -> None:
    """Put the machine's restic on the host, with a repository beside our backups."""
    if not shutil.which("restic"):
        apt_install("restic")
    host.put(Path(shutil.which("restic") or ""), "/usr/local/bin/restic", mode=0o755)
    host.run(f"{RESTIC} init")


def restic(host: Host) -> float:
    return timed(host, f"{RESTIC} backup {TREE} && sync -f {BESIDE}")


class Rsync:
    """The backup that many hosts run today: a directory a run, unchanged files hard links to the last one's."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._number = 0

    def first(self) -> float:
        return timed(
            self._host, f"mkdir -p {BESIDE}/.rsync && rsync -aHAX {TREE}/ {BESIDE}/.rsync/0/ && sync -f {BESIDE}"
        )

    def again(self, limit_seconds: int = 1800) -> float:
        """Seconds; as many as the limit where it was not done by then."""
        self._number += 1
        copy = f"rsync -aHAX --link-dest=../{self._number - 1} {TREE}/ {BESIDE}/.rsync/{self._number}/"
        limited = f"timeout {limit_seconds} {copy} && sync -f {BESIDE} || test $? -eq 124"
        return min(timed(self._host, limited), limit_seconds)

    def clear(self) -> None:
        """What it has goes, and with it the room that it takes."""
        self._host.run(f"rm -rf {BESIDE}/.rsync && sync -f {BESIDE}", timeout=900)
        self._number = 0


def peak_memory(host: Host, *options: str) -> float:
    """Of one data backup: what its largest process took, MiB."""
    argv = f"docker exec stackward python3 -c '{PEAK}' stackward backup --data {' '.join(options)}"
    return int(host.run(argv, timeout=1800).stdout.split()[-1]) / 1024
