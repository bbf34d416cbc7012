"""The images a disposable host is made of, each built once for what its files say."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .engine import IMAGE_LABEL, build_arguments, ensure_base_image, ensure_engine
from .shell import CommandError, answers, pipe, run, say, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
APPLIANCE = "stackward:latest"
DEMO = "stackward-demo:latest"
SEEDS_KEPT = 3


@dataclass(frozen=True)
class Images:
    """Names of built images, and of the volume that already holds the inner ones as `/var/lib/docker`."""

    host: str
    seed: str


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Runs on one machine build and copy in turns; the later one finds what the first one made."""
    with Path(tempfile.gettempdir(), f"stackward-host-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def ensure_images() -> Images:
    """The images of this checkout as it is now; later calls in one process get the same, whatever was edited since."""
    with one_at_a_time():
        ensure_engine()
        base = ensure_base_image()
        host = _built("host", HERE / "image", [HERE / "image"], base)
        demo = _built("demo", HERE / "demo-image", [HERE / "demo-image"], base)
        sources = [CHECKOUT / name for name in ("image", "agent", "pyproject.toml", "requirements.lock")]
        appliance = _built("appliance", CHECKOUT, sources, base, "--file", str(CHECKOUT / "image" / "Dockerfile"))
        return Images(host, _ensure_seed(host, demo, appliance))


def _built(kind: str, context: Path, sources: list[Path], base: str, *options: str) -> str:
    """The image's name, tagged with a digest of its sources; built if there is none of that name."""
    name = f"stackward-host/{kind}:{_digest(sources, _image_id(base))}"
    if not answers(["docker", "image", "inspect", name]):
        say(f"Building the {kind} image")
        labels = ["--label", f"{IMAGE_LABEL}={kind}"]
        argv = ["docker", "build", "--tag", name, "--build-arg", f"BASE={base}", *labels, *build_arguments(), *options]
        run([*argv, str(context)], timeout=1800)
    return name


def _digest(sources: list[Path], *words: str) -> str:
    summary = hashlib.sha256("\0".join(words).encode())
    files = [file for source in sources for file in ([source] if source.is_file() else sorted(source.rglob("*")))]
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts and not any("egg-info" in part for part in file.parts):
            mode = file.stat().st_mode & 0o111
            summary.update(f"{file.relative_to(CHECKOUT)}\0{mode}\0".encode() + file.read_bytes())
    return summary.hexdigest()[:12]


def _image_id(name: str) -> str:
    return run(["docker", "image", "inspect", "--format", "{{.Id}}", name]).stdout.strip()


def _ensure_seed(host: str, demo: str, appliance: str) -> str:
    """A volume with an inner Docker Engine's data, the demo and appliance images loaded.

    An edit of the appliance makes a new seed from the last one, so that only the layers that changed are loaded.
    """
    family = hashlib.sha256(f"{_image_id(host)}{_image_id(demo)}".encode()).hexdigest()[:8]
    seed = f"stackward-host-seed-{family}-{_image_id(appliance).removeprefix('sha256:')[:12]}"
    if _is_complete(host, seed):
        return seed
    say("Loading the images into a disposable host's engine")
    former = [name for name in _seeds(family) if name != seed and _is_complete(host, name)]
    run(["docker", "volume", "rm", "--force", seed])
    run(["docker", "volume", "create", "--label", f"{IMAGE_LABEL}=seed", seed])
    if former:
        copy_volume(host, former[0], seed)
    _load(host, seed, {appliance: APPLIANCE} if former else {demo: DEMO, appliance: APPLIANCE})
    _in_volumes(host, f"touch {seed}/complete")
    for name in former[SEEDS_KEPT - 1 :]:
        run(["docker", "volume", "rm", "--force", name], check=False)
    return seed


def _seeds(family: str) -> list[str]:
    """The family's seeds, the newest first."""
    listed = run(
        ["docker", "volume", "ls", "--quiet", "--filter", f"name=stackward-host-seed-{family}-"]
    ).stdout.split()
    if not listed:
        return []
    dated = run(["docker", "volume", "inspect", "--format", "{{.CreatedAt}} {{.Name}}", *listed]).stdout.splitlines()
    return [line.split()[-1] for line in sorted(dated, reverse=True)]


def _load(host: str, seed: str, images: dict[str, str]) -> None:
    """Run only an engine on the seed, and pipe the images into it under their inner names."""
    engine = ["--entrypoint=dockerd", host, "--bridge=none", "--iptables=false", "--log-level=warn"]
    options = ["--detach", "--rm", "--stop-signal=SIGTERM", f"--volume={seed}:/var/lib/docker", *privileges()]
    loader = run(["docker", "run", *options, *engine]).stdout.strip()
    try:
        run(["docker", "exec", loader, "sh", "-c", "until docker info; do sleep 0.2; done"], timeout=60)
        for outer, inner in images.items():
            pipe(["docker", "save", outer], ["docker", "exec", "--interactive", loader, "docker", "load", "--quiet"])
            run(["docker", "exec", loader, "docker", "tag", outer, inner])
            run(["docker", "exec", loader, "docker", "rmi", outer])
    except (CommandError, subprocess.TimeoutExpired) as error:
        log = run(["docker", "logs", loader], check=False)
        run(["docker", "rm", "--force", loader], check=False)
        raise CommandError(f"{error}\n{tail(log.stderr)}") from error
    run(["docker", "stop", "--time=60", loader])
    run(["docker", "wait", loader], check=False)


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


def privileges() -> list[str]:
    """What `docker run` must be told so that a whole host works inside.

    `--privileged` asks for every capability there is, and fails where this machine itself lacks one.
    """
    mask = int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line).split()[1], 16
    )
    capabilities = [f"--cap-add={name}" for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1]
    profiles = [f"--security-opt={name}=unconfined" for name in ("seccomp", "apparmor", "systempaths")]
    return [*capabilities, *profiles, "--device-cgroup-rule=a *:* rwm"]


# By number, as in capabilities(7); engine 20.10 refuses the names that came later.
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
]
