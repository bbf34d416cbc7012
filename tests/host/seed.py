"""The seed: a volume with an inner Docker Engine's data, all images loaded, that every new host gets a copy of."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .engine import IMAGE_LABEL, privileges
from .shell import CommandError, answers, pipe, run, say, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
# As compose.yaml calls it where nothing else is set.
APPLIANCE = f"stackward:{tomllib.loads((CHECKOUT / 'pyproject.toml').read_text())['project']['version']}"
DEMO = "stackward-demo:latest"
SEEDS_KEPT = 3
LOCKS = Path(tempfile.gettempdir(), f"stackward-host-locks-{os.getuid()}")

_held: dict[str, IO[str]] = {}


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Runs on one machine build and copy in turns; the later one finds what the first one made."""
    with _lock_file("building") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock_file(name: str) -> IO[str]:
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    return (LOCKS / name).open("w")


def _hold(seed: str) -> str:
    """The seed, which stays as long as this process lives, whatever other runs make and throw away."""
    if seed not in _held:
        _held[seed] = _lock_file(seed)
        fcntl.flock(_held[seed], fcntl.LOCK_SH)
    return seed


def image_id(name: str) -> str:
    return run(["docker", "image", "inspect", "--format", "{{.Id}}", name]).stdout.strip()


def ensure_seed(host: str, demo: str, appliance: str) -> str:
    """A volume with an inner Docker Engine's data, the demo and appliance images loaded.

    An edit of the appliance makes a new seed from the last one, so that only the layers that changed are loaded.
    """
    family = hashlib.sha256(f"{image_id(host)}{image_id(demo)}{APPLIANCE}".encode()).hexdigest()[:8]
    seed = f"stackward-host-seed-{family}-{image_id(appliance).removeprefix('sha256:')[:12]}"
    if _is_complete(host, seed):
        return _hold(seed)
    say("Loading the images into a disposable host's engine")
    former = [name for name in seeds() if f"-{family}-" in name and name != seed and _is_complete(host, name)]
    run(["docker", "volume", "rm", "--force", seed])
    run(["docker", "volume", "create", "--label", f"{IMAGE_LABEL}=seed", seed])
    if former:
        copy_volume(host, former[0], seed)
    _load(host, seed, {appliance: APPLIANCE} if former else {demo: DEMO, appliance: APPLIANCE})
    _in_volumes(host, f"touch {seed}/complete")
    _hold(seed)
    for name in seeds()[SEEDS_KEPT:]:
        _remove_unless_used(name)
    return seed


def seeds() -> list[str]:
    """All seeds on this machine, the newest first."""
    ours = ["--quiet", "--filter", f"label={IMAGE_LABEL}=seed"]
    listed = run(["docker", "volume", "ls", *ours]).stdout.split()
    if not listed:
        return []
    dated = run(["docker", "volume", "inspect", "--format", "{{.CreatedAt}} {{.Name}}", *listed]).stdout.splitlines()
    return [line.split()[-1] for line in sorted(dated, reverse=True)]


def _remove_unless_used(seed: str) -> None:
    with _lock_file(seed) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        run(["docker", "volume", "rm", "--force", seed], check=False)
        run(["docker", "image", "rm", "--force", seed.rpartition("-")[2]], check=False)  # its appliance
        (LOCKS / seed).unlink()


def _load(host: str, seed: str, images: dict[str, str]) -> None:
    """Run only an engine on the seed, and pipe the images into it under their inner names."""
    engine = ["--entrypoint=dockerd", host, "--bridge=none", "--iptables=false"]
    options = ["--detach", "--stop-signal=SIGTERM", f"--volume={seed}:/var/lib/docker", *privileges()]
    loader = run(["docker", "run", *options, *engine]).stdout.strip()
    try:
        run(["docker", "exec", loader, "sh", "-c", "until docker info; do sleep 0.2; done"], timeout=60)
        for outer, inner in images.items():
            pipe(["docker", "save", outer], ["docker", "exec", "--interactive", loader, "docker", "load", "--quiet"])
            run(["docker", "exec", loader, "docker", "tag", outer, inner])
            run(["docker", "exec", loader, "docker", "rmi", outer])
        run(["docker", "stop", "--time=60", loader])
    except (CommandError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{error}\n{tail(run(['docker', 'logs', loader], check=False).stderr)}") from error
    finally:
        run(["docker", "rm", "--force", loader], check=False)


def copy_volume(host: str, source: str, target: str) -> None:
    """Copy an engine's data in about a second: image layers are never written to again, so they become hard links."""
    rest = "$(ls | grep -v -x overlay2)"
    _in_volumes(
        host, f"cd {source}/_data && cp -al overlay2 ../../{target}/_data/ && cp -a {rest} ../../{target}/_data/"
    )


def _is_complete(host: str, seed: str) -> bool:
    if not answers(["docker", "volume", "inspect", seed]):
        return False
    return _in_volumes(host, f"test -e {seed}/complete", check=False)


def _in_volumes(host: str, script: str, *, check: bool = True) -> bool:
    """Run `script` where the outer engine keeps its volumes, the only place where one can be linked to another."""
    volumes = run(["docker", "info", "--format", "{{.DockerRootDir}}"]).stdout.strip() + "/volumes"
    argv = ["docker", "run", "--rm", "--cap-add=SYS_ADMIN", "--volume", f"{volumes}:/volumes", "--workdir=/volumes"]
    return run([*argv, "--entrypoint=sh", host, "-c", script], check=check).returncode == 0
