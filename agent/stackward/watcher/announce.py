"""What people are told of stacks that came. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from stackward.core.model import Stack, display
from stackward.observe.notice import Kind, Message

_LISTED = 10


def new_stacks(stacks: Sequence[Stack]) -> Message | None:
    """None where there are none. Whoever adds one should not learn after a year that it was never backed up."""
    if not stacks:
        return None
    names = [display(stack.name) for stack in stacks]
    lines = [f"{display(stack.name)} is a new stack, and {_fate(stack)}." for stack in stacks[:_LISTED]]
    if len(stacks) > _LISTED:
        lines.append(f"… and {len(stacks) - _LISTED} more.")
    undecided = any(not stack.opted_in and stack.policy.backup is None for stack in stacks)
    lines.append("Next: `stackward init`" if undecided else "Next: `stackward stacks`")
    title = f"{names[0]} is a new stack" if len(names) == 1 else f"{len(names)} new stacks: {', '.join(names[:3])}"
    return Message(title + (" …" if len(names) > 3 else ""), "\n".join(lines), Kind.INFO)


def _fate(stack: Stack) -> str:
    if stack.opted_in:
        return "will be backed up"
    if stack.policy.backup is False:
        return "is not to be backed up, as its labels say"
    return "nobody has decided yet whether it is backed up"
