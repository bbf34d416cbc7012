"""What a drill takes for a proof of a database: real PostgreSQL, in backups that hold less than they should."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from btrfs.test_drill import NOW, Drilled
from host.images import ensure_demo_image
from stackward.core.model import Outcome, StackResult

pytestmark = [pytest.mark.btrfs, pytest.mark.usefixtures("needs_compose", "api")]
ORDERS = "CREATE TABLE orders AS SELECT generate_series(1, 1000) AS number"


@pytest.fixture(scope="session")
def postgres() -> str:
    return ensure_demo_image()


class Shop(Drilled):
    """A database with a writer beside it, which puts in rows as soon as it can."""

    def up(
        self,
        volume: Path,
        *,
        data: str = "{volume}/db:/var/lib/postgresql/data",
        more: str = "",
        user: str = "",
        others: str = "",
    ) -> None:
        self.data = volume / "db"
        source = data.format(volume=volume)
        self.directory = self.host.stack(
            f"{self.name}-shop",
            f"""
            x-stackward: {{backup: true{more}}}
            services:
              db:
                image: {self.image}
                command: postgres
                stop_signal: SIGQUIT
                environment: {{POSTGRES_DB: shop, POSTGRES_PASSWORD: secret, {user}}}
                configs: [{{source: user, target: /user}}]
                volumes: ["{source}"]
                labels: {{stackward.backup.quiesce: stop}}
              writer:
                image: {self.image}
                command: writer
                stop_signal: SIGKILL
                environment: {{PGHOST: db, PGUSER: postgres, PGDATABASE: shop, PGPASSWORD: secret, WRITE_EVERY_SECONDS: "0.01"}}
                depends_on: [db]
              {others}
            volumes: {{kept: {{}}}}
            configs: {{user: {{content: keeper}}}}
            """,
        )
        self.compose("up", "-d", "db")

    def compose(self, *words: str) -> None:
        subprocess.run(["docker", "compose", *words], cwd=self.directory, check=True, capture_output=True)

    def sql(self, text: str, database: str = "shop") -> None:
        command = ["docker", "exec", f"{self.name}-shop-db-1", "psql", "-U", "postgres", "-d", database, "-qAtc", text]
        for _ in range(100):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode == 0:
                return
            time.sleep(0.2)
        raise AssertionError(done.stderr)

    def tried(self, hours: int = 0) -> tuple[StackResult, list[str]]:
        """A new backup, and what comes of drilling it."""
        self.back_up(NOW + timedelta(hours=hours))
        return self.drilled(hours)

    def drilled(self, hours: int, wanted: str | None = None) -> tuple[StackResult, list[str]]:
        result = self.drill(wanted=wanted, now=NOW + timedelta(hours=hours))
        assert not [one for one in self.left() if "drill" in one or "instances" in one]
        return result.stacks[0], result.details["proofs"][f"{self.name}-shop"]


@pytest.fixture
def named_postgres(postgres: str) -> Iterator[str]:
    """As the usual image is called."""
    name = f"stackward-unit-{uuid.uuid4().hex[:8]}/postgres:17"
    subprocess.run(["docker", "tag", postgres, name], check=True)
    yield name
    subprocess.run(["docker", "rmi", name], check=True, capture_output=True)


@pytest.fixture
def shop(tmp_path: Path, volume: Path, postgres: str) -> Iterator[Shop]:
    made = Shop(tmp_path, volume, postgres, 512 << 20)
    yield made
    made.compose("down", "-v", "-t", "0")
    made.host.store.close()
    subprocess.run(["umount", made.backups], check=True)


def test_rows_are_counted_before_the_stack_can_write_any(shop: Shop, volume: Path) -> None:
    shop.up(volume)
    shop.sql(ORDERS)
    part, proofs = shop.tried()
    assert part.outcome is Outcome.OK, part.reasons
    assert "db: database postgres: 0 rows in 0 tables; database shop: 1000 rows in 1 tables" in proofs
    assert "writer: running" in proofs


def test_who_counts_is_the_user_that_a_file_names(shop: Shop, volume: Path) -> None:
    shop.up(volume, user="POSTGRES_USER_FILE: /user")
    shop.sql(f"{ORDERS}; CREATE ROLE keeper SUPERUSER LOGIN; ALTER ROLE postgres NOLOGIN")
    part, proofs = shop.tried()
    assert part.outcome is Outcome.OK, part.reasons
    assert "database shop: 1000 rows in 1 tables" in "\n".join(proofs)


def test_a_database_without_a_row_proves_nothing_though_its_stack_would_write_some(shop: Shop, volume: Path) -> None:
    shop.up(volume)
    shop.sql("CREATE TABLE orders (number bigint PRIMARY KEY, placed timestamptz NOT NULL DEFAULT now())")
    part, proofs = shop.tried()
    assert part.outcome is Outcome.FAILED
    assert part.reasons[0].startswith("db: 0 rows in 1 tables in all its databases prove nothing")
    assert "writer: running" not in proofs


def test_a_database_that_is_made_anew_since_its_backup_is_empty_fails(shop: Shop, volume: Path) -> None:
    shop.up(volume)
    shop.sql(ORDERS)
    shop.compose("stop")
    subprocess.run(["find", shop.data, "-mindepth", "1", "-delete"], check=True)
    part, _ = shop.tried()
    assert part.outcome is Outcome.FAILED
    assert part.reasons[0] == (
        "db: the database in /var/lib/postgresql/data was made anew when it started, and the backup holds none for it:"
        " this proves nothing of the backup"
    )


def test_what_was_lost_since_the_last_proof_fails_until_it_is_accepted(shop: Shop, volume: Path) -> None:
    shop.up(volume)
    shop.sql(ORDERS)
    shop.sql("CREATE DATABASE wiki")
    shop.sql(ORDERS, "wiki")
    assert shop.tried()[0].outcome is Outcome.OK
    shop.sql("TRUNCATE orders")
    part, _ = shop.tried(hours=1)
    assert part.outcome is Outcome.FAILED
    lost = "database shop: 0 rows in 1 tables, where the last proof had 1000 rows in 1 tables"
    assert lost in part.reasons[0]
    assert shop.drilled(1)[0].outcome is Outcome.FAILED  # what failed is no measure for the next
    shop.host.store.accept(f"{shop.name}-shop", NOW + timedelta(hours=1))
    part, _ = shop.tried(hours=2)
    assert part.outcome is Outcome.OK, part.reasons


def test_few_rows_are_warned_of_until_they_are_accepted_and_older_data_is_not_compared(
    shop: Shop, volume: Path
) -> None:
    shop.up(volume)
    shop.sql("CREATE TABLE orders AS SELECT generate_series(1, 3) AS number")
    oldest = shop.back_up()
    shop.sql("INSERT INTO orders SELECT generate_series(4, 1000)")
    assert shop.tried(hours=24)[0].outcome is Outcome.OK
    shop.sql("DELETE FROM orders WHERE number > 50")
    for part, _ in (shop.tried(hours=48), shop.drilled(49)):
        assert part.outcome is Outcome.WARN
        assert "database shop: 50 rows in 1 tables, where the last proof had 1000 rows in 1 tables" in part.reasons[0]
    part, proofs = shop.drilled(50, wanted=oldest)
    assert (part.outcome, part.artifact) == (Outcome.OK, oldest), part.reasons
    assert "database shop: 3 rows in 1 tables" in "; ".join(proofs)
    assert shop.drilled(51)[0].outcome is Outcome.WARN
    shop.host.store.accept(f"{shop.name}-shop", NOW + timedelta(hours=52))
    assert shop.drilled(53, wanted=oldest)[0].outcome is Outcome.OK  # which uses up no consent
    for hours in (54, 55):
        assert shop.drilled(hours)[0].outcome is Outcome.OK


def test_a_client_of_a_database_has_nothing_to_prove_and_fails_nothing(
    shop: Shop, volume: Path, named_postgres: str
) -> None:
    client = f"{{image: '{named_postgres}', command: sleep inf, stop_signal: SIGKILL, environment: {{SAYS}}}}"
    names = {
        "asks": "PGHOST: db, PGUSER: reader, PGPASSWORD: secret",
        "keeps": "POSTGRES_PASSWORD: secret, PGHOST: db",
        "waits": "X: y",
    }
    others = "\n              ".join(f"{name}: {client.replace('SAYS', says)}" for name, says in names.items())
    shop.up(volume, others=others, more=", staging.wait: 20s")
    shop.sql(f"{ORDERS}; CREATE ROLE reader LOGIN PASSWORD 'secret'")
    part, proofs = shop.tried()
    assert part.outcome is Outcome.OK, part.reasons
    assert "database shop: 1000 rows in 1 tables" in "; ".join(proofs)
    for name in ("asks", "keeps"):
        assert f"{name}: a client, the database of db answers it: nothing of its data is proven" in proofs
    assert any(proof.startswith("waits: no database runs in it, and the backup holds none for it") for proof in proofs)


@pytest.mark.parametrize(
    ("data", "more"),
    [
        ("kept:/var/lib/postgresql/data", ", backup.skip: [kept]"),
        ("{volume}/db:/var/lib/postgresql/data", ", backup.skip: ['{volume}/db']"),
    ],
)
def test_one_that_is_to_start_empty_is_no_failure_and_proves_nothing(
    shop: Shop, volume: Path, data: str, more: str
) -> None:
    shop.up(volume, data=data, more=more.format(volume=volume))
    part, proofs = shop.tried()
    assert part.outcome is Outcome.OK, part.reasons
    assert "db: it starts empty, as it is to: nothing of its data is proven" in proofs
