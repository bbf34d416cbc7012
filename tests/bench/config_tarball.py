"""The config tarball of a 300 MB DOCKER_ROOT: `stackward backup --config` against `tar czf`, whole commands, both cold in
nothing and warm in the page cache. What is in both tarballs is compared file by file first.

Ours also finds the stacks, leaves out what it must, hashes, syncs, records the run and prunes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path

from bench.figures import Figure, in_turn, seconds

BYTES = 300_000_000
STACKS = 12
ROUNDS = 5
FACTOR = 3.0
AGENT = Path(__file__).parents[2] / "agent"


def measure(directory: Path) -> list[Figure]:
    """`directory` is empty and takes about 500 MB."""
    root, backups, theirs = directory / "docker", directory / "backup", directory / "tar.tar.gz"
    backups.mkdir()
    make(root)
    ours = environment(directory, root, backups)
    backup(ours)
    tar(root, theirs)
    if difference := compare(newest(backups), theirs):
        raise AssertionError(f"the tarballs differ: {difference}")
    tools = {"ours": lambda: timed(lambda: backup(ours)), "tar": lambda: timed(lambda: tar(root, theirs))}
    one, other = in_turn(tools, ROUNDS).values()
    detail = (
        f"medians {seconds([one, other])}; {newest(backups).stat().st_size / theirs.stat().st_size:.2f} of the size"
    )
    return [Figure("config tarball of 300 MB, times faster than tar czf", other / one, "×", FACTOR, True, detail)]


def make(root: Path) -> None:
    """Stacks of real text and binaries (this Python's library), with data, logs and secrets that stay out."""
    sources = sorted(
        path
        for path in Path(sysconfig.get_paths()["stdlib"]).rglob("*")
        if path.is_file() and path.suffix in (".py", ".so", ".txt") and "site-packages" not in path.parts
    )
    total = number = 0
    while total < BYTES:
        source = sources[number % len(sources)]
        copy = number // len(sources)
        place = root / f"stack{number % STACKS}" / f"copy{copy}" / source.parent.name / f"{number}-{source.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        total += place.stat().st_size
        number += 1
    for stack in range(STACKS):
        home = root / f"stack{stack}"
        (home / "compose.yaml").write_text("services:\n  app:\n    image: none\n", encoding="utf-8")
        (home / ".env").write_text("PASSWORD=x\n", encoding="utf-8")
        for name in ("data", "logs"):
            (home / name).mkdir()
            (home / name / "file").write_bytes(b"x" * 100_000)


def environment(directory: Path, root: Path, backups: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STACKWARD_")}
    return {
        **kept,
        "PYTHONPATH": str(AGENT),
        "DOCKER_ROOT": str(root),
        "BACKUP_ROOT": str(backups),
        "STACKWARD_STATE_DIR": str(directory / "state"),
        "STACKWARD_BACKUP_DEFAULT": "true",
        "STACKWARD_MINIMUM_FREE": "0",
    }


def backup(variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "stackward.cli.main", "backup", "--config", "--json"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)


def tar(root: Path, destination: Path) -> None:
    """As a careful script does it; `data` and `logs` stay as empty directories in ours only, and are not compared."""
    left_out = ["--no-wildcards-match-slash", "--exclude=./*/data", "--exclude=./*/logs", "--exclude=.env"]
    subprocess.run(["tar", "-czf", destination, *left_out, "-C", root, "."], check=True)


def timed(work: object) -> float:
    assert callable(work)
    began = time.monotonic()
    work()
    return time.monotonic() - began


def newest(backups: Path) -> Path:
    return max(backups.glob("configs-*.tar.gz"))


def compare(ours: Path, theirs: Path) -> str:
    """The first path that only one of them has or that differs; "" when there is none."""
    left, right = contents(ours), contents(theirs)
    return next((path for path in sorted(left | right) if left.get(path) != right.get(path)), "")


def contents(path: Path) -> dict[str, str]:
    """Regular files and what is in them."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                found[member.name.removeprefix("./")] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
