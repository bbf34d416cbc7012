"""The images a disposable host is made of, each built once for what its files say."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from .engine import IMAGE_LABEL, build_arguments, ensure_base_image, ensure_engine
from .seed import ensure_seed, image_id, one_at_a_time
from .shell import answers, run, say

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent


@dataclass(frozen=True)
class Images:
    """Names of built images, and of the volume that already holds the inner ones as `/var/lib/docker`."""

    host: str
    seed: str


@functools.cache
def ensure_images() -> Images:
    """The images of this checkout as it is now; later calls in one process get the same, whatever was edited since."""
    with one_at_a_time():
        ensure_engine()
        base = ensure_base_image()
        host = _built("host", HERE / "image", [HERE / "image"], base)
        demo = _built("demo", HERE / "demo-image", [HERE / "demo-image"], base)
        sources = [
            CHECKOUT / name
            for name in ("image", "agent", "pyproject.toml", "requirements.lock", "requirements-build.lock")
        ]
        appliance = _built("appliance", CHECKOUT, sources, base, "--file", str(CHECKOUT / "image" / "Dockerfile"))
        return Images(host, ensure_seed(host, demo, appliance))


@functools.cache
def ensure_demo_image() -> str:
    """The image of the demo stacks alone: real PostgreSQL for tests that need no host."""
    with one_at_a_time():
        ensure_engine()
        return _built("demo", HERE / "demo-image", [HERE / "demo-image"], ensure_base_image())


def _built(kind: str, context: Path, sources: list[Path], base: str, *options: str) -> str:
    """The image's name, tagged with a digest of its sources; built if there is none of that name."""
    name = f"stackward-host/{kind}:{_digest(sources, image_id(base))}"
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
