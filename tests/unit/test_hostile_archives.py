"""Config backups and capsules that others made or changed: whose they are is told, and nothing of them leaves its place."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from stackward.core.errors import ExitCode, RefusedError, StackwardError
from stackward.core.model import Outcome
from stackward.steps import catalog, config_archives, signing
from stackward.steps.signing import Signer
from stackward.tools import filesystem, signatures
from unit.test_restore_config import LATER, NOW, Host
from unit.test_unpack import file, hard, link, tarball


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    made.victim = made.root / "victim"
    made.put("victim/compose.yaml", "the victim's own")
    made.put("victim/.env", "VICTIM=secret")
    return made


def forge(host: Host, *, config: bytes | None = None, capsule: bytes | None = None) -> None:
    """What one who can write to BACKUP_ROOT does: other content, and a checksum that fits. The recipient is no secret."""
    for name, plain in zip(host.backed_up, (config, capsule), strict=True):
        if plain is None:
            continue
        path = host.settings.backup_root / name
        content = plain
        if name.endswith(".age"):
            argv = ["age", "--encrypt", "--recipient", host.settings.age_recipients[0]]
            content = subprocess.run(argv, input=plain, check=True, capture_output=True).stdout
        path.write_bytes(content)
        Path(f"{path}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {name}\n")


def signer(host: Host, number: int = 0) -> Signer:
    found = {one.name.name: one for one in catalog.catalog(host.settings, NOW)}
    with config_archives.opened(host.settings, found[host.backed_up[number]]) as opened:
        return opened.signer


def require_victim(host: Host) -> None:
    assert sorted(os.listdir(host.victim)) == [".env", "compose.yaml"]
    assert host.text("victim/compose.yaml") == "the victim's own"
    assert host.text("victim/.env") == "VICTIM=secret"
    assert os.stat(host.victim / ".env").st_nlink == 1


def test_what_the_appliance_made_is_signed_by_it_and_anybody_can_check_that(host):
    assert [signer(host, number) for number in (0, 1)] == [Signer.OWN, Signer.OWN]
    name = host.backed_up[0]
    signers = host.place / "signers"
    signers.write_text(f"stackward {signing.public_key(host.settings)}\n")
    argv = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        signers,
        "-I",
        "stackward",
        "-n",
        "stackward-config",
        "-s",
        f"{name}.sha256.sig",
    ]
    content = (host.settings.backup_root / f"{name}.sha256").read_bytes()
    subprocess.run(argv, input=content, cwd=host.settings.backup_root, check=True, capture_output=True)
    assert os.stat(signing.key_file(host.settings)).st_mode & 0o777 == 0o600


def test_a_forged_backup_is_told_from_our_own(host):
    forge(host, config=tarball(file("shop/compose.yaml", b"services: {}")))
    assert signer(host) is Signer.OTHER
    (host.settings.backup_root / f"{host.backed_up[0]}.sha256.sig").unlink()
    assert signer(host) is Signer.NONE
    result = host.restore()
    assert any("is signed by no one" in note for note in result.details["notes"])


def test_a_signed_backup_passes_for_no_other_one(host):
    """Under another name it would be an older, or a newer, state than it is."""
    newer = host.back_up(NOW.replace(hour=3))
    for suffix in ("", ".sha256", ".sha256.sig"):
        shutil.copy(
            host.settings.backup_root / f"{host.backed_up[0]}{suffix}",
            host.settings.backup_root / f"{newer[0]}{suffix}",
        )
    checksum = host.settings.backup_root / f"{newer[0]}.sha256"
    checksum.write_text(checksum.read_text().replace(host.backed_up[0], newer[0]))
    host.backed_up = newer
    assert signer(host) is Signer.OTHER


def test_another_appliances_key_can_be_trusted(host):
    shutil.rmtree(host.state / "signing")
    assert signer(host) is Signer.OTHER
    signatures.make_key(host.place / "other", "another host")
    line = f"{host.backed_up[0]}"
    content = f"{hashlib.sha256((host.settings.backup_root / line).read_bytes()).hexdigest()}  {line}\n".encode()
    signed = signatures.sign(host.place / "other", signing.NAMESPACE, content)
    (host.settings.backup_root / f"{line}.sha256.sig").write_bytes(signed)
    assert signer(host) is Signer.OTHER
    shutil.copy(host.place / "other.pub", host.etc / signing.TRUSTED)
    assert signer(host) is Signer.TRUSTED


@pytest.mark.parametrize("name", ["fifo", "link", "huge"])
def test_a_signature_that_is_no_file_is_none(host, name):
    path = host.settings.backup_root / f"{host.backed_up[0]}.sha256.sig"
    path.unlink()
    if name == "fifo":
        os.mkfifo(path)
    elif name == "link":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(bytes(1 << 20))
    with suppress(OSError):
        assert not signer(host).trusted


def test_a_link_of_the_tarball_is_no_way_for_the_capsule(host):
    forge(
        host,
        config=tarball(link("site/l", str(host.victim)), file("site/compose.yaml", b"services: {}")),
        capsule=tarball(file("site/l/pwned"), file("site/l/.env", b"taken"), file("site/.env", b"A=1")),
    )
    result = host.restore(secrets=True)
    require_victim(host)
    assert host.text("site/.env") == "A=1"
    assert result.outcome is Outcome.WARN
    assert any(reason.startswith("site/l: ") for reason in result.reasons)


def test_a_link_that_a_container_has_put_there_is_no_way_either(host):
    host.put("shop/conf/keep", "x")
    shutil.rmtree(host.root / "shop/conf")
    (host.root / "shop/conf").symlink_to(host.victim)
    result = host.restore(secrets=True)
    require_victim(host)
    assert any("a symlink stands where its directory was" in reason for reason in result.reasons)


def test_a_hard_link_of_the_capsule_takes_no_other_stacks_secret(host):
    forge(
        host,
        config=tarball(file("site/compose.yaml", b"services: {}")),
        capsule=tarball(
            hard("site/stolen", "victim/.env"), hard("site/too", f"{host.victim}/.env"), file("site/.env", b"A=1")
        ),
    )
    result = host.restore(secrets=True)
    require_victim(host)
    assert sorted(os.listdir(host.root / "site")) == [".env", "compose.yaml"]
    assert sum("another name of a file" in reason for reason in result.reasons) == 2


def test_only_a_capsule_holds_files_from_outside_and_only_one_of_ours_puts_them_back(host):
    outside = host.place / "outside"
    outside.mkdir()
    planted = tarball(file("shop/compose.yaml", b"services: {}"), file(f".outside{outside}/planted", b"x"))
    forge(host, config=planted)
    result = host.restore()
    assert os.listdir(outside) == []
    assert any("only a secrets capsule" in reason for reason in result.reasons)

    forge(host, capsule=planted)
    result = host.restore(secrets=True)
    assert os.listdir(outside) == []
    assert any("--unsigned" in reason for reason in result.reasons)

    host.restore(secrets=True, unsigned=True)
    assert (outside / "planted").read_text() == "x"


@pytest.mark.parametrize("where", ["state/undo/1.json", "etc/age.key", "etc/trusted_signers", "backup/data-2026-11-21"])
def test_nothing_of_the_appliances_own_is_replaced_by_a_capsule(host, where):
    place = host.place / where
    place.parent.mkdir(exist_ok=True, parents=True)
    before = place.read_bytes() if place.exists() else None
    forge(host, capsule=tarball(file(f".outside{place}", b"planted"), file("shop/.env", b"A=1")))
    result = host.restore(secrets=True, unsigned=True)
    assert (place.read_bytes() if place.exists() else None) == before
    assert any("belongs to the appliance itself" in reason for reason in result.reasons)


def test_the_signing_key_comes_back_with_the_secrets(host):
    """A host that takes the place of another one goes on as that."""
    key = signing.key_file(host.settings)
    before, public = key.read_bytes(), signing.public_key(host.settings)
    shutil.rmtree(host.state / "signing")
    signing.key_file(host.settings)
    assert signing.public_key(host.settings) != public
    result = host.restore(secrets=True)  # it is another appliance's for now, and no part of any stack
    assert (result.outcome, result.reasons) == (Outcome.OK, ())
    assert signing.public_key(host.settings) != public
    result = host.restore(secrets=True, unsigned=True)
    assert result.exit_code == ExitCode.OK
    assert key.read_bytes() == before
    assert signing.public_key(host.settings) == public
    assert signer(host) is Signer.OWN


def test_device_nodes_and_set_user_id_are_restored_only_where_the_stack_has_them(host):
    import tarfile

    members = (
        file("shop/compose.yaml", b"services: {}\n"),
        file("shop/su", b"#!/bin/sh\n", mode=0o4755),
        ("shop/sda", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0}, b""),
    )
    forge(host, config=tarball(*members))
    result = host.restore()
    assert not os.path.lexists(host.root / "shop/sda")
    assert os.stat(host.root / "shop/su").st_mode & 0o7777 == 0o755
    assert {"shop/sda", "shop/su"} <= {reason.partition(":")[0] for reason in result.reasons}

    (host.root / "shop/su").write_text("changed")
    os.chmod(host.root / "shop/su", 0o4755)
    host.restore(now=LATER)
    assert os.stat(host.root / "shop/su").st_mode & 0o7777 == 0o4755


def test_a_damaged_tarball_is_refused(host):
    path = host.settings.backup_root / host.backed_up[0]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RefusedError, match="its SHA-256 is"):
        host.restore()


def test_a_directory_that_is_swapped_all_the_time_leads_no_configuration_astray(host):
    trap = host.root / "shop/trap"
    trap.symlink_to(host.victim)
    stop = threading.Event()

    def flip() -> None:
        while not stop.wait(0.0002):
            with suppress(OSError, StackwardError):
                filesystem.exchange(host.root / "shop/conf", trap)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(20):
            with suppress(StackwardError, OSError):
                host.restore(secrets=True)
            require_victim(host)
    finally:
        stop.set()
        thread.join()
    require_victim(host)
