"""The jobs that look at the host and tidy up: each a step of its own, by its name. Data for the runner.

A job is imported when it is run: whoever only wants another one's name waits for none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.runner import CHANGE, COPIES_BACKUPS, Resource, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackward.core.model import JobResult
    from stackward.runner import RunContext
    from stackward.wiring import Appliance

VOLUME = Resource("volume")


def _health(appliance: Appliance, *, dry_run: bool = False) -> Step:
    def work(context: RunContext) -> JobResult:
        from stackward.jobs import health

        held = appliance.undo.held_containers()  # before the containers are looked at, not after
        found = appliance.discover()
        return health.run(
            store=appliance.store,
            stacks=found.stacks,
            docker_error=found.docker_error,
            stopped_by_us=held,
            # What an event asks for is compared with the last look by the clock, or no loop would ever be seen as one.
            dry_run=dry_run or context.trigger == CHANGE,
        )

    return Step("health", work)


def _observability(appliance: Appliance, *, dry_run: bool = False) -> Step:
    def work(context: RunContext) -> JobResult:
        from stackward.jobs import observability

        found = appliance.discover()
        return observability.run(
            settings=appliance.settings,
            stacks=found.stacks,
            containers=appliance.docker.containers() if not found.docker_error else None,
            docker_error=found.docker_error,
            progress=context.progress,
            dry_run=dry_run,
        )

    return Step("observability", work, forget_idle=True)


def _audit(appliance: Appliance, *, dry_run: bool = False) -> Step:
    def work(context: RunContext) -> JobResult:
        from stackward.jobs import audit
        from stackward.tools.host import Bridge

        return audit.run(
            settings=appliance.settings,
            docker=appliance.docker_or_none,
            bridge=Bridge(appliance.settings.run_dir),
            discovery=appliance.discover(),
            host_name=appliance.host_name,
            now=context.now,
            progress=context.progress,
            dry_run=dry_run,
        )

    return Step("audit", work, (Resource("audit"),))


def _host_report(appliance: Appliance, *, dry_run: bool = False) -> Step:
    def work(context: RunContext) -> JobResult:
        from stackward.jobs import host_report
        from stackward.tools.host import Bridge

        return host_report.run(
            settings=appliance.settings,
            docker=appliance.docker_or_none,
            bridge=Bridge(appliance.settings.run_dir),
            host_name=appliance.host_name,
            now=context.now,
            progress=context.progress,
            dry_run=dry_run,
        )

    return Step("host-report", work, (Resource("host-report"),))


def _docker_prune(appliance: Appliance, *, dry_run: bool = False) -> Step:
    def work(context: RunContext) -> JobResult:
        from stackward.jobs import docker_prune

        return docker_prune.run(
            settings=appliance.settings,
            docker=appliance.docker,
            stacks=appliance.discover().stacks,
            now=context.now,
            progress=context.progress,
            dry_run=dry_run,
        )

    return Step("docker-prune", work, (Resource("docker-prune"),))


def _rotate_logs(appliance: Appliance, *, dry_run: bool = False) -> Step:
    def work(context: RunContext) -> JobResult:
        from stackward.jobs import rotate_logs

        return rotate_logs.run(settings=appliance.settings, progress=context.progress, dry_run=dry_run)

    return Step("rotate-logs", work, (Resource("rotate-logs"),))


def _snapshot(appliance: Appliance, *, dry_run: bool = False) -> Step:
    def work(context: RunContext) -> JobResult:
        from stackward.jobs import snapshot

        return snapshot.run(
            settings=appliance.settings,
            docker=appliance.docker_or_none,
            now=context.now,
            progress=context.progress,
            dry_run=dry_run,
        )

    return Step("snapshot", work, (VOLUME,))


def _staging(appliance: Appliance, *, dry_run: bool = False) -> Step:
    def work(context: RunContext) -> JobResult:
        from stackward.jobs import staging

        means = staging.Means(appliance.settings, appliance.docker_or_none, appliance.undo, context.progress)
        return staging.refresh(means, appliance.discover().stacks, dry_run=dry_run)

    return Step("staging", work, (Resource("staging"), VOLUME))


def drill_step(
    appliance: Appliance,
    names: Sequence[str] = (),
    wanted: str | None = None,
    *,
    dry_run: bool = False,
    unsigned: bool = False,
) -> Step:
    """Of the named stacks (none: of all that are backed up), from the backup that is `wanted` (None: each newest)."""

    def work(context: RunContext) -> JobResult:
        from stackward.jobs import drill

        means = drill.Means(
            appliance.settings,
            appliance.store,
            appliance.docker_or_none,
            appliance.undo,
            context.now,
            context.run_id,
            context.progress,
        )
        return drill.run(means, appliance.discover().stacks, names, wanted, dry_run=dry_run, unsigned=unsigned)

    return Step("drill", work, (*COPIES_BACKUPS, Resource("drill")))


CHORES: dict[str, Callable[..., Step]] = {
    "health": _health,
    "observability": _observability,
    "audit": _audit,
    "host-report": _host_report,
    "docker-prune": _docker_prune,
    "rotate-logs": _rotate_logs,
    "snapshot": _snapshot,
    "staging": _staging,
    "drill": drill_step,
}
