from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackward.core.labels import KNOWN, PREFIX, read_policy
from stackward.core.model import Dump, Hook, Keep, Policy, Problem, Quiesce, ServicePolicy

ON = {"stackward.backup": "true"}
OFF = {"stackward.backup": "false"}


def read(labels=None, extension=None, stack="shop"):
    """`labels` of one service `web`, or of several by name."""
    labels = labels or {}
    several = bool(labels) and all(isinstance(value, dict) for value in labels.values())
    return read_policy(stack, labels if several else {"web": labels}, extension)


def one_problem(reading) -> Problem:
    (problem,) = reading.problems
    return problem


def test_nothing_said_is_undecided_and_no_problem():
    reading = read({"web": {"traefik.enable": "true"}, "db": {}})
    assert reading.policy == Policy()
    assert reading.policy.backup is None
    assert reading.services == {"web": ServicePolicy(), "db": ServicePolicy()}
    assert reading.problems == ()


def test_every_stack_label_becomes_policy():
    reading = read(
        {
            "stackward.backup": "true",
            "stackward.backup.trees": "data",
            "stackward.backup.skip": "cache, ./thumbs",
            "stackward.backup.exclude": "*.log\ntmp/\nkeep\\ \n",
            "stackward.backup.max-standstill": "90s",
            "stackward.backup.keep": "daily=3,yearly=1",
            "stackward.replicate": "nas,cloud",
            "stackward.staging": "true",
            "stackward.tier": "infra",
        }
    )
    assert reading.problems == ()
    assert reading.policy == Policy(
        backup=True,
        trees="data",
        skip=("cache", "./thumbs"),
        exclude=("*.log", "tmp/", "keep\\ "),
        max_standstill_seconds=90,
        keep=Keep(daily=3, yearly=1),
        replicate=("nas", "cloud"),
        staging=True,
        tier="infra",
    )


def test_every_service_label_becomes_the_policy_of_its_own_service():
    reading = read(
        {
            "web": ON,
            "db": {
                "stackward.backup.quiesce": "pause",
                "stackward.backup.dump": "postgres, sqlite:/data/a.db",
                "stackward.backup.pre": "sync, now",
                "stackward.backup.post": "true",
                "stackward.backup.timeout": "5m",
                "stackward.backup.on-error": "continue",
                "stackward.probe": ":8080/health",
            },
        }
    )
    assert reading.problems == ()
    assert reading.services["web"] == ServicePolicy()
    assert reading.services["db"] == ServicePolicy(
        quiesce=Quiesce.PAUSE,
        dumps=(Dump("db", "postgres"), Dump("db", "sqlite", "/data/a.db")),
        pre=Hook("db", "sync, now", 300, "continue"),
        post=Hook("db", "true", 300, "continue"),
        probe=":8080/health",
    )


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("backup", ["true", "FALSE", "yes"], ["", "flase", "2"]),
        ("backup.trees", ["writable", "data", "All"], ["", "some"]),
        ("backup.skip", ["a", "/x,y"], []),
        ("backup.exclude", ["*.log", "a,b"], ["[ab", "./x"]),
        ("backup.quiesce", ["auto", "none", "pause", "stop"], ["", "kill"]),
        ("backup.max-standstill", ["10m"], ["0", "10", "soon"]),
        ("backup.dump", ["postgres", "mariadb", "sqlite:/a"], ["", "mysql", "postgres:x", "sqlite", "sqlite:"]),
        ("backup.pre", ["echo"], ["", "  "]),
        ("backup.post", ["echo"], [""]),
        ("backup.timeout", ["60s"], ["0", "60"]),
        ("backup.on-error", ["fail", "continue"], ["ignore"]),
        ("backup.keep", ["7d"], ["7", "daily=0"]),
        ("replicate", ["all", "none", "nas,cloud"], ["", "all,nas", "a b"]),
        ("staging", ["true", "false"], ["on demand"]),
        ("staging.services", ["web,db"], ["", "-x"]),
        (
            "staging.publish",
            ["18080:web:80", "1:a:2,3:b:4", "127.0.0.1:1:a:2", "[::1]:1:a:2"],
            ["", "8080", "80:80", "0:a:1", "70000:a:1", "1:a:2,x", "300.1.1.1:1:a:2", "::1:1:a:2"],
        ),
        ("staging.env", ["A=1", "A=1\nB_2=x=y"], ["", "A", "2A=1", "A=1,b c"]),
        ("staging.wait", ["20m"], ["", "soon", "0"]),
        ("staging.post", ["a\nb"], [""]),
        ("staging.empty", ["cache"], [""]),
        ("staging.service", ["shop-staging.service"], [""]),
        ("drill", ["weekly", "off"], ["daily"]),
        ("probe", [":8080/health", "curl x"], [""]),
        ("update", ["true", "monitor", "false", "no"], ["", "maybe"]),
        ("update.rollback", ["image", "data", "a,b"], []),
        ("update.gate", ["staging"], ["true"]),
        ("update.delay", ["0", "3d"], ["3"]),
        ("update.major", ["true"], ["x"]),
        ("tier", ["infra", "app"], ["db"]),
    ],
)
def test_each_label_takes_its_values_and_no_others(key, good, bad):
    key = PREFIX + key
    assert key in {label.key for label in KNOWN}
    for value in good:
        assert read({key: value}).problems == (), value
    for value in bad:
        problem = one_problem(read({key: value}))
        assert problem.stack == "shop"
        assert problem.service == "web"
        assert problem.key == key
        assert problem.message.startswith(f"{key} must ")
        assert problem.message.endswith(f", not '{value.strip()}'")
        assert problem.hint


def test_the_table_of_labels_is_covered_here_whole():
    marks = test_each_label_takes_its_values_and_no_others.pytestmark
    assert {PREFIX + case[0] for case in marks[0].args[1]} == {label.key for label in KNOWN}


def test_a_misspelt_label_is_a_problem_with_a_suggestion_and_the_stack_is_backed_up():
    reading = read({"stackward.bakcup": "false"})
    assert reading.policy.backup is True
    assert one_problem(reading).message == "stackward.bakcup is not a label that Stackward knows"
    assert one_problem(reading).hint == "did you mean stackward.backup?"


@pytest.mark.parametrize("key", ["stackward", "Stackward.Backup", "stackward.", "stackward.x"])
def test_whatever_looks_like_ours_and_is_not_known_is_a_problem(key):
    assert one_problem(read({key: "1"})).key == key


def test_a_value_that_does_not_parse_backs_the_stack_up():
    assert read({"stackward.backup": "flase"}).policy.backup is True
    assert read({"stackward.backup.keep": "x"}).policy.backup is True


def test_a_plain_false_holds_whatever_else_is_wrong():
    assert read(OFF | {"stackward.backup.keep": "x", "stackward.zebra": "1"}).policy.backup is False
    assert read({"web": OFF, "db": OFF | {"stackward.x": ""}}).policy.backup is False


def test_a_false_that_is_not_unanimous_does_not_hold():
    assert read({"web": OFF, "db": ON}).policy.backup is True
    assert read({"web": OFF, "db": {"stackward.backup": "?"}}).policy.backup is True
    assert read(OFF, {"backup": True}).policy.backup is True
    assert read(OFF, {"backup": {"keep": "7d"}}).policy.backup is True


def test_services_that_say_the_same_in_other_words_agree():
    assert read({"web": ON, "db": {"stackward.backup": "Yes"}}).problems == ()


@pytest.mark.parametrize(
    ("key", "one", "other", "field", "held"),
    [
        ("backup.trees", "data", "writable", "trees", "writable"),
        ("backup.trees", "all", "data", "trees", "all"),
        ("backup.skip", "a,b", "b,c", "skip", ("b",)),
        ("backup.exclude", "a,b", "b,c", "exclude", ("b",)),
        ("backup.exclude", "*,!a", "*", "exclude", ()),
        ("backup.max-standstill", "1h", "5s", "max_standstill_seconds", 600.0),
        ("backup.keep", "daily=7", "weekly=4", "keep", Keep(daily=7, weekly=4)),
        ("backup.keep", "7d", "30d", "keep", Keep(days=30)),
        ("backup.keep", "7d", "yearly=1", "keep", Keep(days=7, yearly=1)),
        ("replicate", "none", "nas", "replicate", ("all",)),
        ("staging", "true", "false", "staging", False),
        ("tier", "infra", "app", "tier", "app"),
    ],
)
def test_where_services_disagree_the_safer_value_holds_and_they_are_named(key, one, other, field, held):
    for first, second in ((one, other), (other, one)):
        reading = read({"web": ON | {PREFIX + key: first}, "db": {PREFIX + key: second}})
        assert getattr(reading.policy, field) == held
        problem = one_problem(reading)
        assert problem.key == PREFIX + key
        assert f"web says '{first}', db says '{second}'" in problem.message
        assert problem.hint.startswith("say it once")


def test_infra_stacks_are_known_by_name_unless_told_otherwise():
    assert read(stack="graylog").policy.tier == "infra"
    assert read({"stackward.tier": "app"}, stack="graylog").policy.tier == "app"


def test_the_extension_says_the_same_without_prefix_flat_or_nested():
    flat = {"backup": True, "backup.keep": "daily=3", "backup.exclude": ["a,b", "*.log"], "replicate": ["nas"]}
    nested = {"backup": {"enabled": "true", "keep": {"daily": 3}, "exclude": ["a,b", "*.log"]}, "replicate": "nas"}
    for extension in (flat, nested):
        reading = read(extension=extension)
        assert reading.problems == ()
        assert reading.policy == Policy(backup=True, keep=Keep(daily=3), exclude=("a,b", "*.log"), replicate=("nas",))


def test_the_extension_speaks_of_services_by_name():
    extension = {"backup": True, "services": {"db": {"backup": {"dump": ["postgres"], "pre": "sync"}, "probe": ":1/"}}}
    reading = read({"web": {}, "db": {}}, extension)
    assert reading.problems == ()
    assert reading.services["db"].dumps == (Dump("db", "postgres"),)
    assert reading.services["db"].pre == Hook("db", "sync")
    assert reading.services["web"] == ServicePolicy()


def test_quiesce_said_for_the_stack_holds_for_each_service_that_says_nothing_else():
    extension = {"backup": {"enabled": True, "quiesce": "stop", "timeout": "5m"}}
    reading = read({"web": {"stackward.backup.quiesce": "none"}, "db": {"stackward.backup.pre": "x"}}, extension)
    assert reading.problems == ()
    assert reading.services["web"].quiesce is Quiesce.NONE
    assert reading.services["db"] == ServicePolicy(quiesce=Quiesce.STOP, pre=Hook("db", "x", 300))


def test_a_command_said_for_no_service_is_a_problem():
    problem = one_problem(read(extension={"backup.pre": "sync"}))
    assert problem.message == "x-stackward: backup.pre speaks of one service"
    assert problem.hint == "put it under `x-stackward: services: NAME: backup.pre`"


def test_label_and_extension_that_disagree_about_a_service_leave_the_stricter_one():
    extension = {"services": {"web": {"backup.quiesce": "stop"}}}
    reading = read({"stackward.backup.quiesce": "none"}, extension)
    assert reading.services["web"].quiesce is Quiesce.STOP
    assert "in several ways" in one_problem(reading).message


def test_label_and_extension_that_disagree_about_dumps_leave_both():
    reading = read({"stackward.backup.dump": "postgres"}, {"services": {"web": {"backup.dump": "sqlite:/a"}}})
    assert reading.services["web"].dumps == (Dump("web", "postgres"), Dump("web", "sqlite", "/a"))
    assert "web says 'postgres', x-stackward for web says 'sqlite:/a'" in one_problem(reading).message


def test_label_and_extension_that_disagree_about_a_command_leave_the_label():
    reading = read({"stackward.backup.pre": "a"}, {"services": {"web": {"backup.pre": "b"}}})
    assert reading.services["web"].pre == Hook("web", "a")
    assert one_problem(reading).hint == "say it once; until then the safer value holds"


def test_a_mapping_must_say_whether_it_is_enabled():
    reading = read(extension={"backup": {"keep": "7d"}})
    assert reading.policy.backup is True
    assert reading.policy.keep == Keep(days=7)
    assert one_problem(reading).message == "x-stackward: backup needs `enabled: true` or `enabled: false`"


def test_mappings_that_are_values_read_as_lines():
    extension = {"staging": {"enabled": True, "env": {"A": 1, "B": "x,y"}}}
    assert read(extension=extension).problems == ()


@pytest.mark.parametrize(
    ("extension", "message"),
    [
        ([], "x-stackward must be a mapping"),
        ("backup", "x-stackward must be a mapping"),
        ({"services": ["db"]}, "x-stackward: services must be a mapping"),
        ({"services": {"web": "x"}}, "x-stackward: services: web must be a mapping"),
        ({"services": {"wep": {}}}, "x-stackward: services: there is no service 'wep'"),
        ({"bakcup": True}, "x-stackward: bakcup is not a label"),
        ({"bakcup": {}}, "x-stackward: bakcup is not a label"),
        ({"bakcup": {"keep": "7d"}}, "x-stackward: bakcup.keep is not a label"),
        ({"backup": None}, "x-stackward: backup needs `enabled: true`"),
        ({"backup.keep": None}, "x-stackward: backup.keep has no value"),
        ({"backup.skip": ["a", None]}, "x-stackward: backup.skip has no value"),
        ({1: True}, "x-stackward: 1 is not a label"),
    ],
)
def test_an_extension_of_another_shape_is_a_problem_and_the_stack_is_backed_up(extension, message):
    reading = read(extension=extension)
    assert one_problem(reading).message.startswith(message)
    assert reading.policy.backup is True


def test_what_is_quoted_is_short_and_printable():
    problem = one_problem(read({"stackward.tier": "\x1b" + "x" * 500}))
    assert "\\x1b" in problem.message
    assert len(problem.message) < 120


_keys = st.sampled_from([label.key for label in KNOWN]) | st.text(max_size=8).map(PREFIX.__add__)
_values = st.sampled_from(["true", "false", "7d", "stop", "a,b", "nas"]) | st.text(max_size=12)
_labels = st.dictionaries(_keys, _values, max_size=4)
_tree = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["backup", "keep", "services", "web", "enabled", "staging", "env"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["web", "db"]), _labels, max_size=2), _tree)
def test_nothing_that_is_said_breaks_the_reading_or_leaves_a_stack_out_by_mistake(labels, extension):
    reading = read_policy("shop", labels, extension)
    assert set(reading.services) == set(labels)
    if reading.problems:
        assert reading.policy.backup is not None
    if reading.policy.backup is not True:
        said = [value for keys in labels.values() for key, value in keys.items() if key == "stackward.backup"]
        assert not any(value.strip().lower() in ("true", "yes", "on", "1") for value in said)
