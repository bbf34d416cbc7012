"""What a machine needs before it can hold disposable hosts: a running Docker Engine and the base image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .shell import CommandError, answers, run, say

BASE_IMAGE = "debian:trixie-slim"
IMAGE_LABEL = "dev.stackward.host-image"
PULL_SECONDS = 300


def ensure_engine() -> None:
    """A Docker Engine answers after this; it is installed from Debian and started where there is none."""
    if answers(["docker", "info"]):
        return
    if not shutil.which("dockerd"):
        apt_install("docker.io")
    if not shutil.which("docker"):
        apt_install("docker-cli")
    say("Starting the Docker Engine")
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"])
    else:
        _forget_dead_engine()
        log = Path("/var/log/dockerd.log").open("ab")  # noqa: SIM115  dockerd keeps it
        subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 60
    while not answers(["docker", "info"]):
        if time.monotonic() > deadline:
            raise CommandError(
                "the Docker Engine does not answer\nHINT: `docker info` says why; see /var/log/dockerd.log"
            )
        time.sleep(0.5)


def _forget_dead_engine() -> None:
    """Remove the notes of an engine that was killed: once another process has its number, no engine starts beside them."""
    for file, program in (("docker.pid", "dockerd"), ("docker/containerd/containerd.pid", "containerd")):
        note = Path("/var/run", file)
        try:
            number = note.read_text(encoding="ascii").strip()
        except OSError:
            continue
        try:
            running = Path("/proc", number, "comm").read_text(encoding="ascii").strip()
        except OSError:
            running = ""
        if running != program:
            note.unlink()


def apt_install(*packages: str) -> None:
    say(f"Installing {' '.join(packages)}")
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    run([*quiet, "update"])
    run([*quiet, "install", "-y", "--no-install-recommends", *packages], timeout=1200)


def ensure_base_image() -> str:
    """The name of an image of Debian trixie that trusts whom this machine trusts.

    Pulled where a registry answers; otherwise made with mmdebstrap from the mirror that this machine's own apt uses.
    """
    authorities = extra_authorities()
    if not answers(["docker", "image", "inspect", BASE_IMAGE]):
        say(f"Fetching {BASE_IMAGE}")
        if not answers(["docker", "pull", "--quiet", BASE_IMAGE], timeout=PULL_SECONDS):
            _bootstrap_base_image(authorities)
    if not authorities or IMAGE_LABEL in run(["docker", "image", "inspect", BASE_IMAGE]).stdout:
        return BASE_IMAGE
    return _with_authorities(authorities)


def _bootstrap_base_image(authorities: list[str]) -> None:
    say("No registry answers: making the base image from this machine's Debian mirror (about half a minute)")
    if not shutil.which("mmdebstrap"):
        apt_install("mmdebstrap")
    with tempfile.TemporaryDirectory() as scratch:
        _write_certificates(Path(scratch, "ca"), authorities)
        hook = f'mkdir -p "$1/usr/local/share" && cp -r {scratch}/ca "$1/usr/local/share/ca-certificates"'
        options = ["--quiet", "--variant=minbase", "--include=ca-certificates", f"--essential-hook={hook}"]
        archive = f"{scratch}/trixie.tar"
        run(["mmdebstrap", *options, "trixie", archive, debian_mirror()], timeout=1200)
        run(["docker", "import", "--change", f"LABEL {IMAGE_LABEL}=base", archive, BASE_IMAGE])


def _with_authorities(authorities: list[str]) -> str:
    name = "stackward-host/base:latest"
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "Dockerfile").write_text(
            f"FROM {BASE_IMAGE}\nLABEL {IMAGE_LABEL}=base\nCOPY ca/ /usr/local/share/ca-certificates/\n"
        )
        _write_certificates(Path(scratch, "ca"), authorities)
        run(["docker", "build", "--quiet", "--tag", name, scratch])
    return name


def _write_certificates(directory: Path, certificates: list[str]) -> None:
    directory.mkdir()
    for number, certificate in enumerate(certificates):
        (directory / f"machine-{number}.crt").write_text(certificate)


def extra_authorities() -> list[str]:
    """The certificates this machine trusts beyond Debian's own set: an inspecting proxy's, a company's."""
    known = {body for file in Path("/usr/share/ca-certificates").rglob("*.crt") for body in _certificates(file)}
    bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    if not known or not bundle.exists():
        return []
    return [body for body in _certificates(bundle) if body not in known]


def _certificates(file: Path) -> list[str]:
    pattern = r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
    return [f"{body}\n" for body in re.findall(pattern, file.read_text(errors="replace"), re.DOTALL)]


def debian_mirror() -> str:
    """The first archive URI with the machine's own release in apt's configuration, in either of its two formats."""
    release = _os_release().get("VERSION_CODENAME", "")
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for place in places:
        if not place.is_file():
            continue
        text = place.read_text(errors="replace")
        for uri, suites in _deb822_entries(text) if place.suffix == ".sources" else _one_line_entries(text):
            if release in suites:
                return uri
    raise CommandError(
        f"no mirror for {release or 'this release'} in /etc/apt/sources.list or sources.list.d\n"
        f"HINT: get {BASE_IMAGE} onto this machine yourself: docker load, or docker pull elsewhere"
    )


def _deb822_entries(text: str) -> list[tuple[str, list[str]]]:
    entries = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(URIs|Suites|Types|Enabled):\s*(.+)$", stanza, re.MULTILINE))
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
            entries += [(uri, fields.get("Suites", "").split()) for uri in fields.get("URIs", "").split()]
    return entries


def _one_line_entries(text: str) -> list[tuple[str, list[str]]]:
    return [(uri, [suite]) for uri, suite in re.findall(r"^deb\s+(?:\[.*?\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE)]


def _os_release() -> dict[str, str]:
    pairs = (line.partition("=") for line in Path("/etc/os-release").read_text().splitlines())
    return {key: value.strip('"') for key, _, value in pairs}


def build_arguments() -> list[str]:
    """This machine's own proxy and package index settings as `docker build` options; none where it has none."""
    values = {
        name: os.environ[name] for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "no_proxy")
    }
    apt_proxy = run(["apt-config", "shell", "p", "Acquire::http::Proxy"]).stdout if shutil.which("apt-config") else ""
    if apt_proxy and not {"http_proxy", "HTTP_PROXY"} & set(values):
        values["http_proxy"] = apt_proxy.strip().removeprefix("p=").strip("'")
    for option in ("index-url", "extra-index-url", "trusted-host", "proxy"):
        value = _pip_setting(option)
        if value and "file:" not in value:
            values[f"PIP_{option.upper().replace('-', '_')}"] = value
    return [word for name, value in values.items() for word in ("--build-arg", f"{name}={value}")]


def _pip_setting(option: str) -> str:
    name = f"PIP_{option.upper().replace('-', '_')}"
    if name in os.environ:
        return os.environ[name]
    try:
        found = run(["python3", "-m", "pip", "config", "get", f"global.{option}"], check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def privileges() -> list[str]:
    """What `docker run` must be told so that a whole host works inside.

    `--privileged` asks for every capability there is, and fails where this machine itself lacks one.
    """
    mask = int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line).split()[1], 16
    )
    capabilities = [f"--cap-add={name}" for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1]
    profiles = [f"--security-opt={name}=unconfined" for name in ("seccomp", "apparmor", "systempaths")]
    # Hosts share the machine's cgroup tree; in a namespace of its own, each sees only its branch.
    return [*capabilities, *profiles, "--device-cgroup-rule=a *:* rwm", "--cgroupns=private"]


# By number, as in capabilities(7); engine 20.10 refuses the names that came later.
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
]
