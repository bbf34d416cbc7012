from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from stackward.core.errors import StackwardError
from stackward.core.model import Problem, Stack
from stackward.steps.restore import volumes


class _WithoutVolumes:
    def volume(self, _: str) -> None:
        return None


def test_a_volume_of_a_stack_that_cannot_be_read_names_what_is_wrong_with_the_stack():
    problem = Problem("shop", "Compose cannot read it: env file /srv/private/x.env not found", "")
    stack = Stack("shop", Path("/opt/docker/shop"), "shop", problems=(problem,), resolved=False)
    with ExitStack() as held, pytest.raises(StackwardError, match=r"env file /srv/private/x\.env not found"):
        volumes.place(cast("Any", _WithoutVolumes()), stack, "shop_db", held)
