"""The dead man's switch: somebody elsewhere notices when these pings stop. The ways are healthchecks.io's."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit, urlunsplit

TIMEOUT_SECONDS = 15.0


def ping(url: str, *, failed: bool) -> str:
    """Fetch `url`, or what says there that we failed. Returns "" once it was answered well, else why not."""
    request = urllib.request.Request(failure_url(url) if failed else url, headers={"User-Agent": "stackward"})  # noqa: S310 - settings let http and https pass
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - as above
            answer.read(1 << 16)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return str(error)
    return ""


def failure_url(url: str) -> str:
    """`/fail` goes to the end of the path, before a query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))
