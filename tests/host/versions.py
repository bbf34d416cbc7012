"""Images of the appliance as it was at an earlier commit."""

from __future__ import annotations

import shutil
import tempfile

from .engine import IMAGE_LABEL, build_arguments, ensure_base_image, ensure_engine
from .images import CHECKOUT
from .seed import one_at_a_time
from .shell import answers, pipe, run, say


class CannotTellError(Exception):
    """This checkout has no history that could be asked; the message says what is missing."""


def first_with(path: str) -> str:
    """The commit that added the file `path`, of the history that is checked out."""
    if not shutil.which("git"):
        raise CannotTellError("git is not installed")
    shallow = run(["git", "-C", str(CHECKOUT), "rev-parse", "--is-shallow-repository"], check=False)
    if shallow.returncode:
        raise CannotTellError("this is no git checkout")
    if shallow.stdout.strip() != "false":
        raise CannotTellError("the checkout is shallow")
    asked = ["log", "--diff-filter=A", "--format=%H", "--", path]
    commits = run(["git", "-C", str(CHECKOUT), *asked]).stdout.split()
    if not commits:
        raise CannotTellError(f"no commit has added {path} yet")
    return commits[-1]


def ensure_appliance_of(commit: str) -> str:
    """The name of the appliance's image of that commit; built if it is not there."""
    name = f"stackward-host/appliance-of:{commit[:12]}"
    with one_at_a_time():
        ensure_engine()
        base = ensure_base_image()
        if answers(["docker", "image", "inspect", name]):
            return name
        say(f"Building the appliance image of {commit[:12]}")
        with tempfile.TemporaryDirectory() as scratch:
            pipe(["git", "-C", str(CHECKOUT), "archive", commit], ["tar", "-x", "-C", scratch])
            labels = ["--label", f"{IMAGE_LABEL}=appliance-of"]
            argv = ["docker", "build", "--tag", name, "--build-arg", f"BASE={base}", *labels, *build_arguments()]
            run([*argv, "--file", f"{scratch}/image/Dockerfile", scratch], timeout=1800)
    return name
