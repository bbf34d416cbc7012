import itertools
import os
import socket
import threading
from pathlib import Path

import pytest

from stackward.tools import compose
from stackward.tools.compose_files import NAMES, dependencies, find_files, load_yaml, read_env_file
from stackward.tools.interpolation import interpolate


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / name.replace("_dot_", ".").replace("__", "-")).write_text(text)


class TestFinding:
    def test_the_first_name_and_the_first_override_in_composes_order(self, tmp_path):
        for name in (*NAMES, "docker-compose.override.yml", "compose.override.yml"):
            (tmp_path / name).write_text("services: {}")
        assert [file.name for file in find_files(tmp_path)] == ["compose.yaml", "compose.override.yml"]

    def test_an_override_alone_is_no_stack(self, tmp_path):
        (tmp_path / "compose.override.yaml").write_text("services: {}")
        assert find_files(tmp_path) == ()

    def test_compose_file_of_the_env_file_with_its_separator(self, tmp_path):
        (tmp_path / ".env").write_text("COMPOSE_PATH_SEPARATOR=,\nCOMPOSE_FILE='a.yml,b.yml'\n")
        assert [file.name for file in find_files(tmp_path)] == ["a.yml", "b.yml"]


def test_the_env_file_as_compose_reads_it(tmp_path):
    (tmp_path / ".env").write_text("A=1\nexport B='x # y'\nC=\"z\" # c\n# D=4\nE=a=b # no\nF=\nnonsense\n")
    assert read_env_file(tmp_path / ".env") == {"A": "1", "B": "x # y", "C": "z", "E": "a=b", "F": ""}
    assert read_env_file(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A/${A}", "1/1"),
        ("${C:-${B:-/etc}}/x ${A:+${A}}${C:+$A} ${C:-{}}", "/etc/x 1 {}"),
        ("$ ${ ${A ${A!} ${1} $1", "$ ${ ${A ${A!} ${1} $1"),
        ("${B:-x} ${B-x} ${C:-x} ${C-x}", "x  x x"),
        ("${A:+y}${B:+y}${B+z}${C+y}", "yz"),
        ("$$A ${A:?must}", "$A 1"),
        ("${C}", ""),
        ("100%", "100%"),
    ],
)
def test_interpolation(text, result):
    assert interpolate(text, {"A": "1", "B": ""}) == result


def test_yaml_with_composes_tags_and_what_is_no_mapping(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("services: {web: {ports: !reset [], environment: !override {A: !x 1}}}")
    assert load_yaml(file)["services"]["web"] == {"ports": [], "environment": {"A": "1"}}
    for text in ("[1]", "a: [", "a: b: c", "\x00", ""):
        file.write_text(text)
        with pytest.raises(ValueError, match="not"):
            load_yaml(file)


def laughs(what):
    """Nine aliases of nine aliases of …: a kilobyte of YAML that is 400 million values."""
    names = "abcdefghi"
    lines = ['x-a: &a ["lol"]']
    lines += [f"x-{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise(names)]
    return "\n".join([*lines, f"services: {{web: {{image: x, {what}}}}}"])


def test_aliases_that_multiply_are_refused_before_anything_walks_them(tmp_path):
    file = tmp_path / "c.yaml"
    for text in (laughs("labels: {boom: *i}"), "a: &a [*a, *a]"):
        file.write_text(text)
        with pytest.raises(ValueError, match="aliases"):
            load_yaml(file)
    file.write_text("x: &x {A: 1}\nservices: {a: {environment: *x}, b: {environment: {<<: *x, B: 2}}}")
    assert load_yaml(file)["services"]["b"]["environment"] == {"A": 1, "B": 2}


def test_what_is_no_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "compose.yaml")
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(OSError, match="not a regular file"):
        load_yaml(tmp_path / "compose.yaml")
    assert read_env_file(tmp_path / ".env") == {}
    (tmp_path / "endless").symlink_to("/dev/zero")
    assert read_env_file(tmp_path / "endless") == {}


def test_dependencies_are_followed_round_in_circles_too(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / ".env").write_text("WHICH=db\n")
    (tmp_path / "compose.yaml").write_text(
        """
        include: [{path: [more/a.yaml, more/none.yaml], env_file: more/x.env}]
        services:
          web: {env_file: ['${WHICH}.env', {path: opt.env, required: false}], extends: {file: base.yaml, service: b}}
        """
    )
    (tmp_path / "base.yaml").write_text("services: {b: {extends: {file: compose.yaml, service: web}, label_file: l}}")
    (tmp_path / "more" / "a.yaml").write_text("services: {a: {env_file: a.env}}")
    (tmp_path / "db.env").write_text("P=1")
    found = dependencies(tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in found.paths}
    assert {"base.yaml", "l", "db.env", "opt.env", "more/a.yaml", "more/none.yaml", "more/a.env", "more/x.env"} < names
    assert [path.name for path in found.env_files] == [".env", "db.env"]


@pytest.mark.usefixtures("needs_compose")
class TestCompose:
    def test_its_version_is_two_or_later(self):
        assert int(compose.version().split(".")[0]) >= 2

    def test_a_mistake_is_told_in_composes_words_without_its_warnings(self, tmp_path):
        (tmp_path / "compose.yaml").write_text("services: {web: {image: '${NOPE}', ports: {a: b}}}")
        with pytest.raises(compose.ComposeError, match=r"services\.web\.ports") as error:
            compose.resolve(tmp_path)
        assert "NOPE" not in error.value.message

    def test_unset_variables_are_warnings(self, tmp_path):
        (tmp_path / "compose.yaml").write_text("services: {web: {image: 'x${NOPE}'}}")
        assert "NOPE" in compose.resolve_with_warnings(tmp_path).warnings[0]

    def test_chosen_files_are_taken_instead(self, tmp_path):
        (tmp_path / "compose.yaml").write_text("services: {web: {image: a}}")
        (tmp_path / "prod.yaml").write_text("services: {web: {image: b}}")
        assert compose.resolve(tmp_path, [tmp_path / "prod.yaml"])["services"]["web"]["image"] == "b"

    def test_aliases_that_multiply_cost_no_more_than_they_may(self, tmp_path):
        (tmp_path / "compose.yaml").write_text(laughs("command: ['true']"))
        with pytest.raises(compose.ComposeError, match=r"more than \d+ MiB.*aliases"):
            compose.resolve(tmp_path)

    @pytest.mark.parametrize(
        "text",
        [
            "include: ['oci://127.0.0.1:{port}/x:1']\nservices: {{a: {{image: x}}}}",
            "include: ['https://127.0.0.1:{port}/x.git']\nservices: {{a: {{image: x}}}}",
            "include: [{{path: 'http://127.0.0.1:{port}/x.git'}}]\nservices: {{a: {{image: x}}}}",
            "services: {{a: {{extends: {{file: 'https://127.0.0.1:{port}/x.git', service: a}}}}}}",
            "services: {{a: {{extends: {{file: 'oci://127.0.0.1:{port}/x:1', service: a}}}}}}",
        ],
    )
    def test_no_part_of_a_model_is_fetched_from_elsewhere(self, tmp_path, text):
        asked = []
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer():
                while True:
                    try:
                        connection, _ = server.accept()
                    except OSError:
                        return
                    asked.append(connection.recv(1000))
                    connection.close()

            thread = threading.Thread(target=answer)
            thread.start()
            (tmp_path / "compose.yaml").write_text(text.format(port=server.getsockname()[1]))
            with pytest.raises(compose.ComposeError, match="remote resource is disabled"):
                compose.resolve(tmp_path)
            server.shutdown(socket.SHUT_RDWR)
        thread.join()
        assert asked == []
