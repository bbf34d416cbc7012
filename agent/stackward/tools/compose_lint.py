"""compose-lint: what is risky in a stack's compose files. Its messages quote no values of variables."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackward.tools import process

# The worst first.
SEVERITIES = ("critical", "high", "medium", "low")
_LIMIT_SECONDS = 60.0
_MEMORY_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Remark:
    """`file` is relative to the stack's directory; `line` is None where it is about what is not there."""

    severity: str
    rule: str
    service: str
    message: str
    file: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Linted:
    """`errors` say what could not be looked at; what the stack's own `.compose-lint.yml` allows is left out."""

    remarks: tuple[Remark, ...] = ()
    errors: tuple[str, ...] = ()


def lint(directory: Path, files: Sequence[Path] = ()) -> Linted:
    """Look at `files`, or at those that Compose would take, merged as Compose merges them. Raises nothing."""
    names = [os.path.relpath(file, directory) for file in files]
    # -I: not a module of it may come from the stack's directory, where it runs.
    argv: list[process.Argument] = [sys.executable, "-I", "-m", "compose_lint", "--format", "json"]
    try:
        # 0: nothing bad; 1: something is; 2: something could not be looked at.
        argv += [f"./{name}" if name.startswith("-") else name for name in names]
        done = process.run(
            argv, cwd=directory, ok=(0, 1, 2), time_limit_seconds=_LIMIT_SECONDS, memory_bytes=_MEMORY_BYTES
        )
        document = json.loads(done.stdout)
        remarks = [_remark(found) for found in document["findings"] if not found.get("suppressed")]
        return Linted(tuple(remarks), tuple(str(error["message"]) for error in document["errors"]))
    except process.CommandError as error:
        return Linted(errors=(error.message,))
    except (ValueError, TypeError, KeyError) as error:
        return Linted(errors=(f"compose-lint's answer cannot be read: {error!r}",))


def _remark(found: dict[str, Any]) -> Remark:
    return Remark(
        severity=str(found["severity"]),
        rule=str(found["rule_id"]),
        service=str(found["service"]),
        message=str(found["message"]),
        file=str(found.get("file") or ""),
        line=found.get("line"),
    )
