"""docs/monitoring.md and monitoring/ say what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from stackward.core.verdict import Cause
from stackward.observe.metrics import METRICS

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/monitoring.md").read_text()
_PROMETHEUS = _ROOT / "monitoring/prometheus"
_RULES = [
    rule
    for group in yaml.safe_load((_PROMETHEUS / "stackward.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
_DASHBOARD = json.loads((_ROOT / "monitoring/grafana/stackward.json").read_text())
_NAMES = {family.name for family in METRICS}


def rows(heading: str) -> list[str]:
    part = _PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in part.splitlines() if line.startswith("| `")]


def row(family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}`{' (later)' if family.later else ''} | {labels} | {family.help} |"


def mentioned(text: str) -> set[str]:
    return set(re.findall(r"\bstackward_[a-z_]+", text)) - {"stackward_default"}


def test_every_metric_is_documented_as_it_is():
    assert rows("Metrics") == [row(family) for family in METRICS]


def test_every_alert_is_documented_with_its_severity():
    found = [tuple(re.findall(r"[\w-]+", line)[:2]) for line in rows("Alerts")]
    assert found == [(rule["alert"], rule["labels"]["severity"]) for rule in _RULES]


def test_alerts_say_what_happened_and_what_to_do_next():
    for rule in _RULES:
        assert rule["annotations"]["summary"], rule["alert"]
        assert re.search(r"Next: |`stackward accept", rule["annotations"]["description"]), rule["alert"]


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    cases = [
        case
        for path in _PROMETHEUS.glob("*.test.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    for fires in (True, False):
        named = {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires}
        assert named == {rule["alert"] for rule in _RULES}, fires


def test_rules_and_dashboard_ask_for_metrics_that_there_are():
    asked = mentioned(json.dumps(_RULES)) | mentioned(json.dumps(_DASHBOARD["panels"]))
    assert asked <= _NAMES
    later = {family.name for family in METRICS if family.later}
    assert not mentioned(json.dumps(_DASHBOARD["panels"])) & later


def test_every_reason_has_its_word_in_the_docs_and_its_sentence_on_the_dashboard():
    for cause in Cause:
        assert f"`{cause.value}`" in _PAGE
        assert f'"{cause.value}"' in json.dumps(_DASHBOARD)


def test_the_dashboard_begins_with_the_verdict_and_nothing_overlaps():
    panels = _DASHBOARD["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ["Verdict", "Worst first", "History"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23


def test_the_scrape_configuration_in_docs_is_that_of_the_example():
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)
    example = yaml.safe_load((_PROMETHEUS / "prometheus.yml").read_text())
    assert yaml.safe_load(shown)["scrape_configs"] == example["scrape_configs"]
