"""observability: are those who watch the host up themselves?

Each check is a part of the result, as a stack is elsewhere: whoever runs it has people told when one goes down and when
it is up again, and not in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from stackward.config import Settings
from stackward.core import checks, condition
from stackward.core.checks import Check
from stackward.core.model import Container, JobResult, Outcome, Stack, StackResult, display
from stackward.core.progress import Progress
from stackward.tools import http

NOBODY = "nobody to ask: no stack runs Graylog, Prometheus, Grafana or Fluent Bit, and STACKWARD_CHECKS names none"
ATTEMPTS = 2  # one that is just being restarted is not down yet


def run(
    *,
    settings: Settings,
    stacks: Sequence[Stack],
    containers: Sequence[Container] | None = None,
    docker_error: str = "",
    progress: Progress,
    dry_run: bool = False,
) -> JobResult:
    """Ask each, all at once, within a time limit. `containers` are all of the host's; None: those of `stacks` only."""
    plan = make_plan(settings, stacks)
    if not plan:
        off = settings.checks is not None
        return JobResult(Outcome.SKIPPED, ("STACKWARD_CHECKS is off" if off else NOBODY,))
    if dry_run:
        return JobResult(Outcome.OK, tuple(f"would ask {described(check)}" for check in plan))
    progress.step(f"asking {len(plan)} whether they are up")
    answers = http.ask_all([check.url for check in plan if check.url], attempts=ATTEMPTS)
    there = containers if containers is not None else [one for stack in stacks for one in stack.containers]
    parts = tuple(
        _of_answer(check, answers[check.url]) if check.url else of_container(check, there, docker_error)
        for check in plan
    )
    return JobResult(Outcome.worst([part.outcome for part in parts]), stacks=parts)


def make_plan(settings: Settings, stacks: Sequence[Stack]) -> tuple[Check, ...]:
    """What the settings say, else whatever of the kind the stacks have."""
    return settings.checks if settings.checks is not None else checks.guessed(stacks)


def described(check: Check) -> str:
    """Without what a URL may hold besides its address: a password, a token."""
    how = http.bare(check.url) if check.url else "its container"
    return f"{display(check.name)} ({how})"


def of_container(check: Check, containers: Sequence[Container], docker_error: str) -> StackResult:
    """Up is running, and healthy where there is a healthcheck. A guessed one that somebody stopped is left alone."""
    if docker_error:
        return StackResult(check.name, Outcome.FAILED, (f"its container cannot be seen: {docker_error}",))
    container = checks.named(check.container, containers)
    if container is None:
        return StackResult(check.name, Outcome.FAILED, (f"there is no container {display(check.container)}",))
    how = condition.of_container(container)
    if container.state == "running" and how.outcome is Outcome.OK:
        return StackResult(check.name, Outcome.OK)
    if check.guessed and how.outcome in (Outcome.OK, Outcome.SKIPPED):
        return StackResult(check.name, Outcome.SKIPPED, ("its container is stopped",))
    return StackResult(check.name, Outcome.FAILED, (f"its container {how.text or 'has ended'}",))


def _of_answer(check: Check, why_not: str) -> StackResult:
    if not why_not:
        return StackResult(check.name, Outcome.OK)
    return StackResult(check.name, Outcome.FAILED, (f"{http.bare(check.url)}: {why_not}",))
