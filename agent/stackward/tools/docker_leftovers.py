"""What lies about in Docker and may be removed: each thing by itself, so that somebody can say which ones stay.

`docker system prune` asks nobody: it takes the old image that a rollback needs, and the networks of stopped stacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackward.tools.docker_engine import Engine
from stackward.tools.docker_values import DIRECTORY_LABEL, HELPER_LABEL, PROJECT_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

_BUILTIN_NETWORKS = frozenset({"bridge", "host", "none"})
_SHORT = len("sha256:") + 12  # as Docker shows an ID
_STOPPED = ("created", "exited", "dead")
_SIZES_BY_TYPE = (1, 42)  # from this version of the API on, sizes of images can be had without those of all volumes


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that nothing uses now. `project` and `directory` are those of Compose, "" where it made it not.

    `digests` and `tags` are an image's, the tags of an untagged one are none.
    """

    id: str
    name: str
    project: str = ""
    directory: str = ""
    digests: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class Leftovers(Engine):
    """Lists what could go, and removes what is named."""

    def stopped_containers(self) -> list[Leftover]:
        """Containers that do not run, of Compose or not."""
        with self._translated("list containers"):
            listed = self._api.containers(all=True, filters={"status": list(_STOPPED)})
        return [
            _of_compose(entry, str((entry.get("Names") or [entry["Id"][:12]])[0]).lstrip("/"))
            for entry in listed
            if HELPER_LABEL not in (entry.get("Labels") or {})  # ours, and just about to be started
        ]

    def untagged_images(self) -> list[Leftover]:
        """Images without a tag that no container, running or not, was made from."""
        with self._translated("list images"):
            listed = self._api.images(filters={"dangling": True})
            used = {str(entry["ImageID"]) for entry in self._api.containers(all=True)}
        return [
            Leftover(
                str(entry["Id"]),
                (_names(entry, "RepoDigests") or (str(entry["Id"])[:_SHORT],))[0],
                digests=_names(entry, "RepoDigests"),
                tags=_names(entry, "RepoTags"),
            )
            for entry in listed
            if str(entry["Id"]) not in used
        ]

    def unused_networks(self) -> list[Leftover]:
        """Networks that no container belongs to; a stopped container cannot start again without its networks."""
        with self._translated("list networks"):
            used = {
                network.get("NetworkID") or name
                for container in self._api.containers(all=True)
                for name, network in ((container.get("NetworkSettings") or {}).get("Networks") or {}).items()
            }
            listed = self._api.networks()
        return [
            _of_compose(entry, str(entry["Name"]))
            for entry in listed
            if entry["Name"] not in _BUILTIN_NETWORKS
            and not entry.get("Ingress")
            and entry.get("Scope", "local") == "local"
            and not used & {entry["Id"], entry["Name"]}
        ]

    def remove_container(self, container: Leftover) -> None:
        """Only if it does not run; its volumes stay. Raises DockerError."""
        with self._translated("remove a container"):
            self._api.remove_container(container.id)

    def remove_image(self, image: Leftover) -> None:
        """With its last name the image itself goes. Raises DockerError where something uses it after all."""
        with self._translated("remove an image"):
            for name in image.digests or (image.id,):
                self._api.remove_image(name)

    def remove_network(self, network: Leftover) -> None:
        """Raises DockerError where something uses it after all."""
        with self._translated("remove a network"):
            self._api.remove_network(network.id)

    def prune_build_cache(self) -> int:
        """Remove what no build is likely to want again (as `docker builder prune`); returns the bytes it freed."""
        with self._translated("prune the build cache"):
            return int(self._api.prune_builds().get("SpaceReclaimed") or 0)

    def images_size_bytes(self) -> int | None:
        """What all images occupy, a layer that several share counted once; None where the engine cannot say cheaply."""
        with self._translated("size up the images"):
            if tuple(int(part) for part in self._api.api_version.split(".")) < _SIZES_BY_TYPE:
                return None
            url = f"{self._api.base_url}/v{self._api.api_version}/system/df"
            answer = self._api.get(url, params={"type": "image"}, timeout=self._api.timeout)
            document: dict[str, Any] = answer.json() if answer.ok else {}
        size = document.get("LayersSize") or (document.get("ImageUsage") or {}).get("TotalSize")
        return int(size) if size else None


def _names(entry: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """Older engines say `<none>` where there is none."""
    return tuple(name for name in entry.get(kind) or () if "<none>" not in name)


def _of_compose(entry: Mapping[str, Any], name: str) -> Leftover:
    labels = entry.get("Labels") or {}
    return Leftover(str(entry["Id"]), name, labels.get(PROJECT_LABEL, ""), labels.get(DIRECTORY_LABEL, ""))
