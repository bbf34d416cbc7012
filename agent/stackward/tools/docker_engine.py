"""One Docker Engine: the connection, and its errors as ours. What can be asked of it is in the modules beside this one."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
import requests.exceptions

from stackward.core.errors import StackwardError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUEST_SECONDS = 60


class DockerError(StackwardError):
    """Docker refused or failed what was asked."""


class DockerUnavailableError(DockerError):
    """No Docker Engine answers."""


class NotFoundError(DockerError):
    """The container, volume or image is gone."""


class Engine:
    """Nothing is asked before the first call; any call may raise DockerUnavailableError: none answers."""

    def __init__(self, docker_host: str, *, owner: str = "1") -> None:
        """`owner` tells our helper containers from those of another appliance on the same engine."""
        self._host = docker_host
        self._owner = owner
        self._client: docker.APIClient | None = None

    def ping(self) -> None:
        with self._translated("ping"):
            self._api.ping()

    def version(self) -> str:
        with self._translated("version"):
            return str(self._api.version()["Version"])

    def info(self) -> dict[str, Any]:
        with self._translated("info"):
            return dict(self._api.info())

    @property
    def _api(self) -> docker.APIClient:
        if self._client is None:
            _knock(self._host)
            self._client = docker.APIClient(base_url=self._host, version="auto", timeout=_REQUEST_SECONDS)
        return self._client

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Docker's errors as ours."""
        try:
            yield
        except docker.errors.NotFound as error:
            raise NotFoundError(f"cannot {what}: {_explanation(error)}") from error
        except docker.errors.APIError as error:
            raise DockerError(f"cannot {what}: {_explanation(error)}") from error
        except requests.exceptions.ReadTimeout as error:
            raise DockerError(f"cannot {what}: Docker did not answer in time") from error
        except (requests.exceptions.RequestException, docker.errors.DockerException) as error:
            self._client = None
            hint = "is Docker running, and is its socket mounted into the container? (/var/run/docker.sock)"
            raise DockerUnavailableError(f"no Docker Engine answers at {self._host}", hint=hint) from error


def _knock(host: str) -> None:
    """Raise early where nobody listens: the SDK would leave its socket open."""
    kind, _, path = host.partition("://")
    if kind != "unix":
        return
    with socket.socket(socket.AF_UNIX) as knocking:
        try:
            knocking.connect(path)
        except OSError as error:
            raise docker.errors.DockerException(str(error)) from error


def _explanation(error: docker.errors.APIError) -> str:
    return str(error.explanation or error).strip()
