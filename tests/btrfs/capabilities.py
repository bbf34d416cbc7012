"""Runs a piece of a test with no more than the appliance may do, and so do the programs that it starts (capabilities(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from host.engine import CAPABILITIES

_LIBC = ctypes.CDLL(None, use_errno=True)
_VERSION_3 = 0x20080522
_SETS = struct.Struct("=6I")  # effective, permitted, inheritable: the low words, then the high ones
_PR_SET_SECUREBITS, _SECBIT_NOROOT = 28, 1  # to be root gives a program nothing then
_PR_CAP_AMBIENT, _RAISE, _CLEAR_ALL = 47, 2, 4


@contextmanager
def as_the_appliance() -> Iterator[None]:
    """This thread has the capabilities that compose.yaml gives."""
    compose = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    given = [CAPABILITIES.index(name) for name in service["cap_add"]]
    everything = _permitted()
    allowed = sum(1 << number for number in given) & everything
    _set(everything, everything, allowed)
    for number in given:
        if allowed >> number & 1:
            _call(_LIBC.prctl(_PR_CAP_AMBIENT, _RAISE, number, 0, 0))
    _call(_LIBC.prctl(_PR_SET_SECUREBITS, _SECBIT_NOROOT, 0, 0, 0))
    _set(allowed, everything, allowed)
    try:
        yield
    finally:
        _set(everything, everything, 0)
        _call(_LIBC.prctl(_PR_SET_SECUREBITS, 0, 0, 0, 0))
        _call(_LIBC.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0))


def _permitted() -> int:
    status = Path("/proc/thread-self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("CapPrm")).split()[1], 16)


def _set(effective: int, permitted: int, inheritable: int) -> None:
    sets = (effective, permitted, inheritable)
    header = struct.pack("=Ii", _VERSION_3, 0)
    _call(_LIBC.capset(header, _SETS.pack(*(each & 0xFFFFFFFF for each in sets), *(each >> 32 for each in sets))))


def _call(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
