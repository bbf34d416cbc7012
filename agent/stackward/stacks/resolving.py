"""A stack's compose model: from the cache, from Compose, or as well as it can be told without."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackward.core.errors import StackwardError
from stackward.core.labels import EXTENSION
from stackward.stacks.cache import Cache, Entry, stamps
from stackward.tools import compose, process, small_files
from stackward.tools.compose_files import ENVIRONMENT_FILE, load_yaml, read_env_file
from stackward.tools.interpolation import interpolate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackward.tools.host_files import HostFiles

_TEXT_BYTES = 16 << 20
_MENTION = re.compile(r"stackward\.?[\"']?[\s\S]{0,40}?\bbackup\b|x-stackward")
_SAID = re.compile(r"stackward\.backup[\"']?\s*[:=]\s*[\"']?([^\s\"',}\]]+)")


@dataclass(frozen=True, slots=True)
class Resolved:
    """`error` is why Compose refused, else "". Then `model` is raw YAML, and `past` the last model that was good.

    `says_backup` is what the text says where not even YAML could be read: True, False, or None (nothing).
    """

    model: dict[str, Any]
    warnings: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()
    error: str = ""
    past: dict[str, Any] | None = None
    says_backup: bool | None = None


def resolve(directory: Path, files: Sequence[Path], cache: Cache, seen: HostFiles) -> Resolved:
    """Raises nothing about the stack's own files: what is wrong with them is in `error`."""
    kept = cache.load(directory)
    if kept is not None and kept.is_fresh(files) and not any(_is_refused(Path(name), seen) for name in kept.stamps):
        return Resolved(kept.model, kept.warnings, kept.env_files)
    depends = compose.dependencies(directory, files, seen)
    stamped = stamps(depends.paths)
    try:
        done = compose.resolve_with_warnings(directory, files, seen, depends=depends)
    except (compose.ComposeError, process.CommandError) as error:
        own = [file for file in files if not seen.refusal(file)]
        return _unresolved(directory, own, depends.env_files, error, kept, seen)
    cache.save(directory, Entry(done.model, done.warnings, tuple(files), depends.env_files, stamped))
    return Resolved(done.model, done.warnings, depends.env_files)


def _unresolved(
    directory: Path,
    files: Sequence[Path],
    env_files: tuple[Path, ...],
    error: StackwardError,
    kept: Entry | None,
    seen: HostFiles,
) -> Resolved:
    own_variables = directory / ENVIRONMENT_FILE
    variables = {} if seen.refusal(own_variables) else read_env_file(own_variables)
    model: dict[str, Any] = {"services": {}}
    for file in files:
        try:
            _merge(model, _plain(load_yaml(file), directory, variables))
        except (OSError, ValueError):
            continue
    past = kept.model if kept is not None else None
    return Resolved(model, (), env_files, error.message, past, _says(files))


def _is_refused(path: Path, seen: HostFiles) -> bool:
    """A model that was made of such a file, by an earlier version or before a mount went, is of no use."""
    return bool(seen.refusal(path)) and os.path.lexists(path)


def _says(files: Sequence[Path]) -> bool | None:
    """What the bare text says of `stackward.backup`: False only if every mention is a plain false."""
    text = ""
    for file in files:
        try:
            text += (
                re.sub(r"(?m)(?:^|\s)#.*$", "", small_files.read(file, _TEXT_BYTES).decode("utf-8", "replace")) + "\n"
            )
        except OSError:
            continue
    said = [value.strip().lower() for value in _SAID.findall(text)]
    if said and all(value in ("false", "no", "off", "0") for value in said):
        return False
    return True if _MENTION.search(text) else None


def _plain(document: Mapping[str, Any], directory: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Of raw YAML, what trees and labels can be told from, in the shape that Compose would print it."""
    services = {}
    for name, service in _items(document.get("services")):
        volumes = [_mount(entry, directory, variables) for entry in service.get("volumes") or []]
        services[name] = {
            "image": str(service.get("image") or ""),
            "labels": _labels(service.get("labels")),
            "volumes": [mount for mount in volumes if mount is not None],
        }
    declared = dict(_items(document.get("volumes"), empty=True))
    model: dict[str, Any] = {"services": services, "volumes": declared}
    if isinstance(document.get("name"), str):
        model["name"] = interpolate(document["name"], variables)
    if EXTENSION in document:
        model[EXTENSION] = document[EXTENSION]
    return model


def _items(value: Any, *, empty: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict):
            yield str(name), item
        elif empty:
            yield str(name), {}


def _labels(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(k): ("true" if v is True else "false" if v is False else str(v)) for k, v in value.items()}
    pairs = [str(item).partition("=") for item in value] if isinstance(value, list) else []
    return {name: text for name, _, text in pairs}


def _mount(entry: Any, directory: Path, variables: Mapping[str, str]) -> dict[str, Any] | None:
    """A service's volume entry in long form; None for what cannot be told."""
    if isinstance(entry, dict):
        kind, source = entry.get("type"), entry.get("source")
        found = {**entry, "source": interpolate(source, variables)} if isinstance(source, str) else dict(entry)
        options = ""
    elif isinstance(entry, str):
        first, _, rest = interpolate(entry, variables).partition(":")
        target, _, options = rest.partition(":")
        if not target:
            return {"type": "volume", "target": first}
        kind = "bind" if first.startswith((".", "/", "~")) else "volume"
        found = {"type": kind, "source": first, "target": target}
    else:
        return None
    if "ro" in options.split(","):
        found["read_only"] = True
    if kind == "bind":
        if not found.get("source"):
            return None
        found["source"] = str(directory / Path(str(found["source"])).expanduser())
    return found


def _merge(model: dict[str, Any], other: dict[str, Any]) -> None:
    for name, service in other["services"].items():
        into = model["services"].setdefault(name, {"image": "", "labels": {}, "volumes": []})
        into["image"] = service["image"] or into["image"]
        into["labels"] |= service["labels"]
        into["volumes"] += service["volumes"]
    model.setdefault("volumes", {}).update(other["volumes"])
    model.update({key: other[key] for key in ("name", EXTENSION) if key in other})
