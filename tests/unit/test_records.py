"""Records outlive the version that wrote them: what an older one wrote is read, what a newer one wrote is kept and told."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stackward import wiring
from stackward.cli.main import main
from stackward.core import records
from stackward.core.counts import Count, Counted
from stackward.core.errors import ExitCode, RefusedError
from stackward.core.index import parse_index
from stackward.core.model import Counts, JobResult, Outcome, StackResult
from stackward.core.records import NewerRecordError
from stackward.jobs import prune
from stackward.observe.notice import Channel, Kind, Message
from stackward.steps import catalog, left_alone, undo_records
from stackward.steps.backup import day_plan
from stackward.steps.report.view import look
from stackward.steps.restore import kept, restore_plan
from stackward.steps.restore.home import KEPT
from stackward.steps.undo import Step, Undo
from stackward.store import Store
from stackward.store.database import NewerStoreError
from stackward.tools.locks import Locks
from unit.backups import seal, stack_entry, tree, write_files
from unit.hosts import NOW, SmallHost

FIXTURES = Path(__file__).parents[1] / "fixtures/records"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SHOP = """
    services:
      web:
        image: x
        volumes: ["./data:/data"]
        labels: {stackward.backup: "true"}
"""


@pytest.fixture
def host(tmp_path):
    made = SmallHost(tmp_path / "host", minimum_free_bytes=0)
    made.stack("shop", SHOP, data__a="now")
    yield made
    made.store.close()


# What a newer version may do to a document: what this one ignores, and what it must not act on.
ADDED = {
    "a key": lambda document: document.update(novelty={"deep": [1]}),
    "no requirement": lambda document: document.update(requires=[]),
}
NEWER = {
    "a requirement": lambda document: document.update(requires=["novelty"]),
    "a format": lambda document: document.update(format=2),
}


def fixtures(kind):
    found = sorted(FIXTURES.glob(f"{kind}-*"))
    assert found, kind
    return [pytest.param(path, id=path.name) for path in found]


# Records of before.


@pytest.mark.parametrize("path", fixtures("index"))
def test_an_index_of_each_format_is_read(path):
    index = parse_index(path.read_text())
    shop = index.stacks["shop"]
    assert [one.path for one in shop.trees] == ["shop", ".mounts/shop/uploads"]
    assert (index.host, shop.dumps[0].path, shop.standstill_seconds) == ("nas", ".dumps/shop/db.sql", 0.2)
    assert "caf\udce9" in index.stacks


@pytest.mark.parametrize("path", fixtures("kept"))
def test_a_kept_restore_of_each_format_is_read(path, tmp_path):
    (tmp_path / "20261121T120000-abcdef.json").write_bytes(path.read_bytes())
    (record,) = kept.records(tmp_path)
    assert (record.subject, record.whole_stack, record.done) == ("shop", True, True)
    written = json.loads(path.read_text())["entries"]
    assert [entry.identity for entry in record.entries] == [entry["identity"] for entry in written]
    assert [entry.place for entry in record.entries] == [entry["place"] for entry in written]


@pytest.mark.parametrize("path", fixtures("undo"))
def test_an_undo_record_of_each_format_is_understood(path, tmp_path):
    (tmp_path / "1.json").write_bytes(path.read_bytes())
    undo = Undo(tmp_path, None)
    assert (undo.open_count(), undo.left_alone()) == (1, [])


def test_a_step_of_every_kind_stands_in_the_fixtures():
    texts = [path.read_text() for path in FIXTURES.glob("undo-*")]
    found = {step["do"] for text in texts for step in json.loads(text)["steps"]}
    assert found == Undo.KNOWN


@pytest.mark.parametrize("path", fixtures("store"))
def test_a_run_history_of_each_version_is_read(path, tmp_path):
    file = history(tmp_path, path.read_text())
    with Store.open(file, now=NOON, locks=Locks(tmp_path / "locks")) as store:
        assert store.warning == ""
        assert store.opted_in() == {"shop", "caf\udce9"}
        assert store.holds()["shop"].tree == "/opt/docker/shop/data"
        assert store.accepted_at("wiki") == NOON
        assert store.verified()["data-2026-11-20"].outcome is Outcome.FAILED
        assert store.note("host-name") == "nas"
        (part,) = store.stacks_of("20261121T120000-abcdef")
        assert (part.counts, part.artifacts) == (Counts(files=3), ("data-2026-11-21",))
        assert store.facts().jobs
        record(store)
        version = int(path.stem.removeprefix("store-"))
        if version >= 2:
            assert store.alerts("backup-data") == {"shop": "no space left"}
        if version >= 3:
            assert store.drills()["shop"].proofs == ("web answers",)


def history(directory, script):
    file = directory / "s.sqlite"
    with closing(sqlite3.connect(file)) as raw:
        raw.executescript(script)
    return file


def record(store):
    """Write a row into every table."""
    store.remember_opted_in("new", NOON)
    store.hold("new", "/t", "it shrank", NOON)
    store.accept("other", NOON)
    store.record_verified("data-2026-11-22", NOON, Outcome.OK, 0, [])
    store.copy_verified("data-2026-11-22", "data-2026-11-22.replaced-20261122_120000")
    store.set_note("a", "b")
    run = store.begin_run("backup-data", NOON + timedelta(days=1), "cli")
    part = StackResult("new", Outcome.OK, counts=Counts(files=1))
    store.end_run(run, NOON + timedelta(days=1, minutes=1), JobResult(Outcome.OK, stacks=(part,)))
    store.forget_idle(store.begin_run("verify", NOON, "cli"), "nothing to do")
    store.change_alerts("health", {"new": "down"}, at=NOON, compose=lambda _: Message("t", "b", Kind.FAILURE))
    store.post(Channel.PING, Message("ping", ""), NOON)
    store.request("verify", NOON)
    counted = Counted(NOON, (Count("db", "shop", 3, 1),))
    store.record_drill("new", NOON, Outcome.OK, "data-2026-11-22", ("it answers",), (), counted)
    return run


# The store of a newer version.


def test_a_history_with_more_columns_and_tables_is_used_as_it_is(tmp_path):
    locks = Locks(tmp_path / "locks")
    file = tmp_path / "s.sqlite"
    Store.open(file, now=NOON, locks=locks).close()
    with closing(sqlite3.connect(file, isolation_level=None)) as raw:
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if not table.startswith("sqlite_"):
                raw.execute(f"ALTER TABLE {table} ADD COLUMN novelty TEXT NOT NULL DEFAULT 'usual'")
        raw.execute("CREATE TABLE novelty (a, b)")
        raw.execute("PRAGMA user_version = 99")
        raw.execute("INSERT INTO note (key, value) VALUES ('requires', '[]')")
    with Store.open(file, now=NOON, locks=locks) as store:
        run = record(store)
        assert store.opted_in() == {"new"}
        assert store.verified().keys() == {"data-2026-11-22", "data-2026-11-22.replaced-20261122_120000"}
        assert [row.stack for row in store.stacks_of(run)] == ["new"]
        assert store.drills()["new"].counted == Counted(NOON, (Count("db", "shop", 3, 1),))
        assert store.alerts("health") == {"new": "down"}
        assert len(store.due_notices(NOON)) == 2
    with closing(sqlite3.connect(file)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (99,)
        assert raw.execute("SELECT DISTINCT novelty FROM drill").fetchall() == [("usual",)]
    assert [path.name for path in tmp_path.iterdir() if "damaged" in path.name] == []


def test_words_and_figures_that_only_a_newer_version_knows_do_no_harm(tmp_path):
    locks = Locks(tmp_path / "locks")
    file = tmp_path / "s.sqlite"
    with Store.open(file, now=NOON, locks=locks) as store:
        run = record(store)
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute(
            """UPDATE run SET outcome = 'splendid', counts = '{"files": 4, "novelty": 1}' WHERE id = ?""", [run]
        )
        raw.execute("UPDATE run_total SET outcome = 'splendid' WHERE job = 'backup-data'")
        raw.execute("UPDATE latest SET outcome = 'splendid'")
        raw.execute("UPDATE verified SET outcome = 'splendid'")
        raw.execute("UPDATE notice SET channel = 'pigeon' WHERE channel = 'ping'")
        raw.execute("UPDATE notice SET kind = 'novelty'")
        counted = '{"at": "2026-11-21T12:00:00+00:00", "counts": [["db", "shop", 3, 1, "more"]], "novelty": 1}'
        raw.execute("UPDATE drill SET outcome = 'splendid', counted = ?", [counted])
    with Store.open(file, now=NOON, locks=locks) as store:
        row = store.run(run)
        assert row is not None
        assert (row.outcome, row.counts.files) == (Outcome.FAILED, 4)
        assert {one.outcome for one in store.facts().jobs} == {Outcome.FAILED}
        assert {one.outcome for one in store.verified().values()} == {Outcome.FAILED}
        assert [one.channel for one in store.due_notices(NOON)] == [Channel.NOTIFY]
        assert store.drills()["new"].counted == Counted(NOON, (Count("db", "shop", 3, 1),))


def test_a_look_at_the_host_with_more_in_it_is_read(host):
    host.store.keep_view(look(host.settings, host.store, host.discover, now=NOW, open_undo=0, intervals={}).view)
    document = json.loads(host.store.note("view") or "")
    for part in (document, *document["stacks"], *document["spaces"], *document["backups"]):
        part["novelty"] = 1
    host.store.set_note("view", json.dumps(document))
    view = host.store.facts().view
    assert view is not None
    assert [stack.name for stack in view.stacks] == ["shop"]


@pytest.mark.parametrize("required", ['["novelty"]', "no JSON", '"novelty"'])
def test_a_history_that_requires_what_is_not_known_is_refused_untouched(tmp_path, required):
    locks = Locks(tmp_path / "locks")
    file = tmp_path / "s.sqlite"
    with Store.open(file, now=NOON, locks=locks) as store:
        store.set_note("requires", required)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("s.sqlite*")}
    with pytest.raises(NewerStoreError, match="not for this version") as refused:
        Store.open(file, now=NOON, locks=locks)
    assert refused.value.exit_code == ExitCode.REFUSED
    assert {path.name: path.read_bytes() for path in tmp_path.glob("s.sqlite*") if path.stat().st_size} == before


def test_what_killed_runs_left_is_put_back_also_where_the_history_is_refused(host, monkeypatch, capsys):
    host.store.set_note("requires", '["novelty"]')
    moved = left_by_a_killed_run(host)
    with pytest.raises(RefusedError):
        wiring.build(host.settings)
    assert moved.read_text() == "precious"
    left_by_a_killed_run(host)
    for name, value in host.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["status"]) == ExitCode.REFUSED
    assert "requires novelty" in capsys.readouterr().err
    assert moved.read_text() == "precious"


def left_by_a_killed_run(host):
    """An open record of a file that was moved aside; returns where it belongs."""
    place, aside = host.root / "place", host.root / "aside"
    place.write_text("precious")
    place.rename(aside)
    write_undo(host, "1.json", {"reason": "moving", "pid": 1, "steps": [rename(aside, place)]})
    return place


# Undo records.


def rename(subject, detail):
    return {"do": "rename", "subject": str(subject), "detail": str(detail), "timeout_seconds": 60.0}


def write_undo(host, name, document):
    directory = host.settings.state_dir / "undo"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(json.dumps(document))


def undo_document(host, **more):
    """Two files were moved aside."""
    steps = []
    for name in ("one", "two"):
        (host.root / f"{name}.aside").write_text(name)
        steps.append(rename(host.root / f"{name}.aside", host.root / name))
    return {"format": 1, "requires": [], "reason": "moving two", "pid": 1, "steps": steps, **more}


def undo_of(host):
    return Undo(host.settings.state_dir / "undo", None)


@pytest.mark.parametrize("change", ADDED.values(), ids=ADDED)
@pytest.mark.parametrize("where", ["document", "step", "volume move"])
def test_an_undo_record_with_more_in_it_is_taken_back(host, change, where):
    document = undo_document(host)
    if where == "volume move":
        move = {"name": "v", "target": "", "labels": {}}
        change(move)
        document["steps"].append({"do": "volume", "subject": "v", "detail": json.dumps(move)})
        write_undo(host, "1.json", document)
        assert undo_of(host).left_alone() == []  # it needs an engine, and is understood
        return
    change(document if where == "document" else document["steps"][0])
    write_undo(host, "1.json", document)
    assert undo_of(host).take_back_open() == ["took back what a run left: moving two"]
    assert (host.root / "one").read_text() == "one"
    assert undo_of(host).open_count() == 0


def newer_undo(host, what):
    document = undo_document(host)
    if what == "a step":
        document["steps"].append({"do": "levitate", "subject": "x"})
    elif what == "a requirement of a step":
        document["steps"][1]["requires"] = ["novelty"]
    elif what == "a requirement of a volume move":
        move = {"name": "v", "target": "", "labels": {}, "requires": ["novelty"]}
        document["steps"].append({"do": "volume", "subject": "v", "detail": json.dumps(move)})
    else:
        NEWER[what](document)
    return document


@pytest.mark.parametrize("what", [*NEWER, "a step", "a requirement of a step", "a requirement of a volume move"])
def test_an_undo_record_of_a_newer_version_is_kept_and_told_and_no_step_of_it_is_taken(host, what):
    write_undo(host, "1.json", newer_undo(host, what))
    before = (host.settings.state_dir / "undo/1.json").read_bytes()
    (message,) = undo_of(host).take_back_open()
    assert "a newer version made it" in message
    assert "“moving two”" in message
    assert not (host.root / "one").exists()
    assert (host.settings.state_dir / "undo/1.json").read_bytes() == before
    assert undo_of(host).open_count() == 1
    told(host, "undo", "a newer version made it")


def test_what_the_same_run_did_before_waits_and_what_others_did_does_not(host):
    write_undo(host, "3.json", newer_undo(host, "a step") | {"owner": "r"})
    for name, owner in (("2.json", "r"), ("1.json", "other")):
        aside = host.root / f"{owner}.aside"
        aside.write_text(owner)
        document = {"reason": owner, "pid": 1, "owner": owner, "steps": [rename(aside, host.root / owner)]}
        write_undo(host, name, document)
    messages = undo_of(host).take_back_open()
    assert [(host.root / "r").exists(), (host.root / "other").exists()] == [False, True]
    assert "“r” is not taken back" in messages[1]
    assert undo_of(host).open_count() == 2


def test_new_undo_records_say_their_format_and_all_have_one_owner(host):
    undo = undo_of(host)
    step = Step("delete", str(host.root / "nothing"))
    with undo.noted("a", [step]), undo.noted("b", [step]):
        first, second = (json.loads(path.read_text()) for path in (host.settings.state_dir / "undo").glob("*.json"))
    assert (first["format"], first["requires"]) == (1, [])
    assert first["owner"] == second["owner"]


# What restores kept.


def kept_restore(host, run, *, at=NOW, **more):
    """A restore of the shop's data, with what it replaced in its directory."""
    home = host.settings.docker_root / "shop" / KEPT / run
    write_files(home, {"data/before": run.encode()})
    place = host.settings.docker_root / "shop/data"
    record = kept.Record(
        run, at.isoformat(), "shop", f"restore {run}",
        (kept.Entry(str(place), str(home / "data"), "1:2"),), (str(home),), done=True,
    )  # fmt: skip
    kept.write(kept_in(host), record)
    path = kept_in(host) / f"{run}.json"
    document = json.loads(path.read_text()) | more
    path.write_text(json.dumps(document))
    return home


def kept_in(host):
    return host.settings.state_dir / "kept"


@pytest.mark.parametrize("change", ADDED.values(), ids=ADDED)
def test_a_kept_restore_with_more_in_it_can_be_undone_and_expires(host, change):
    home = kept_restore(host, "20261121T110000-aaaaaa")
    path = kept_in(host) / "20261121T110000-aaaaaa.json"
    document = json.loads(path.read_text())
    change(document)
    change(document["entries"][0])
    path.write_text(json.dumps(document))
    assert kept.latest(kept_in(host), "shop").what == "restore 20261121T110000-aaaaaa"
    kept.expire(kept_in(host), NOW + timedelta(days=8))
    assert not home.exists()


@pytest.mark.parametrize("change", NEWER.values(), ids=NEWER)
def test_a_kept_restore_of_a_newer_version_is_kept_and_told_and_never_undone_or_expired(host, change):
    older = kept_restore(host, "20261121T100000-aaaaaa")
    home = kept_restore(host, "20261121T110000-aaaaaa")
    path = kept_in(host) / "20261121T110000-aaaaaa.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(RefusedError, match="a newer version made it") as refused:
        kept.latest(kept_in(host), "shop")
    assert refused.value.exit_code == ExitCode.REFUSED
    kept.discard_unfinished(kept_in(host), "shop")
    told(host, "kept", "restore 20261121T110000-aaaaaa")
    kept.expire(kept_in(host), NOW + timedelta(days=100))
    assert [path.exists(), (home / "data/before").exists(), older.exists()] == [True, True, False]


def test_what_a_newer_version_has_undone_or_did_to_another_stack_is_in_no_older_ones_way(host):
    for run, more in (("3", {"subject": "wiki"}), ("2", {"undone": True}), ("1", {"done": False})):
        kept_restore(host, f"20261121T12000{run}-aaaaaa", requires=["novelty"], **more)
    kept_restore(host, "20261121T110000-aaaaaa")
    assert kept.latest(kept_in(host), "shop").run == "20261121T110000-aaaaaa"
    kept_restore(host, "20261121T130000-aaaaaa")
    assert kept.latest(kept_in(host), "shop").run == "20261121T130000-aaaaaa"


def test_a_kept_restore_that_cannot_be_read_is_told_and_not_passed_over(host):
    kept_restore(host, "20261121T110000-aaaaaa")
    (kept_in(host) / "20261121T120000-aaaaaa.json").write_text("{")
    with pytest.raises(RefusedError, match="cannot be read"):
        kept.latest(kept_in(host), "shop")
    told(host, "kept", "cannot be read")


# The index of a backup.


def backup(host, change=None, name="data-2026-11-21"):
    at = datetime.fromisoformat(f"{name[5:15]}T01:00:00+00:00")
    path = host.settings.backup_root / name
    write_files(path, {"shop/a": b"1"})
    seal(path, at, stack_entry("shop", at, tree("shop", files=1, bytes=1)))
    document = json.loads((path / "stackward.json").read_text())
    if change is not None:
        change(document)
    (path / "stackward.json").write_text(json.dumps(document))
    return path


def every_level(change):
    def changed(document):
        shop = document["stacks"]["shop"]
        shop["dumps"] = [{"service": "db", "kind": "postgres", "path": ".dumps/shop/db.sql"}]
        for part in (document, shop, shop["trees"][0], shop["dumps"][0]):
            change(part)

    return changed


@pytest.mark.parametrize("change", ADDED.values(), ids=ADDED)
def test_a_backup_with_more_in_its_index_is_used(host, change):
    backup(host, every_level(change))
    (artifact,) = catalog.catalog(host.settings, NOW)
    assert (artifact.problem, artifact.stacks, artifact.size_bytes) == ("", ("shop",), 1)
    plan = day_plan.make(host.settings, host.store, host.discover().stacks, (), NOW)
    assert plan.bases["shop"].entry.trees[0].path == "shop"
    assert restore_plan.choose([artifact], "shop", None) == artifact


@pytest.mark.parametrize("change", [*NEWER.values(), every_level(NEWER["a requirement"])], ids=[*NEWER, "below"])
def test_a_backup_of_a_newer_version_is_listed_and_kept_and_told_but_not_used(host, change):
    backup(host, change)
    backup(host, change, "data-2026-01-01")
    backup(host, change, "data-2026-01-02.replaced-20260102_120000")
    backup(host, name="data-2025-01-01")
    found = catalog.catalog(host.settings, NOW)
    newest = next(one for one in found if one.name.name == "data-2026-11-21")
    assert (newest.newer, newest.stacks, newest.index) == (True, ("shop",), None)
    with pytest.raises(RefusedError, match="not for this version"):
        restore_plan.choose(found, "shop", None)
    assert restore_plan.choose(found, "shop", "2025-01-01").index is not None
    plan = day_plan.make(host.settings, host.store, host.discover().stacks, (), NOW)
    assert plan.bases["shop"].path.name == "data-2025-01-01"
    told(host, "backup", "data-2026-11-21: stackward.json: a newer version made it")
    pruned(host)
    assert {path.name for path in host.settings.backup_root.glob("data-2026*")} == {
        "data-2026-11-21", "data-2026-01-01", "data-2026-01-02.replaced-20260102_120000",
    }  # fmt: skip


def pruned(host):
    from stackward.core.progress import Silent

    prune.run(
        settings=host.settings, store=host.store, discovery_stacks=host.discover().stacks, now=NOW, run_id="r",
        progress=Silent(), replaced=True,
    )  # fmt: skip


# Told everywhere.


def told(host, kind, text):
    """By the look at the host (which metrics and messages are made of), by `status` and by `check`."""
    found = look(host.settings, host.store, host.discover, now=NOW, open_undo=0, intervals={})
    assert found.view.left_alone[kind] >= 1
    assert any(text in sentence for sentence in found.conditions.values())
    alone = left_alone.look(host.settings, catalog.catalog(host.settings, NOW))
    assert any(text in one.text and one.kind == kind for one in alone)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in host.environment.items():
            patch.setenv(name, value)
        for verb in ("status", "check"):
            assert text in said(verb)


def said(verb):
    import contextlib
    import io

    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        main([verb, "--json"])
    return json.dumps(json.loads(written.getvalue()), ensure_ascii=False)


# The rules themselves.


def test_a_record_without_a_format_is_of_the_first_one():
    records.require_understood({})
    records.require_understood({"format": 2}, newest=2)
    records.require_understood({"requires": ["links"]}, features={"links"})


@pytest.mark.parametrize("format_", [0, -1, "1", None, True, 1.0, [1]])
def test_what_is_no_format_is_no_newer_version(format_):
    with pytest.raises(ValueError) as refused:
        records.require_understood({"format": format_})
    assert not isinstance(refused.value, NewerRecordError)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", '{"a": NaN}', '{"a": 1' + "0" * 9999 + "}", "\ud800"])
def test_what_is_no_document_is_a_value_error(text):
    with pytest.raises(ValueError):
        records.parse(text)


# What is written is what is read.


def test_every_field_of_a_step_comes_back_from_its_record(tmp_path):
    step = Step("rename", str(tmp_path / "aside"), str(tmp_path / "place"), 7.5, "shop", "a-file:system")
    assert not [field.name for field in fields(Step) if getattr(step, field.name) == field.default]
    with Undo(tmp_path / "undo", None).noted("a test", [step]):
        (path,) = (tmp_path / "undo").glob("*.json")
        found = undo_records.read(path, Undo.KNOWN)
    assert found.steps == (step,)


def test_every_field_of_what_a_restore_kept_comes_back_from_its_record(tmp_path):
    home = f"/opt/docker/{KEPT}/20261121T120000-abcdef"
    entry = kept.Entry("/opt/docker/shop/data", f"{home}/1.old", "a-file:system", copied=True)
    record = kept.Record(
        "20261121T120000-abcdef", NOW.isoformat(), "shop", "a restore", (entry,), (home,), whole_stack=True, done=True,
        undone=True, undone_at=NOW.isoformat(),
    )  # fmt: skip
    assert not [field.name for field in fields(kept.Entry) if getattr(entry, field.name) == field.default]
    kept.write(tmp_path, record)
    assert list(kept.records(tmp_path)) == [record]
