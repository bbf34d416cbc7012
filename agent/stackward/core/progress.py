"""How a job tells whoever watches how far it is. Jobs report; the CLI and the daemon decide what is shown."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """`step` names what is being done now ("copying shop"); `advance` adds to the current step's totals."""

    def step(self, text: str, *, total_bytes: int | None = None, total_files: int | None = None) -> None: ...

    def advance(self, *, byte_count: int = 0, files: int = 0) -> None: ...

    def warn(self, text: str) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def step(self, text: str, *, total_bytes: int | None = None, total_files: int | None = None) -> None:
        pass

    def advance(self, *, byte_count: int = 0, files: int = 0) -> None:
        pass

    def warn(self, text: str) -> None:
        pass
