"""Docker Compose: the resolved model of a stack.

Compose sees a clean environment: the appliance's own variables (TZ, DOCKER_ROOT) must not get into stacks. It fetches no
part of a model from elsewhere (`include: oci://…`, `extends` from a Git repository), and what it is given to read can cost
neither the host's memory nor for ever.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.core.errors import StackwardError
from stackward.tools import host_files, process
from stackward.tools.compose_files import ENVIRONMENT_FILE, Dependencies, dependencies, environment, find_files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from stackward.tools.host_files import HostFiles

__all__ = [
    "ComposeError",
    "ComposeUnavailableError",
    "Dependencies",
    "Resolution",
    "command",
    "create",
    "dependencies",
    "down",
    "find_files",
    "is_readable",
    "merged",
    "resolve",
    "resolve_with_warnings",
    "stop",
    "up",
    "variables",
    "version",
]

_STALL_SECONDS = 60.0
_READ_LIMIT_SECONDS = 180.0  # it takes 0.3 s
# Compose 2.40 reads 300 services with 45,000 variables and labels (2.5 MB) with 192 MiB, and fails with 128.
_MEMORY_BYTES = 768 << 20
_MODEL_BYTES = 64 << 20
_OUT_OF_MEMORY = re.compile(r"fatal error: .*(?:cannot allocate memory|out of memory)|cannot allocate memory")
_ACT_STALL_SECONDS = 900.0  # a pull of a large image, or a container that takes its time to stop, looks like a stall
_LINES = 5
_ASKED = {"V": "-", "S": "+set"}  # a variable's value, and whether it is set at all
_LOG_LINE = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg="(?P<text>(?:[^"\\]|\\.)*)"')


class ComposeError(StackwardError):
    """Compose refused a stack's files."""


class ComposeUnavailableError(ComposeError):
    """There is no Compose (version 2 or later) here."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """`model` is what `docker compose config` prints, `$$` undone; `warnings` tell of variables that are not set."""

    model: dict[str, Any]
    warnings: tuple[str, ...] = ()


def resolve(directory: Path, files: Sequence[Path] = (), seen: HostFiles | None = None) -> dict[str, Any]:
    """The model of a stack with all profiles, paths absolute, env_file read into the services' environments."""
    return resolve_with_warnings(directory, files, seen).model


def resolve_with_warnings(
    directory: Path,
    files: Sequence[Path] = (),
    seen: HostFiles | None = None,
    *,
    depends: Dependencies | None = None,
    options: Sequence[str] = (),
) -> Resolution:
    """As `resolve`. Compose itself finds the files when `files` is empty. `depends` is what they depend on, where it is known.

    Raises:
        ComposeError: with the last lines Compose said; or it would read a file that is not the stack's, or not the host's.
    """
    seen = seen or host_files.here(opened=(directory,))
    _require_seen(seen, (depends or dependencies(directory, files, seen)).paths)
    return _config(directory, files, options=options)


def _require_seen(seen: HostFiles, paths: Iterable[Path]) -> None:
    """A path that is not there is for Compose to complain of: it may be one that need not be."""
    for path in paths:
        if os.path.lexists(path) and (why := seen.refusal(path)):
            raise ComposeError(why, hint=seen.advice(path))


def _config(
    directory: Path, files: Sequence[Path] = (), *, options: Sequence[str] = (), stdin: bytes | None = None
) -> Resolution:
    chosen = [part for file in files for part in ("-f", os.fspath(file))]
    argv = [*command(), *options, *chosen, "--profile", "*", "config", "--format", "json"]
    try:
        answer = _Answer()
        done = _run(argv, stdin=stdin, cwd=directory, time_limit_seconds=_READ_LIMIT_SECONDS, on_stdout=answer.take)
    except process.TimeLimitError as error:
        raise ComposeError(f"Compose had not read it after {_READ_LIMIT_SECONDS:.0f} s") from error
    except process.CommandError as error:
        if _OUT_OF_MEMORY.search(error.stderr_head):
            raise ComposeError(
                f"Compose needs more than {_MEMORY_BYTES >> 20} MiB to read it: do aliases (`*name`) multiply in it?"
            ) from error
        said = [_plain(line) for line in error.stderr_tail.splitlines() if line.strip()]
        problems = [text for level, text in said if level != "warning"] or [text for _level, text in said]
        raise ComposeError("\n".join(problems[-_LINES:]) or str(error)) from error
    said = [_plain(line) for line in done.stderr_tail.splitlines() if line.strip()]
    if b"\\u0000" in answer.text:
        raise ComposeError("it holds a NUL, which no path and no name can have")
    try:
        # Every "$" was doubled on output, in keys and values alike.
        model = json.loads(answer.text.replace(b"$$", b"$"))
    except ValueError as error:
        raise ComposeError(f"Compose's answer is no JSON: {error}") from error
    return Resolution(
        _with_real_directory(model, directory), tuple(dict.fromkeys(t for level, t in said if level == "warning"))
    )


def is_readable(directory: Path) -> bool:
    """Whether Compose can read the project's files. Raises ComposeUnavailableError."""
    command()
    try:
        resolve(directory)
    except ComposeError:
        return False
    return True


def merged(base: Path, override: Path, directory: Path) -> dict[str, Any]:
    """The model of a complete compose file with a hand-written one over it, whose paths are relative to `directory`.

    Raises:
        ComposeError: with the last lines Compose said.
    """
    options = ["--project-directory", os.fspath(directory)]
    seen = host_files.here(opened=(directory, base.parent))
    return resolve_with_warnings(directory, (base, override), seen, options=options).model


def variables(directory: Path, names: Collection[str]) -> dict[str, str]:
    """Of these variables, those that the project in the directory has from its `.env`, as Compose reads them there.

    Raises:
        ComposeError: with the last lines Compose said.
    """
    if not names:
        return {}
    asked = {
        f"{kind}{number}": f"${{{name}{how}}}" for number, name in enumerate(names) for kind, how in _ASKED.items()
    }
    document = {"name": "asked", "services": {"asked": {"image": "asked", "environment": asked}}}
    options = ["--project-directory", os.fspath(directory), "-f", "-"]
    stdin = json.dumps(document).encode("ascii")
    _require_seen(host_files.here(opened=(directory,)), [directory / ENVIRONMENT_FILE])
    told = _config(directory, options=options, stdin=stdin).model["services"]["asked"]["environment"]
    return {name: told[f"V{number}"] for number, name in enumerate(names) if told[f"S{number}"]}


def up(directory: Path, services: Sequence[str] = (), *, wait_seconds: float = 0.0) -> None:
    """Start a project as its files have it now, or only some of its services.

    One of them may wait for another for `wait_seconds` without a word of Compose.

    Raises:
        CommandError: it does not start.
        ComposeError: it names files that are not the host's, or the appliance's: no container must get what they hold.
    """
    _require_own_files(directory)
    stall_seconds = wait_seconds + _ACT_STALL_SECONDS
    _run([*command(), "up", "-d", *services], cwd=directory, stall_seconds=stall_seconds)


def create(directory: Path, services: Sequence[str]) -> None:
    """Make the containers of services as their files have them now, and start nothing. Raises CommandError, ComposeError."""
    _require_own_files(directory)
    argv = [*command(), "up", "--no-start", "--no-deps", *services]
    _run(argv, cwd=directory, stall_seconds=_ACT_STALL_SECONDS)


def stop(directory: Path, services: Sequence[str] = ()) -> None:
    """Stop a project's containers, or only some services'; nothing is removed. Raises CommandError."""
    _run([*command(), "stop", *services], cwd=directory, stall_seconds=_ACT_STALL_SECONDS)


def down(directory: Path) -> None:
    """Remove a project with its volumes and networks. Only for projects that are ours to remove. Raises CommandError."""
    argv = [*command(), "--profile", "*", "down", "--volumes", "--remove-orphans"]
    _run(argv, cwd=directory, stall_seconds=_ACT_STALL_SECONDS)


def _require_own_files(directory: Path) -> None:
    seen = host_files.here(opened=(directory,))
    _require_seen(seen, dependencies(directory, (), seen).paths)


def version() -> str:
    """The version of Compose, as "2.26.1". Raises ComposeUnavailableError."""
    return _run([*command(), "version", "--short"]).text.strip().removeprefix("v")


@cache
def command() -> tuple[str, ...]:
    """How Compose is called here, in a clean environment: the plugin, or a standalone `docker-compose` of version 2.

    Raises:
        ComposeUnavailableError: neither is there.
    """
    clean = ("env", "-i", *(f"{name}={value}" for name, value in environment().items()))
    for name, arguments in (("docker", ("compose",)), ("docker-compose", ())):
        if (program := shutil.which(name)) is None:
            continue
        candidate = (*clean, program, *arguments)
        try:
            said = _run([*candidate, "version", "--short"]).text
        except process.CommandError:
            continue
        if re.match(r"v?([2-9]|\d\d)\.", said.strip()):
            return candidate
    raise ComposeUnavailableError(
        "Docker Compose (version 2 or later) is not installed here",
        hint="install the compose plugin of your distribution (Debian: docker-compose)",
    )


class _Answer:
    """What Compose prints, as long as it stays within reason: read, it takes ten times as much memory."""

    def __init__(self) -> None:
        self.text = bytearray()

    def take(self, chunk: bytes) -> None:
        self.text += chunk
        if len(self.text) > _MODEL_BYTES:
            raise ComposeError(
                f"what Compose makes of it is larger than {_MODEL_BYTES >> 20} MiB: do aliases (`*name`) multiply in it?"
            )


def _run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    stall_seconds: float = _STALL_SECONDS,
    time_limit_seconds: float | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
) -> process.Completed:
    return process.run(
        argv,
        cwd=cwd,
        stdin=stdin,
        stall_seconds=stall_seconds,
        time_limit_seconds=time_limit_seconds,
        memory_bytes=_MEMORY_BYTES,
        on_stdout=on_stdout,
    )


def _plain(line: str) -> tuple[str, str]:
    """The level and the text of a line that Compose logged."""
    if match := _LOG_LINE.match(line):
        return match["level"], match["text"].replace('\\"', '"')
    return "", line.strip()


def _with_real_directory(model: dict[str, Any], directory: Path) -> dict[str, Any]:
    """JSON cannot carry a directory name that is not UTF-8: put the real one back where the mangled one stands."""
    real = os.path.realpath(directory)
    mangled = re.sub("[\ud800-\udfff]", "\ufffd", real)
    if mangled == real:
        return model

    def restored(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: restored(item) for key, item in value.items()}
        if isinstance(value, list):
            return [restored(item) for item in value]
        if isinstance(value, str) and (value + "/").startswith(mangled + "/"):
            return real + value[len(mangled) :]
        return value

    result: dict[str, Any] = restored(model)
    return result
