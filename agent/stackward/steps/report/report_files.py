"""Reports in the directory of logs: JSON that is whole or not there, for the host's own tools to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stackward.core.errors import StackwardError
from stackward.core.model import display
from stackward.tools import filesystem

_MODE = 0o640  # ports, versions and serial numbers are not everybody's business


def write(path: Path, document: dict[str, Any]) -> None:
    """Replace the report at `path`.

    Raises:
        StackwardError: the directory is full, read-only or not there; the last report stays as it was.
    """
    text = json.dumps(document, indent=1, default=str) + "\n"
    try:
        filesystem.write_durably(path, text.encode("utf-8", "backslashreplace"), mode=_MODE)
    except OSError as error:
        hint = "is its disk full, or STACKWARD_LOG_DIR not mounted into the appliance?"
        raise StackwardError(f"{display(path)} cannot be written: {error.strerror}", hint=hint) from error
