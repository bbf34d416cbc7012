"""An image of a few megabytes, made from this machine's own programs: no registry is asked for tests with containers."""

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

PROGRAMS = ("sh", "sleep", "grep", "cat", "head", "tr", "yes", "sha256sum", "true")


def archive() -> bytes:
    """A root file system as a tar archive: the programs, and the libraries that they load."""
    files = {}
    for name in PROGRAMS:
        program = shutil.which(name)
        assert program is not None
        files[f"bin/{name}"] = Path(program).resolve()
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", said):
            files[library.lstrip("/")] = Path(library).resolve()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, path in files.items():
            tar.add(path, arcname=name)
        for name in ("tmp", "proc", "sys", "dev", "etc"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
    return buffer.getvalue()
