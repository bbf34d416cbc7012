"""`python3 -m tests.host VERB`: what the Makefile's targets call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from . import demo
from .engine import IMAGE_LABEL, apt_install, ensure_engine
from .machine import HostError, Run
from .seed import one_at_a_time, seeds
from .shell import CommandError, run
from .unpacked import ensure_unpacked

# What the tests use on the machine itself, and the Debian packages that have it.
PROGRAMS = {
    "age": "age",
    "btrfs": "btrfs-progs",
    "getfacl": "acl",
    "getfattr": "attr",
    "logrotate": "logrotate",
    "mkfs.ext4": "e2fsprogs",
    "rsync": "rsync",
    "shellcheck": "shellcheck",
}


def on_host() -> int:
    """Run the command in the variable ON_HOST on the demo host."""
    command = os.environ.get("ON_HOST", "")
    if not command:
        raise CommandError("nothing to run\nHINT: make on-host CMD='docker ps'")
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    argv = ["docker", "exec", "--interactive", *terminal, demo.find().name, "sh", "-c", command]
    return subprocess.run(argv, check=False).returncode


def shell() -> int:
    argv = ["docker", "exec", "--interactive", "--tty", "--workdir=/opt/docker", demo.find().name, "bash", "--login"]
    return subprocess.run(argv, check=False).returncode


def down() -> None:
    """Remove this checkout's demo, and what test runs that died have left."""
    demo.remove()
    Run.sweep()


def clean() -> None:
    """Remove the images too, and the volumes that are filled with them; the next start makes them again."""
    down()
    with one_at_a_time():
        label = ["--filter", f"label={IMAGE_LABEL}"]
        images = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *label]).stdout.split()
        for kind, names in (("volume", seeds()), ("image", images)):
            if names:
                run(["docker", kind, "rm", "--force", *names])
        # What the builds of the appliance went through.
        run(["docker", "image", "prune", "--force", "--filter", "label=dev.stackward.stage"])


def tools() -> None:
    """Install what is missing on the machine for the tests, the engine included."""
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if missing:
        apt_install(*missing)
    ensure_unpacked()
    ensure_engine()


VERBS = {"demo": demo.demo, "on-host": on_host, "shell": shell, "down": down, "clean": clean, "tools": tools}


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in VERBS:
        print(f"usage: python3 -m tests.host {{{','.join(VERBS)}}}", file=sys.stderr)
        return 2
    try:
        return VERBS[sys.argv[1]]() or 0
    except (CommandError, HostError) as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
