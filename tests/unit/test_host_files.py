"""What a compose file names is read where it is the host's and the stack's; of the image and the appliance nothing is."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stackward.core.model import Container, Dump, Mount, Policy, Service, ServicePolicy, Stack, Tree, TreeKind
from stackward.stacks import places, secrets, trees
from stackward.steps.backup import dumps
from stackward.steps.instance.drill_config import Mirror, Unpacked
from stackward.tools import compose, filesystem, host_files
from stackward.tools.docker import VolumeInfo
from stackward.tools.host_files import HostFiles
from unit.hosts import SmallHost

SECRET = "AGE-SECRET-KEY-1PRECIOUS"
ID = "ab" * 32


@pytest.fixture
def host(tmp_path):
    small = SmallHost(tmp_path / "host")
    (small.settings.config_dir / "age.key").write_text(f"# created\n{SECRET}\n")
    (small.settings.config_dir / "good.env").write_text(f"KEY={SECRET}\n")
    yield small
    small.store.close()


def mount(point, kind="ext4", root="/"):
    return filesystem.Mount(Path(point), "8:1", root, kind, "/dev/sda1", frozenset({"rw"}))


# As in the appliance's container on a plain host.
TABLE = (
    mount("/", "overlay"),
    mount("/proc", "proc"),
    mount("/dev", "tmpfs"),
    mount("/dev/shm", "tmpfs"),
    mount("/tmp", "tmpfs"),
    mount("/run", "tmpfs"),
    mount("/etc/hostname", root=f"/var/lib/docker/containers/{ID}/hostname"),
    mount("/opt/docker", root="/opt/docker"),
    mount("/srv", root="/srv"),
    mount("/var/lib/stackward", root="/var/lib/stackward"),
)


class TestSight:
    @pytest.mark.parametrize(
        "path", ["/etc/shadow", "/opt/x", "/tmp/x", "/run/x", "/dev/shm/x", "/proc/1/environ", "/"]
    )
    def test_what_the_container_has_for_itself_is_not_the_hosts(self, path):
        assert host_files.is_of_container(Path(path), TABLE)
        assert "outside of what the appliance can see" in HostFiles(TABLE).refusal(Path(path))

    @pytest.mark.parametrize("path", ["/opt/docker/a/.env", "/srv/none", "/opt/docker"])
    def test_what_is_mounted_from_the_host_is(self, path):
        assert not host_files.is_of_container(Path(path), TABLE)
        assert HostFiles(TABLE).refusal(Path(path)) == ""

    def test_on_the_host_itself_everything_is_the_hosts_and_the_appliances_own_is_closed_all_the_same(self, host):
        seen = host_files.here(host.settings)
        assert seen.refusal(host.root / "anything") == ""
        settings = host.settings
        for own in (settings.state_dir, settings.config_dir, settings.run_dir, settings.log_dir, settings.backup_root):
            assert "belongs to the appliance itself" in seen.refusal(own / "x")
        assert "belongs to the appliance itself" in seen.refusal(Path(settings.docker_host.removeprefix("unix://")))

    def test_a_link_is_where_it_leads(self, host):
        link = host.root / "docker" / "link"
        link.symlink_to(host.settings.config_dir / "age.key")
        assert f"leads to {host.settings.config_dir}/age.key" in host_files.here(host.settings).refusal(link)

    def test_our_own_container_is_told_by_what_docker_mounts_into_it(self):
        assert host_files.in_container(TABLE)
        assert host_files.own_container_id(TABLE) == ID
        assert not host_files.in_container((mount("/"), mount("/srv", "overlay")))


STACK = """
    services: {{web: {{image: nginx, labels: {{stackward.backup: "true"}}, {service}}}}}
    {more}
"""


def compose_file(service="", more=""):
    return STACK.format(service=service, more=more)


@pytest.mark.usefixtures("needs_compose")
class TestStacks:
    def said(self, stack):
        return "\n".join(f"{problem.message} {problem.hint}" for problem in stack.problems)

    def test_a_secret_of_the_appliances_own_is_never_taken(self, host):
        key = host.settings.config_dir / "age.key"
        host.stack("nosy", compose_file("secrets: [s]", f"secrets: {{s: {{file: {key}}}}}"), _dot_env="A=1")
        stack = host.found("nosy")
        assert [path.name for path in stack.secret_files] == [".env"]
        assert stack.unseen_secrets == (key,)
        assert f"{key} belongs to the appliance itself" in self.said(stack)

    @pytest.mark.parametrize("name", ["credentials", "id_rsa", "acme.json", ".env", "tls.key"])
    def test_nor_one_that_a_link_in_the_stacks_directory_leads_to(self, host, name):
        directory = host.stack("nosy", compose_file())
        (directory / name).symlink_to(host.settings.config_dir / "age.key")
        stack = host.found("nosy")
        assert stack.secret_files == ()
        assert stack.unseen_secrets == ((directory / ".env",) if name == ".env" else ())
        assert ("belongs to the appliance itself" in self.said(stack)) is (name in ("acme.json", ".env"))
        assert SECRET not in self.said(stack)

    @pytest.mark.parametrize(
        ("service", "more"),
        [
            ("env_file: {etc}/{file}", ""),
            ("env_file: [{{path: '{etc}/{file}', required: false}}]", ""),
            ("env_file: '${{NONE:-${{ALSO_NONE:-{etc}/{file}}}}}'", ""),
            ("env_file: '${{PATH:+{etc}/{file}}}'", ""),
            ("env_file: '${{COMPOSE_PROJECT_NAME:+{etc}/{file}}}'", ""),
            ("env_file: ../../etc/{file}", ""),
            ("env_file: ./link", ""),
            ("label_file: {etc}/{file}", ""),
            ("extends: {{file: '{etc}/{file}', service: x}}", ""),
            ("", "include: ['{etc}/{file}']"),
            ("", "include: [{{path: other.yaml, env_file: '{etc}/{file}'}}]"),
        ],
    )
    @pytest.mark.parametrize("file", ["age.key", "good.env"])
    def test_compose_is_not_even_called_where_it_would_read_one(self, host, service, more, file):
        etc = host.settings.config_dir
        texts = [text.format(etc=etc, file=file) for text in (service, more)]
        directory = host.stack("nosy", compose_file(*texts), other_dot_yaml="services: {}")
        (directory / "other.yaml").write_text("services: {}")
        (directory / "link").symlink_to(etc / file)
        stack = host.found("nosy")
        assert not stack.resolved
        assert SECRET not in self.said(stack) + repr(stack.raw)
        assert "belongs to the appliance itself" in self.said(stack)
        assert all(not path.is_relative_to(etc) for path in stack.secret_files)

    def test_a_model_that_was_made_before_such_a_file_was_refused_is_not_used(self, host):
        etc = host.settings.config_dir
        directory = host.stack("nosy", compose_file("env_file: e"))
        (directory / "e").write_text("A=1")
        assert host.found("nosy").resolved
        (directory / "e").unlink()
        (directory / "e").symlink_to(etc / "good.env")
        found = os.stat(etc / "good.env")
        cache = next((host.settings.state_dir / "cache" / "stacks").iterdir())
        text = cache.read_text().replace(
            f'"{directory}/e": [', f'"{directory}/e": [{found.st_mtime_ns}, {found.st_size}, {found.st_ino}], "x": ['
        )
        cache.write_text(text)
        assert not host.found("nosy").resolved

    def test_no_container_is_made_of_one(self, tmp_path):
        (tmp_path / "compose.yaml").write_text("services: {web: {image: x, env_file: /var/log}}")
        for act in (compose.up, lambda directory: compose.create(directory, ("web",))):
            with pytest.raises(compose.ComposeError, match="belongs to the appliance itself"):
                act(tmp_path)
        with pytest.raises(compose.ComposeError, match="belongs to the appliance itself"):
            compose.resolve(tmp_path)


def test_a_secret_outside_of_sight_is_told_and_what_lies_there_here_is_not_read(tmp_path):
    image, stack = tmp_path / "etc", tmp_path / "docker" / "site"
    image.mkdir()
    stack.mkdir(parents=True)
    (image / "shadow").write_text("root:!:1::::::")
    (stack / "token").write_text("x")
    model = {"secrets": {"a": {"file": str(image / "shadow")}, "b": {"file": str(stack / "token")}}}
    seen = HostFiles(visible=(tmp_path / "docker",))
    (stack / "acme.json").symlink_to(image / "shadow")
    found = secrets.find(stack, model, [image / "none.env"], [], seen)
    assert found.files == (stack / "token",)
    assert set(found.unseen) == {image / "shadow", image / "none.env"}
    assert found.strays == (stack / "acme.json",)
    assert f"`{image}:{image}`" in seen.advice(image / "shadow")


def test_a_volume_of_another_driver_that_is_out_of_sight_is_no_tree_whatever_the_label_says(host):
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    seen = places.Host(host.settings, filesystem.mounts(), visible=(host.settings.docker_root,))
    volumes = {"v": VolumeInfo("v", elsewhere, driver="nfs-plugin")}
    stage = trees.Stage("site", host.settings.docker_root / "site", seen, volumes)
    model = {
        "services": {"web": {"volumes": [{"type": "volume", "source": "v", "target": "/v"}]}},
        "volumes": {"v": {"name": "v"}},
    }
    (tree,), _ = trees.find(stage, model, (), Policy(trees="all"))
    assert not tree.covered
    on_host = trees.Stage("site", host.settings.docker_root / "site", places.Host(host.settings, ()), volumes)
    assert trees.find(on_host, model, (), Policy(trees="all"))[0][0].covered


def test_no_database_of_the_appliances_own_is_dumped(host):
    state = host.settings.state_dir
    container = Container(
        "1", "web", "nosy", "web", "running", mounts=(Mount("bind", "", str(state), "/state", writable=True),)
    )
    dump = Dump("web", "sqlite", "/state/stackward.sqlite")
    service = Service("web", policy=ServicePolicy(dumps=(dump,)))
    tree = Tree("nosy", "state", TreeKind.BIND, state, state, writable=True)
    stack = Stack(
        "nosy", host.settings.docker_root / "nosy", "nosy", services=(service,), containers=(container,), trees=(tree,)
    )
    with pytest.raises(dumps.DumpError, match="belongs to the appliance itself"):
        dumps.take(SimpleNamespace(), host.settings, stack, host.root / "dumps", ".dumps/nosy")  # Docker is not asked
    assert not list((host.root / "dumps").iterdir())


def test_a_drill_takes_no_file_of_now_from_out_of_sight(tmp_path):
    """`../../../etc/shadow` in a backed-up compose file leads, in the copy's `/`, to a path of the host."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "shadow").write_text("root")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "shared.env").write_text("A=1")
    mirror = Mirror(str(tmp_path / "root"), str(tmp_path / "docker"))
    stack = Stack("site", tmp_path / "docker" / "site", "site")
    seen = HostFiles(visible=(tmp_path / "docker",))
    unpacked = Unpacked(mirror, Path(mirror.place(str(stack.directory))), stack, "configs-x", seen, None, None)  # type: ignore[arg-type]
    assert not unpacked.copy_of_now(str(tmp_path / "etc" / "shadow"))
    assert "outside of what the appliance can see" in unpacked.warnings[0]
    assert unpacked.copy_of_now(str(tmp_path / "docker" / "shared.env"))
    assert not os.path.exists(mirror.place(str(tmp_path / "etc" / "shadow")))
