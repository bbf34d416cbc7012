"""What people and machines do wrong. Each has a clear message, what to do about it, and the right exit code; nothing that
is listed is half a backup, and no stack is left stopped.
"""

from __future__ import annotations

import os
import shlex
import time

import pytest

from e2e import tiny
from e2e.tiny import sleeper
from host import HostError

pytestmark = pytest.mark.e2e

QUIET = {"STACKWARD_SCHEDULE": "false"}
PAUSING = tiny.OPTED_IN | {"stackward.backup.quiesce": "pause"}
SINGLE = "/opt/docker/single/data"


def two_that_disagree():
    model = sleeper()
    model["services"]["other"] = tiny.service("./data:/data", labels={"stackward.backup": "false"})
    return model


def with_env_file():
    model = sleeper()
    model["services"]["app"]["env_file"] = [".env"]
    return model


def crash_looping():
    return {"services": {"app": tiny.service("./data:/data", labels=PAUSING, entrypoint=["false"])}}


def with_driver_options(device):
    options = {"type": "btrfs", "device": device, "o": "subvol=shares"}
    return {"services": {"app": tiny.service("share:/data")}, "volumes": {"share": {"driver_opts": options}}}


# Stacks that are started, and what stands in their compose files.
STARTED = {
    "hook-fails": sleeper(pre="echo the lock is held >&2; exit 3", post="touch /data/thawed"),
    "hook-hangs": sleeper(pre="sleep 600", timeout="2s"),
    "hook-is-loud": sleeper(
        pre="head -c 1000000 /dev/zero | tr '\\0' x", post="head -c 1000000 /dev/zero | tr '\\0' y"
    ),
    "hook-may-fail": sleeper(pre="exit 3", on_error="continue"),
    "hook-is-not-there": sleeper(pre="no-such-program --really"),
    "crash-looping": crash_looping(),
    "lost+found": sleeper(),
    "My.App": sleeper(),
    "with blanks": sleeper(),
    "-dashed": sleeper(),
    "plain": sleeper(),
    # 600 MB that cost nothing take a while to copy; what was listed after them is gone by then.
    "vanishing": sleeper(pre="truncate -s 600M /data/a; touch /data/z"),
    "breaks-while-it-runs": sleeper(),
}
VANISH = "until ls /backup/docker/.incoming-*data-*/vanishing/.a.* 2>&-; do sleep 0.05; done; rm /opt/docker/vanishing/data/z"
# Stacks that nothing has started.
WRITTEN = {
    "bad-label": sleeper(max_standstill="soon"),
    "misspelt-label": sleeper(quiesc="none"),
    "disagreeing": two_that_disagree(),
    "no-env": with_env_file(),
    "unparsable": 'services:\n  app:\n   image: x\n  labels: [\n  stackward.backup: "true"\n',
}
FAILING = {
    "hook-fails": ["pre hook", "exit code 3", "the lock is held", "HINT: mend the command"],
    "hook-hangs": ["sleep 600", "not done after 2 s; it was killed", "HINT"],
    "hook-is-not-there": ["exit code 127", "no-such-program", "HINT"],
    "crash-looping": ["crash-looping-app-1 cannot be paused", "restarting", "HINT", "quiesce: stop"],
    "unparsable": [
        "Compose cannot read it: yaml: line",
        "HINT: `docker compose config`",
        "what was known of it is copied",
    ],
    "no-env": ["/opt/docker/no-env/.env not found", "HINT"],
    "breaks-while-it-runs": ["Compose cannot read it", "HINT"],
}
WARNING = {
    "bad-label": ["stackward.backup.max-standstill must be a duration such as 45s", "not 'soon'", "HINT"],
    "misspelt-label": ["stackward.backup.quiesc", "stackward.backup.quiesce", "HINT"],
    "disagreeing": [
        "stackward.backup is said in several ways: app says 'true', other says 'false'",
        "HINT: say it once",
    ],
    "hook-may-fail": ["exit code 3"],
}
FINE = ["hook-is-loud", "lost+found", "My.App", "with blanks", "-dashed", "plain", "caf\\xe9", "remote", "vanishing"]


@pytest.fixture(scope="module")
def night(small_host):
    """All odd stacks at once, and what a backup says of them: (host, its JSON, how long it took, what ran before)."""
    host = small_host
    tiny.down(host)
    host.appliance_reset(QUIET)
    for name, model in STARTED.items():
        tiny.write(host, name, model)
    for name, model in WRITTEN.items():
        tiny.write(host, name, model)
    device = host.run("btrfs filesystem show /srv/containers | sed -n 's/.* path //p'").stdout.strip()
    host.run("btrfs subvolume create /srv/containers/shares && echo remote >/srv/containers/shares/file")
    tiny.write(host, "remote", with_driver_options(device), {})
    up = "docker compose up -d --remove-orphans"
    started = " ".join(f"'./{name}'" for name in [*STARTED, "remote"])
    host.run(f'cd /opt/docker; for s in {started}; do (cd "$s" && {up}) & pids="$pids $!"; done; wait $pids')
    host.run("cd /opt/docker && cp -a with\\ blanks \"$(printf 'caf\\351')\" && cd \"$(printf 'caf\\351')\" && " + up)
    host.run("cd /opt/docker/remote && docker compose stop")
    host.put("services: [", "/opt/docker/breaks-while-it-runs/compose.yaml")
    time.sleep(3)  # the crash loop pauses longer each time
    before = tiny.states(host)
    vanishing = host.start_command(VANISH)
    began = time.monotonic()
    done = host.stackward_json("backup", check=False)
    took = time.monotonic() - began
    vanishing.communicate(timeout=10)
    return host, done, took, before


def of(night, name):
    return tiny.by_stack(night[1])[name]


def test_one_stacks_failure_is_its_own_and_the_exit_code_tells(night):
    outcomes = {display(name): part["outcome"] for name, part in tiny.by_stack(night[1]).items()}
    wanted = dict.fromkeys(FAILING, "failed") | dict.fromkeys(WARNING, "warn") | dict.fromkeys(FINE, "ok")
    assert outcomes == wanted
    assert night[1]["exit_code"] == 1


def display(name):
    """A stack's name as it is shown; in JSON one that is not UTF-8 comes as it is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("name", FAILING)
def test_a_failure_says_what_and_why_and_what_to_do(night, name):
    reasons = " ".join(of(night, name)["reasons"])
    assert [words for words in FAILING[name] if words not in reasons] == [], reasons


@pytest.mark.parametrize("name", WARNING)
def test_a_warning_says_what_and_the_stack_is_backed_up(night, name):
    host, *_ = night
    reasons = " ".join(of(night, name)["reasons"])
    assert [words for words in WARNING[name] if words not in reasons] == [], reasons
    assert name in kept(host)


def kept(host):
    """The stacks in the newest data backup."""
    return next(one for one in host.stackward_json("list", "--kind", "data"))["stacks"]


def test_no_stack_is_left_stopped_or_started(night):
    host, _, _, before = night
    after = tiny.states(host)
    flapping = "crash-looping-app-1"
    assert {**after, flapping: ""} == {**before, flapping: ""}
    assert after["remote-app-1"] == "exited"


def test_no_hook_holds_the_night_up(night):
    assert night[2] < 60
    host, *_ = night
    assert "sleep 600" not in host.run("docker top hook-hangs-app-1 -o pid,args").stdout


def test_the_hook_that_lets_go_on_runs_also_where_the_first_one_failed(night):
    night[0].run("test -e /opt/docker/hook-fails/data/thawed")


def test_what_failed_is_in_no_backup_and_what_is_listed_verifies(night):
    host, *_ = night
    assert not {"hook-fails", "hook-hangs", "hook-is-not-there", "crash-looping"} & set(kept(host))
    assert host.stackward_json("verify", check=False)["exit_code"] == 0
    tiny.assert_nothing_half_done(host, snapshots=99)


def test_what_is_known_of_a_stack_that_cannot_be_read_is_kept_and_was_quiet_meanwhile(night):
    host, *_ = night
    assert {"unparsable", "no-env", "breaks-while-it-runs"} <= set(kept(host))
    assert of(night, "breaks-while-it-runs")["standstill_seconds"] > 0.1
    assert host.run("cat /backup/docker/data-*/unparsable/file").stdout == "unparsable\n"


def test_a_file_that_vanishes_while_it_is_copied_is_not_missed(night):
    """The second pass, while the stack stands still, knows that it is gone."""
    host, *_ = night
    assert host.run("cd /backup/docker/data-*/vanishing && ls").stdout.split() == ["a", "file"]


def test_a_volume_with_driver_options_is_read_though_its_stack_is_stopped(night):
    host, *_ = night
    assert host.run("cat /backup/docker/data-*/.mounts/remote/*/file").stdout == "remote\n"
    assert host.run("ls -A $(docker volume inspect -f '{{.Mountpoint}}' remote_share)").stdout == ""


@pytest.mark.parametrize("name", [b"lost+found", b"My.App", b"with blanks", b"-dashed", b"caf\xe9"])
def test_an_odd_name_can_be_typed_as_it_is_shown(night, name):
    host, *_ = night
    file = shlex.quote(f"/opt/docker/{os.fsdecode(name)}/data/file")
    host.run("sh -s", input=f"echo spoilt >{file}")  # no argument of `docker exec` can be other than UTF-8
    shown = display(os.fsdecode(name))
    end_of_options = ["--"] if shown.startswith("-") else []
    assert host.stackward("restore", *end_of_options, shown, check=False).returncode == 0
    assert host.run("sh -s", input=f"cat {file}").stdout != "spoilt\n"
    assert host.stackward("restore", "--dry-run", *end_of_options, f"{shown}:file", check=False).returncode == 0
    assert host.stackward("backup", "--dry-run", *end_of_options, shown, check=False).returncode == 0
    assert host.stackward("status", *end_of_options, shown, check=False).returncode == 0


def test_the_doctor_names_each_that_needs_mending(night):
    host, *_ = night
    found = tiny.said(host.stackward_json("check", check=False))
    for name in ("unparsable", "no-env", "bad-label", "misspelt-label", "disagreeing"):
        assert name in found, name


# One stack, and what happens to it and around it.


@pytest.fixture(scope="module")
def lonely(small_host):
    """The small host with an appliance as on its first day, and one stack."""
    tiny.down(small_host)
    small_host.appliance_reset(QUIET)
    return small_host


@pytest.fixture
def single(lonely):
    """The small host with one stack that was backed up once; what the last test did is undone."""
    host = lonely
    host.run(
        "cd /opt/docker && ls -A | grep -vx single | xargs -r rm -rf; docker ps -aq --filter name=guest | xargs -r docker rm -f;"
        "cd /backup/docker && btrfs subvolume delete data-* >/dev/null; rm -rf configs-* secrets-* /srv/containers/*",
        check=False,
    )
    tiny.up(host, "single", sleeper(), {"data/file": "one\n", "data/other": "two\n", "note": "note\n"})
    host.run("rm -rf /opt/docker/single/data/[!fo]*")
    assert host.stackward_json("backup")["exit_code"] == 0
    return host


def refused(host, *words, code=4, **more):
    """Run what must fail with `code`, and return everything that it says."""
    done = host.stackward(*words, check=False, **more)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return tiny.said(done)


def with_setting(host, setting, *words):
    return host.run(f"docker exec -e {setting} stackward stackward {' '.join(words)}", check=False)


def test_a_stack_that_does_not_exist(single):
    assert "there is no stack singel" in (words := refused(single, "backup", "singel", code=2))
    assert "did you mean single" in words
    assert "there are backups of: single" in refused(single, "restore", "singel", code=2)


def test_without_docker_nothing_is_copied_that_may_be_written(single):
    names = tiny.backup_names(single)
    done = with_setting(single, "STACKWARD_DOCKER_HOST=unix:///nowhere", "backup")
    assert done.returncode == 1
    words = tiny.said(done)
    assert "no Docker Engine answers, and app may be at work: nothing was copied" in words
    assert "stackward check" in words
    assert [name for name in tiny.backup_names(single) if name.startswith(".")] == []
    assert [n for n in tiny.backup_names(single) if n.startswith("data")] == [n for n in names if n.startswith("data")]
    refusal = with_setting(single, "STACKWARD_DOCKER_HOST=unix:///nowhere", "restore", "single")
    assert refusal.returncode == 4
    assert "it is not known whether single is running" in tiny.said(refusal)
    doctor = with_setting(single, "STACKWARD_DOCKER_HOST=unix:///nowhere", "check")
    assert doctor.returncode == 1
    assert "no Docker Engine answers at unix:///nowhere" in tiny.said(doctor)


def test_backups_within_what_is_backed_up(single):
    done = with_setting(single, "BACKUP_ROOT=/opt/docker/backups", "backup")
    assert done.returncode == 2
    assert "BACKUP_ROOT must lie outside DOCKER_ROOT" in done.stderr
    single.run("mkdir -p /opt/docker/backups && ln -sfn /opt/docker/backups /srv/containers/elsewhere")
    done = with_setting(single, "BACKUP_ROOT=/srv/containers/elsewhere", "backup")
    assert done.returncode == 2
    assert "(DOCKER_ROOT is /opt/docker, BACKUP_ROOT is /opt/docker/backups)" in tiny.said(done)
    assert single.run("ls -A /opt/docker/backups").stdout == ""


def test_a_missing_backup_root(single):
    done = with_setting(single, "BACKUP_ROOT=/nowhere", "backup")
    assert done.returncode == 4
    assert "BACKUP_ROOT /nowhere cannot be used: No such file or directory" in tiny.said(done)
    assert "is the disk mounted?" in tiny.said(done)


def test_an_unmounted_disk_is_refused_and_an_empty_directory_is_not_taken_for_it(single):
    single.run("docker stop stackward && umount /backup/docker && docker start stackward")
    try:
        single.wait_until("docker exec stackward stackward-healthcheck", every=0.1)
        for words in (["backup"], ["backup", "--config"], ["prune"]):
            said = refused(single, *words)
            assert "BACKUP_ROOT /backup/docker has no ID file (.stackward-id)" in said
            assert "is the disk mounted?" in said
        assert refused(single, "status", code=0).count("unprotected")
        assert "ID file" in refused(single, "check", code=1)
        assert single.run("ls -A /backup/docker").stdout == ""
    finally:
        single.run("disks mount backup btrfs:3072 /backup/docker")
    single.run("docker exec stackward test -e /backup/docker/.stackward-id")  # a disk mounted later appears in there
    assert single.stackward("backup").returncode == 0
    assert tiny.states(single) == {"single-app-1": "running"}


def test_another_disk_is_refused(single):
    single.run(
        "cd /backup/docker && cp .stackward-id /tmp/id && echo 11111111-1111-4111-8111-111111111111 >.stackward-id"
    )
    try:
        assert "has another ID file" in refused(single, "backup")
        assert "has another ID file" in refused(single, "prune")
    finally:
        single.run("cp /tmp/id /backup/docker/.stackward-id")


def test_a_disk_that_turned_read_only(single):
    single.run("mount -o remount,ro /backup/docker")
    try:
        for words in (["backup"], ["prune"]):
            said = refused(single, *words)
            assert "BACKUP_ROOT /backup/docker is mounted read-only" in said
            assert "look for disk errors in the kernel's log" in said
        assert single.stackward("verify").returncode == 0
        assert single.stackward("restore", "single").returncode == 0
    finally:
        single.run("mount -o remount,rw /backup/docker")
    assert tiny.states(single) == {"single-app-1": "running"}


def test_a_tree_that_is_suddenly_empty_is_held_until_somebody_accepts_it(single):
    single.run(f"rm -rf {SINGLE}/*")
    for _ in range(2):
        done = single.stackward_json("backup", check=False)
        assert done["exit_code"] == 1
        said = " ".join(tiny.by_stack(done)["single"]["reasons"])
        assert f"{SINGLE}: it held 2 files and is empty now; nothing was copied" in said
        assert "stackward accept single" in said
    assert "it held 2 files and is empty now" in tiny.said(single.stackward("status", check=False))
    items = single.stackward_json("prune", "--dry-run")["details"]["items"]
    assert [item["keep"] for item in items if item["stack"] == "single"] == [True]
    assert single.run("cat /backup/docker/data-*/single/file").stdout == "one\n"
    single.stackward("accept", "single")
    assert single.stackward_json("backup", check=False)["exit_code"] == 0
    assert "protected" in tiny.said(single.stackward("status", "single"))
    assert tiny.states(single) == {"single-app-1": "running"}


def test_a_stack_that_no_longer_exists_comes_back_with_its_configuration_first(single):
    single.run("cd /opt/docker/single && docker compose down -t 1 && rm -rf /opt/docker/single")
    said = refused(single, "restore", "single")
    assert "single is no stack under /opt/docker" in said
    assert "stackward restore config single" in said
    single.stackward("restore", "single", "--to", "/srv/containers/out")
    assert single.run("cat /srv/containers/out/*/file").stdout == "one\n"
    single.stackward("restore", "config", "single")
    single.stackward("restore", "single")
    single.run("cd /opt/docker/single && docker compose up -d")
    assert single.get(f"{SINGLE}/file") == b"one\n"
    assert single.get("/opt/docker/single/note") == b"note\n"


def test_a_tree_that_somebody_else_uses_is_not_swapped_under_them(single):
    tiny.up(single, "guest", {"services": {"app": tiny.service(f"{SINGLE}:/theirs", labels={})}}, {})
    single.run(f"echo new >{SINGLE}/file")
    said = refused(single, "restore", "single")
    assert f"guest-app-1, which is not of this stack, uses {SINGLE}" in said
    assert "docker stop guest-app-1" in said
    assert single.get(f"{SINGLE}/file") == b"new\n"
    assert tiny.states(single) == {"single-app-1": "running", "guest-app-1": "running"}
    assert single.stackward("restore", "single", "--force").returncode == 0
    assert single.get(f"{SINGLE}/file") == b"one\n"


def test_a_stack_in_use_is_stopped_for_a_moment_and_sees_the_new_data(single):
    single.run(f"echo new >{SINGLE}/file")
    done = single.stackward_json("restore", "single")
    assert done["stacks"][0]["standstill_seconds"] > 0
    assert single.run("docker exec single-app-1 cat /data/file").stdout == "one\n"
    assert tiny.states(single) == {"single-app-1": "running"}
    single.stackward("restore", "single", "--undo")
    assert single.run("docker exec single-app-1 cat /data/file").stdout == "new\n"


def test_damaged_files_are_named_and_never_replace_good_ones_unless_forced(single):
    single.run(
        "cd /backup/docker/data-* && btrfs property set -f . ro false && printf X | dd of=single/file conv=notrunc &&"
        "rm single/other && echo new >single/surplus"
    )
    said = refused(single, "verify", code=3)
    for words in ("damaged", "single/file", "missing", "single/other", "surplus", "single/surplus"):
        assert words in said, words
    said = refused(single, "restore", "single", code=3)
    assert "no file of" in said
    assert "--from DATE" in said
    assert "--force" in said
    assert single.get(f"{SINGLE}/other") == b"two\n"
    assert "damaged" in tiny.said(single.stackward("list"))
    assert "is damaged" in tiny.said(single.stackward("status"))
    forced = single.stackward_json("restore", "single", "--force")
    assert forced["outcome"] == "warn"
    assert tiny.states(single) == {"single-app-1": "running"}


def test_a_damaged_config_backup_is_named_and_refused(single):
    single.run("cd /backup/docker && printf XXXX | dd of=$(ls configs-*.gz) bs=1 seek=100 conv=notrunc")
    said = refused(single, "verify", code=3)
    assert "its SHA-256 is" in said
    single.run("echo changed >/opt/docker/single/note")
    assert "is damaged" in refused(single, "restore", "config")
    assert single.get("/opt/docker/single/note") == b"changed\n"


def test_wrong_settings_name_everything_that_is_wrong_at_once(single):
    wrong = "-e STACKWARD_SHRINK_LIMIT=lots -e STACKWARD_SHEDULE=false -e TZ=Nowhere/Land"
    done = single.run(f"docker exec {wrong} stackward stackward backup", check=False)
    assert done.returncode == 2
    for words in ("STACKWARD_SHRINK_LIMIT", "STACKWARD_SHEDULE", "STACKWARD_SCHEDULE", "TZ"):
        assert words in done.stderr, words


def test_the_appliance_says_what_is_wrong_with_its_settings_when_it_is_started(single):
    try:
        with pytest.raises(HostError):
            single.appliance_up({"STACKWARD_SHRINK_LIMIT": "lots"}, wait=False)
            single.wait_until("docker exec stackward stackward-healthcheck", timeout=4)
        assert "STACKWARD_SHRINK_LIMIT" in single.run("docker logs stackward 2>&1").stdout
    finally:
        single.appliance_up(QUIET)


def test_whoever_is_not_root_is_told(single):
    for words in ("status", "backup", "list"):
        done = single.run(f"docker exec -u 1000 stackward stackward {words}", check=False)
        assert done.returncode == 1, done
        assert "Permission denied" in done.stderr
        assert "HINT: run it as root" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_room_for_the_appliances_own_notes(single):
    """Without the way back on disk nothing is stopped."""
    small = "mount -t tmpfs -o size=1M tmpfs /var/lib/stackward && cp -a /tmp/state/. /var/lib/stackward"
    single.run(f"docker stop stackward && cp -a /var/lib/stackward /tmp/state && {small} && docker start stackward")
    try:
        single.wait_until("docker exec stackward stackward-healthcheck", every=0.1)
        single.run("head -c 5M /dev/zero >/var/lib/stackward/filler", check=False)
        for words in (["backup"], ["restore", "single"]):
            done = single.stackward(*words, check=False)
            assert done.returncode == 1, done
            assert "No space left on device" in done.stderr
            assert "HINT: make room there" in done.stderr
        assert tiny.states(single) == {"single-app-1": "running"}
    finally:
        single.run("docker stop stackward && umount /var/lib/stackward && rm -rf /tmp/state && docker start stackward")
        single.wait_until("docker exec stackward stackward-healthcheck", every=0.1)
    assert single.stackward("backup").returncode == 0


@pytest.mark.parametrize("backup", ["ext4:64", "btrfs:256"])
def test_a_disk_that_is_full_half_way(fresh_host, backup):
    host = fresh_host(backup=backup, settings=QUIET | {"STACKWARD_MINIMUM_FREE": "8MiB"})
    tiny.up(host, "large", sleeper())
    tiny.up(host, "small", sleeper())
    assert host.stackward_json("backup")["exit_code"] == 0
    host.run("head -c 300M /dev/urandom >/opt/docker/large/data/noise && echo new >/opt/docker/small/data/file")
    done = host.stackward_json("backup", check=False)
    assert done["exit_code"] == 1
    parts = tiny.by_stack(done)
    assert parts["large"]["outcome"] == "failed"
    assert "no space left" in " ".join(parts["large"]["reasons"])
    assert "HINT: make room there" in " ".join(parts["large"]["reasons"])
    assert parts["small"]["outcome"] == "ok"
    assert host.stackward_json("verify", check=False)["exit_code"] == 0
    assert (
        host.run("cd /backup/docker/ && cat data-????-??-??/large/file data-????-??-??/small/file").stdout
        == "large\nnew\n"
    )
    tiny.assert_nothing_half_done(host)
    assert tiny.states(host) == {"large-app-1": "running", "small-app-1": "running"}

    host.run("rm /opt/docker/large/data/noise")
    host.run("head -c 300M /dev/urandom >/backup/docker/filler; sync", check=False)
    said = refused(host, "backup")
    assert "MiB free, 8 MiB are the least" in said
    assert "make room" in said
    assert host.stackward("restore", "small").returncode == 0
    host.run("rm /backup/docker/filler && sync -f /backup/docker")
    assert host.stackward_json("backup")["exit_code"] == 0
