"""Environment and file become one frozen Settings value, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from stackward.core.model import Keep


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Defaults are DESIGN's; paths are the same inside the container as on the host."""

    docker_root: Path = Path("/opt/docker")
    backup_root: Path = Path("/backup/docker")
    volume: Path = Path("/srv/containers")  # need not exist, need not be Btrfs
    state_dir: Path = Path("/var/lib/stackward")
    config_dir: Path = Path("/etc/stackward")
    run_dir: Path = Path("/run/stackward")
    log_dir: Path = Path("/var/log")
    docker_volumes: Path = Path("/var/lib/docker/volumes")
    docker_host: str = "unix:///var/run/docker.sock"
    zone: ZoneInfo = ZoneInfo("UTC")
    backup_default: bool = False
    keep: Keep = Keep(daily=7, weekly=4)
    shrink_limit: float = 0.9
    age_recipients: tuple[str, ...] = ()
    config_size_limit: int = 256 << 20  # a directory nobody names that is larger is left out of the config tarball
    minimum_free_bytes: int = 1 << 30  # below it a backup is refused before it begins
    truenas_host: str = ""
    truenas_user: str = "docker-backup"
    notify_urls: tuple[str, ...] = ()
    ping_url: str = ""
    schedule: bool = True  # the daemon runs the 02:00 and Sunday chains
    crash_point: str = ""  # tests only: kill the process at this named point (docs/ARCHITECTURE.md)
