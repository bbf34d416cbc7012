"""`make demo`: a first day with Stackward on a disposable host, each step with the command that does it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

from .engine import ensure_engine
from .images import CHECKOUT
from .machine import ALL_STACKS, APPLIANCE_HOME, HOST_LABEL, Host, remove_labelled
from .shell import CommandError

# One demo a checkout: a second `make demo` begins again, a demo of another checkout is left alone.
OWNER = f"demo-{hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:6]}"
NAME = f"stackward-{OWNER}"
ROWS = "docker exec shop-db-1 psql -U postgres -d shop -qAtc 'SELECT count(*), coalesce(max(number), 0) FROM orders'"


class Screen:
    """Prints what happens, bold on a terminal; commands draw their progress on it too."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.step = 0

    def heading(self, words: str) -> None:
        self.step += 1
        line = f"{self.step}. {words}"
        print(f"\n\033[1m{line}\033[0m" if self.is_terminal else f"\n{line}", flush=True)

    def do(self, host: Host, command: str) -> None:
        """Show a command of the host, and run it there; what it prints appears as it comes."""
        print(f"   $ {command}", flush=True)
        if command.startswith("stackward "):
            terminal = "-t " if self.is_terminal else ""
            command = f"docker exec {terminal}stackward {command}{'' if self.is_terminal else ' --human'}"
        options = ["--interactive", "--tty"] if self.is_terminal else []
        done = subprocess.run(["docker", "exec", *options, host.name, "sh", "-c", f"exec 2>&1; {command}"], check=False)
        if done.returncode != 0:
            raise CommandError(f"exit code {done.returncode} from: {command}")


def demo() -> None:
    began, screen = time.monotonic(), Screen()
    ensure_engine()
    remove()

    screen.heading("A disposable Docker host (the first time, its images are made: some minutes)")
    host = Host.start(OWNER, name=NAME)
    host.stacks_up(ALL_STACKS)
    screen.do(host, "docker ps --all --format 'table {{.Names}}\t{{.Status}}'")

    screen.heading("Stackward starts beside the stacks, as on any host")
    host.appliance_up()
    screen.do(host, f"cd {APPLIANCE_HOME} && docker compose up -d")
    screen.do(host, "stackward status")

    screen.heading("A key for the secrets capsule: keep the recovery sheet and the key elsewhere")
    screen.do(host, "stackward init")
    recipient = host.stackward_json("init")["recipients"][0]
    setting = f"STACKWARD_AGE_RECIPIENTS={recipient}"
    screen.do(host, f"cd {APPLIANCE_HOME} && echo {setting} >>.env && docker compose up -d")
    host.wait_for_appliance()

    screen.heading("What it found: each stack, its trees, and what covers them")
    screen.do(host, "stackward stacks")

    screen.heading("The first backup, while the shop takes five orders a second")
    before = _orders(host)
    screen.do(host, "stackward backup")
    print(f"   {before} orders were in when the backup began, {_orders(host)} are in now.")

    screen.heading("Is what was written what is on the disk?")
    screen.do(host, "stackward verify")
    screen.do(host, "stackward list")

    screen.heading("A bad day: the shop's database is gone")
    screen.do(host, "cd /opt/docker/shop && docker compose kill && rm -rf /srv/containers/shop/db")

    screen.heading("The shop comes back")
    screen.do(host, "stackward restore shop")
    # The database alone first: the writer would go on taking orders while they are counted.
    screen.do(host, "cd /opt/docker/shop && docker compose up -d --wait db")
    restored = _orders(host)
    print(f"   {before} orders were in when the backup began; {restored} are back.")
    if restored < before:
        raise CommandError(f"{before - restored} orders are missing")
    screen.do(host, "cd /opt/docker/shop && docker compose up -d")
    screen.do(host, "stackward status")

    screen.heading("systemd owns the stacks: the host's units, and a restart through them from inside the appliance")
    for part in ("host-units", "image/logrotate.conf"):
        host.put(CHECKOUT / part, f"{APPLIANCE_HOME}/{part}")
    screen.do(
        host, f"cd {APPLIANCE_HOME} && host-units/install >/var/log/host-units.log && tail -n 1 /var/log/host-units.log"
    )
    screen.do(host, "stackward host restart site")
    screen.do(host, "journalctl --no-pager --output cat --lines 3 --unit docker-compose@site")

    screen.heading("The week, and what Prometheus is told")
    screen.do(host, "stackward jobs")
    screen.do(host, "curl --silent --fail http://127.0.0.1:9466/metrics | grep '^stackward_stack_protected'")

    print(f"""
Done in {time.monotonic() - began:.0f} seconds. The host is yours to explore:
   make demo-shell                                              a shell on it
   make on-host CMD='docker exec stackward stackward status'    one command on it
   make demo-down                                               remove every trace""")


def _orders(host: Host) -> int:
    """How many orders the shop has; without a gap, or something was lost in between."""
    host.wait_until(f"{ROWS} | grep -v '^0'")
    count, highest = host.run(ROWS).stdout.strip().split("|")
    if count != highest:
        raise CommandError(f"the shop holds {count} orders, but the last one is number {highest}")
    return int(count)


def find() -> Host:
    """This checkout's demo host; raises where there is none."""
    host = Host.find(NAME)
    if host is None:
        raise CommandError("no demo host is running\nHINT: `make demo` starts one")
    return host


def remove() -> None:
    """Remove this checkout's demo host with its volumes and loop devices."""
    remove_labelled(f"{HOST_LABEL}={OWNER}")
