"""What a run came to, for people and for programs: the same for every verb that runs something."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stackward.core.model import Counts, display
from stackward.core.units import format_bytes, format_duration
from stackward.runner import exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

    from stackward.cli.output import Output
    from stackward.core.errors import ExitCode
    from stackward.core.model import JobResult, StackResult
    from stackward.runner import ChainResult


def document(job: str, result: JobResult) -> dict[str, Any]:
    """A result as JSON."""
    return {
        "job": job,
        "outcome": result.outcome.value,
        "exit_code": int(exit_code(result)),
        "reasons": list(result.reasons),
        "stacks": [_part(part) for part in result.stacks],
        "counts": asdict(result.counts),
        "artifacts": list(result.artifacts),
        "details": result.details,
    }


def show(output: Output, job: str, result: JobResult) -> ExitCode:
    """Print one job's result; returns its exit code."""
    output.show(document(job, result), lambda console: draw(console, job, result))
    return exit_code(result)


def draw(console: Console, job: str, result: JobResult) -> None:
    """A heading with the outcome, the reasons, a line per stack."""
    from rich.text import Text

    from stackward.cli.render import outcome_text, table

    told = [text for text in (named(job, result.artifacts, result.details), counted(result.counts)) if text]
    console.print(Text.assemble((job, "bold"), " ", outcome_text(result.outcome), "  ", ", ".join(told)))
    for reason in result.reasons:
        console.print(f"  {reason}")
    if result.stacks:
        console.print(table("", ("  stack", "outcome", "size", "standstill", "why"), map(_row, result.stacks)))


def show_chain(
    output: Output, result: ChainResult, drawn: Callable[[Console, str, JobResult], None] = draw
) -> ExitCode:
    """Print each step's result, and what they come to; returns the chain's exit code."""
    whole = {
        "outcome": result.outcome.value,
        "exit_code": int(result.exit_code),
        "steps": [document(job, step) for job, step in result.steps],
    }

    def human(console: Console) -> None:
        for job, step in result.steps:
            drawn(console, job, step)

    output.show(whole, human)
    return result.exit_code


def named(job: str, artifacts: Sequence[str], details: Mapping[str, Any] | None) -> str:
    """What a run made, or what prune removed: of a day that stays for other stacks, only the parts that went."""
    if job != "prune" or not artifacts:
        return ", ".join(map(display, artifacts))
    return f"removed {'; '.join((details or {}).get('removed') or map(display, artifacts))}"


def counted(counts: Counts) -> str:
    """`12 files (3 changed), 1.5 MiB`, or nothing where nothing was counted."""
    if not (counts.files or counts.bytes):
        return ""
    changed = f" ({counts.files_changed} changed)" if counts.files_changed else ""
    return f"{counts.files} files{changed}, {format_bytes(counts.bytes)}"


def _row(part: StackResult) -> Sequence[str | Text]:
    from stackward.cli.render import outcome_text

    standstill = "" if part.standstill_seconds is None else format_duration(part.standstill_seconds)
    why = "\n".join(part.reasons)
    return (f"  {display(part.stack)}", outcome_text(part.outcome), counted(part.counts), standstill, why)


def _part(part: StackResult) -> dict[str, Any]:
    return {**asdict(part), "outcome": part.outcome.value}
