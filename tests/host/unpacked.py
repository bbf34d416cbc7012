"""Programs of Debian packages that are unpacked and not installed: installing them would start services on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from .images import CHECKOUT
from .seed import one_at_a_time
from .shell import CommandError, run, say

DIRECTORY = CHECKOUT / ".venv" / "debian"
# program: the package that has it
PROGRAMS = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-pushgateway": "prometheus-pushgateway",
}


def program(name: str) -> Path:
    """Where the program is, unpacked now if it was not."""
    place = DIRECTORY / "usr" / "bin" / name
    with one_at_a_time():
        if not place.exists():
            _unpack(PROGRAMS[name])
    return place


def ensure_unpacked() -> None:
    for name in PROGRAMS:
        program(name)


def _unpack(package: str) -> None:
    """Under a name of its own until it is whole."""
    say(f"Unpacking {package}")
    with tempfile.TemporaryDirectory() as scratch:
        download = ["sh", "-c", f"cd {scratch} && apt-get -qq -o APT::Sandbox::User=root download {package}"]
        try:
            run(download)
        except CommandError:
            run(["apt-get", "-qq", "update"])
            run(download)
        (archive,) = Path(scratch).glob("*.deb")
        run(["dpkg-deb", "--extract", str(archive), f"{scratch}/root"])
        (DIRECTORY / "usr" / "bin").mkdir(parents=True, exist_ok=True)
        for found in Path(scratch, "root", "usr", "bin").iterdir():
            target = DIRECTORY / "usr" / "bin" / found.name
            incoming = target.with_name(f".incoming-{found.name}")
            shutil.move(found, incoming)
            os.rename(incoming, target)
