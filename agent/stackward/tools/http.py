"""Is somebody up at a URL? All are asked at once, and who hangs holds up nobody."""

from __future__ import annotations

import base64
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from urllib.parse import unquote, urlsplit, urlunsplit

ANSWER_SECONDS = 10.0
PAUSE_SECONDS = 2.0
_READ_BYTES = 1 << 16
# Who is asked is near: a proxy that the environment names for the way out has no part in it.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask_all(
    urls: Sequence[str],
    *,
    attempts: int = 1,
    answer_seconds: float = ANSWER_SECONDS,
    pause_seconds: float = PAUSE_SECONDS,
) -> dict[str, str]:
    """URL → "" where it answers well (after redirects, a status below 400), else why not.

    Whoever does not answer is asked `attempts` times in all. One that is still at it when the time is over, with an
    answer that drips or a name server that is silent, is left behind.
    """
    answers: dict[str, str] = {}

    def ask_patiently(url: str) -> None:
        for attempt in range(attempts):
            if attempt:
                time.sleep(pause_seconds)
            answers[url] = ask(url, answer_seconds)
            if not answers[url]:
                return

    threads = [threading.Thread(target=ask_patiently, args=(url,), daemon=True) for url in dict.fromkeys(urls)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + attempts * (answer_seconds + pause_seconds)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silent = f"no answer within {answer_seconds:.0f} s"
    return {url: answers.get(url, silent) for url in urls}


def ask(url: str, answer_seconds: float = ANSWER_SECONDS) -> str:
    """Returns "" where it answers well, else why not. Each read has the time limit, not the whole."""
    request = urllib.request.Request(_without_user(url), headers=_headers(url))  # noqa: S310 - settings let http and https pass
    try:
        with _DIRECT.open(request, timeout=answer_seconds) as answer:
            answer.read(_READ_BYTES)
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answers {error.code} {error.reason}".rstrip()
    except urllib.error.URLError as error:
        return _why(error.reason, answer_seconds)
    except (OSError, HTTPException, ValueError) as error:
        return _why(error, answer_seconds)
    return ""


def bare(url: str) -> str:
    """The URL without user, password and query, for messages."""
    parts = urlsplit(_without_user(url))
    return urlunsplit(parts._replace(query="", fragment=""))


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _headers(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.username is None:
        return {"User-Agent": "stackward"}
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"User-Agent": "stackward", "Authorization": f"Basic {base64.b64encode(who.encode()).decode('ascii')}"}


def _why(error: object, answer_seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {answer_seconds:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
