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
