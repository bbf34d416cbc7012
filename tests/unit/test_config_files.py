from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import flipped_for_link, flipping, make_victim
from stackward.config import Settings
from stackward.core import secret_names
from stackward.core.model import Outcome, Policy, Stack, Tree, TreeKind
from stackward.steps.backup import config_files
from stackward.steps.backup.config_files import Selection
from stackward.steps.restore import kept

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


class Root:
    """A DOCKER_ROOT with the stack `shop`, which is opted in."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "docker"
        self.put("shop/compose.yaml")
        self.stacks: list[Stack] = [self.stack("shop")]

    def put(self, path: str, text: str = "x") -> Path:
        full = self.path / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)
        return full

    def stack(self, name: str, **fields: object) -> Stack:
        fields = {"opted_in": True, **fields}
        return Stack(name=name, directory=self.path / name, project=name, **fields)

    def tree(self, path: str, **fields: object) -> Tree:
        full = self.path / path
        full.mkdir(parents=True, exist_ok=True)
        fields = {"kind": TreeKind.BIND, "writable": True, "mount_name": full.name, **fields}
        return Tree(stack=path.split("/", maxsplit=1)[0], source=full, path=full, **fields)

    def select(self, limit: int = 1 << 20) -> Selection:
        chosen = Settings(
            docker_root=self.path,
            backup_root=self.place / "backup",
            state_dir=self.path / "own" / "state",
            config_size_limit=limit,
        )
        return config_files.select(chosen, self.stacks)

    def members(self, limit: int = 1 << 20) -> list[str]:
        return [os.fsdecode(path) for path in self.select(limit).members]

    def secrets(self) -> list[str]:
        return [os.fsdecode(path) for path in self.select().secrets]

    def left_out(self, limit: int = 1 << 20) -> dict[str, tuple[str, Outcome]]:
        return {os.fsdecode(one.path): (one.reason, one.outcome) for one in self.select(limit).left_out}


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def test_directories_come_before_what_is_in_them_and_twice_the_same(root):
    root.put("shop/b/c")
    root.put("shop/a")
    assert root.members() == ["shop", "shop/a", "shop/b", "shop/b/c", "shop/compose.yaml"]
    assert root.select() == root.select()


def test_data_directories_of_stacks_stay_out_and_deeper_ones_stay_in(root):
    root.put("shop/data/rows")
    root.put("shop/app/data/default.json")
    root.put("undecided/data/rows")
    members = root.members()
    assert "shop/data" in members
    assert "undecided/data" in members
    assert "shop/app/data/default.json" in members
    assert not [path for path in members if path.endswith("rows")]


def test_a_tree_that_the_data_backup_covers_stays_out_but_its_directory(root):
    root.put("shop/library/photo")
    root.stacks = [root.stack("shop", trees=(root.tree("shop/library"),))]
    assert root.members() == ["shop", "shop/compose.yaml", "shop/library"]
    assert root.left_out()["shop/library"] == ("the data backup holds it", Outcome.OK)


def test_a_tree_that_no_data_backup_covers_is_in_it(root):
    root.put("shop/conf/nginx.conf")
    root.put("blog/state/x")
    root.stacks = [
        root.stack("shop", trees=(root.tree("shop/conf", covered=False, reason="read-only"),)),
        root.stack("blog", opted_in=False, trees=(root.tree("blog/state"),)),
    ]
    members = root.members()
    assert "shop/conf/nginx.conf" in members
    assert "blog/state/x" in members


def test_a_stack_that_mounts_its_whole_directory_keeps_its_compose_file_in_it(root):
    root.stacks = [root.stack("shop", trees=(root.tree("shop"),))]
    assert "shop/compose.yaml" in root.members()


def test_what_is_skipped_on_purpose_is_left_out(root):
    root.put("shop/models/big")
    root.put("blog/compose.yaml")
    root.stacks = [
        root.stack("shop", policy=Policy(skip=("./models", "some_volume", "..", "/etc", "../blog"))),
        root.stack("blog"),
    ]
    members = root.members()
    assert "shop/models/big" not in members
    assert "blog/compose.yaml" in members
    assert root.left_out()["shop/models"] == ("needs no backup, says stackward.backup.skip", Outcome.OK)


def test_logs_caches_history_and_snapshots_stay_out(root):
    for name in ("logs", "cache", ".cache", ".git", ".snapshots"):
        root.put(f"shop/sub/{name}/x")
    root.put("shop/sub/logs.conf")
    assert root.members() == ["shop", "shop/compose.yaml", "shop/sub", "shop/sub/logs.conf"]


def test_names_of_ours_are_ours_only_where_we_put_them(root):
    """What a user calls so is the user's own; what a restore keeps is known by its record."""
    own = [
        "shop/.stackward-kept/x",
        "shop/.nightly/x",
        "shop/.stackward/x",
        "shop/.incoming-x/x",
        "shop/a.stackward-undone",
    ]
    for name in own:
        root.put(name)
    root.put(".stackward-kept/r1/old")
    root.put("shop/.stackward-kept/r1/old")
    record = kept.Record(
        "r1", "2026-11-01T00:00:00+00:00", "shop", "a restore", (), (f"{root.path}/.stackward-kept/r1",)
    )
    kept.write(root.path / "own/state/kept", record)
    members = root.members()
    assert set(own) <= set(members)
    assert "shop/.stackward-kept/r1/old" in members
    assert not any(name.startswith(".stackward-kept") for name in members)


def test_a_stack_may_be_called_cache(root):
    root.put("cache/compose.yaml")
    root.stacks.append(root.stack("cache"))
    assert "cache/compose.yaml" in root.members()


def test_stackwards_own_directories_stay_out(root):
    root.put("own/state/stackward.sqlite")
    assert "own/state/stackward.sqlite" not in root.members()


def test_a_large_directory_that_nothing_names_is_left_out_alone_and_with_a_warning(root):
    root.put("shop/stuff/note")
    root.put("shop/stuff/deep/large/a", "x" * 700_000)
    root.put("shop/stuff/deep/large/b", "x" * 700_000)
    root.put("shop/stuff/deep/large/.env", "x")
    root.put("shop/stuff/zz", "x")
    members = root.members()
    assert "shop/stuff/deep" in members
    assert "shop/stuff/zz" in members
    assert not [path for path in members if "large" in path]
    reason, outcome = root.left_out()["shop/stuff/deep/large"]
    assert (reason, outcome) == ("over 1 MiB, and nothing names it", Outcome.WARN)


def test_many_small_ones_add_up(root):
    for number in range(20):
        root.put(f"shop/photos/{number}/image", "x" * 100_000)
    assert not [path for path in root.members() if "photos" in path]
    assert list(root.left_out()) == ["shop/photos"]


def test_a_stacks_own_directory_is_never_too_large(root):
    for number in range(20):
        root.put(f"shop/{number}.conf", "x" * 100_000)
    assert len(root.members()) == 22


def test_a_large_file_is_left_out_with_a_warning(root):
    root.put("shop/dump.sql", "x" * 2_000_000)
    assert root.left_out()["shop/dump.sql"][1] is Outcome.WARN
    assert "shop/dump.sql" not in root.members()


def test_a_sparse_file_counts_what_it_holds(root):
    with open(root.put("shop/sparse"), "r+b") as file:
        file.truncate(1 << 40)
    assert "shop/sparse" in root.members()


def test_a_large_tree_of_a_stack_that_nobody_decided_on_is_no_warning(root):
    root.put("blog/library/photo", "x" * 2_000_000)
    root.stacks.append(root.stack("blog", opted_in=False, trees=(root.tree("blog/library"),)))
    assert root.left_out()["blog/library/photo"] == ("a tree of blog, which is not opted in", Outcome.OK)


def test_secrets_are_told_by_their_names(root):
    for name in (".env", ".env.production", "db.env", "acme.json", "store.p12"):
        root.put(f"shop/{name}")
    for name in (".env.example", "example.env", "environment.yaml"):
        root.put(f"shop/{name}")
    root.put(".env")
    assert root.secrets() == [
        ".env",
        "shop/.env",
        "shop/.env.production",
        "shop/acme.json",
        "shop/db.env",
        "shop/store.p12",
    ]
    assert root.members() == [
        "shop",
        "shop/.env.example",
        "shop/compose.yaml",
        "shop/environment.yaml",
        "shop/example.env",
    ]


def test_keys_are_told_by_what_is_in_them(root):
    root.put("shop/tls/server.key", KEY)
    root.put("shop/tls/both.pem", CERTIFICATE * 20 + KEY)
    root.put("shop/tls/public.pem", CERTIFICATE)
    root.put("shop/age.key", "# created\nAGE-SECRET-KEY-1AAAA\n")
    assert root.secrets() == ["shop/age.key", "shop/tls/both.pem", "shop/tls/server.key"]
    assert "shop/tls/public.pem" in root.members()


def test_what_a_stack_names_as_secret_is_one_wherever_it_lies(root):
    root.put(".gitignore", "private/\n")
    named = (
        root.put("shop/token.txt"),
        root.put("shop/private/password"),
        root.put("shop/data/app.env"),
        root.put("shop/.env.example"),
        root.place / "not-there",
    )
    root.stacks = [root.stack("shop", secret_files=named)]
    selection = root.select()
    assert [os.fsdecode(path) for path in selection.secrets] == [
        "shop/.env.example",
        "shop/data/app.env",
        "shop/private/password",
        "shop/token.txt",
    ]
    assert not set(selection.secrets) & set(selection.members)
    reason, outcome = root.left_out()[str(root.place / "not-there")]
    assert (outcome, "not visible here" in reason) == (Outcome.WARN, True)


def test_secrets_within_a_covered_tree_are_the_data_backups(root):
    inside = root.put("shop/state/app.env")
    root.stacks = [root.stack("shop", trees=(root.tree("shop/state"),), secret_files=(inside,))]
    assert root.secrets() == []


def test_another_name_of_a_secret_is_one_too(root):
    os.link(root.put("shop/.env"), root.path / "shop" / "a-copy.txt")
    assert root.secrets() == ["shop/.env", "shop/a-copy.txt"]
    assert root.members() == ["shop", "shop/compose.yaml"]


def test_a_symlink_to_a_secret_goes_with_it(root):
    outside = root.place / "private.env"
    outside.write_text("x")
    os.symlink(outside, root.path / "shop" / ".env")
    root.stacks = [root.stack("shop", secret_files=(outside,))]
    assert root.secrets() == [str(outside), "shop/.env"]


def test_the_capsule_has_the_directories_above_secrets(root):
    root.put("shop/secrets/inner/password")
    assert root.select().capsule_members == (
        b"shop",
        b"shop/secrets",
        b"shop/secrets/inner",
        b"shop/secrets/inner/password",
    )


def test_an_ignored_secret_is_still_in_the_capsule(root):
    root.put(".gitignore", ".env\n*.key\n")
    root.put("shop/.env")
    root.put("shop/server.key", KEY)
    root.put("shop/other.key", "public")
    selection = root.select()
    assert selection.secrets == (b"shop/.env", b"shop/server.key")
    assert selection.files_left_out == 1


def test_a_stack_that_is_ignored_is_a_warning(root):
    root.put(".gitignore", "/shop/\n")
    assert root.left_out()["shop"] == ("ignored by .gitignore", Outcome.WARN)


def test_a_clones_own_gitignore_does_not_speak_of_backups(root):
    root.put(".gitignore", "*.tmp\n")
    root.put("mail/.git/HEAD")
    root.put("mail/.gitignore", "mail.conf\n")
    root.put("mail/sub/.gitignore", "*\n")
    root.put("mail/sub/x.conf")
    root.put("mail/mail.conf")
    root.put("mail/x.tmp")
    members = root.members()
    assert "mail/mail.conf" in members
    assert "mail/sub/x.conf" in members
    assert "mail/x.tmp" not in members


def test_ignore_files_count_only_where_docker_root_is_looked_after_with_git(root):
    root.put("shop/.gitignore", "*.conf\n")
    root.put("shop/x.conf")
    assert "shop/x.conf" in root.members()
    root.put(".git/HEAD")
    assert "shop/x.conf" not in root.members()


LINES = st.lists(
    st.sampled_from(["*.c", "!a.c", "d/", "/a.c", "d/*", "!d/", "**/a.c", "d/**/b.c", "!*.c", "a.*", "e", "*", "!e/"]),
    max_size=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(top=LINES, nested=LINES, deeper=LINES)
def test_nested_ignore_files_are_read_as_git_reads_them(tmp_path_factory, top, nested, deeper):
    root = Root(tmp_path_factory.mktemp("root"))
    names = ("a.c", "b.c", "d/a.c", "d/b.c", "d/e/a.c", "d/e/b.c", "e/d/b.c")
    for base in ("", "shop/", "shop/d/"):
        for name in names:
            root.put(base + name)
    (root.path / ".gitignore").write_text("\n".join(top))
    (root.path / "shop" / ".gitignore").write_text("\n".join(nested))
    (root.path / "shop" / "d" / ".gitignore").write_text("\n".join(deeper))
    subprocess.run(["git", "init", "-q", root.path], check=True)
    listing = ["git", "-C", root.path, "ls-files", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(listing, check=True, capture_output=True).stdout.split(b"\0")
    ours = [path for path in root.select().members if not os.path.isdir(os.fsencode(root.path) + b"/" + path)]
    assert sorted(ours) == sorted(path for path in listed if path)


def test_a_mount_that_nothing_names_is_left_out_with_a_warning(root):
    place = root.path / "shop" / "media"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        root.put("shop/media/film")
        assert root.left_out()["shop/media"] == ("another file system or subvolume", Outcome.WARN)
        assert "shop/media/film" not in root.members()
        tree = root.tree("shop/media", covered=False, reason="remote")
        root.stacks = [root.stack("shop", trees=(tree,))]
        assert root.left_out()["shop/media"] == ("a tree of shop, not covered: remote", Outcome.OK)
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_stack_on_a_mount_of_its_own_is_in_it(root):
    subprocess.run(["mount", "-t", "tmpfs", "none", root.path / "shop"], check=True)
    try:
        root.put("shop/compose.yaml")
        root.put("shop/conf/x")
        assert root.members() == ["shop", "shop/compose.yaml", "shop/conf", "shop/conf/x"]
    finally:
        subprocess.run(["umount", root.path / "shop"], check=True)


def test_sockets_stay_out_and_other_odd_things_stay_in(root):
    os.mkfifo(root.path / "shop" / "pipe")
    os.symlink("/no/where", root.path / "shop" / "dangling")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root.path / "shop" / "s"))
        assert root.members() == ["shop", "shop/compose.yaml", "shop/dangling", "shop/pipe"]


def test_a_stack_that_is_a_symlink_is_told_of(root):
    elsewhere = root.place / "elsewhere"
    elsewhere.mkdir()
    os.symlink(elsewhere, root.path / "wiki")
    root.stacks.append(root.stack("wiki"))
    assert root.left_out()["wiki"][1] is Outcome.WARN


def test_what_cannot_be_read_fails_and_the_rest_is_there(root):
    deep = os.fsencode(root.path / "shop" / "deep")
    os.mkdir(deep)
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(20):  # deeper than a path may be long
        os.mkdir(b"d" * 250, dir_fd=descriptor)
        below = os.open(b"d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    selection = root.select()
    assert [one.outcome for one in selection.left_out] == [Outcome.FAILED]
    assert b"shop/compose.yaml" in selection.members


def test_the_page_about_config_backups_names_all_that_is_left_out_or_secret():
    page = Path(__file__).parents[2].joinpath("docs", "config-backups.md").read_text(encoding="utf-8")
    words = {*map(os.fsdecode, config_files.REBUILT | config_files.SNAPSHOTS | secret_names.ALWAYS)}
    words |= {f"*{os.fsdecode(suffix)}" for suffix in (*secret_names.CONTAINERS, *secret_names.KEY_SUFFIXES)}
    assert [word for word in sorted(words) if f"`{word}`" not in page] == []


def test_the_walk_follows_no_link_that_takes_a_directory_s_place(tmp_path: Path) -> None:
    """What the victim's files are called, or whether they hold keys, is not the stack's to know."""
    root = Root(tmp_path)
    root.put("shop/d/own", "x")
    victim = make_victim(tmp_path / "victim", ["of-others", "id_rsa"], KEY)
    with flipped_for_link(root.path / "shop/d", victim):
        for _ in range(200):
            selection = root.select()
            assert not any(
                path.endswith((b"/of-others", b"/id_rsa")) for path in (*selection.members, *selection.secrets)
            )


def test_a_key_that_becomes_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.put("shop/tls.key", KEY)
    os.mkfifo(root.path / "shop/pipe")
    with flipping(root.path / "shop/tls.key", root.path / "shop/pipe"):
        for _ in range(200):
            root.select()
