"""What a stack names out of the appliance's sight is said; the image's own file in its place is never taken for it."""

from __future__ import annotations

import pytest

from e2e import tiny

pytestmark = pytest.mark.e2e

# As Debian's packages leave it in the image; the host's has another first line.
OF_THE_HOST = "root:of-the-host:1::::::\n"


def nosy(**more):
    model = tiny.sleeper("./data:/data")
    model["services"]["app"] |= {key: value for key, value in more.items() if key != "secrets"}
    if secrets := more.get("secrets"):
        model["services"]["app"]["secrets"] = list(secrets)
        model["secrets"] = {name: {"file": path} for name, path in secrets.items()}
    return model


@pytest.fixture
def host(small):
    recipient = small.run(
        "docker exec stackward age-keygen -o /etc/stackward/age.key 2>&1 | grep -o 'age1[a-z0-9]*'"
    ).stdout
    small.appliance_up({"STACKWARD_SCHEDULE": "false", "STACKWARD_AGE_RECIPIENTS": recipient.split()[0]})
    return small


def capsule(host):
    """What the newest secrets capsule holds: the names of its files, and all that is in them."""
    plain = "age -d -i /etc/stackward/age.key $(ls /backup/docker/secrets-*.age | tail -n 1)"
    opened = f"docker exec stackward sh -c '{plain} | tar {{}}'"
    return host.run(opened.format("tz")).stdout.split(), host.run(opened.format("xzO")).stdout


def test_secrets_out_of_sight_are_said_and_nothing_of_the_image_is_in_their_place(host):
    image = host.run("docker exec stackward cat /etc/shadow").stdout
    assert image.startswith("root:")
    host.run("cp -a /etc/shadow /etc/shadow.before")
    host.put(OF_THE_HOST, "/etc/shadow", mode=0o600)
    try:
        secrets = {"shadow": "/etc/shadow", "key": "/etc/stackward/age.key", "token": "./token"}
        tiny.up(host, "nosy", nosy(secrets=secrets), {"token": "a-token", "data/file": "x"})
        host.run("ln -s /etc/shadow /opt/docker/nosy/.env.production && ln -s /etc/gshadow /opt/docker/nosy/acme.json")
        done = host.stackward_json("backup", check=False)
    finally:
        host.run("mv /etc/shadow.before /etc/shadow")
    part = tiny.by_stack(done, "backup-config")["nosy"]
    assert part["outcome"] == "warn", done
    assert "/etc/shadow is outside of what the appliance can see" in tiny.said(part["reasons"])
    assert "/etc/stackward/age.key belongs to the appliance itself" in tiny.said(part["reasons"])
    names, text = capsule(host)
    assert not [name for name in names if "shadow" in name or "age.key" in name]
    assert "a-token" in text
    assert image.splitlines()[0] not in text
    assert "AGE-SECRET-KEY" not in text
    state = next(one for one in host.stackward_json("status", check=False)["stacks"] if one["stack"] == "nosy")
    assert "/etc/shadow" in tiny.said(state)


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/stackward/age.key", "./link"])
def test_no_environment_is_read_from_the_image_or_the_appliance(host, path):
    tiny.write(host, "nosy", nosy(env_file=path))
    host.run("ln -s /etc/stackward/age.key /opt/docker/nosy/link")
    tiny.up(host, "good", tiny.sleeper())
    done = host.stackward_json("backup", check=False)
    said = (
        tiny.said(done)
        + tiny.said(host.stackward("stacks", "--json"))
        + tiny.said(host.stackward("status", check=False))
    )
    assert "outside of what the appliance can see" in said or "belongs to the appliance itself" in said
    assert tiny.by_stack(done)["good"]["outcome"] == "ok"
    keys = host.run("docker exec stackward grep -h SECRET /etc/stackward/age.key").stdout.split()
    shadow = host.run("docker exec stackward cat /etc/shadow").stdout.splitlines()
    for word in [*keys, *shadow]:
        assert word not in said
    kept = host.run("cat /var/lib/stackward/cache/stacks/*.json", check=False).stdout
    assert keys[0] not in kept


def test_a_path_that_is_mounted_too_is_the_hosts_own(host):
    """The Btrfs volume and DOCKER_ROOT are; so is what somebody adds to compose.yaml."""
    files = {"data/file": "x", "/srv/containers/shared/app.env": "SHARED=of-the-host\n"}
    tiny.up(host, "nosy", nosy(env_file="/srv/containers/shared/app.env"), files)
    done = host.stackward_json("backup")
    assert tiny.by_stack(done, "backup-config")["nosy"]["outcome"] == "ok", done
    assert "SHARED=of-the-host" in capsule(host)[1]
