"""Makes backups as they lie on disk, for the tests of whatever reads them."""

import gzip
import hashlib
import io
import os
import tarfile
from datetime import datetime
from pathlib import Path

from stackward.core.index import Index, StackEntry, TreeEntry
from stackward.tools import manifest


def write_files(root: Path, files: dict[str | bytes, bytes]) -> None:
    for name, content in files.items():
        path = os.fsencode(root) + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def tree(path: str, source: Path | str = "/nowhere", *, kind: str = "data", volume=None, mount_name="data", **counts):
    return TreeEntry(
        mount_name=mount_name,
        kind=kind,
        path=path,
        source=str(source),
        real_path=str(source),
        volume=volume,
        snapshot=False,
        files=counts.get("files", 0),
        bytes=counts.get("bytes", 0),
    )


def stack_entry(stack: str, at: datetime, *trees: TreeEntry, **more) -> StackEntry:
    return StackEntry(stack=stack, project=more.pop("project", stack), at=at.isoformat(), run="r1", trees=trees, **more)


def seal(path: Path, at: datetime, *entries: StackEntry) -> Path:
    """Give a directory of files its index and its manifest."""
    index = Index(path.name[5:15], at.isoformat(), "host", {entry.stack: entry for entry in entries})
    (path / "stackward.json").write_text(index.to_json())
    write_manifest(path)
    return path


def write_manifest(path: Path, prefix: bytes = b"") -> None:
    found = []
    root = os.fsencode(path)
    for directory, _, names in os.walk(root):
        for name in names:
            full = directory + b"/" + name
            relative = full[len(root) + 1 :]
            if relative != b"MANIFEST.sha256" and os.path.isfile(full) and not os.path.islink(full):
                with open(full, "rb") as file:
                    found.append((prefix + relative, hashlib.file_digest(file, "sha256").hexdigest()))
    lines = [manifest.format_line(digest, name) for name, digest in sorted(found)]
    (path / "MANIFEST.sha256").write_bytes(b"".join(lines))


def data_backup(root: Path, name: str, at: datetime, stacks: dict[str, dict[str | bytes, bytes]]) -> Path:
    """A day with one `data` tree per stack."""
    path = root / name
    path.mkdir(parents=True)
    entries = []
    for stack, files in stacks.items():
        (path / stack).mkdir()
        write_files(path / stack, files)
        size = sum(map(len, files.values()))
        entries.append(stack_entry(stack, at, tree(stack, f"/opt/docker/{stack}/data", files=len(files), bytes=size)))
    return seal(path, at, *entries)


def config_backup(root: Path, name: str, files: dict[str, bytes], *, checksum: bool = True) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in files.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path = root / name
    path.write_bytes(gzip.compress(buffer.getvalue()))
    if checksum:
        write_checksum(path)
    return path


def write_checksum(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
