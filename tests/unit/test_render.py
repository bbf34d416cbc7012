import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress as Bars
from rich.text import Text

from stackward.cli.output import Output
from stackward.cli.render import Amount, Watched, outcome_text, shortened, table
from stackward.cli.results import counted, document, draw
from stackward.core.model import Counts, JobResult, Outcome, StackResult


def drawn(renderable, width=120):
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    renderable(console) if callable(renderable) else console.print(renderable)
    return console.file.getvalue()


def test_nothing_in_a_name_is_taken_for_markup():
    assert "[red]x[/red]" in drawn(table("", ("stack",), [("[red]x[/red]",)]))


def test_long_words_are_folded_not_lost():
    out = drawn(table("", ("stack", "why"), [("shop", "x" * 100)]), width=40)
    assert out.count("x") == 100


def test_a_long_name_is_shortened_in_the_middle_on_a_terminal_only():
    names = ["s" * 200 + "-end", "shop", "名" * 100]
    shown = table("", ("  stack", "outcome", "why"), [(f"  {name}", "failed", "the disk is full") for name in names])
    console = Console(file=io.StringIO(), width=80, force_terminal=True, highlight=False, markup=False)
    console.print(shown)
    lines = Text.from_ansi(console.file.getvalue()).plain.splitlines()
    assert len(lines) == 4
    assert all(line.rstrip().endswith("failed   the disk is full") for line in lines[1:])
    assert lines[1].startswith("  ssss")
    assert "s…sssssss-end" in lines[1]
    assert lines[2].startswith("  shop ")
    assert names[0] in drawn(shown, width=400)


@pytest.mark.parametrize("width", range(1, 12))
def test_what_is_shortened_fits(width):
    for text in ("stackward", "名前はとても長い", "a"):
        assert cell_len(shortened(text, width)) <= width
    assert shortened("stackward", 9) == "stackward"
    assert shortened("stackward", 6) == "sta…rd"


def test_json_is_for_programs_and_tables_for_people(capsys):
    Output(human=False).show({"name": "caf\udce9"}, lambda console: console.print("table"))
    assert json.loads(capsys.readouterr().out) == {"name": "caf\udce9"}
    Output(human=True).show({}, lambda console: console.print("table"))
    assert capsys.readouterr().out == "table\n"


def test_a_pipe_decides_for_json():
    assert Output().human is False


def test_warnings_are_told_also_where_nobody_watches_bars(capsys):
    with Output(human=True).progress() as progress:
        progress.step("copying", total_bytes=10)
        progress.advance(byte_count=5, files=1)
        progress.warn("it is slow")
    assert capsys.readouterr().err == "stackward: it is slow\n"


def test_an_outcome_has_its_colour_and_none_goes_on():
    assert outcome_text(Outcome.FAILED) == Text("failed", "bold red")
    assert outcome_text(None).plain == "running"


def test_a_result_shows_each_stack_and_why():
    parts = (
        StackResult("caf\udce9", Outcome.FAILED, ("disk full", "again")),
        StackResult("shop", Outcome.OK, counts=Counts(files=2, files_changed=1, bytes=2048), standstill_seconds=0.4),
    )
    result = JobResult(Outcome.FAILED, ("one failed",), parts, Counts(files=2, bytes=2048), ("data-2026-11-21",))
    out = drawn(lambda console: draw(console, "backup-data", result))
    for text in ("backup-data failed", "one failed", "caf\\xe9", "disk full", "again", "0.4s", "data-2026-11-21"):
        assert text in out
    assert "2 files (1 changed), 2 KiB" in out
    assert counted(Counts()) == ""


def test_a_result_as_json_has_the_exit_code():
    found = document("verify", JobResult(Outcome.FAILED, exit_code=3, stacks=(StackResult("a", Outcome.FAILED),)))
    assert (found["outcome"], found["exit_code"], found["stacks"][0]["outcome"]) == ("failed", 3, "failed")
    assert json.loads(json.dumps(found)) is not None


@pytest.mark.parametrize(
    ("totals", "told"),
    [
        ({}, "1 KiB, 3 files"),
        ({"total_bytes": 2048}, "1 KiB of 2 KiB, 3 files"),
        ({"total_bytes": 2048, "total_files": 9}, "1 KiB of 2 KiB, 3 of 9 files"),
    ],
)
def test_bars_tell_bytes_and_files_and_of_how_many(totals, told):
    with Bars(Amount(), console=Console(file=io.StringIO())) as bars:
        watched = Watched(bars)
        watched.advance(byte_count=1)  # before any step: nothing to add it to
        watched.step("before", total_bytes=5)
        watched.step("copying", **totals)
        assert Amount().render(bars.tasks[0]).plain == ("0 B of 2 KiB" if totals else "")
        watched.advance(byte_count=1000, files=1)
        watched.advance(byte_count=24, files=2)
        [task] = bars.tasks
        assert (task.description, Amount().render(task).plain) == ("copying", told)
