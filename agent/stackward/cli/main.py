"""`stackward VERB …`: finds the verb, calls it, and turns what it raises into a message and an exit code.

A verb is a module of this package with `add_arguments(parser)` and `run(arguments, context) -> int`. Only the verb that
is asked for is imported, so that `--help` stays quick.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import itertools
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from stackward import __version__
from stackward.core.errors import ExitCode, Interrupted, SettingsError, StackwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# verb: its one line of help. The module has the verb's name, with _ for -.
VERBS = {
    "status": "is everything protected, and if not, why",
    "stacks": "each stack, its trees, and what covers them",
    "check": "look for what would stop a backup or a restore, and say what to do",
    "init": "propose a policy per stack, make the key, print the recovery sheet",
    "accept": "say that a stack that shrank, or whose labels went, is meant to be so",
    "backup": "back up now: configuration and data, all stacks or those named",
    "list": "the backups there are",
    "find": "in which backups a file is",
    "verify": "read backups again and name what is damaged",
    "restore": "put back a stack, a path of it, or the configuration",
    "snapshot": "snapshots of the Btrfs volume: make, list, compare, go back to, delete",
    "stack": "move a stack's data to the Btrfs volume",
    "drill": "prove that backups restore, by booting stacks from them",
    "staging": "instances of stacks that run on last night's data",
    "prune": "remove the backups that retention no longer keeps",
    "jobs": "what runs when, and when it last did",
    "run": "run a chain of jobs now, as the schedule does",
    "runs": "what was done, and how it ended",
    "health": "how the containers of each stack are",
    "observability": "are those up that watch the host",
    "audit": "ports, images, compose files, what backups cover: into a file",
    "host-report": "hardware, disks, space, Docker, failed units: into a file",
    "docker-prune": "remove what Docker has no use for, and keep what a way back needs",
    "rotate-logs": "put logs and reports aside, unless the host does",
    "metrics": "what /metrics says, in Prometheus' words",
    "notify": "say something to whoever is told of failures, to see whether it arrives",
    "host": "start and stop stacks through systemd; what the host says of itself",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The whole command line; returns the exit code and raises nothing but SystemExit for usage."""
    words = _verb_first(sys.argv[1:] if arguments is None else arguments)
    verb = _verb(words)
    if verb is None:
        return ExitCode.OK if _overview(words) else ExitCode.USAGE
    module = importlib.import_module(f"stackward.cli.{verb.replace('-', '_')}")
    context_module = importlib.import_module("stackward.cli.context")
    model = importlib.import_module("stackward.core.model")
    parser = _Parser(prog=f"stackward {verb}", description=VERBS[verb])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--human", dest="human", action="store_true", default=None, help="tables, also into a pipe")
    how.add_argument("--json", dest="human", action="store_false", help="JSON, also on a terminal")
    module.add_arguments(parser)
    parsed = parser.parse_args([model.typed(word) for word in words[1:]])
    try:
        with context_module.Context(human=parsed.human) as context:
            return int(module.run(parsed, context))
    except StackwardError as error:
        _complain(error)
        return error.exit_code
    except Interrupted as error:
        print(f"stackward: interrupted ({error})", file=sys.stderr)
        return ExitCode.FAILED
    except BrokenPipeError:
        # Whoever read our output has gone; say nothing more, also not at exit.
        sys.stderr.close()
        return ExitCode.OK
    except OSError as error:
        _complain(_of_system(error, model.display))
        return ExitCode.FAILED


def _verb_first(words: Sequence[str]) -> list[str]:
    """What every verb takes may stand before it, too."""
    before = list(itertools.takewhile(lambda word: word in ("--human", "--json"), words))
    rest = list(words[len(before) :])
    return [*rest[:1], *before, *rest[1:]]


def _verb(words: Sequence[str]) -> str | None:
    if not words or words[0].startswith("-"):
        return None
    if words[0] == "help":
        return None
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"did you mean `stackward {near[0]}`?" if near else "`stackward --help` names them all"
        _complain(SettingsError(f"there is no verb {words[0]!r}", hint=hint))
        raise SystemExit(ExitCode.USAGE)
    return words[0]


def _overview(words: Sequence[str]) -> bool:
    """Answer `--help`, `--version` or nothing at all; False when that was no question we know."""
    if words and words[0] in ("-V", "--version"):
        print(f"stackward {__version__}")
        return True
    known = not words or words[0] in ("-h", "--help", "help")
    width = max(map(len, VERBS))
    lines = ["usage: stackward VERB …", "", *(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())]
    lines += ["", "`stackward VERB --help` says more. Exit codes: 0 good, 1 a step failed, 2 usage or settings wrong,"]
    lines += ["3 damage found, 4 refused for safety, 75 busy, try again."]
    print("\n".join(lines), file=sys.stdout if known else sys.stderr)
    return bool(words) and known


def _of_system(error: OSError, display: Callable[[str], str]) -> StackwardError:
    """What the system refused us, outside of any run: a full or read-only state directory, or not being root."""
    hints = {errno.EACCES: "run it as root", errno.EPERM: "run it as root", errno.ENOSPC: "make room there"}
    where = f"{display(os.fsdecode(error.filename))}: " if isinstance(error.filename, (str, bytes)) else ""
    what = error.strerror or str(error)
    return StackwardError(f"{where}{what}", hint=hints.get(error.errno or 0, "`stackward check` may say more"))


def _complain(error: StackwardError) -> None:
    text = f"stackward: {error}"
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """argparse, with our way to speak of what is wrong."""

    def error(self, message: str) -> NoReturn:
        _complain(SettingsError(message, hint=f"`{self.prog} --help`"))
        raise SystemExit(ExitCode.USAGE)


if __name__ == "__main__":
    sys.exit(main())
