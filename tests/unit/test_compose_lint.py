from stackward.tools.compose_lint import lint

RISKY = "services:\n  web:\n    image: nginx:1\n    privileged: true\n    environment: {DB_PASSWORD: hunter2}\n"


def rules(found):
    return {(remark.rule, remark.severity, remark.service) for remark in found.remarks}


def test_what_is_risky_is_told_without_values(tmp_path):
    (tmp_path / "compose.yaml").write_text(RISKY)
    found = lint(tmp_path)
    assert ("CL-0002", "critical", "web") in rules(found)
    assert "hunter2" not in repr(found)
    assert found.errors == ()


def test_an_override_counts_as_compose_counts_it(tmp_path):
    (tmp_path / "compose.yaml").write_text(RISKY)
    (tmp_path / "compose.override.yaml").write_text("services:\n  web:\n    privileged: false\n")
    assert "CL-0002" not in {rule for rule, _, _ in rules(lint(tmp_path))}


def test_files_of_another_name_can_be_looked_at(tmp_path):
    (tmp_path / "-stack.yml").write_text(RISKY)
    assert ("CL-0002", "critical", "web") in rules(lint(tmp_path, [tmp_path / "-stack.yml"]))


def test_what_the_stack_itself_allows_is_left_out(tmp_path):
    (tmp_path / "compose.yaml").write_text(RISKY)
    (tmp_path / ".compose-lint.yml").write_text(
        "rules:\n  CL-0002:\n    enabled: false\n    reason: it drives hardware\n"
    )
    assert "CL-0002" not in {rule for rule, _, _ in rules(lint(tmp_path))}


def test_what_cannot_be_read_is_an_error_and_nothing_is_raised(tmp_path):
    assert lint(tmp_path).errors[0].startswith("no Compose files found")
    (tmp_path / "compose.yaml").write_text("services: [")
    assert "Invalid YAML" in lint(tmp_path).errors[0]
    assert lint(tmp_path / "gone").errors != ()


def test_no_code_of_the_stacks_is_run(tmp_path):
    (tmp_path / "compose.yaml").write_text(RISKY)
    for name in ("yaml", "json", "compose_lint"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken over')")
    assert lint(tmp_path).errors == ()
