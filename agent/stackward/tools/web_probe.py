"""`python -m stackward.tools.web_probe HOST PORT [PATH]`: does it answer? Run in a container that can reach the service.

With a PATH, exit code 0 means an HTTP answer below 400 (redirects are not followed: they lead out of the instance). Without
one, any HTTP answer below 500 does, and a port that takes connections but speaks no HTTP is as good as it can be told.
"""

from __future__ import annotations

import http.client
import sys

_SECONDS = 10.0


def probe(host: str, port: int, path: str = "") -> tuple[bool, str]:
    """Whether it is well, and what it answered."""
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.connect()
    except OSError as error:
        return False, f"{host}:{port} takes no connection: {error}"
    try:
        connection.request("GET", path or "/", headers={"User-Agent": "stackward", "Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        what = str(error) or type(error).__name__
        return (False, f"{host}:{port}{path}: {what}") if path else (True, f"{host}:{port} takes connections")
    finally:
        connection.close()
    return status < (400 if path else 500), f"{host}:{port}{path or '/'} answers {status}"


def main() -> int:
    host, port, *path = sys.argv[1:]
    good, said = probe(host, int(port), *path)
    print(said)  # noqa: T201 - whoever started it reads this
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
