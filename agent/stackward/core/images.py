"""What an image's name says of what runs in it."""

from __future__ import annotations

import re

_DATABASES = (
    (
        "postgres",
        re.compile(r"(?:^|/)(?:postgres|postgresql|postgis|pgvector|pgvecto-rs|timescaledb(?:-ha)?)(?:[:@]|$)"),
    ),
    ("mariadb", re.compile(r"(?:^|/)(?:mariadb|mysql|percona|percona-server)(?:[:@]|$)")),
)
_REBUILT = re.compile(r"(?:^|/)(?:redis|valkey|memcached|keydb|dragonfly)(?:[:@]|$)")


def database(image: str) -> str | None:
    """The dump that an image's data can be had as: `postgres`, `mariadb`, or None."""
    return next((kind for kind, pattern in _DATABASES if pattern.search(image)), None)


def is_cache(image: str) -> bool:
    """Whether what it holds is usually built anew."""
    return _REBUILT.search(image) is not None
