"""verify: reads backups again, to the last byte, and names what is damaged, missing or surplus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from stackward.config import Settings
from stackward.core.artifacts import ArtifactKind
from stackward.core.errors import ExitCode, StackwardError
from stackward.core.model import Counts, JobResult, Outcome, StackResult, display
from stackward.core.progress import Progress
from stackward.steps import catalog, config_archives
from stackward.steps.catalog import Artifact
from stackward.steps.verification import Report, check
from stackward.store import Store


def run(
    *,
    settings: Settings,
    store: Store,
    names: Sequence[str] = (),
    everything: bool = False,
    now: datetime,
    progress: Progress,
) -> JobResult:
    """Verify the artifacts `names` (or dates of data backups), or all, or else what was not proven since it was made.

    Each artifact's result is recorded as soon as it is known. Damage is exit code 3; a backup without checksums (an
    older tool's) is a warning.

    Raises:
        RefusedError: BACKUP_ROOT cannot be read.
        StackwardError: a name is not that of a backup.
    """
    listed = catalog.catalog(settings, now)
    chosen = [catalog.find(listed, name) for name in names] if names else listed
    if not names and not everything:
        chosen = [artifact for artifact in chosen if not _proven(artifact, store)]
    reports = []
    for artifact in chosen:
        report = check(artifact, progress)
        store.record_verified(report.artifact, now, report.outcome, report.damaged, report.stacks)
        reports.append(report)
    return _result(chosen, reports, {a.name.name: _signer(settings, a) for a in chosen})


def _proven(artifact: Artifact, store: Store) -> bool:
    """Whether it was read since it was made, and is not known to be damaged."""
    last = store.verified().get(artifact.name.name)
    return last is not None and last.outcome != Outcome.FAILED and last.at >= artifact.made_at


def _signer(settings: Settings, artifact: Artifact) -> str:
    """Who made a config backup or a capsule; data backups are not signed."""
    if artifact.kind is ArtifactKind.DATA:
        return ""
    try:
        return config_archives.claimed_signer(settings, artifact).value
    except (OSError, StackwardError) as error:
        return f"cannot be told: {error}"


def _result(chosen: Sequence[Artifact], reports: Sequence[Report], signers: Mapping[str, str]) -> JobResult:
    outcome = Outcome.worst([report.outcome for report in reports])
    return JobResult(
        outcome=outcome,
        reasons=tuple(f"{report.artifact}: {report.summary}" for report in reports if report.outcome is not Outcome.OK),
        stacks=_by_stack(chosen, reports),
        counts=Counts(files=sum(r.files for r in reports), bytes=sum(r.byte_count for r in reports)),
        artifacts=tuple(report.artifact for report in reports),
        exit_code=ExitCode.DAMAGED if any(report.damaged for report in reports) else ExitCode.OK,
        details={"artifacts": [_details(report, signers[report.artifact]) for report in reports]},
    )


def _by_stack(chosen: Sequence[Artifact], reports: Sequence[Report]) -> tuple[StackResult, ...]:
    """A stack is as good as the worst of the data backups that hold it."""
    results = []
    pairs = [(a, r) for a, r in zip(chosen, reports, strict=True) if a.kind is ArtifactKind.DATA]
    for stack in sorted({stack for artifact, _ in pairs for stack in artifact.stacks}):
        held = [(a, r) for a, r in pairs if stack in a.stacks]
        bad = [r for _, r in held if {stack, ""} & r.stacks]
        unproven = [r for _, r in held if r.warnings]
        outcome = Outcome.FAILED if bad else Outcome.WARN if unproven else Outcome.OK
        reasons = tuple(f"{report.artifact}: {report.summary}" for report in bad or unproven)
        results.append(StackResult(stack, outcome, reasons, artifact=held[0][0].name.name))
    return tuple(results)


def _details(report: Report, signer: str) -> dict[str, object]:
    return {
        "name": report.artifact,
        "signer": signer,
        "outcome": report.outcome.value,
        "files": report.files,
        "bytes": report.byte_count,
        "damaged": report.damaged,
        "warnings": report.warnings,
        "findings": [{"fault": f.fault.value, "path": display(f.path), "why": f.why} for f in report.findings],
    }
