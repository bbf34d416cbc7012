"""What failed when it was scheduled and is tried again: only that, an hour and four hours after it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackward.core.model import Outcome
from stackward.core.retries import Failure, next_retry
from stackward.week import chains

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from stackward.core.progress import Progress
    from stackward.runner import ChainResult
    from stackward.store import RunRow, Store
    from stackward.wiring import Appliance


@dataclass(frozen=True, slots=True)
class Due:
    """The configuration, all data, or some stacks' data."""

    config: bool = False
    all_data: bool = False
    stacks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.config or self.all_data or bool(self.stacks)

    @property
    def wanted(self) -> chains.Wanted:
        return chains.Wanted(
            config=self.config,
            data=self.all_data or bool(self.stacks),
            stacks=() if self.all_data else self.stacks,
            verify="new" if self else "",
        )


def due(store: Store, now: datetime) -> Due:
    """What is to be tried again by now."""

    def is_due(failures: Sequence[RunRow]) -> bool:
        at = next_retry([Failure(row.trigger, row.ended_at) for row in failures if row.ended_at is not None])
        return at is not None and at <= now

    stacks = [
        stack
        for stack, row in store.last_stacks("backup-data").items()
        if stack and row.outcome is Outcome.FAILED and is_due(store.failures_since_success("backup-data", stack))
    ]
    return Due(
        config=is_due(_failed_as_a_whole(store, "backup-config")),
        all_data=is_due(_failed_as_a_whole(store, "backup-data")),
        stacks=tuple(sorted(stacks)),
    )


def _failed_as_a_whole(store: Store, job: str) -> list[RunRow]:
    """The newest runs of `job`, up to the first that did something for any stack or did not fail."""
    failed = []
    for row in store.runs(job, limit=10):
        if row.outcome is not Outcome.FAILED or any(part.stack for part in store.stacks_of(row.id)):
            break
        failed.append(row)
    return failed


def run(appliance: Appliance, *, wait: bool, progress: Progress) -> ChainResult:
    """Try again, now, whatever is due by now. Raises as `Runner.chain`."""
    wanted = due(appliance.store, appliance.now()).wanted
    return appliance.runner.chain(chains.steps(appliance, wanted), wait=wait, progress=progress, trigger=chains.RETRY)
