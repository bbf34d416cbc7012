import os

import pytest

from stackward.stacks import sight


@pytest.fixture
def root(tmp_path):
    for name in ("shop", "wiki", "notes"):
        (tmp_path / name).mkdir()
    for name in ("shop", "wiki"):
        (tmp_path / name / "compose.yaml").write_text("services: {}\n")
    return tmp_path


def difference(root, change):
    before = sight.look(root)
    change()
    return sight.compare(before, sight.look(root))


def test_stacks_are_those_with_a_compose_file(root):
    seen = sight.look(root)
    assert (set(seen.stacks), set(seen.others)) == ({"shop", "wiki"}, {"notes"})


def test_without_a_change_nothing_differs(root):
    assert not difference(root, lambda: None)


def test_stacks_come_and_go(root):
    found = difference(root, lambda: (root / "notes" / "docker-compose.yml").write_text("services: {}\n"))
    assert (found.new, found.gone, found.changed) == (("notes",), (), ())
    found = difference(root, (root / "shop" / "compose.yaml").unlink)
    assert (found.new, found.gone, found.changed) == ((), ("shop",), ())


@pytest.mark.parametrize(
    "change",
    [
        lambda shop: (shop / "compose.yaml").write_text("services: {web: {}}\n"),
        lambda shop: (shop / ".env").write_text("A=1\n"),
        lambda shop: os.chmod(shop / "compose.yaml", 0o600),
        lambda shop: os.replace(_written(shop / "new.tmp"), shop / "compose.yaml"),
        lambda shop: os.symlink("elsewhere", shop / "link"),
    ],
    ids=["written", "created", "chmod", "replaced", "link"],
)
def test_a_stacks_own_files_count(root, change):
    assert difference(root, lambda: change(root / "shop")).changed == ("shop",)


@pytest.mark.parametrize("name", ["compose.yaml.swp", "compose.yaml~", "app.log", "4913", ".#compose.yaml", "x.tmp"])
def test_what_editors_and_programs_leave_does_not(root, name):
    assert not difference(root, lambda: (root / "shop" / name).write_text("x"))


def test_data_does_not_count_nor_is_it_looked_at(root):
    (root / "shop" / "data").mkdir()
    assert not difference(root, lambda: (root / "shop" / "data" / "file").write_text("x"))


def test_in_a_directory_full_of_files_only_compose_files_count(root):
    for number in range(2100):
        (root / "shop" / f"photo{number}").touch()
    assert not difference(root, lambda: (root / "shop" / "photo7").write_text("x"))
    assert difference(root, lambda: (root / "shop" / "compose.yaml").write_text("x: 1")).changed == ("shop",)


def test_odd_names_are_names(root):
    odd = os.fsdecode(b"caf\xe9")
    (root / odd).mkdir()
    assert difference(root, lambda: (root / odd / "compose.yaml").write_text("x: 1")).new == (odd,)


def _written(path):
    path.write_text("services: {db: {}}\n")
    return path
