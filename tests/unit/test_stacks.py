import os

import pytest

from stackward.core.artifacts import RESERVED_STACK_NAMES
from stackward.core.model import TreeKind
from stackward.stacks import DockerRootError
from stackward.tools import compose
from unit.hosts import NOW, SmallHost

pytestmark = pytest.mark.usefixtures("needs_compose")


@pytest.fixture
def host(tmp_path):
    small = SmallHost(tmp_path / "host")
    yield small
    small.store.close()


def messages(stack):
    return "\n".join(problem.message for problem in stack.problems)


def covered(stack):
    return {tree.mount_name: tree for tree in stack.trees if tree.covered}


def left_out(stack):
    return {tree.mount_name: tree.reason for tree in stack.trees if not tree.covered}


LABELLED = """
    services:
      web:
        image: nginx
        labels: {stackward.backup: "true"}
        volumes:
          - ./data:/data
          - ./library:/library
          - store:/store
    volumes: {store: {}}
"""


def test_a_labelled_stack_with_its_data_its_bind_and_its_named_volume(host):
    directory = host.stack("shop", LABELLED, data__a="1", library__b="2")
    stack = host.found("shop")
    assert stack.opted_in
    assert stack.resolved
    assert stack.project == "shop"
    assert not stack.problems
    assert {name: (tree.kind, tree.source) for name, tree in covered(stack).items()} == {
        "data": (TreeKind.DATA, directory / "data"),
        "library": (TreeKind.BIND, directory / "library"),
        "shop_store": (TreeKind.VOLUME, host.settings.docker_volumes / "shop_store" / "_data"),
    }
    assert all(tree.services == ("web",) and tree.writable for tree in stack.trees)


def test_an_unlabelled_stack_is_left_to_be_decided(host):
    host.stack("shop", "services: {web: {image: nginx}}")
    stack = host.found("shop")
    assert (stack.opted_in, stack.policy.backup, stack.problems) == (False, None, ())


def test_a_data_directory_that_nothing_mounts_is_a_tree(host):
    host.stack("shop", "services: {web: {image: nginx}}", data__a="1")
    assert list(covered(host.found("shop"))) == ["data"]


def test_directories_without_a_compose_file_and_stray_files_are_no_stacks(host):
    (host.settings.docker_root / "notes").mkdir()
    (host.settings.docker_root / "compose.yaml").write_text("services: {a: {image: b}}")
    assert host.discover().stacks == ()


def test_the_stacks_own_settings_win_over_the_appliances_environment(host, monkeypatch):
    monkeypatch.setenv("TZ", "Mars/Olympus")
    host.stack("shop", "services: {web: {image: 'nginx:${TZ}'}}", _dot_env="TZ=Europe-Berlin\n")
    assert host.found("shop").services[0].image == "nginx:Europe-Berlin"


def test_a_dollar_in_a_label_is_one_dollar(host):
    host.stack("shop", "services: {web: {image: nginx, labels: {stackward.backup.pre: 'echo $$HOME'}}}")
    assert host.found("shop").services[0].policy.pre.command == "echo $HOME"


def test_services_behind_profiles_count(host):
    host.stack("shop", "services: {tool: {image: nginx, profiles: [debug], volumes: ['./library:/l']}}", library__a="1")
    assert "library" in covered(host.found("shop"))


def test_x_stackward_speaks_for_the_stack(host):
    host.stack("shop", "{services: {web: {image: nginx}}, x-stackward: {backup: true}}")
    assert host.found("shop").opted_in


def test_a_label_that_does_not_parse_is_a_problem_and_the_stack_is_backed_up(host):
    host.stack("shop", "services: {web: {image: nginx, labels: {stackward.backup: 'treu'}}}")
    stack = host.found("shop")
    assert stack.opted_in
    assert "treu" in messages(stack)


class TestNotCovered:
    def test_read_only_binds(self, host):
        host.stack("shop", "services: {web: {image: nginx, volumes: ['./conf:/c:ro']}}", conf__a="1")
        assert left_out(host.found("shop")) == {"conf": "read-only for the stack"}

    def test_a_bind_that_another_service_can_write_is_covered(self, host):
        host.stack(
            "shop",
            """
            services:
              a: {image: nginx, volumes: ['./conf:/c:ro']}
              b: {image: nginx, volumes: ['./conf:/c']}
            """,
            conf__a="1",
        )
        assert covered(host.found("shop"))["conf"].services == ("a", "b")

    @pytest.mark.parametrize("source", ["/", "/proc", "/var/run/docker.sock", "/etc/localtime", "/dev/dri", "/sys/fs"])
    def test_what_belongs_to_the_system(self, host, source):
        host.stack("shop", f"services: {{web: {{image: nginx, volumes: ['{source}:/x']}}}}")
        assert list(left_out(host.found("shop")).values()) == ["belongs to the system"]

    def test_single_files(self, host):
        outside = host.root / "elsewhere.conf"
        outside.write_text("x")
        host.stack(
            "shop", f"services: {{web: {{image: nginx, volumes: ['./a.conf:/a', '{outside}:/b']}}}}", **{"a.conf": "x"}
        )
        assert sorted(left_out(host.found("shop")).values()) == [
            "a single file outside the stack's directory: in no backup",
            "a single file: the config backup has it",
        ]

    def test_sockets(self, host):
        import socket

        directory = host.stack("shop", "services: {web: {image: nginx, volumes: ['./s:/s']}}")
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(directory / "s"))
            assert left_out(host.found("shop")) == {"s": "a socket, no directory"}

    def test_the_backups_and_what_holds_them(self, host):
        host.stack(
            "shop",
            f"""
            services:
              web:
                image: nginx
                volumes: ['{host.settings.backup_root}:/b', '{host.root}:/all', '{host.settings.docker_root}:/stacks']
            """,
        )
        reasons = sorted(left_out(host.found("shop")).values())
        assert reasons == [
            "contains BACKUP_ROOT",
            "contains DOCKER_ROOT: each stack is backed up on its own",
            "is BACKUP_ROOT",
        ]

    def test_the_stacks_own_directory(self, host):
        host.stack("shop", "services: {web: {image: nginx, volumes: ['.:/app', './data:/data']}}", data__a="1")
        stack = host.found("shop")
        assert list(covered(stack)) == ["data"]
        assert list(left_out(stack).values()) == ["the stack's own directory: the config backup has it"]

    def test_skipped_by_name_path_and_volume(self, host):
        host.stack(
            "shop",
            """
            services:
              web: {image: nginx, volumes: ['./cache:/c', './media/films:/m', 'store:/s', './library:/l']}
            volumes: {store: {}}
            x-stackward: {backup: true, backup.skip: [cache, ./media, store]}
            """,
        )
        stack = host.found("shop")
        assert list(covered(stack)) == ["library"]
        assert len(left_out(stack)) == 3
        assert not stack.problems

    def test_a_skip_that_names_no_tree_is_told(self, host):
        host.stack("shop", "{services: {web: {image: nginx}}, x-stackward: {backup: true, backup.skip: [data/cache]}}")
        assert "data/cache, which is no tree" in messages(host.found("shop"))

    def test_all_but_data_where_only_data_is_asked_for(self, host):
        host.stack("shop", LABELLED + "\n    x-stackward: {backup.trees: data}", data__a="1")
        stack = host.found("shop")
        assert list(covered(stack)) == ["data"]
        assert len(left_out(stack)) == 2

    def test_volumes_on_other_machines_or_in_memory(self, host):
        host.stack(
            "shop",
            """
            services: {web: {image: nginx, volumes: ['nas:/n', 'tmp:/t']}}
            volumes:
              nas: {driver_opts: {type: nfs, o: 'addr=10.0.0.1', device: ':/export'}}
              tmp: {driver_opts: {type: tmpfs, device: tmpfs}}
            """,
        )
        reasons = left_out(host.found("shop"))
        assert "remote" in reasons["shop_nas"]
        assert "memory" in reasons["shop_tmp"]


class TestTrees:
    def test_read_only_ones_where_all_are_asked_for(self, host):
        host.stack(
            "shop", "{services: {web: {image: nginx, volumes: ['./conf:/c:ro']}}, x-stackward: {backup.trees: all}}"
        )
        assert "conf" in covered(host.found("shop"))

    def test_one_within_another_is_the_outer_ones(self, host):
        host.stack("shop", "services: {db: {image: nginx, volumes: ['./data/db:/d']}}", data__db__x="1")
        (tree,) = host.found("shop").trees
        assert (tree.mount_name, tree.services) == ("data", ("db",))

    def test_one_within_a_read_only_one_is_its_own(self, host):
        host.stack("shop", "services: {db: {image: nginx, volumes: ['./m:/m:ro', './m/lib:/l']}}", m__lib__x="1")
        assert list(covered(host.found("shop"))) == ["m+lib"]

    def test_the_same_directory_by_two_paths_is_one(self, host):
        directory = host.stack(
            "shop", f"services: {{db: {{image: nginx, volumes: ['./data:/d', '{host.root}/link:/e']}}}}", data__x="1"
        )
        (host.root / "link").symlink_to(directory / "data")
        assert [tree.mount_name for tree in host.found("shop").trees] == ["data"]

    def test_a_bind_volume_is_read_where_it_lies(self, host):
        (host.root / "srv").mkdir()
        host.stack(
            "shop",
            f"""
            services: {{web: {{image: nginx, volumes: ['vol:/v']}}}}
            volumes: {{vol: {{driver_opts: {{type: none, o: bind, device: '{host.root}/srv'}}}}}}
            """,
        )
        (tree,) = host.found("shop").trees
        assert (tree.path, tree.driver_options, tree.covered) == (host.root / "srv", False, True)

    def test_names_are_safe_unique_and_stay_when_others_come(self, host):
        text = "services: {{web: {{image: nginx, volumes: [{}]}}}}"
        host.stack("shop", text.format("'./a b/-c:/1', './a/b:/2'"))
        before = {tree.source: tree.mount_name for tree in host.found("shop").trees}
        host.stack("shop", text.format("'./a b/-c:/1', './a/b:/2', './a+b:/3', './0:/4'"))
        after = {tree.source: tree.mount_name for tree in host.found("shop").trees}
        assert before.items() <= after.items()
        assert len(set(after.values())) == 4
        assert not any("/" in name or name.startswith("-") for name in after.values())


class TestBadInput:
    def test_a_broken_compose_file_keeps_the_stack_in_with_the_trees_it_had(self, host):
        directory = host.stack("shop", LABELLED, data__a="1", library__b="2")
        before = host.found("shop")
        (directory / "compose.yaml").write_text("services: {web: [")
        stack = host.found("shop")
        assert not stack.resolved
        assert stack.opted_in
        assert {t.mount_name for t in stack.covered_trees} == {t.mount_name for t in before.covered_trees}
        assert "Compose cannot read it" in messages(stack)
        assert not stack.raw

    def test_a_file_that_was_always_broken_counts_as_opted_in_if_it_speaks_of_backup(self, host):
        host.stack("shop", "services: {web: {labels: [stackward.backup=true], broken", data__a="1")
        host.stack("other", "services: {web: {broken", data__a="1")
        host.stack("off", "services: {web: {labels: [stackward.backup=false], broken")
        assert host.found("shop").opted_in
        assert list(covered(host.found("shop"))) == ["data"]
        assert not host.found("other").opted_in
        assert not host.found("off").opted_in

    def test_what_compose_refuses_but_yaml_allows_still_tells_labels_and_binds(self, host):
        host.stack(
            "shop",
            """
            services:
              web: {image: nginx, env_file: nope.env, labels: [stackward.backup=true], volumes: ['./library:/l']}
            """,
            library__a="1",
        )
        stack = host.found("shop")
        assert not stack.resolved
        assert "nope.env" in messages(stack)
        assert stack.opted_in
        assert list(covered(stack)) == ["library"]

    def test_a_missing_env_file_is_told_with_the_variables_it_should_set(self, host):
        host.stack("shop", "services: {web: {image: nginx, environment: {A: '${PASSWORD}'}}}")
        (problem,) = host.found("shop").problems
        assert "PASSWORD" in problem.message
        assert ".env" in problem.hint

    def test_labels_that_vanished_go_on_counting_until_somebody_accepts(self, host):
        host.stack("shop", "services: {web: {image: nginx}}")
        host.store.remember_opted_in("shop", NOW)
        stack = host.found("shop")
        assert stack.opted_in
        assert "stackward accept shop" in stack.problems[0].hint

    def test_a_plain_false_ends_what_was(self, host):
        directory = host.stack("shop", "services: {web: {image: nginx, labels: {stackward.backup: 'false'}}}")
        host.store.remember_opted_in("shop", NOW)
        assert not host.found("shop").opted_in
        (directory / "compose.yaml").write_text("services: {web: {image: nginx}}")
        assert not host.found("shop").opted_in

    @pytest.mark.parametrize("name", [b"lost+found", b"My.App", b"with blanks", b"caf\xe9"])
    def test_odd_directory_names(self, host, name):
        directory = host.stack(name, "services: {web: {image: nginx, volumes: ['./library:/l']}}", library__a="1")
        (stack,) = host.discover().stacks
        assert os.fsencode(stack.name) == name
        assert stack.resolved
        assert stack.covered_trees[0].path == directory / "library"

    @pytest.mark.parametrize("name", sorted(RESERVED_STACK_NAMES))
    def test_reserved_names_are_refused(self, host, name):
        host.stack(name, "services: {web: {image: nginx, labels: {stackward.backup: 'true'}}}")
        stack = host.found(name)
        assert not stack.opted_in
        assert "rename" in stack.problems[0].hint

    def test_two_directories_with_one_project_name_are_told(self, host):
        host.stack("my.app", "services: {web: {image: nginx}}")
        host.stack("myapp", "services: {web: {image: nginx}}")
        assert all("project name myapp" in messages(stack) for stack in host.discover().stacks)

    def test_no_docker_root(self, host):
        host.settings.docker_root.rmdir()
        with pytest.raises(DockerRootError, match="No such file"):
            host.discover()

    def test_without_docker_stacks_are_found_and_it_is_said(self, host):
        host.stack("shop", LABELLED)
        found = host.discover(None)
        assert found.docker_error
        assert len(found.stacks) == 1


class TestCache:
    def test_an_unchanged_stack_is_not_resolved_again(self, host):
        for number in range(4):
            host.stack(f"shop{number}", LABELLED)
        first = host.discover()
        kept = host.settings.state_dir / "cache" / "stacks"
        entries = {entry.name: entry.stat().st_ino for entry in kept.iterdir()}
        assert len(entries) == 4
        again = host.discover()
        assert again.stacks == first.stacks
        assert {
            entry.name: entry.stat().st_ino for entry in kept.iterdir()
        } == entries  # one resolved is one written anew

    @pytest.mark.parametrize("name", [".env", "compose.override.yaml", "db.env", "base.yaml", "more/part.yaml"])
    def test_a_change_in_anything_it_was_made_from_is_seen(self, host, name):
        directory = host.stack(
            "shop",
            """
            include: [more/part.yaml]
            services:
              web:
                extends: {file: base.yaml, service: base}
                env_file: [{path: db.env, required: false}]
                environment: {B: "${B:-none}"}
            """,
            **{"base.yaml": "services: {base: {image: nginx}}", "more__part.yaml": "services: {extra: {image: a}}"},
        )
        before = host.found("shop")
        assert before.resolved, before.problems
        change = {
            ".env": "B=2\n",
            "compose.override.yaml": "services: {web: {image: other}}",
            "db.env": "B=2\n",
            "base.yaml": "services: {base: {image: nginx:2}}",
            "more/part.yaml": "services: {extra: {image: b}}",
        }
        (directory / name).write_text(change[name])
        assert host.found("shop").compose_sha256 != before.compose_sha256 or name == "db.env"
        if name == "db.env":
            assert directory / "db.env" in host.found("shop").secret_files

    def test_it_is_readable_by_its_owner_alone(self, host):
        host.stack("shop", LABELLED)
        host.discover()
        (file,) = (host.settings.state_dir / "cache" / "stacks").iterdir()
        assert file.stat().st_mode & 0o077 == 0


def test_secret_files_are_named(host):
    directory = host.stack(
        "shop",
        """
        services: {web: {image: nginx, env_file: db.conf, volumes: ['./certs:/c'], secrets: [pw]}}
        secrets: {pw: {file: ./pw.txt}}
        configs: {c: {file: ./app.conf}}
        """,
        _dot_env="A=1",
        **{"db.conf": "B=2", "pw.txt": "x", "app.conf": "y", "acme.json": "{}", "readme.key": "no"},
    )
    (directory / "tls").mkdir()
    (directory / "tls" / "site.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    assert {path.name for path in host.found("shop").secret_files} == {
        ".env",
        "db.conf",
        "pw.txt",
        "acme.json",
        "site.pem",
    }


def test_external_networks_and_the_models_digest(host):
    host.stack("shop", "{services: {web: {image: nginx, networks: [proxy]}}, networks: {proxy: {external: true}}}")
    stack = host.found("shop")
    assert stack.external_networks == ("proxy",)
    assert len(stack.compose_sha256) == 64


def test_compose_files_named_in_env_are_the_stacks(host):
    directory = host.settings.docker_root / "shop"
    directory.mkdir()
    (directory / "prod.yml").write_text("services: {web: {image: nginx}}")
    (directory / ".env").write_text("COMPOSE_FILE=prod.yml\n")
    assert compose.find_files(directory) == (directory / "prod.yml",)
    assert host.found("shop").services[0].image == "nginx"
