"""`stackward staging` and `stackward drill` as they are called; Compose is real, no Docker Engine answers."""

import json

import pytest
import yaml

from stackward.cli.main import main
from stackward.core.errors import ExitCode
from stackward.core.model import Outcome
from unit.backups import config_backup, data_backup
from unit.hosts import NOW, SmallHost

pytestmark = pytest.mark.usefixtures("needs_compose")


@pytest.fixture
def host(tmp_path, monkeypatch):
    small = SmallHost(tmp_path / "host")
    (small.settings.volume / "shop").mkdir(parents=True)
    for name, value in small.environment.items():
        monkeypatch.setenv(name, value)
    small.stack("shop", shop(small.settings.volume))
    yield small
    small.store.close()


def shop(volume, staged="staging: {enabled: true, env: STAGE=staging}", more=""):
    return f"""
        x-stackward: {{{staged}}}
        services:
          web: {{image: nginx, container_name: the-shop, ports: ["8080:80"], volumes: ["{volume}/shop:/data"], {more}}}
    """


@pytest.fixture
def call(capsys):
    def called(*words):
        code = main(words)
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.startswith(("{", "[")) else out, err

    return called


def test_list_names_each_instance_and_why_there_is_none(host, call):
    host.stack("wiki", shop(host.settings.volume, "staging: true", "privileged: true"))
    code, listed, _ = call("staging", "list")
    assert code == ExitCode.OK
    found = {one["stack"]: one for one in listed}
    assert (found["shop"]["kind"], found["shop"]["data_at"], found["shop"]["last_at"]) == ("derived", None, None)
    assert found["wiki"]["kind"] == "refused"
    assert "privileged" in found["wiki"]["refused"][0]
    _, text, _ = call("staging", "list", "--human")
    assert "there is no .nightly yet" in text
    assert "never" in text


def test_up_of_a_stack_without_staging_is_a_mistake(host, call):
    host.stack("shop", shop(host.settings.volume, "staging: false"))
    code, _, said = call("staging", "up", "shop")
    assert code == ExitCode.USAGE
    assert "no staging instance: shop" in said
    assert "HINT: label" in said


def test_render_shows_what_it_is_made_of_also_before_it_is_switched_on(host, call):
    host.stack("shop", shop(host.settings.volume, "staging: false"))
    code, shown, _ = call("staging", "render", "shop")
    assert code == ExitCode.OK
    service = yaml.safe_load(shown["compose"])["services"]["web"]
    assert service["volumes"][0]["source"] == f"{host.settings.volume}/.nightly/shop"
    assert "ports" not in service
    _, text, _ = call("staging", "render", "shop", "--human")
    assert "name: shop-staging" in text


def test_render_of_one_that_is_refused_says_why_and_ends_so(host, call):
    host.stack("shop", shop(host.settings.volume, more="privileged: true"))
    code, shown, _ = call("staging", "render", "shop")
    assert code == ExitCode.REFUSED
    assert "privileged" in shown["refused"][0]


def test_diff_shows_each_difference_from_production(host, call):
    code, shown, _ = call("staging", "diff", "shop")
    lines = shown["diff"].splitlines()
    assert code == ExitCode.OK
    assert "-    container_name: the-shop" in lines
    assert "+      STAGE: staging" in lines
    assert "+name: shop-staging" in lines


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("refresh", "shop"), ExitCode.USAGE, "takes no STACK"),
        (("up", "--dry-run"), ExitCode.USAGE, "--dry-run is for"),
        (("render",), ExitCode.USAGE, "needs one STACK"),
        (("logs", "nothing"), ExitCode.USAGE, "nothing"),
        (("logs", "shop"), ExitCode.REFUSED, "no Docker Engine answers"),
        (("up",), ExitCode.REFUSED, "no Docker Engine answers"),
        (("down",), ExitCode.REFUSED, "no Docker Engine answers"),
    ],
)
@pytest.mark.usefixtures("host")
def test_what_makes_no_sense_or_cannot_be_is_said(call, words, code, why):
    found, out, err = call("staging", *words)
    assert why in f"{json.dumps(out)} {err}"
    assert found == code


def test_without_a_stack_that_asks_for_it_there_is_nothing_to_do(host, call):
    host.stack("shop", shop(host.settings.volume, "staging: false"))
    code, result, _ = call("staging", "refresh")
    assert (code, result["outcome"]) == (ExitCode.OK, "skipped")
    assert "no stack has staging on" in call("staging", "list", "--human")[1]


def test_proofs_and_status_tell_what_was_proven_and_when(host, call):
    host.stack("shop", shop(host.settings.volume, "backup: true"))
    assert "no drill has been made yet" in call("drill", "--proofs", "--human")[1]
    host.store.record_drill("shop", NOW, Outcome.OK, "data-2026-11-20", ["web: healthy", "web: 42 rows"])
    (shown,) = call("drill", "--proofs")[1]
    assert (shown["proven_artifact"], shown["proofs"]) == ("data-2026-11-20", ["web: healthy", "web: 42 rows"])
    (told,) = call("status")[1]["stacks"]
    assert (told["booted_from"], told["proofs"]) == ("data-2026-11-20", ["web: healthy", "web: 42 rows"])
    assert "2 proofs" in " ".join(call("status", "--human")[1].split())


@pytest.mark.usefixtures("host")
def test_drills_are_refused_without_an_engine(call):
    code, _, err = call("drill", "--proofs", "--from", "2026-11-20")
    assert code == ExitCode.USAGE
    assert "--proofs shows" in err
    code, result, err = call("drill")
    assert "no Docker Engine answers" in f"{json.dumps(result)} {err}"
    assert code == ExitCode.REFUSED


def test_a_drill_from_a_date_that_is_not_there_is_a_usage_error_and_nothing_is_recorded(host, call):
    backups = host.settings.backup_root
    host.stack("wiki", shop(host.settings.volume, "backup: true"))
    host.stack("page", "services: {web: {image: nginx}}\nx-stackward: {backup: true}")
    data_backup(backups, "data-2026-11-20", NOW, {"shop": {"f": b"1"}, "wiki": {"f": b"1"}})
    data_backup(backups, "data-2026-11-19", NOW, {"wiki": {"f": b"1"}})
    config_backup(backups, "configs-20261118_020000.tar.gz", {"./page/compose.yaml": b"x"})
    for words, why in (
        (("shop", "--from", "nope"), "nope is no backup of shop\nHINT: --from one of: 2026-11-20"),
        (("wiki", "shop", "--from", "2026-11-19"), "2026-11-19 is no backup of shop\nHINT: --from one of: 2026-11-20"),
        (("page", "--from", "2026-11-20"), "2026-11-20 is no backup of page\nHINT: --from one of: 2026-11-18"),
        (("--from", "2026-13-45"), "no backup 2026-13-45\nHINT: --from one of: 2026-11-20, 2026-11-19, 2026-11-18"),
        (("--from", "nope", "--dry-run"), "no backup nope"),
        (("nobody",), "there is no stack nobody"),
    ):
        code, _, err = call("drill", *words)
        assert (code, why in err) == (ExitCode.USAGE, True), (words, err)
    assert (call("runs")[1], host.opened().drills()) == ([], {})
    for words in (("wiki", "--from", "data-2026-11-19"), ("--from", "2026-11-19"), ("page", "--from", "2026-11-18")):
        code, result, err = call("drill", *words)
        assert (code, "no Docker Engine" in f"{result} {err}") == (ExitCode.REFUSED, True)
