"""Puts a policy into a stack's `compose.override.yaml`, which Compose reads by itself.

The file takes its place only after Compose has read it together with the others and the policy in it was understood.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.errors import StackwardError
from stackward.core.labels import EXTENSION, read_policy
from stackward.core.model import display
from stackward.tools import compose, filesystem
from stackward.tools.compose_files import ENVIRONMENT_FILE, OVERRIDES, load_yaml, read_env_file

if TYPE_CHECKING:
    from stackward.core.model import Stack

_BY_MAIN = {
    "docker-compose.yml": "docker-compose.override.yml",
    "docker-compose.yaml": "docker-compose.override.yaml",
}
_NEW = "compose.override.yaml"


class OverrideError(StackwardError):
    """The block cannot be put there for the user; nothing was changed."""


def write(stack: Stack, block: str) -> Path:
    """Append `block` (a top-level `x-stackward` in YAML) to the stack's override file, which is made if need be.

    Raises:
        OverrideError: there is one already, the stack does not use such a file, or Compose would not read the result.
    """
    main, existing = _files(stack)
    target = existing or stack.directory / _BY_MAIN.get(main.name, _NEW)
    before = target.read_bytes() if existing else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    content = before + (b"\n" if before.strip() else b"") + block.encode()
    directory = Path(os.path.realpath(stack.directory))
    candidate = directory / f".{target.name}.{os.getpid()}.tmp"
    try:
        filesystem.write_durably(candidate, content, like=os.stat(existing or main))
        _prove(stack, (main, candidate))
        filesystem.replace(candidate, directory / target.name)
        filesystem.sync_parents(candidate)
    except OSError as error:
        raise OverrideError(f"{display(target)} cannot be written: {error.strerror}") from error
    finally:
        filesystem.remove(candidate)
    return target


def _files(stack: Stack) -> tuple[Path, Path | None]:
    by_hand = "put the block into one of its compose files yourself"
    if not stack.resolved:
        raise OverrideError(f"{display(stack.name)}: Compose cannot read it", hint="mend that first")
    if read_env_file(stack.directory / ENVIRONMENT_FILE).get("COMPOSE_FILE"):
        raise OverrideError(f"{display(stack.name)}: its .env names its compose files (COMPOSE_FILE)", hint=by_hand)
    files = compose.find_files(stack.directory)
    used = {Path(file) for container in stack.containers for file in container.config_files}
    if not files or any(path.is_file() and path not in files for path in used):
        raise OverrideError(f"{display(stack.name)}: it is started with compose files of its own choice", hint=by_hand)
    for file in files:
        try:
            said = EXTENSION in load_yaml(file)
        except (OSError, ValueError) as error:
            raise OverrideError(f"{display(file)}: {error}", hint=by_hand) from error
        if said:
            raise OverrideError(f"{display(file)} has an {EXTENSION} block already", hint="say `backup: true` in it")
    overrides = [file for file in files if file.name in OVERRIDES]
    return files[0], overrides[0] if overrides else None


def _prove(stack: Stack, files: tuple[Path, Path]) -> None:
    try:
        model = compose.resolve(stack.directory, files)
    except compose.ComposeError as error:
        raise OverrideError(f"{display(stack.name)}: with the block added Compose says: {error.message}") from error
    services = {name: dict(service.get("labels") or {}) for name, service in (model.get("services") or {}).items()}
    reading = read_policy(stack.name, services, model.get(EXTENSION))
    if reading.policy.backup is not True or reading.problems:
        why = "; ".join(problem.message for problem in reading.problems) or "its labels say otherwise"
        raise OverrideError(f"{display(stack.name)}: the block would not take effect: {why}")
