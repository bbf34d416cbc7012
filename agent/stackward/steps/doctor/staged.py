"""Staging: stacks whose label asks for an instance, and that cannot have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.core.errors import RefusedError
from stackward.core.model import display
from stackward.steps.doctor import Facts, Finding, ok, warn
from stackward.steps.instance import staging
from stackward.steps.volume import snapshots
from stackward.tools.docker import DockerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OTHERWISE = (
    "say in its compose.staging.yaml how it is to be (docs/staging.md), or take the label stackward.staging away"
)


def look(facts: Facts) -> Iterator[Finding]:
    stacks = facts.discovery.stacks if facts.discovery else ()
    wanted = [stack for stack in stacks if stack.policy.staging and stack.resolved]
    if not wanted:
        return
    names = ", ".join(display(stack.name) for stack in wanted)
    try:
        snapshots.require(facts.settings.volume)
    except RefusedError as refused:
        text = f"the label stackward.staging of {names} has no effect: {refused.message}"
        yield warn("staging", text, f"{refused.hint}; or take the label away")
        return
    try:
        plans = staging.plans(facts.settings, facts.docker, wanted, fresh=True)
    except DockerError:
        return  # which is told elsewhere
    for plan in plans:
        for refusal in plan.refusals:
            text = f"{display(plan.stack.name)} gets no staging instance: {refusal.reason}"
            yield warn("staging", text, refusal.hint or _OTHERWISE)
    if plans and not any(plan.refusals for plan in plans):
        yield ok("staging", f"staging instances can be derived for {names}")
