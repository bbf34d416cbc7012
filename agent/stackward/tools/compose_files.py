"""What can be told from compose files without Compose: which files there are, and which others they read.

Good for deciding whether a resolved model is stale, and as the best that can be had when Compose refuses a file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stackward.tools import small_files
from stackward.tools.host_files import HostFiles
from stackward.tools.interpolation import interpolate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Compose's own lookup order; the first of each is taken.
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
ENVIRONMENT_FILE = ".env"
_FILE_BYTES = 16 << 20
_NODES = 1_000_000  # of a document with its aliases written out
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*[=:]\s*(.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a resolved model was made from.

    `paths`: every file it depends on, absent candidates too. `env_files`: those read into containers' environments;
    `.env` is among them, since it holds the same secrets, and so are those that cannot be seen from here.
    """

    paths: tuple[Path, ...]
    env_files: tuple[Path, ...]


def find_files(directory: Path) -> tuple[Path, ...]:
    """The compose files of a directory as `docker compose` there would find them; empty when it has none of its own."""
    named = read_env_file(directory / ENVIRONMENT_FILE)
    if value := named.get("COMPOSE_FILE"):
        parts = value.split(named.get("COMPOSE_PATH_SEPARATOR") or os.pathsep)
        return tuple(directory / part for part in parts if part)
    first = next((directory / name for name in NAMES if (directory / name).is_file()), None)
    if first is None:
        return ()
    override = next((directory / name for name in OVERRIDES if (directory / name).is_file()), None)
    return (first,) if override is None else (first, override)


def environment() -> dict[str, str]:
    """What Compose has in its environment here. No model is made of what a server sends: it would be asked from here, as root."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(Path.home()),
        "LC_ALL": "C.UTF-8",
        "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false",
        "COMPOSE_EXPERIMENTAL_GIT_REMOTE": "false",
    }


def dependencies(directory: Path, files: Sequence[Path] = (), seen: HostFiles | None = None) -> Dependencies:
    """Follow include, extends, env_file and label_file from `files` (or the ones found), as far as they can be read.

    What `seen` refuses is named, and not opened.
    """
    walk = _Walk(directory, seen or HostFiles())
    walk.candidates.extend(directory / name for name in (*NAMES, *OVERRIDES, ENVIRONMENT_FILE))
    if (directory / ENVIRONMENT_FILE).is_file():
        walk.env_files.append(directory / ENVIRONMENT_FILE)
    variables = walk.variables(directory / ENVIRONMENT_FILE)
    variables |= {"COMPOSE_PROJECT_NAME": variables.get("COMPOSE_PROJECT_NAME") or directory.name, **environment()}
    for file in files or find_files(directory):
        walk.visit(file, directory, variables)
    return Dependencies(tuple(dict.fromkeys(walk.candidates)), tuple(dict.fromkeys(walk.env_files)))


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, tags like `!reset` ignored. Raises OSError, or ValueError for other content."""
    try:
        loader = _Loader(small_files.read(path, _FILE_BYTES))
        try:
            node = loader.get_single_node()
            loaded = loader.construct_document(node) if node is not None and _is_of_use(node) else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise ValueError("not a mapping")  # noqa: TRY004 - wrong content, as when it does not parse
    return loaded


def _is_of_use(root: yaml.Node) -> bool:
    """Raises ValueError where a text can be no name, or aliases multiply: each costs nothing until they are walked, or printed."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if isinstance(node, yaml.ScalarNode) and not is_name(node.value):
            raise ValueError("it holds a character that no name can have (NUL, or half of a pair)")
        sizes[id(node)] = _NODES + 1  # until it is known: a node within itself has no end
        parts = node.value if isinstance(node, (yaml.SequenceNode, yaml.MappingNode)) else ()
        total = 1
        for part in parts:
            total += sum(map(size, part)) if isinstance(part, tuple) else size(part)
        if total > _NODES:
            raise ValueError("its aliases (`*name`) multiply without end")
        sizes[id(node)] = total
        return total

    return size(root) > 0


def is_name(text: str) -> bool:
    """Whether the text can be (a part of) a path, or an argument of a command."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def is_file(path: Path) -> bool:
    """As `Path.is_file`, also of a name that is too long for any file."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_env_file(path: Path) -> dict[str, str]:
    """Variables of a `.env` file, quotes taken off; an unreadable file has none."""
    try:
        text = small_files.read(path, _FILE_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in text.splitlines():
        if (match := _ASSIGNMENT.match(line)) is None:
            continue
        value = match[2]
        if value[:1] in ("'", '"') and (end := value.find(value[0], 1)) > 0:
            value = value[1:end]
        else:
            value = re.split(r"\s+#", value, maxsplit=1)[0]
        if is_name(value):
            found[match[1]] = value
    return found


class _Loader(yaml.SafeLoader):
    """Takes `!reset x` and `!override x` for `x`."""


def _untagged(loader: _Loader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!", _untagged)


@dataclass(slots=True)
class _Walk:
    directory: Path
    host: HostFiles
    candidates: list[Path] = field(default_factory=list)
    env_files: list[Path] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)

    def visit(self, file: Path, base: Path, variables: Mapping[str, str]) -> None:
        self.candidates.append(file)
        if file in self.seen:
            return
        self.seen.add(file)
        if self.host.refusal(file):
            return
        try:
            document = load_yaml(file)
        except (OSError, ValueError):
            return
        for include in _items(document.get("include")):
            self._include(include, base, variables)
        services = document.get("services")
        for service in services.values() if isinstance(services, dict) else ():
            if isinstance(service, dict):
                self._service(service, base, variables)

    def _include(self, include: Any, base: Path, variables: Mapping[str, str]) -> None:
        entry = include if isinstance(include, dict) else {"path": include}
        paths = [base / interpolate(path, variables) for path in _texts(entry.get("path"))]
        if not paths:
            return
        own = entry.get("project_directory")
        inner = base / interpolate(own, variables) if isinstance(own, str) else paths[0].parent
        named = [base / interpolate(path, variables) for path in _texts(entry.get("env_file"))]
        env_files = named or [inner / ENVIRONMENT_FILE]
        merged: dict[str, str] = {}
        for env_file in env_files:
            merged |= self.variables(env_file)
        self._environment_files(env_files)
        for path in paths:
            self.visit(path, inner, {**merged, **variables})

    def _service(self, service: dict[str, Any], base: Path, variables: Mapping[str, str]) -> None:
        names = [interpolate(name, variables) for name in _texts(service.get("env_file"))]
        self._environment_files([base / name for name in names])
        self.candidates.extend(base / interpolate(name, variables) for name in _texts(service.get("label_file")))
        extends = service.get("extends")
        if isinstance(extends, dict) and isinstance(extends.get("file"), str):
            other = base / interpolate(extends["file"], variables)
            self.visit(other, other.parent, variables)

    def _environment_files(self, paths: Sequence[Path]) -> None:
        self.candidates.extend(paths)
        self.env_files.extend(path for path in paths if is_file(path) or self.host.refusal(path))

    def variables(self, env_file: Path) -> dict[str, str]:
        """Those of a file, which may be made of each other."""
        found: dict[str, str] = {}
        for name, value in ({} if self.host.refusal(env_file) else read_env_file(env_file)).items():
            found[name] = interpolate(value, {**found, **environment()})
        return found


def _items(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _texts(value: Any) -> Iterator[str]:
    """The paths in a value that may be a path, a list of them, or of mappings with `path`."""
    for item in _items(value):
        text = item.get("path") if isinstance(item, dict) else item
        if isinstance(text, str):
            yield text
