"""A DOCKER_ROOT of one's own in a temporary directory, for the tests of whatever looks at stacks."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

from stackward.config import Settings
from stackward.stacks import discover
from stackward.store import Store
from stackward.tools.locks import Locks

DOCKER_HOST = "unix:///var/run/docker.sock"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class SmallHost:
    def __init__(self, root: Path, **changes):
        for name in ("docker", "backup", "state", "etc", "volumes"):
            (root / name).mkdir(parents=True)
        self.root = root
        self.settings = replace(
            Settings(
                docker_root=root / "docker",
                backup_root=root / "backup",
                volume=root / "volume",
                state_dir=root / "state",
                config_dir=root / "etc",
                run_dir=root / "run",
                log_dir=root / "log",
                docker_volumes=root / "volumes",
                docker_host=f"unix://{root}/no-docker.sock",
            ),
            **changes,
        )
        self.store = self.opened()

    @property
    def environment(self) -> dict[str, str]:
        """By which a verb that is called finds this host."""
        settings = self.settings
        return {
            "DOCKER_ROOT": str(settings.docker_root),
            "BACKUP_ROOT": str(settings.backup_root),
            "STACKWARD_VOLUME": str(settings.volume),
            "STACKWARD_STATE_DIR": str(settings.state_dir),
            "STACKWARD_CONFIG_DIR": str(settings.config_dir),
            "STACKWARD_RUN_DIR": str(settings.run_dir),
            "STACKWARD_DOCKER_VOLUMES": str(settings.docker_volumes),
            "STACKWARD_DOCKER_HOST": settings.docker_host,
        }

    def opened(self) -> Store:
        """The store that a verb would open, once more."""
        state = self.settings.state_dir
        return Store.open(state / "stackward.sqlite", now=NOW, locks=Locks(state / "locks"))

    def stack(self, name: str | bytes, compose: str, **files: str) -> Path:
        """Write a stack; a file's name has `__` for `/` and `_dot_` for a leading dot."""
        directory = self.settings.docker_root / os.fsdecode(name)
        directory.mkdir(exist_ok=True)
        (directory / "compose.yaml").write_text(dedent(compose))
        for key, text in files.items():
            path = directory / key.replace("_dot_", ".").replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return directory

    def discover(self, docker=None):
        return discover(self.settings, docker, self.store)

    def found(self, name: str):
        stack = self.discover().stack(name)
        assert stack is not None
        return stack
