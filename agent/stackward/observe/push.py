"""Metrics to a Pushgateway, for whoever cannot scrape us.

The gateway keeps one group per `job` label of its own, which takes the place of ours; so each of our jobs is pushed as a
group by its name, and all else as the group `stackward`. Scraped with `honor_labels`, it reads as /metrics does.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
from collections.abc import Callable, Sequence

from prometheus_client.core import Metric
from prometheus_client.exposition import basic_auth_handler, default_handler, push_to_gateway

from stackward.core.errors import StackwardError
from stackward.observe.metrics import registry

TIMEOUT_SECONDS = 10.0
_GROUP = "stackward"


class PushError(StackwardError):
    """The Pushgateway did not take the metrics."""


def push(gateway: str, found: Sequence[Metric], *, instance: str) -> None:
    """Replace what the gateway has of this host; raises PushError."""
    parts = urllib.parse.urlsplit(gateway)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])

    def handler(
        url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        if parts.username is None:
            return default_handler(url, method, timeout, headers, data)
        user, password = (urllib.parse.unquote(text or "") for text in (parts.username, parts.password))
        return basic_auth_handler(url, method, timeout, headers, data, user, password)

    for job, metrics in by_job(found).items():
        try:
            push_to_gateway(
                bare.geturl().rstrip("/"),
                job=job,
                registry=registry(metrics),
                grouping_key={"instance": instance},
                timeout=TIMEOUT_SECONDS,
                handler=handler,
            )
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise PushError(
                f"the Pushgateway did not take the metrics: {error}", hint="is STACKWARD_PUSHGATEWAY_URL right?"
            ) from error


def by_job(found: Sequence[Metric]) -> dict[str, list[Metric]]:
    """The metrics, split by the value of their label `job`."""
    groups: dict[str, dict[str, Metric]] = {_GROUP: {}}
    for metric in found:
        for sample in metric.samples:
            group = groups.setdefault(sample.labels.get("job") or _GROUP, {})
            part = group.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            part.samples.append(sample)
    return {job: list(metrics.values()) for job, metrics in groups.items()}
