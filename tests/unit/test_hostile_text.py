"""Compose files and requests to the bridge as a hostile hand would write them: read or refused, and nothing else happens."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackward.tools import compose_files
from unit.hosts import SmallHost

BRIDGE = Path(__file__).parents[2] / "host-units" / "bridge"
PATHS = st.sampled_from(
    ["a.env", "../x.env", "/etc/shadow", "a\0b", "\ud800", "", ".", "..", "~/x", "${HOME}/x", "${A:-b", "x" * 5000, "-"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | PATHS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["path", "file", "required", "env_file", "project_directory", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
SERVICES = st.dictionaries(
    st.sampled_from(["web", "db", "a b", ""]),
    VALUES
    | st.fixed_dictionaries(
        {}, optional={"env_file": VALUES, "label_file": VALUES, "extends": VALUES, "volumes": VALUES}
    ),
    max_size=3,
)
MODELS = st.fixed_dictionaries({}, optional={"services": SERVICES | VALUES, "include": VALUES, "secrets": VALUES})
BOUNDED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@BOUNDED
@given(model=MODELS, env=st.binary(max_size=60))
def test_a_compose_file_with_anything_in_it_is_followed_or_passed_over(tmp_path, model, env):
    import yaml

    (tmp_path / "compose.yaml").write_bytes(yaml.safe_dump(model, allow_unicode=True).encode("utf-8", "surrogatepass"))
    (tmp_path / ".env").write_bytes(env)
    found = compose_files.dependencies(tmp_path)
    assert tmp_path / "compose.yaml" in found.paths


@BOUNDED
@given(content=st.binary(max_size=200))
def test_a_compose_file_of_any_bytes_is_followed_or_passed_over(tmp_path, content):
    (tmp_path / "compose.yaml").write_bytes(content)
    compose_files.dependencies(tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("docker")
    (made / "shop").mkdir()
    (made / "shop/compose.yaml").write_text("services: {}\n")
    return made


WORDS = st.sampled_from(
    [
        b"ping", b"show", b"start", b"stop", b"restart", b"facts", b"reset-failed", b"reboot", b"docker-compose@../x.service",
        b"docker-compose@shop.service;reboot", b"docker-compose@$(touch${IFS}canary).service", b"`touch canary`", b"sshd.service",
        b"docker-compose@sh*p.service", b"docker-compose@shop.service docker.service", b"-- --force", b"docker-compose@/.service",
        b"docker-compose@.service", b"docker-compose-staging@\\x2e\\x2e.service", b"\0", b"\n", b"\r", b"\xff\xfe", b"%n",
        b"x" * 400,
    ]
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=st.lists(WORDS | st.binary(max_size=12), max_size=4).map(b" ".join))
def test_the_bridge_refuses_what_is_no_request_of_its_own(root, tmp_path, request):
    line = request + b"\n"
    harmless = {b"ping\n"}
    done = subprocess.run(
        [BRIDGE], input=line, cwd=tmp_path, env={"DOCKER_ROOT": str(root)}, capture_output=True, timeout=60, check=False
    )
    last = done.stdout.splitlines()[-1] if done.stdout else b""
    assert done.returncode == 0
    if line not in harmless and not line.startswith(
        (b"facts\n", b"show docker-compose-infra", b"show stackward-staging")
    ):
        assert last.startswith(b"error "), (line, done.stdout)
    assert os.listdir(tmp_path) == []
    assert sorted(os.listdir(root)) == ["shop"]


@pytest.mark.parametrize(
    "text",
    [
        'services: {x: {image: a, env_file: ["a\\0b"]}}',
        'services: {x: {image: a, volumes: ["./a\\0b:/x"]}}',
        'services: {x: {image: a, labels: {"stackward.backup.skip": "a\\0b"}}}',
        'include: ["' + "x" * 5000 + '"]\nservices: {x: {image: a}}',
        "services: {x: {image: a, env_file: [" + "y" * 5000 + "]}}",
    ],
)
def test_a_name_that_no_file_can_have_is_its_own_stacks_problem(tmp_path, needs_compose, text):
    host = SmallHost(tmp_path)
    host.stack("evil", text)
    host.stack("shop", "services: {web: {image: busybox, volumes: ['./data:/data']}}")
    try:
        found = {stack.name: stack for stack in host.discover().stacks}
    finally:
        host.store.close()
    assert found["shop"].resolved
    assert "evil" in found
