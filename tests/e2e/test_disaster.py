"""The whole host is lost. A second one gets BACKUP_ROOT and the age identity, nothing else, and everything is back.

The story happens once; the tests look at what came of it. What is typed on the new host is what the recovery sheet says,
word for word.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from host import Disks, Host

pytestmark = pytest.mark.e2e

KEY = "/etc/stackward/age.key"
FAST_WRITER = """
services:
  writer:
    environment:
      WRITE_EVERY_SECONDS: "0.01"
"""
# Rows are inserted into the two-pass stack too; a line in the log is a row that the database has promised to keep.
PHOTO_WRITER = """
psql="psql -qAt -v ON_ERROR_STOP=1 -U postgres -d immich"
$psql -c 'CREATE TABLE photos (number bigint PRIMARY KEY)'
n=0
while n=$((n + 1)); $psql -c "INSERT INTO photos VALUES ($n)"; do date +"%s.%N $n" >>/tmp/committed; done
"""
ODD = "/opt/docker/wiki/odd"  # a directory of configuration with things that are easily lost


@dataclass(frozen=True)
class Log:
    """What a database said it had committed, and when the backup's snapshot was taken."""

    committed: list[tuple[datetime, int]]
    at: datetime

    @property
    def promised(self) -> set[int]:
        """Rows committed before the snapshot was begun."""
        return {number for when, number in self.committed if when < self.at}

    @property
    def last(self) -> int:
        return max(number for _, number in self.committed)


@dataclass(frozen=True)
class Recovered:
    """The second host, and what was known of the first one."""

    host: Host
    shop: Log
    photos: Log
    listings: dict[str, str]
    said: dict[str, object]
    sheet: str


def listing(host: Host, directory: str) -> str:
    """Every file's owner, mode, size, links and content, in one text."""
    found = f"cd {directory} && find . -printf '%p %y %m %U:%G %n %l\\n' | sort"
    sums = f"cd {directory} && find . -type f -exec sha256sum {{}} + | sort -k2"
    attributes = f"cd {directory} && getfattr -Rhd -m - . 2>/dev/null | cat"
    return host.run(f"({found}); ({sums}); ({attributes})").stdout


def committed_by_writer(host: Host) -> list[tuple[datetime, int]]:
    log = host.run("docker logs --timestamps shop-writer-1 2>/dev/null").stdout
    return [
        (datetime.fromisoformat(f"{stamp[:26]}+00:00"), int(number))
        for stamp, number in re.findall(r"^(\S+) committed (\d+)$", log, re.MULTILINE)
    ]


def committed_by_photos(host: Host) -> list[tuple[datetime, int]]:
    log = host.run("docker exec photos-database-1 cat /tmp/committed").stdout
    return [(datetime.fromtimestamp(float(line.split()[0]), UTC), int(line.split()[1])) for line in log.splitlines()]


def rows(host: Host, container: str, database: str, table: str) -> set[int]:
    query = f"docker exec {container} psql -U postgres -d {database} -qAtc 'SELECT number FROM {table}'"
    return {int(line) for line in host.run(query).stdout.split()}


def first_life(first: Host) -> tuple[str, Log, Log, dict[str, str]]:
    """A host that is used, decided about and backed up while its databases are written to."""
    sheet = first.stackward_json("init", "photos")["recovery_sheet"]
    recipient = re.search(r"age1\w+", sheet)
    assert recipient
    first.put(f'STACKWARD_AGE_RECIPIENTS = ["{recipient[0]}"]\n', "/etc/stackward/stackward.toml")
    first.put(FAST_WRITER, "/opt/docker/shop/compose.override.yaml")
    first.run("cd /opt/docker/shop && docker compose up -d --wait")
    first.put(PHOTO_WRITER, "/tmp/photo-writer")
    first.run("docker exec -i photos-database-1 tee /tmp/writer </tmp/photo-writer")
    first.run("docker exec -d photos-database-1 bash /tmp/writer")
    first.run("docker exec wiki-wiki-1 sh -c 'echo page >/pages/page.html; echo picture >/pages/files/picture'")
    first.run("docker exec wiki-wiki-1 sh -c 'ln /pages/page.html /pages/same; chown 4711:42 /pages/page.html'")
    first.run(f"mkdir -m 2750 {ODD} && cd {ODD} && mkfifo fifo && ln -s /nowhere dangling && printf x >'-a\nb\\c'")
    first.run("docker exec shop-db-1 psql -U postgres -d shop -qc CHECKPOINT")

    done = first.stackward_json("backup")
    assert done["exit_code"] == 0
    index = json.loads(first.run("cat /backup/docker/data-*/stackward.json").stdout)
    at = {name: datetime.fromisoformat(entry["at"]) for name, entry in index["stacks"].items()}
    last = first.run("docker logs --tail 1 shop-writer-1").stdout
    first.wait_until(f"docker logs --tail 1 shop-writer-1 | grep committed | grep -vxF '{last.strip()}'")
    shop = Log(committed_by_writer(first), at["shop"])
    photos = Log(committed_by_photos(first), at["photos"])
    listings = {place: listing(first, place) for place in ("/srv/containers/wiki-files", ODD, "/opt/docker/site/data")}
    listings["pages"] = listing(first, "$(docker volume inspect -f '{{.Mountpoint}}' wiki_pages)")
    return sheet, shop, photos, listings


def commands(sheet: str) -> list[str]:
    """What the sheet says to type to Stackward, in its order."""
    return re.findall(r"docker exec stackward (stackward .*)$", sheet, re.MULTILINE)


@pytest.fixture(scope="module")
def recovered(host_run):
    started = []
    try:
        first = Host.start(host_run.id)
        started.append(first)
        first.stacks_up(["photos", "shop", "site", "wiki"])
        first.appliance_up()
        sheet, shop, photos, listings = first_life(first)

        second = Host.start(host_run.id, Disks(backup="ext4:3072"))
        started.append(second)
        first.copy_to(second, "/backup/docker")
        identity = first.get(KEY)
        first.destroy()
        started.remove(first)

        second.appliance_up()
        second.put(identity, KEY, mode=0o600)
        signer = re.search(r"ssh-ed25519 \S+", sheet)
        assert signer is not None
        second.put(f"{signer[0]}\n", "/etc/stackward/trusted_signers")
        said = {}
        for line in commands(sheet):
            for stack in ["photos", "shop", "site", "wiki"] if "STACK" in line else [""]:
                words = line.replace("STACK", stack).split()[1:]
                said[" ".join(words)] = second.stackward_json(*words)
        second.stacks_up([])
        for stack in ("shop", "site", "wiki"):
            second.run(f"cd /opt/docker/{stack} && docker compose up -d --wait --wait-timeout 60")
        second.run("cd /opt/docker/photos && docker compose up -d --wait --wait-timeout 60 server")
        yield Recovered(second, shop, photos, listings, said, sheet)
    finally:
        for one in started:
            one.destroy()


def test_every_row_committed_up_to_the_snapshot_is_back(recovered):
    assert len(recovered.shop.promised) > 20
    assert recovered.shop.last > max(recovered.shop.promised), "the writer had stopped before the snapshot"
    back = rows(recovered.host, "shop-db-1", "shop", "orders")
    assert recovered.shop.promised <= back


def test_a_database_copied_in_two_passes_is_back_whole(recovered):
    assert len(recovered.photos.promised) > 20
    assert rows(recovered.host, "photos-database-1", "immich", "photos") >= recovered.photos.promised


def test_the_databases_are_sound_and_go_on(recovered):
    for container, database in (("shop-db-1", "shop"), ("photos-database-1", "immich")):
        recovered.host.run(f"docker exec {container} pg_amcheck -U postgres -d {database} --install-missing")
    before = max(rows(recovered.host, "shop-db-1", "shop", "orders"))
    recovered.host.wait_until(f"docker logs shop-writer-1 | grep -x 'committed {before + 5}'")


def test_the_dump_beside_the_trees_restores_too(recovered):
    dump = "/backup/docker/data-*/.dumps/photos/database.postgres.sql.gz"
    recovered.host.run(f"zcat {dump} | sed s/immich/again/ | docker exec -i photos-database-1 psql -q -U postgres")
    numbers = rows(recovered.host, "photos-database-1", "again", "photos")
    assert numbers == set(range(1, max(numbers) + 1))


def test_named_volumes_binds_and_configuration_are_as_they_were(recovered):
    for place, before in recovered.listings.items():
        where = "$(docker volume inspect -f '{{.Mountpoint}}' wiki_pages)" if place == "pages" else place
        assert listing(recovered.host, where) == before, place


def test_secrets_come_from_the_capsule_and_from_nowhere_else(recovered):
    host = recovered.host
    assert host.get("/opt/docker/shop/.env") == b"POSTGRES_PASSWORD=correct-horse\n"
    assert b"battery-staple" in host.get("/opt/docker/photos/stack.env")
    host.run("mkdir /tmp/open && tar -xzf /backup/docker/configs-*.tar.gz -C /tmp/open")
    assert (
        host.run("grep -rlE 'correct-horse|battery-staple' /tmp/open /backup/docker/data-*", check=False).stdout == ""
    )


def test_nothing_was_left_out_silently(recovered):
    outcomes = {words: result["outcome"] for words, result in recovered.said.items()}
    assert set(outcomes.values()) == {"ok"}, {words: recovered.said[words] for words in outcomes}


def test_the_next_backup_goes_on_from_there(recovered):
    done = recovered.host.stackward_json("backup", "--verify", check=False)
    assert done["exit_code"] == 0, done
    assert [step["outcome"] for step in done["steps"] if step["job"] == "backup-data"] == ["ok"]


def test_without_stackward_plain_tools_do_it_too(recovered):
    """The sheet's other half, word for word, where age is at hand: in the appliance's container."""
    plain = recovered.sheet.partition("Without Stackward")[2]
    script = "\n".join(line.strip() for line in plain.splitlines() if line.startswith("  "))
    for pattern in ("configs-STAMP", "secrets-STAMP", "data-DATE"):
        glob = pattern.replace("STAMP", "*[0-9]").replace("DATE", "*")
        name = recovered.host.run(f"cd /backup/docker && ls -d {glob}* | sed 's/[.].*//' | head -1").stdout.strip()
        script = script.replace(pattern, name)
    script = script.replace("STACK", "site").replace("/opt/docker", "/tmp/plain").replace("age.key", KEY)
    recovered.host.put(f"set -e\nmkdir -p /tmp/plain\n{script}", "/tmp/script")
    recovered.host.run("docker exec -i stackward bash -s </tmp/script")
    there = recovered.host.run("docker exec stackward cat /tmp/plain/site/data/index.html /tmp/plain/shop/.env").stdout
    assert "Hello" in there
    assert "correct-horse" in there
