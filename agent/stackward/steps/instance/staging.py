"""Staging instances as they are planned: which stacks have one, what it is made of, or why there can be none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import yaml

from stackward.config import Settings
from stackward.core import staging, staging_networks, staging_ports, staging_rights
from stackward.core.errors import StackwardError
from stackward.core.model import Stack, Tree, display
from stackward.core.staging import Derived, Facts, Move, Refusal, Wish
from stackward.core.staging_facts import within
from stackward.core.staging_ports import HostPort
from stackward.stacks import places
from stackward.stacks.membership import STAGING_SUFFIX
from stackward.steps.backup.sources import NIGHTLY
from stackward.steps.instance import strangers
from stackward.steps.instance.place import Place
from stackward.steps.instance.staging_look import look, sources
from stackward.tools import compose, filesystem, host_files
from stackward.tools.compose_files import load_yaml
from stackward.tools.docker import Docker
from stackward.tools.host_files import HostFiles

OVERRIDES = ("compose.staging.yaml", "compose.staging.yml")
COMPOSE_FILE = "compose.yaml"


@dataclass(frozen=True, slots=True)
class Plan:
    """A stack's instance. `service` is the hand-written one that takes the place of a derived one, if any.

    `directory` is where its compose project is: the generated one, or the stack's own with a hand-written service.
    """

    stack: Stack
    project: str
    directory: Path
    model: dict[str, Any] = field(default_factory=dict)
    service: str = ""
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    @property
    def services(self) -> tuple[str, ...]:
        """What must be well for the instance to be."""
        return (self.service,) if self.service else tuple(self.model.get("services") or {})

    @property
    def ports(self) -> tuple[HostPort, ...]:
        return tuple(staging_ports.published(self.model))

    def wait_seconds(self, usual: float) -> float:
        """How long it may take to become well."""
        return self.stack.policy.staged.wait_seconds or usual


def home(settings: Settings, stack: str) -> Path:
    """Where a stack's generated project lies, whether there is one or not; the host's unit looks there, too."""
    return settings.state_dir / "staging" / stack


def plans(
    settings: Settings,
    docker: Docker | None,
    stacks: Sequence[Stack],
    *,
    fresh: bool = False,
    routes: Sequence[IPv4Network] = (),
) -> list[Plan]:
    """The instance of every stack that is to have one, by name. Where two want the same port, the second has none.

    A port that production takes is production's, also while it does not run.

    `fresh` says that `.nightly` is about to be made anew: then what counts is what is on the volume now. `routes` are the
    host's: to be known where instances are to start, see `staging_look.host_routes`.
    """
    image = own_image(docker)
    found: list[Plan] = []
    for stack in stacks:
        if stack.policy.staging:
            theirs = [subnet for one in found for subnet in staging_networks.subnets(one.model)]
            found.append(plan(settings, docker, stack, image, fresh=fresh, subnets=[*routes, *theirs]))
    taken = [(port, f"by {display(stack.name)} itself") for stack in stacks for port in published(stack)]
    checked = []
    for one in sorted(found, key=lambda each: os.fsencode(each.stack.name)):
        reasons = (*_clashes(one, taken), *(() if one.service else strangers.called_alike(one.project, stacks)))
        checked.append(replace(one, refusals=(*one.refusals, *reasons)))
        if not checked[-1].refusals:
            taken += [(port, f"by the instance of {display(one.stack.name)}") for port in one.ports]
    return checked


def published(stack: Stack) -> tuple[HostPort, ...]:
    """The ports of the host that a stack takes in production."""
    return tuple(staging_ports.published(stack.raw))


def _clashes(chosen: Plan, taken: Iterable[tuple[HostPort, str]]) -> Iterator[Refusal]:
    for port in chosen.ports:
        who = next((who for other, who in taken if other.meets(port)), "")
        if who:
            yield Refusal(
                f"port {port} of the host, which the instance of {display(chosen.stack.name)} is to have, is taken {who}",
                "stackward.staging.publish: another port",
            )


def plan(
    settings: Settings,
    docker: Docker | None,
    stack: Stack,
    image: str,
    *,
    fresh: bool = False,
    subnets: Sequence[IPv4Network] = (),
) -> Plan:
    """One stack's instance on `.nightly`; these `subnets` are others'."""
    if stack.policy.staged.service:
        return _by_hand(stack)
    volume = Path(os.path.realpath(settings.volume))
    place = Place(
        home(settings, stack.name),
        stack.project + STAGING_SUFFIX,
        (Move(str(volume), str(volume / NIGHTLY)),),
        is_fresh=fresh,
        subnets=tuple(subnets),
    )
    return derive(settings, docker, stack, place, image)


def derive(settings: Settings, docker: Docker | None, stack: Stack, place: Place, image: str) -> Plan:
    """An instance of the stack at a place; with `compose.staging.yaml`, if there is one, merged over it."""
    if not stack.resolved:
        refusal = Refusal(f"Compose cannot read {display(stack.name)}", "`stackward check` says why")
        return Plan(stack, place.project, place.directory, refusals=(refusal,))
    staged = stack.policy.staged
    wish = Wish(
        place.project,
        stack.project,
        services=staged.services,
        without=(staged.service,) if staged.service else (),
        present=frozenset(container.service for container in stack.containers),
        publish=() if place.is_drill else staged.publish,
        environment=staged.environment,
        empty=(*staged.empty, *place.empty),
        prober=place.is_drill,
        wait_seconds=staged.wait_seconds or place.wait_seconds,
    )
    try:
        facts = look(settings, docker, stack, place, image)
    except compose.ComposeError as error:
        refusal = Refusal(f"Compose cannot read what secrets and configs are set to: {display(error.message)}")
        return Plan(stack, place.project, place.directory, refusals=(refusal,))
    derived = staging.derive(stack.raw, wish, facts)
    override = next((path for name in OVERRIDES if (path := stack.directory / name).is_file()), None)
    if override is not None:
        seen = host_files.here(settings, opened=(stack.directory, place.directory))
        derived = _merged(derived, override, stack, place, facts, seen)
    refusals = (
        *strangers.in_the_way(settings, docker, place.project, derived.model),
        *derived.refusals,
        *_unwritable(derived.model),
    )
    return Plan(stack, place.project, place.directory, derived.model, "", refusals, derived.notes, derived.files)


def own_image(docker: Docker | None) -> str:
    """The image that the appliance runs from; "" where it does not run as a container of this engine."""
    own = places.own_container(docker, filesystem.mounts())
    return own.image if own is not None else ""


def write(chosen: Plan) -> None:
    """Write the generated project. It holds production's secrets: nobody else may read it."""
    chosen.directory.mkdir(parents=True, exist_ok=True)
    chosen.directory.chmod(0o700)
    for name, content in chosen.files.items():
        # The service reads it as whoever it runs as; nobody else gets into the directory.
        filesystem.write_durably(chosen.directory / name, content.encode("utf-8", "surrogateescape"), mode=0o444)
    filesystem.write_durably(chosen.directory / COMPOSE_FILE, render(chosen).encode(), mode=0o600)


def render(chosen: Plan) -> str:
    """The generated compose file, with what is otherwise than in production said at its top."""
    notes = "".join(f"# {note}\n" for note in chosen.notes)
    about = f"# The staging instance of {display(chosen.stack.name)}, made by Stackward: edits are lost.\n"
    return about + notes + as_yaml(staging.escaped(chosen.model))


def as_yaml(model: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(model), sort_keys=False, allow_unicode=True, width=120)


def _by_hand(stack: Stack) -> Plan:
    """As the seed has it: a service of the stack's own file, which itself says that it runs on `.nightly`."""
    service = stack.policy.staged.service
    known = {one.name for one in stack.services}
    refusals = (
        () if service in known else (Refusal(f"stackward.staging.service names {display(service)}, which is none"),)
    )
    return Plan(stack, stack.project, stack.directory, service=service, refusals=refusals)


def _merged(derived: Derived, override: Path, stack: Stack, place: Place, facts: Facts, seen: HostFiles) -> Derived:
    """With the hand-written file over it: what it says wins, except over what would let it write to production.

    In a drill, and where the stack's own containers could have written it, it gives the instance no rights either.
    """
    name = display(override.name)
    base = place.directory / ".compose.base.yaml"
    if why := seen.refusal(override):  # before it is read: what is wrong with it would be quoted
        return replace(derived, refusals=(*derived.refusals, Refusal(f"{name} cannot be used: {why}")))
    try:
        said = load_yaml(override)
        place.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = as_yaml(staging.escaped({**derived.model, "services": dict(derived.model["services"])}))
        filesystem.write_durably(base, text.encode())
        model = compose.merged(base, override, stack.directory)
    except (OSError, ValueError, StackwardError) as error:
        what = error.message if isinstance(error, StackwardError) else str(error)
        return replace(derived, refusals=(*derived.refusals, Refusal(f"{name} cannot be used: {display(what)}")))
    finally:
        base.unlink(missing_ok=True)
    model["name"] = place.project
    staging_networks.claim(place.project, model)
    real = {**facts.real, **{source: os.path.realpath(source) for source in sources(model)}}
    refused = list(staging.audit(model, replace(facts, real=real)))
    if place.is_drill or _is_written_by_containers(stack, override):
        places = [move.new for move in place.moves]
        refused += staging_rights.excess(model, derived.model, places, real, called=name)
    return replace(derived, model=model, refusals=(*staging.lifted(derived.refusals, said), *refused))


def _is_written_by_containers(stack: Stack, file: Path) -> bool:
    """Whether a container of the stack can write the file, by the stack's model or as it was made."""
    real = os.path.realpath(file)
    mounts = (mount for service in (stack.raw.get("services") or {}).values() for mount in service.get("volumes") or [])
    said = [str(one.get("source")) for one in mounts if one.get("type") == "bind" and not one.get("read_only")]
    made = [mount.source for one in stack.containers for mount in one.mounts if mount.source and mount.writable]
    return any(within(real, os.path.realpath(source)) for source in (*said, *made))


def _unwritable(model: Mapping[str, Any]) -> Iterator[Refusal]:
    """YAML has a way to write a name down that is not UTF-8, which Compose does not read."""
    said = json.dumps(model, ensure_ascii=False)
    for name in re.findall(r'[^"]*[\ud800-\udfff][^"]*', said)[:1]:
        yield Refusal(f"{display(name)}: no compose file can carry a name that is not UTF-8")


def strayed(model: Mapping[str, Any]) -> list[str]:
    """What would be written to elsewhere than it says, since a symbolic link is on the way: it could be production's.

    Sources are real paths where the instance was planned; to be asked right before it starts, on what is there then.
    """
    mounts = (mount for service in (model.get("services") or {}).values() for mount in service.get("volumes") or [])
    sources = [str(one["source"]) for one in mounts if one.get("type") == "bind" and not one.get("read_only")]
    return [
        f"{display(source)} leads to {display(real)}: not started"
        for source in dict.fromkeys(sources)
        if (real := os.path.realpath(source)) != os.path.normpath(source)
    ]


def uncopied(trees: Iterable[Tree]) -> tuple[str, ...]:
    """The names of trees that were left out of backups on purpose: an instance made from one may begin without."""
    return tuple(tree.mount_name for tree in trees if tree.reason.startswith("skipped"))
