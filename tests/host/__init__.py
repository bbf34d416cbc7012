"""The disposable host: a whole Docker host in one container, for the end-to-end tests and the demo.

Only the standard library is used here, so that `make demo` needs nothing but python3 and a Docker Engine.
"""

from .machine import ALL_STACKS, Disks, Host, HostError, Run
from .shell import CommandError

__all__ = ["ALL_STACKS", "CommandError", "Disks", "Host", "HostError", "Run"]
