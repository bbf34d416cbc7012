"""What follows a chain: whoever has to know is told, and what metrics say is renewed.

The jobs have ended and hold nothing any more. Messages only go into the store, from where the daemon sends them; what is
sent from here (metrics, outcomes) has its time limit, and fails with a warning: it is no part of a backup.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from stackward.core import week
from stackward.core.errors import SettingsError, StackwardError
from stackward.core.model import JobResult, Outcome
from stackward.core.schedule import interval_seconds
from stackward.observe import messages
from stackward.observe.notice import Changes, Channel, Message
from stackward.steps.report import delivery, view
from stackward.store.alerts import Standing
from stackward.week import chains

if TYPE_CHECKING:
    from stackward.runner import ChainResult
    from stackward.store import Store
    from stackward.wiring import Appliance

_SEND_SECONDS = 20.0  # names that are looked up, several groups that are pushed
_GOOD = (Outcome.OK, Outcome.WARN)
PINGED = "nightly"  # the chain that the dead man's switch waits for


def require_targets(appliance: Appliance, *, push_metrics: bool, send_log: bool) -> None:
    """Before anything is run. Raises SettingsError where what was asked for has no address."""
    if push_metrics and not appliance.settings.pushgateway_url:
        raise SettingsError("--push-metrics: there is no Pushgateway", hint="set STACKWARD_PUSHGATEWAY_URL")
    if send_log and not appliance.settings.gelf_url:
        raise SettingsError("--send-log: there is no log server", hint="set STACKWARD_GELF_URL")


def report(
    appliance: Appliance,
    result: ChainResult,
    *,
    trigger: str,
    chain: str = "",
    push_metrics: bool = False,
    send_log: bool = False,
) -> list[str]:
    """All that follows; returns, in words, what of it did not work. Only what is asked for is sent from here."""
    now = appliance.now()
    ended = list(result.steps)
    if chain and chain not in dict(ended):
        ended.append((chain, JobResult(Outcome.OK)))  # it came to its steps: what stopped it before is over
    _tell_all(appliance.store, ended, now)
    _ping(appliance, result, chain, now)
    warnings = [_tried("the host could not be looked at", lambda: appliance.store.keep_view(look(appliance).view))]
    if push_metrics:
        warnings.append(pushed(appliance))
    if send_log:
        warnings.append(_tried("the log was not sent", lambda: _send_log(appliance, result, trigger, now)))
    return [warning for warning in warnings if warning]


def tell(store: Store, job: str, result: JobResult, now: datetime) -> None:
    """Have people told how the job ended, as far as that is news."""
    _tell_all(store, [(job, result)], now)


def _tell_all(store: Store, ended: Sequence[tuple[str, JobResult]], now: datetime) -> None:
    """All that one chain has to tell is one message."""
    reports = [
        _Report(job, *_sorted_out(store, job, result, now), now)
        for job, result in ended
        if result.outcome is not Outcome.SKIPPED
    ]

    def compose(found: list[Changes]) -> Message | None:
        told = [report.message(changes) for report, changes in zip(reports, found, strict=True)]
        return messages.together([message for message in told if message is not None])

    store.change_several([report.standing for report in reports], at=now, compose=compose)


@dataclass(frozen=True, slots=True)
class _Report:
    """How one job ended; the stack "" stands for the job as a whole."""

    job: str
    troubles: list[messages.Trouble]
    fine: frozenset[str]
    now: datetime

    @property
    def standing(self) -> Standing:
        return Standing(self.job, {trouble.stack: trouble.why for trouble in self.troubles}, self.fine)

    def message(self, changes: Changes) -> Message | None:
        raised = [trouble for trouble in self.troubles if trouble.stack in changes.raised]
        stacks = [trouble for trouble in self.troubles if trouble.stack]
        return messages.ended(
            self.job,
            raised,
            changes.recovered,
            self.now,
            fine=len([stack for stack in self.fine if stack]),
            still=len(stacks) - len([trouble for trouble in raised if trouble.stack]),
        )


def _sorted_out(
    store: Store, job: str, result: JobResult, now: datetime
) -> tuple[list[messages.Trouble], frozenset[str]]:
    """What failed, and which stacks did not; the stack "" stands for the job as a whole."""
    last_good = {one.stack: one.success_at for one in store.facts().jobs if one.job == job}
    parts = [part for part in result.stacks if part.stack]
    troubles = [
        messages.Trouble(part.stack, now, part.reasons, last_good.get(part.stack))
        for part in parts
        if part.outcome is Outcome.FAILED
    ]
    fine = {part.stack for part in parts if part.outcome in _GOOD}
    if result.outcome is Outcome.FAILED and not troubles:
        return [messages.Trouble("", now, result.reasons, last_good.get(""))], frozenset(fine)
    return troubles, frozenset({*fine, ""})


def look(appliance: Appliance) -> view.Look:
    """Look at the host now; reads, and keeps nothing."""
    return view.look(
        appliance.settings,
        appliance.store,
        appliance.discover,
        now=appliance.now(),
        open_undo=appliance.undo.open_count(),
        intervals=intervals(appliance),
    )


def intervals(appliance: Appliance) -> dict[str, float]:
    """The seconds between two scheduled runs, by job and chain; none where the schedule is off."""
    found: dict[str, float] = {}
    settings = appliance.settings
    for planned in week.plan(settings.schedules, on=settings.schedule):
        if not planned.schedule:
            continue
        seconds = interval_seconds(planned.schedule, appliance.now())
        for job in {planned.name, *(step.job for step in chains.steps_of(appliance, planned.name))}:
            found[job] = min(seconds, found.get(job, seconds))
    return found


def _ping(appliance: Appliance, result: ChainResult, chain: str, now: datetime) -> None:
    """A good night is told, a failed one too; so is a retry that mended it. A night with nothing to do is no good one."""
    failed = result.outcome is Outcome.FAILED
    if not appliance.settings.ping_url or result.outcome is Outcome.SKIPPED:
        return
    if chain == PINGED or (chain == chains.RETRY and not failed and not _still_failing(appliance.store)):
        word = delivery.PING_FAILED if failed else ""
        appliance.store.post(Channel.PING, Message(f"ping {word}".strip(), word), now)


def _still_failing(store: Store) -> bool:
    return any(store.alerts(job) for job in ("backup-config", "backup-data"))


def _tried(what: str, work: Callable[[], None]) -> str:
    try:
        work()
    except (StackwardError, OSError) as error:
        return f"{what}: {getattr(error, 'message', error)}"
    return ""


def pushed(appliance: Appliance) -> str:
    """Push what metrics say now; returns "" or why it did not work."""
    return _tried("metrics were not pushed", lambda: _push(appliance))


def _push(appliance: Appliance) -> None:
    from stackward.observe import metrics, push

    found = metrics.families(appliance.facts())
    _within(lambda: push.push(appliance.settings.pushgateway_url, found, instance=appliance.host_name))


def _send_log(appliance: Appliance, result: ChainResult, trigger: str, now: datetime) -> None:
    from stackward.observe import gelf

    records = list(gelf.records(result.steps, host=appliance.host_name, at=now, trigger=trigger))
    _within(lambda: gelf.send(appliance.settings.gelf_url, records))


def _within(work: Callable[[], None], seconds: float = _SEND_SECONDS) -> None:
    """Do it in a thread that is left behind where it hangs: a name server that does not answer has no other limit."""
    raised: list[Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            work()
            done.set()
        except (StackwardError, OSError) as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"not done within {seconds:.0f} s")
    if raised:
        raise raised[0]
    if not done.is_set():
        raise StackwardError("a bug; the traceback is in the log")
