"""Has rsync's sender read a live tree from within: chrooted to it, so that no link in it leads to anything else.

The sender opens files by their names below the tree, and follows a link that took a directory's place since it was listed.
It can do so in a chroot only as a daemon, which changes its root once all of its program is loaded; this one is started by
rsync itself in the place of a remote shell, talks over pipes, and serves one module, which is the working directory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.tools import process
from stackward.tools.tree_root import TreeRoot

MODULE = b"live::tree/"
_SETTINGS = b"""\
use chroot = yes
uid = 0
gid = 0
numeric ids = yes
munge symlinks = no
read only = yes
log file = /dev/null
[tree]
path = /proc/self/cwd
"""
_NO_RIGHT = ("@ERROR: chroot failed", "@ERROR: setgid failed", "@ERROR: setgroups failed")


@contextmanager
def options() -> Iterator[list[process.Argument]]:
    """Options that make rsync, started in the tree, read `MODULE` in a jail. It copies whole files then, as it does locally."""
    with tempfile.NamedTemporaryFile(prefix="stackward-rsync-") as file:
        file.write(_SETTINGS)
        file.flush()
        server = f"exec setpriv --pdeathsig KILL -- rsync --server --daemon --config={file.name} ."
        yield ["--whole-file", f"--rsh=sh -c '{server}' --"]


def explained(error: process.CommandError, plain: list[process.Argument], tree: TreeRoot) -> Exception:
    """The error of a copy out of the jail, in terms of the tree."""
    if any(said in error.stderr_tail for said in _NO_RIGHT):
        return RefusedError(
            f"{display(tree.path)} is not copied: without the right to change its root directory, rsync would follow a link"
            " that a container puts there meanwhile",
            hint="give the appliance the capabilities SYS_CHROOT and SETGID, as its compose.yaml has them now",
        )
    if error.returncode <= 0:  # it was killed: that says why
        return error
    return process.CommandError(plain, error.returncode, error.stderr_tail.replace(" (in tree)", f" in {tree.path}"))
