"""One disposable host: started, used, and removed without a trace."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import secrets
import shlex
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .engine import privileges
from .images import CHECKOUT, HERE, Images, ensure_images
from .seed import copy_volume, one_at_a_time
from .shell import CommandError, Completed, checked, pipe, run, tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST_LABEL = "dev.stackward.host"
STACKS = HERE / "stacks"
ALL_STACKS = tuple(sorted(directory.name for directory in STACKS.iterdir()))
UP = "docker compose up -d --quiet-pull --wait --wait-timeout 60"
# How a stack is started where a plain `docker compose up` is not enough.
START = {
    "archive": "docker compose create",
    # The service without its graphics card is tried last: it fails, and Compose would give up on the others.
    "photos": f"{UP} server && ! docker compose up -d machine-learning",
    # The database has a subvolume to itself where the volume is Btrfs.
    "shop": f"{{ btrfs subvolume create /srv/containers/shop || mkdir -p /srv/containers/shop; }} 2>/dev/null && {UP}",
}
APPLIANCE_HOME = "/opt/stackward"
RUNS = Path(tempfile.gettempdir(), f"stackward-host-runs-{os.getuid()}")


class HostError(Exception):
    """The host is not what it should be; the message ends with what its journal says."""


@dataclass(frozen=True)
class Disks:
    """A host's two disks, each `btrfs:MIB`, `ext4:MIB`, `dir` (a plain directory) or `none` (no such path at all)."""

    volume: str = "btrfs:2048"  # /srv/containers
    backup: str = "btrfs:3072"  # /backup/docker


class Run:
    """Hosts belong to a run. A run that dies leaves its lock free, and the next run sweeps up after it."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        RUNS.mkdir(mode=0o700, exist_ok=True)
        self.lock: IO[str] = (RUNS / self.id).open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove what is left of this run."""
        remove_labelled(f"{HOST_LABEL}={self.id}")
        (RUNS / self.id).unlink(missing_ok=True)
        self.lock.close()

    @staticmethod
    def sweep() -> None:
        """Remove the hosts of runs that no longer live; hosts of a demo belong to no run and stay."""
        for file in RUNS.glob("*") if RUNS.is_dir() else []:
            with contextlib.suppress(OSError), file.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_labelled(f"{HOST_LABEL}={file.name}")
                file.unlink(missing_ok=True)


def remove_labelled(label: str) -> None:
    """Remove the hosts that carry `label`, and volumes whose host was never made."""
    found = ["--all", "--filter", f"label={label}", "--format", "{{.Names}}"]
    names = set(run(["docker", "ps", *found]).stdout.split())
    volumes = run(["docker", "volume", "ls", "--quiet", "--filter", f"label={label}"]).stdout.split()
    for name in names | {volume.rpartition("-")[0] for volume in volumes}:
        Host(name).destroy()


@dataclass(frozen=True)
class Host:
    """A running host, known by its container's name."""

    name: str
    disks: Disks = Disks()

    @classmethod
    def start(cls, owner: str, disks: Disks | None = None, *, name: str = "", images: Images | None = None) -> Host:
        """Start a host that answers; `owner` is the run (or the demo) that removes it."""
        images = images or ensure_images()
        host = cls(name or f"stackward-host-{owner}-{secrets.token_hex(2)}", disks or Disks())
        label = f"--label={HOST_LABEL}={owner}"
        try:
            for volume in (f"{host.name}-docker", f"{host.name}-disks"):
                run(["docker", "volume", "create", label, volume])
            with one_at_a_time():
                copy_volume(images.host, images.seed, f"{host.name}-docker")
            options = ["--detach", "--name", host.name, "--hostname", host.name, label, *privileges()]
            tmpfs = ["--tmpfs=/run:exec", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec"]
            volumes = [f"--volume={host.name}-docker:/var/lib/docker", f"--volume={host.name}-disks:/disks/{host.name}"]
            sizes = [f"--env=VOLUME_DISK={host.disks.volume}", f"--env=BACKUP_DISK={host.disks.backup}"]
            run(["docker", "run", *options, *tmpfs, *volumes, *sizes, images.host])
            host.wait_for_boot()
        except BaseException:
            host.destroy()
            raise
        return host

    @classmethod
    def find(cls, name: str) -> Host | None:
        """A host that an earlier command has left running."""
        found = run(["docker", "inspect", "--format", "{{.State.Running}}", name], check=False)
        return cls(name) if found.stdout.strip() == "true" else None

    def wait_for_boot(self, timeout: float = 90) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            state = run(["docker", "exec", self.name, "systemctl", "is-system-running"], check=False).stdout.strip()
            if state == "running":
                return
            if state in ("degraded", "maintenance", "stopping") or not self._is_up():
                break
            time.sleep(0.2)
        log = run(["docker", "logs", "--tail=20", self.name], check=False)
        raise HostError(f"{self.name} did not boot\n{log.stdout}{log.stderr}\n{self.journal()}")

    def _is_up(self) -> bool:
        return (
            run(["docker", "inspect", "--format", "{{.State.Running}}", self.name], check=False).stdout.strip()
            == "true"
        )

    def journal(self, lines: int = 40) -> str:
        """The end of the journal, after the units that failed."""
        script = f"systemctl --no-pager --plain --failed; journalctl --no-pager --quiet -n {lines}"
        return run(["docker", "exec", self.name, "sh", "-c", script], check=False).stdout

    def destroy(self) -> None:
        """Remove the container, its volumes and loop devices; a half-made host too."""
        run(["docker", "rm", "--force", "--volumes", self.name], check=False)
        self._detach_loop_devices()
        run(["docker", "volume", "rm", "--force", f"{self.name}-docker", f"{self.name}-disks"], check=False)

    def _detach_loop_devices(self) -> None:
        """The kernel detaches them when the last mount goes; this is for what a broken host kept."""
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if file.read_text().startswith(f"/disks/{self.name}/"):
                    run(["losetup", "--detach", f"/dev/{file.parts[3]}"], check=False)

    def restart(self) -> None:
        """Pull the plug (nothing is told to stop) and boot again, with the disks as they were."""
        run(["docker", "kill", self.name])
        run(["docker", "start", self.name])
        self.wait_for_boot()

    # Using it

    def run(self, command: str, *, check: bool = True, input: str | None = None, timeout: float = 300) -> Completed:  # noqa: A002
        """Run a shell command on the host. A failure raises CommandError with what it said; 124 is a timeout."""
        keep_stdin = ["--interactive"] if input is not None else []
        argv = [
            "docker",
            "exec",
            *keep_stdin,
            self.name,
            "timeout",
            "--kill-after=5",
            str(timeout),
            "sh",
            "-c",
            command,
        ]
        done = run(argv, check=False, stdin=input, timeout=timeout + 30)
        return checked(done, command) if check else done

    def start_command(self, command: str) -> subprocess.Popen[str]:
        """Start a shell command on the host without waiting for it; both outputs are pipes."""
        argv = ["docker", "exec", self.name, "sh", "-c", command]
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )

    def wait_until(self, command: str, *, timeout: float = 60, every: float = 0.5) -> Completed:
        """Repeat a shell command until it succeeds; raise with its last words if it does not in time."""
        deadline = time.monotonic() + timeout
        while (done := self.run(command, check=False)).returncode != 0:
            if time.monotonic() > deadline:
                raise HostError(f"not true within {timeout:.0f} s: {command}\n{tail(done.stdout + done.stderr)}")
            time.sleep(every)
        return done

    def put(self, source: Path | str | bytes, target: str, *, mode: int = 0o644) -> None:
        """Write text or bytes to the file `target`, or copy a file or a directory's content there."""
        content = source.encode(errors="surrogateescape") if isinstance(source, str) else source
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            if isinstance(content, bytes):
                entry = tarfile.TarInfo(os.path.basename(target))
                entry.size, entry.mode, entry.mtime = len(content), mode, int(time.time())
                archive.addfile(entry, io.BytesIO(content))
            elif content.is_dir():
                archive.add(content, ".", filter=_owned_by_root)
            else:
                archive.add(content, os.path.basename(target), filter=_owned_by_root)
        is_tree = isinstance(content, Path) and content.is_dir()
        directory = target if is_tree else os.path.dirname(target)
        script = f"mkdir -p {shlex.quote(directory)} && tar -C {shlex.quote(directory)} -xf -"
        argv = ["docker", "exec", "--interactive", self.name, "sh", "-c", script]
        done = subprocess.run(argv, input=packed.getvalue(), capture_output=True, check=False)
        if done.returncode != 0:
            raise CommandError(f"cannot write {target} on {self.name}: {done.stderr.decode(errors='replace')}")

    def get(self, path: str) -> bytes:
        """A file's content."""
        argv = ["docker", "exec", self.name, "cat", path]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            raise CommandError(f"cannot read {path} on {self.name}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def copy_to(self, other: Host, path: str) -> None:
        """Copy a directory to the same place on another host: owners, modes, xattrs, ACLs, hard links, sparse files."""
        quoted = shlex.quote(path)
        keep = "--numeric-owner --xattrs --xattrs-include='*' --acls --sparse"
        pack = ["docker", "exec", self.name, "sh", "-c", f"tar -C {quoted} {keep} -cf - ."]
        unpack = f"mkdir -p {quoted} && tar -C {quoted} {keep} -xpf -"
        pipe(pack, ["docker", "exec", "--interactive", other.name, "sh", "-c", unpack])

    def empty_backup_root(self) -> None:
        """Give the host an empty backup disk. Whatever has the old one mounted must be down."""
        self.run(f"disks remake backup {self.disks.backup} /backup/docker")

    # The appliance

    def appliance_up(self, settings: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Start the appliance as a user does: the project's compose file, an optional .env, `docker compose up`."""
        self.put(CHECKOUT / "compose.yaml", f"{APPLIANCE_HOME}/compose.yaml")
        lines = [f"{name}='{value}'\n" for name, value in (settings or {}).items()]
        self.put("".join(lines), f"{APPLIANCE_HOME}/.env", mode=0o600)
        self.run(f"cd {APPLIANCE_HOME} && docker compose up -d --quiet-pull")
        if wait:
            self.wait_for_appliance()

    def wait_for_appliance(self) -> None:
        """Wait for the daemon's first heartbeat; where none comes, raise with what it said."""
        self.wait_until("docker exec stackward stackward-healthcheck || { docker logs --tail 20 stackward; false; }")

    def appliance_reset(self, settings: Mapping[str, str] | None = None) -> None:
        """The appliance as on its first day: no state, no settings of before, an empty backup disk."""
        self.run("docker rm -f stackward", check=False)
        self.run("rm -rf /var/lib/stackward /etc/stackward /run/stackward")
        self.empty_backup_root()
        self.appliance_up(settings)

    def stackward(self, *words: str, check: bool = True, input: str | None = None, timeout: float = 300) -> Completed:  # noqa: A002
        """The appliance's command line, as `docker exec stackward stackward …`."""
        keep_stdin = " -i" if input is not None else ""
        command = f"docker exec{keep_stdin} stackward stackward {shlex.join(words)}"
        return self.run(command, check=check, input=input, timeout=timeout)

    def stackward_json(self, *words: str, check: bool = True, timeout: float = 300) -> Any:
        """What the command line says when it is not on a terminal, parsed."""
        done = self.stackward(*words, check=check, timeout=timeout)
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise HostError(f"not JSON from stackward {shlex.join(words)}: {done.stdout!r} {done.stderr!r}") from error

    # The demo stacks

    def stacks_up(self, names: Sequence[str]) -> None:
        """Put the named demo stacks into /opt/docker and start them, all at once, until they are healthy."""
        for name in names:
            self.put(STACKS / name, f"/opt/docker/{name}")
        jobs = "".join(f'(cd /opt/docker/{name} && {START.get(name, UP)}) & pids="$pids $!"\n' for name in names)
        self.run(f'pids=\n{jobs}for pid in $pids; do wait $pid || failed=1; done; [ -z "${{failed-}}" ]')

    def stack_reset(self, name: str) -> None:
        """The stack as new: its containers, volumes and every file of it are made again."""
        self.run(f"cd /opt/docker/{name} && docker compose down --volumes --timeout 2", check=False)
        on_volume = f"/srv/containers/{name} /srv/containers/{name}-files"
        self.run(f"btrfs subvolume delete {on_volume}; rm -rf /opt/docker/{name} {on_volume}", check=False)
        self.stacks_up([name])


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
