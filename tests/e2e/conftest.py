"""A small host for the tests of this directory: an appliance without a schedule, and no stack but a test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e import tiny
from host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from host import Run


@pytest.fixture(scope="session")
def small_host(host_run: Run) -> Iterator[Host]:
    """One host for all tests that can clean up after themselves. Nothing begins by itself on it."""
    one = Host.start(host_run.id)
    try:
        one.appliance_up({"STACKWARD_SCHEDULE": "false"})
        yield one
    finally:
        one.destroy()


@pytest.fixture
def small(small_host: Host) -> Host:
    """The small host without stacks, and with an appliance as on its first day."""
    tiny.down(small_host)
    small_host.appliance_reset({"STACKWARD_SCHEDULE": "false"})
    return small_host
