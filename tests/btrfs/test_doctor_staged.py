"""What the doctor says of staging, on a volume that can have snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackward.steps.doctor import Facts, staged
from stackward.steps.sizes import Sizes
from stackward.tools import filesystem
from unit.hosts import NOW, SmallHost

pytestmark = [pytest.mark.btrfs, pytest.mark.usefixtures("needs_compose")]


@pytest.mark.parametrize(
    ("more", "severity", "told"),
    [
        ("", "ok", "staging instances can be derived for shop"),
        (
            ", privileged: true",
            "warn",
            "shop gets no staging instance: web: it is privileged: it could do anything to the host",
        ),
    ],
)
def test_a_stack_that_cannot_have_the_instance_it_asks_for_is_told(
    tmp_path: Path, volume: Path, more: str, severity: str, told: str
) -> None:
    (volume / "shop").mkdir()
    host = SmallHost(tmp_path, volume=volume)
    web = f"{{image: nginx, labels: {{stackward.staging: 'true'}}, volumes: ['{volume}/shop:/data']{more}}}"
    host.stack("shop", f"services: {{web: {web}}}")
    found = host.discover()
    sizes = Sizes(host.settings.state_dir / "sizes.json", NOW)
    facts = Facts(host.settings, None, found, host.store, sizes, filesystem.mounts(), None, NOW)

    [finding] = staged.look(facts)

    assert (finding.severity.value, finding.text) == (severity, told)
    assert finding.advice or severity == "ok"
