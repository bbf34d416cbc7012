"""Commands that a stack's labels run in its containers before and after its data stand still."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from stackward.core.errors import StackwardError
from stackward.core.model import Hook, Stack
from stackward.steps.undo import Step, Undo
from stackward.tools import signals
from stackward.tools.docker import Docker, DockerError, HookTimeout

_MARKER = "STACKWARD_HOOK"
# Before a dead run's `post` hook: its `pre` hook may still be at work. Both find each other by a marker in the environment.
_END_PRE = """\
for file in $(grep -lsF -e {marker} /proc/[0-9]*/environ); do pid=${{file#/proc/}}; kill -9 "${{pid%/environ}}"; done 2>/dev/null
{command}"""


class HookError(StackwardError):
    """A hook with `on-error=fail` failed."""


@contextmanager
def around(docker: Docker | None, undo: Undo, stack: Stack) -> Iterator[list[str]]:
    """Run every `pre` hook, then the body, then the `post` hooks in reverse order, however the body ended.

    A service whose `pre` hook was begun gets its `post` hook even if the process dies: it stands in an undo record.
    Yields the list that collects warnings (a hook that failed under `on-error=continue`, a service that does not run).

    Raises:
        HookError: a hook failed or took too long, and its label does not say to go on.
    """
    warnings: list[str] = []
    if docker is None:
        yield warnings
        return
    running = {container.service: container.id for container in stack.running if container.state == "running"}
    failures: list[HookError] = []
    marker = {_MARKER: secrets.token_hex(8)}
    with ExitStack() as promises:
        after: list[tuple[Hook, str]] = []
        try:
            for service in stack.services:
                pre, post = service.policy.pre, service.policy.post
                if pre is None and post is None:
                    continue
                if (container := running.get(service.name)) is None:
                    warnings.append(f"{service.name} is not running: its backup hooks did not run")
                    continue
                if post is not None:
                    command = _END_PRE.format(marker=f"{_MARKER}={marker[_MARKER]}", command=post.command)
                    step = Step("exec", container, command, post.timeout_seconds)
                    reason = f"hook after the backup of {stack.name}/{service.name}"
                    promises.enter_context(undo.noted(reason, [step]))
                    after.append((post, container))
                if pre is not None:
                    _run(docker, stack, pre, container, "pre", warnings, marker)
            yield warnings
        finally:
            with signals.deferred():  # an application that was told to hold its breath is told to go on
                for hook, container in reversed(after):
                    try:
                        _run(docker, stack, hook, container, "post", warnings)
                    except HookError as error:
                        failures.append(error)
    if failures:
        raise failures[0]


def _run(
    docker: Docker,
    stack: Stack,
    hook: Hook,
    container: str,
    when: str,
    warnings: list[str],
    environment: Mapping[str, str] | None = None,
) -> None:
    what = f"{when} hook of {stack.name}/{hook.service}"
    try:
        command = ["sh", "-c", hook.command]
        result = docker.exec(container, command, timeout_seconds=hook.timeout_seconds, environment=environment)
        if result.exit_code == 0:
            return
        why = f"{what} ended with exit code {result.exit_code}: {_last_line(result.output_tail)}"
    except (HookTimeout, DockerError) as error:
        why = f"{what}: {error.message}"
    if hook.on_error == "continue":
        warnings.append(why)
        return
    raise HookError(why, hint="mend the command, or set stackward.backup.on-error: continue")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][-300:] if lines else "(no output)"
