"""Stacks as they are now: directories under DOCKER_ROOT, their compose files, their containers, their trees."""

from __future__ import annotations

from stackward.stacks.discovery import Discovery, DockerRootError, discover
from stackward.stacks.membership import Outside

__all__ = ["Discovery", "DockerRootError", "Outside", "discover"]
