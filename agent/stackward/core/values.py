"""How a value that a person wrote in a label or a setting is read.

Every parser raises ValueError whose message goes on after the name: "must be …".
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from stackward.core.model import Keep
from stackward.core.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_YEAR_SECONDS = 366 * 86400
_SMALLEST_RANGE = 24
_GRID = ("hourly", "daily", "weekly", "monthly", "yearly")
_KEEP_RIGHT = "must be a number of days such as 7d, or a grid such as daily=7,weekly=4,monthly=6,yearly=1"


def parse_boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("must be true or false")


def parse_delay(text: str) -> timedelta:
    """A duration, or `off`, which is none. A year at the most."""
    if text.strip().lower() in _FALSE:
        return timedelta(0)
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off") from error
    if seconds > _YEAR_SECONDS:
        raise ValueError("must be less than a year")
    return timedelta(seconds=seconds)


def parse_list(text: str) -> tuple[str, ...]:
    """One item a line where there are several lines (an item may then hold commas), else separated by commas."""
    parts = text.split("\n") if "\n" in text else text.split(",")
    return tuple(part.strip() for part in parts if part.strip())


def parse_keep(text: str) -> Keep:
    """`7d`, or a grid; a rule that would keep nothing is refused."""
    if days := re.fullmatch(r"\s*(\d{1,5})\s*d\s*", text, re.ASCII):
        return Keep(days=_at_least_one(int(days[1])))
    grid: dict[str, int] = {}
    for part in parse_list(text.replace("\n", ",")):
        match = re.fullmatch(r"(\w+)\s*=\s*(\d{1,5})", part, re.ASCII)
        if not match or match[1] not in _GRID or match[1] in grid:
            raise ValueError(_KEEP_RIGHT)
        grid[match[1]] = int(match[2])
    if not any(grid.values()):
        raise ValueError(_KEEP_RIGHT)
    return Keep(**grid)


def format_keep(keep: Keep) -> str:
    """The rule in a form that `parse_keep` reads (where it is not both, days and a grid); "" where there is none."""
    parts = [f"{keep.days}d"] if keep.days is not None else []
    parts += [f"{name}={count}" for name in _GRID if (count := getattr(keep, name))]
    return ",".join(parts)


def parse_path(text: str) -> Path:
    if not text.startswith("/") or ".." in Path(text).parts or "\0" in text:
        raise ValueError("must be an absolute path without '..'")
    return Path(os.path.normpath("/" + text.lstrip("/")))


def parse_retention_days(text: str) -> Keep:
    if not re.fullmatch(r"[1-9]\d{0,4}", text.strip(), re.ASCII):
        raise ValueError("must be a number of days, 1 or more")
    return Keep(days=int(text))


def parse_share(text: str) -> float:
    """More than 0, at most 1."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip(), re.ASCII)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share <= 1:
        raise ValueError("must be a share such as 90% or 0.9")
    return share


def parse_subnets(text: str) -> tuple[IPv4Network, ...]:
    """Ranges of addresses; none for `docker`."""
    if text.strip().lower() == "docker":
        return ()
    try:
        found = tuple(IPv4Network(part) for part in parse_list(text))
    except ValueError as error:
        raise ValueError(f"must be subnets such as 198.19.0.0/16, or docker ({error})") from error
    if any(one.prefixlen > _SMALLEST_RANGE for one in found):
        raise ValueError(f"must be subnets of /{_SMALLEST_RANGE} or larger: each instance has several networks")
    return found


def parse_recipients(text: str) -> tuple[str, ...]:
    """What age takes for recipients, separated by commas or lines; a recipients file of age's reads as it is."""
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    found: list[str] = []
    for part in re.split(r"[\n,]", "\n".join(lines)):
        found += part.split() if part.strip().startswith("age1") else filter(None, [part.strip()])
    for recipient in found:
        if recipient.upper().startswith("AGE-SECRET-KEY-"):
            raise ValueError("must be the public recipient (age1…), not the secret key: `age-keygen -y FILE` prints it")
        if not re.fullmatch(r"age1[a-z0-9]{8,}|ssh-(?:ed25519|rsa) \S+(?: .*)?", recipient, re.ASCII):
            raise ValueError("must be age recipients (age1…, ssh-ed25519 …), separated by commas")
    return tuple(found)


def parse_urls(text: str) -> tuple[str, ...]:
    """Apprise's URLs; a comma belongs to its URL unless another scheme follows."""
    urls = tuple(re.split(r"[\s,;]+(?=[A-Za-z][A-Za-z0-9+.-]*://)", text.strip()))
    if not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", url) for url in urls):
        raise ValueError("must be URLs that Apprise knows (scheme://…), separated by blanks or commas")
    return urls


def parse_http_url(text: str) -> str:
    if not re.fullmatch(r"https?://\S+", text.strip()):
        raise ValueError("must be an http:// or https:// URL")
    return text.strip()


def parse_listen(text: str) -> tuple[str, int] | None:
    """Where to listen, as an address and a port; None for `off`."""
    if text.strip().lower() == "off":
        return None
    host, port = _address(text.strip(), "must be ADDRESS:PORT such as 127.0.0.1:9466, or off")
    return host, port


def parse_gelf_url(text: str) -> str:
    """`udp://HOST:PORT` or `tcp://HOST:PORT`."""
    wrong = "must be udp://HOST:PORT or tcp://HOST:PORT"
    scheme, separator, rest = text.strip().rstrip("/").partition("://")
    if not separator or scheme not in ("udp", "tcp"):
        raise ValueError(wrong)
    _address(rest, wrong)
    return f"{scheme}://{rest}"


def _address(text: str, wrong: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})", text, re.ASCII)
    if not match or not 0 < int(match[2]) < 65536:
        raise ValueError(wrong)
    return match[1].strip("[]"), int(match[2])


def parse_docker_host(text: str) -> str:
    if not re.fullmatch(r"(?:unix:///|tcp://)\S+", text.strip()):
        raise ValueError("must be unix:///… (a socket's path) or tcp://HOST:PORT")
    return text.strip()


def parse_host(text: str) -> str:
    """A host's or user's name that no program takes for an option."""
    if not re.fullmatch(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\[\]-]*", text.strip(), re.ASCII):
        raise ValueError("must be a name or an address, without blanks")
    return text.strip()


def suggest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`did you mean …?` where one of `known` is close to `word` (case does not matter), else "".

    What all have in common, the `prefix`, makes nothing close.
    """
    start = prefix.lower()
    by_case = {candidate.lower().removeprefix(start): candidate for candidate in known}
    close = get_close_matches(word.lower().removeprefix(start), by_case, n=1, cutoff=0.8 if prefix else 0.7)
    return f"did you mean {by_case[close[0]]}?" if close else ""


def _at_least_one(days: int) -> int:
    if days < 1:
        raise ValueError(_KEEP_RIGHT)
    return days
