"""What happens to containers, as Docker tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackward.core.happenings import ACTIONS, Happening
from stackward.tools.docker_engine import Engine
from stackward.tools.docker_values import ONE_OFF_LABEL, PROJECT_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NANO = 1_000_000_000


class Events(Engine):
    """The event stream, a stretch at a time: it ends silently now and then, so that nobody may rely on one that does not."""

    def container_events(self, since: float, until: float) -> Iterator[Happening]:
        """What happened to containers of Compose since then, and what does as it happens, until then.

        Ends early, without a word, where Docker ends. What happened exactly at `since` may come once more.
        """
        with self._translated("listen to Docker"):
            listen: Any = self._api.events  # its stubs know whole seconds only
            filters = {"type": "container", "label": PROJECT_LABEL}
            stream = listen(since=f"{since:.9f}", until=f"{until:.9f}", filters=filters, decode=True)
            try:
                for event in stream:
                    if (found := _happening(event)) is not None:
                        yield found
            except ValueError:  # half an event: the engine went away
                return


def _happening(event: Mapping[str, Any]) -> Happening | None:
    action = str(event.get("Action") or event.get("status") or "")
    attributes = (event.get("Actor") or {}).get("Attributes") or {}
    if action not in ACTIONS or attributes.get(ONE_OFF_LABEL) == "True":
        return None
    return Happening(
        at=int(event.get("timeNano") or int(event.get("time") or 0) * _NANO) / _NANO,
        action=action,
        container=str((event.get("Actor") or {}).get("ID") or event.get("id") or ""),
        name=str(attributes.get("name") or ""),
        project=str(attributes.get(PROJECT_LABEL) or ""),
        exit_code=str(attributes.get("exitCode") or ""),
        signal=str(attributes.get("signal") or ""),
    )
