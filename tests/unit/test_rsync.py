from pathlib import Path

from stackward.tools import rsync


def test_a_copy_tells_how_far_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / str(number)).write_bytes(bytes(10_000))
    seen: list[tuple[int, int]] = []

    rsync.copy(source, tmp_path / "target", on_progress=lambda done, files: seen.append((done, files)))

    assert seen[-1] == (3_000_000, 300)
    assert seen == sorted(seen)


def test_where_the_size_is_known_what_needs_no_copy_counts_too(tmp_path: Path) -> None:
    source, base = tmp_path / "source", tmp_path / "base"
    for number in range(20):
        (source / str(number)).mkdir(parents=True)
        for file in range(10):
            (source / str(number) / str(file)).write_bytes(bytes(1000))
    rsync.copy(source, base)
    seen: list[int] = []

    rsync.copy(
        source,
        tmp_path / "target",
        link_to=base,
        on_progress=lambda done, _files: seen.append(done),
        known=(200, 200_000),
    )

    assert seen == sorted(seen)
    assert 190_000 < seen[-1] <= 200_000


def test_a_directory_that_became_a_second_name_of_a_file_is_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "second").mkdir(parents=True)
    (source / "first").write_text("x")
    rsync.copy(source, target)
    (source / "second").rmdir()
    (source / "second").hardlink_to(source / "first")

    rsync.copy(source, target)

    assert (target / "second").samefile(target / "first")
