"""One version of the appliance stands in four places, and what is installed to build it is locked."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from stackward import __version__

_ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())
_DOCKERFILE = (_ROOT / "image/Dockerfile").read_text()


def test_package_image_and_compose_file_say_the_same_version():
    label = re.search(r'image\.version="([^"]+)"', _DOCKERFILE)
    image = yaml.safe_load((_ROOT / "compose.yaml").read_text())["services"]["stackward"]["image"]
    assert _PROJECT["project"]["version"] == __version__
    assert label is not None
    assert label[1] == __version__
    assert image.endswith(f":${{STACKWARD_VERSION:-{__version__}}}")


def test_everything_that_pip_installs_into_the_image_has_a_hash():
    commands = re.split(r"&&|\n", _DOCKERFILE.replace("\\\n", " "))
    installs = [command for command in commands if "pip --python" in command and " install " in command]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or ("--no-build-isolation" in command and "--no-index" in command)


def test_the_locked_build_backend_is_the_one_that_is_asked_for():
    (wanted,) = _PROJECT["build-system"]["requires"]
    name, _, least = wanted.partition(">=")
    locked = re.findall(r"^([\w.-]+)==(\d+)[\d.]* \\$", (_ROOT / "requirements-build.lock").read_text(), re.MULTILINE)
    assert [one for one, _ in locked] == [name]
    assert int(locked[0][1]) >= int(least)
