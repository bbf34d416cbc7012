"""Labels become a policy.

A mistake never leaves a stack out: it is a Problem for a person to mend, and meanwhile the stack is backed up unless it
plainly says `false`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackward.core.label_table import KNOWN, PREFIX, Label
from stackward.core.model import Dump, Hook, Policy, Problem, Quiesce, ServicePolicy, Staging, display
from stackward.core.values import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EXTENSION", "INFRA_STACKS", "KNOWN", "PREFIX", "Label", "PolicyReading", "read_policy"]

EXTENSION = "x-stackward"
INFRA_STACKS = frozenset({"graylog", "fluentbit", "monitoring", "watchtower"})
_HINT = "docs/labels.md lists the labels and their values"


_BY_KEY = {label.key: label for label in KNOWN}
# A mapping in `x-stackward` under one of these holds keys below it; the label's own value is then called `enabled`.
_NAMESPACES = frozenset(PREFIX + name for name in ("backup", "staging", "update"))
_DEFAULT_ON = PREFIX + "backup"


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """`policy.backup` is None where nobody decided; `services` has every service that was asked about."""

    policy: Policy
    services: dict[str, ServicePolicy]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Statement:
    """Something said: `service` is "" for the stack's own `x-stackward`; `text` is None where it is no value at all."""

    key: str
    text: str | None
    service: str = ""
    extension: bool = False

    @property
    def speaker(self) -> str:
        if self.service and self.extension:
            return f"{EXTENSION} for {display(self.service)}"
        return display(self.service) or EXTENSION

    @property
    def place(self) -> str:
        return f"{EXTENSION}: {self.key.removeprefix(PREFIX)}" if self.extension else self.key


def read_policy(
    stack: str, services: Mapping[str, Mapping[str, str]], extension: Mapping[str, object] | None
) -> PolicyReading:
    """The policy that a stack's labels (service → its labels) and its `x-stackward` mapping state.

    Raises nothing: whatever cannot be read is a Problem, and the safer value holds. With any Problem the stack
    counts as `backup=True` unless all that is said about `stackward.backup` is a plain false.
    """
    problems: list[Problem] = []
    statements = [*_from_labels(services), *_from_extension(stack, services, extension, problems)]
    parsed = [(statement, *_parse(stack, statement, problems)) for statement in statements]
    said = [(statement, label, value) for statement, label, value in parsed if label is not None and value is not None]
    decided = _agree(stack, [entry for entry in said if entry[1].scope == "stack"], problems)
    by_service = {
        name: _service_policy(stack, name, [entry for entry in said if entry[1].scope == "service"], problems)
        for name in services
    }
    plainly_false = {value for statement, _, value in parsed if statement.key == _DEFAULT_ON} == {False}
    if problems and not plainly_false:
        decided[_DEFAULT_ON] = True
    return PolicyReading(_policy(stack, decided), by_service, tuple(problems))


def _from_labels(services: Mapping[str, Mapping[str, str]]) -> Iterator[_Statement]:
    for service, labels in services.items():
        for key, value in labels.items():
            if key.casefold().startswith(PREFIX) or key.casefold() == PREFIX.rstrip("."):
                yield _Statement(key, _text(value), service)


def _from_extension(
    stack: str,
    services: Mapping[str, Mapping[str, str]],
    extension: object,
    problems: list[Problem],
) -> Iterator[_Statement]:
    if extension is None:
        return
    if not isinstance(extension, Mapping):
        problems.append(Problem(stack, f"{EXTENSION} must be a mapping of keys to values", _HINT, key=EXTENSION))
        return
    yield from _flatten({key: value for key, value in extension.items() if key != "services"}, PREFIX, "")
    by_service = extension.get("services", {})
    if not isinstance(by_service, Mapping):
        message = f"{EXTENSION}: services must be a mapping of service names to keys"
        problems.append(Problem(stack, message, _HINT, key="services"))
        return
    for name, keys in by_service.items():
        if name not in services:
            message = f"{EXTENSION}: services: there is no service '{display(str(name))}'"
            problems.append(Problem(stack, message, suggest(str(name), services), key=f"services.{name}"))
        elif isinstance(keys, Mapping):
            yield from _flatten(keys, PREFIX, str(name))
        else:
            message = f"{EXTENSION}: services: {display(str(name))} must be a mapping of keys to values"
            problems.append(Problem(stack, message, _HINT, str(name), "services"))


def _flatten(mapping: Mapping[object, object], prefix: str, service: str) -> Iterator[_Statement]:
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and (key in _NAMESPACES or (value and key not in _BY_KEY)):
            if key in _NAMESPACES and (not service or "enabled" in value):
                yield _Statement(key, _text(value.get("enabled")), service, extension=True)
            below = {below: item for below, item in value.items() if below != "enabled" or key not in _NAMESPACES}
            yield from _flatten(below, f"{key}.", service)
        else:
            yield _Statement(key, _text(value), service, extension=True)


def _text(value: object) -> str | None:
    """A YAML value as a label would spell it; a list or mapping has one item a line. None: it has no such form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list | tuple):
        items = [_text(item) for item in value]
        return "".join(f"{item}\n" for item in items) if None not in items else None
    if isinstance(value, Mapping):
        return _text([f"{name}={_text(item)}" for name, item in value.items()])
    return None


def _parse(stack: str, statement: _Statement, problems: list[Problem]) -> tuple[Label | None, Any]:
    """The label and its value, or None in place of what could not be told (then a Problem is noted)."""

    def problem(message: str, hint: str) -> None:
        problems.append(Problem(stack, f"{display(statement.place)} {message}", hint, statement.service, statement.key))

    label = _BY_KEY.get(statement.key)
    if label is None:
        problem("is not a label that Stackward knows", suggest(statement.key, _BY_KEY, PREFIX) or _HINT)
        return None, None
    if statement.extension and not statement.service and label.scope == "service" and not label.spreads:
        name = label.key.removeprefix(PREFIX)
        problem("speaks of one service", f"put it under `{EXTENSION}: services: NAME: {name}`")
        return None, None
    if statement.text is None:
        missing = label.key in _NAMESPACES
        problem("needs `enabled: true` or `enabled: false`" if missing else "has no value", _HINT)
        return label, None
    try:
        return label, label.parse(statement.text)
    except ValueError as error:
        problem(f"{error}, not {_quoted(statement.text)}", _HINT)
        return label, None


def _agree(stack: str, said: list[tuple[_Statement, Label, Any]], problems: list[Problem]) -> dict[str, Any]:
    """Key → value; where statements differ a Problem is noted, and the safer value holds (or none: the default)."""
    decided: dict[str, Any] = {}
    for key in dict.fromkeys(label.key for _, label, _ in said):
        stated = [(statement, value) for statement, label, value in said if label.key == key]
        distinct = list({repr(value): value for _, value in stated}.values())
        if len(distinct) == 1:
            decided[key] = distinct[0]
            continue
        safer = _BY_KEY[key].safer
        if safer is not None:
            decided[key] = safer(distinct)
        said_by = ", ".join(f"{statement.speaker} says {_quoted(statement.text)}" for statement, _ in stated)
        hint = "say it once; until then the " + ("safer value" if safer else "default") + " holds"
        problems.append(Problem(stack, f"{key} is said in several ways: {said_by}", hint, key=key))
    return decided


def _service_policy(
    stack: str, service: str, said: list[tuple[_Statement, Label, Any]], problems: list[Problem]
) -> ServicePolicy:
    spread = {label.key: value for statement, label, value in said if not statement.service}
    stated = spread | _agree(stack, [entry for entry in said if entry[0].service == service], problems)
    timeout = stated.get(PREFIX + "backup.timeout", 60.0)
    on_error = stated.get(PREFIX + "backup.on-error", "fail")

    def hook(key: str) -> Hook | None:
        command = stated.get(PREFIX + key)
        return Hook(service, command, timeout, on_error) if command else None

    return ServicePolicy(
        quiesce=stated.get(PREFIX + "backup.quiesce", Quiesce.AUTO),
        dumps=tuple(Dump(service, kind, path) for kind, path in stated.get(PREFIX + "backup.dump", ())),
        pre=hook("backup.pre"),
        post=hook("backup.post"),
        probe=stated.get(PREFIX + "probe", ""),
    )


def _policy(stack: str, decided: Mapping[str, Any]) -> Policy:
    default = Policy()
    return Policy(
        backup=decided.get(_DEFAULT_ON),
        trees=decided.get(PREFIX + "backup.trees", default.trees),
        skip=decided.get(PREFIX + "backup.skip", ()),
        exclude=decided.get(PREFIX + "backup.exclude", ()),
        max_standstill_seconds=decided.get(PREFIX + "backup.max-standstill", default.max_standstill_seconds),
        keep=decided.get(PREFIX + "backup.keep"),
        replicate=decided.get(PREFIX + "replicate", default.replicate),
        staging=decided.get(PREFIX + "staging", False),
        staged=Staging(
            services=decided.get(PREFIX + "staging.services", ()),
            publish=decided.get(PREFIX + "staging.publish", ()),
            environment=decided.get(PREFIX + "staging.env", ()),
            post=decided.get(PREFIX + "staging.post", ()),
            empty=decided.get(PREFIX + "staging.empty", ()),
            service=decided.get(PREFIX + "staging.service", ""),
            wait_seconds=decided.get(PREFIX + "staging.wait"),
        ),
        drill=decided.get(PREFIX + "drill", ""),
        tier=decided.get(PREFIX + "tier", "infra" if stack in INFRA_STACKS else "app"),
    )


def _quoted(text: str | None) -> str:
    shown = display((text or "").strip())
    return f"'{shown}'" if len(shown) <= 60 else f"'{shown[:57]}…'"
