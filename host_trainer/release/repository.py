"""Decides what the documents of a release repository say; reads no clock, no disk, and signs nothing.

Four roles stand at the top: root (offline, 2 of 3 keys) names the keys of all; targets (offline) delegates
each channel of each model; snapshot and timestamp (online) say what is current. A channel `<model>-<channel>`
lists targets below `<model>/<channel>/`; its delegation ends the search. Canary and beta are the trainer's;
stable takes the trainer's and the release key. Every edit returns a new Repository and leaves the old one.
"""

import copy
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_cl.errors import ConfigError, ReleaseError
from edge_cl.wire.release import (
    CHANNELS,
    ISSUED,
    ISSUED_FORMAT,
    Facts,
    path_of,
    read_facts,
    role_of,
    to_custom,
)

KEY_NAME = "x-edge-cl-name"  # field of a public key: the name of its file
FIRST_KEYS = (
    "root-1",
    "root-2",
    "root-3",
    "targets-1",
    "snapshot-1",
    "timestamp-1",
    "trainer-1",
    "release-1",
)
OFFLINE = ("root", "targets", "release")  # not needed day by day: kept off the host, under a passphrase
ROOT_THRESHOLD = 2
CHANNEL_KEYS = {
    "canary": ("trainer",),
    "beta": ("trainer",),
    "stable": ("trainer", "release"),
}  # all must sign
TOP = ("root", "targets", "snapshot", "timestamp")
LIFE = {"root": 365, "targets": 182, "snapshot": 7, "timestamp": 1}  # days
CHANNEL_LIFE = 60  # days


class Repository(NamedTuple):
    """The current document of every role; channels by the role's name."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    channels: Mapping[str, Metadata[Targets]]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    def document(self, role: str) -> Metadata[Any]:
        """Return a role's document; ValueError for an unknown one."""
        if role in TOP:
            return getattr(self, role)
        if role in self.channels:
            return self.channels[role]
        raise ValueError(f"no role {role}")

    def keys_of(self, role: str) -> list[Key]:
        """Return the public keys that may sign a role."""
        delegator = self.delegator(role)
        return [delegator.get_key(keyid) for keyid in delegator.get_delegated_role(role).keyids]

    def delegator(self, role: str) -> Root | Targets:
        """Return the document that names a role's keys."""
        return self.root.signed if role in TOP else self.targets.signed


def found(keys: Mapping[str, Key], models: Iterable[str], now: datetime) -> Repository:
    """Return the first documents of a repository; `keys` are public ones by name, as in `root-1`."""
    root = Root(version=1, expires=expiry("root", now), consistent_snapshot=True)
    for name, key in keys.items():
        if (role := stem(name)) in TOP:
            root.add_key(key, role)
    root.roles["root"].threshold = ROOT_THRESHOLD
    repository = Repository(
        Metadata(root),
        Metadata(Targets(version=1, expires=expiry("targets", now), delegations=Delegations({}, {}))),
        {},
        Metadata(Snapshot(version=1, expires=expiry("snapshot", now))),
        Metadata(Timestamp(version=1, expires=expiry("timestamp", now))),
    )
    for model in models:
        repository = _delegated(repository, model, keys, now)
    return stamped(repository, now)


def with_model(repository: Repository, model: str, now: datetime) -> Repository:
    """Return the repository with the three channels of one more model, signed by the keys of the others.

    Raises:
        ConfigError: the model is there already, or there is no other to take the keys from.
    """
    if role_of(model, CHANNELS[0]) in repository.channels:
        raise ConfigError(f"model {model} is there already: publish to it")
    keys = {name_of(key): key for role in repository.channels for key in repository.keys_of(role)}
    return _delegated(_renewed(repository, ["targets"], now), model, keys, now)


def with_target(
    repository: Repository, model: str, channel: str, target: TargetFile, now: datetime
) -> Repository:
    """Return the repository with one more target in a channel.

    Raises:
        ConfigError: no such model, a name that is taken, or a bundle older than what the channel has.
        ReleaseError: the target's facts make no sense.
    """
    role = _existing(repository, model, channel)
    listed, number = repository.channels[role].signed.targets, read_facts(target.custom).bundle
    if target.path in listed:
        raise ConfigError(f"{target.path} is there already: choose another --name")
    if number < (newest := max_bundle(repository, [role])):
        raise ConfigError(f"bundle {number} is older than {newest} in {role}: devices would never take it")
    changed = _renewed(repository, [role], now)
    changed.channels[role].signed.targets[target.path] = target
    return changed


def described(target: TargetFile, facts: Facts) -> TargetFile:
    """Return a target that carries facts."""
    return TargetFile(target.length, target.hashes, target.path, {"custom": to_custom(facts)})


def promoted(
    repository: Repository, model: str, name: str, to: str, now: datetime
) -> tuple[Repository, TargetFile, TargetFile]:
    """Return the repository with a target of the channel before `to` in `to`; and the old and new target.

    Raises:
        ConfigError: nothing is promoted to the first channel, the target is not in the one before, or as
            `with_target`.
    """
    if to == CHANNELS[0]:
        raise ConfigError(f"nothing comes before {to}: use `host-trainer publish`")
    role_of(model, to)
    before = CHANNELS[CHANNELS.index(to) - 1]
    role, path = _existing(repository, model, before), path_of(model, before, name)
    source = repository.channels[role].signed.targets.get(path)
    if source is None:
        raise ConfigError(f"{role} lists no {name}: promote what was tried there first")
    target = TargetFile(
        source.length,
        dict(source.hashes),
        path_of(model, to, name),
        copy.deepcopy(source.unrecognized_fields),
    )
    return with_target(repository, model, to, target, now), source, target


def rotated(repository: Repository, old: str, new: Key, now: datetime) -> Repository:
    """Return the repository in which the key `new` stands wherever the key named `old` stood.

    Every document the old key could sign gets a new version, so that nothing rests on its signature.

    Raises:
        ConfigError: no role has such a key.
    """
    touched = roles_with(repository, old)
    at_root = ["root"] if any(role in TOP for role in touched) else []
    at_targets = ["targets"] if any(role not in TOP for role in touched) else []
    signed_by_it = [role for role in touched if role not in ("snapshot", "timestamp")]
    changed = _renewed(repository, {*at_root, *at_targets, *signed_by_it}, now)
    for role in touched:
        keyid = next(key.keyid for key in changed.keys_of(role) if name_of(key) == old)
        changed.delegator(role).revoke_key(keyid, role)
        changed.delegator(role).add_key(new, role)
    return changed


def roles_with(repository: Repository, key: str) -> list[str]:
    """Return the roles that the key of this name may sign.

    Raises:
        ConfigError: no role has such a key; the message says which there are.
    """
    touched = [role for role in roles_of(repository) if key in map(name_of, repository.keys_of(role))]
    if not touched:
        raise ConfigError(f"no role has a key named {key}: choose {', '.join(key_names(repository))}")
    return touched


def key_names(repository: Repository) -> list[str]:
    """Return the names of all keys, sorted."""
    return sorted({name_of(key) for role in roles_of(repository) for key in repository.keys_of(role)})


def renewed(repository: Repository, roles: Iterable[str], now: datetime) -> Repository:
    """Return the repository with new versions of these roles, saying the same for longer."""
    return _renewed(repository, [role for role in roles if role not in ("snapshot", "timestamp")], now)


def due(repository: Repository, now: datetime) -> list[str]:
    """Return the roles that have lived half their life; not snapshot and timestamp, renewed anyway."""
    roles = [role for role in roles_of(repository) if role not in ("snapshot", "timestamp")]
    return [
        role
        for role in roles
        if repository.document(role).signed.expires - now <= timedelta(days=_life(role)) / 2
    ]


def roles_of(repository: Repository) -> list[str]:
    """Return all roles, the top ones first."""
    return [*TOP, *sorted(repository.channels)]


def max_bundle(repository: Repository, roles: Iterable[str]) -> int:
    """Return the highest bundle number that these channels list; 0 when they list nothing."""
    return max(
        (
            read_facts(target.custom).bundle
            for role in roles
            for target in repository.channels[role].signed.targets.values()
        ),
        default=0,
    )


def stamped(repository: Repository, now: datetime) -> Repository:
    """Return the repository with the time of signing in its timestamp; snapshot and timestamp live anew."""
    snapshot, timestamp = copy.deepcopy(repository.snapshot), copy.deepcopy(repository.timestamp)
    snapshot.signed.expires = expiry("snapshot", now)
    timestamp.signed.expires = expiry("timestamp", now)
    timestamp.signed.unrecognized_fields[ISSUED] = now.strftime(ISSUED_FORMAT)
    return repository._replace(snapshot=snapshot, timestamp=timestamp)


def metafile(document: Metadata[Any], data: bytes) -> MetaFile:
    """Return how a document of these bytes is listed by the one above it: by version, length and hash."""
    listed = MetaFile.from_data(document.signed.version, data, ["sha256"])
    listed.length = len(data)
    return listed


def expiry(role: str, now: datetime) -> datetime:
    """Return when a document of a role, signed now, is too old to be believed."""
    return now.replace(microsecond=0) + timedelta(days=_life(role))


def name_of(key: Key) -> str:
    """Return the name of a public key, which is that of its file."""
    return str(key.unrecognized_fields.get(KEY_NAME, key.keyid[:12]))


def stem(name: str) -> str:
    """Return the role part of a key's name: `root` of `root-1`."""
    return name.rpartition("-")[0]


def _life(role: str) -> int:
    return LIFE.get(role, CHANNEL_LIFE)


def _existing(repository: Repository, model: str, channel: str) -> str:
    role = role_of(model, channel)
    if role not in repository.channels:
        raise ConfigError(f"no model {model} here: add it with `host-trainer init DIR --model {model}`")
    return role


def _renewed(repository: Repository, roles: Iterable[str], now: datetime) -> Repository:
    """Return a copy in which these roles have a new version and expiry, to be edited and signed."""
    changed = copy.deepcopy(repository)
    for role in roles:
        document = changed.document(role)
        document.signed.version += 1
        document.signed.expires = expiry(role, now)
    return stamped(changed, now)


def _delegations(repository: Repository) -> dict[str, DelegatedRole]:
    delegations = repository.targets.signed.delegations
    if delegations is None or delegations.roles is None:
        raise ReleaseError("the targets document delegates nothing: restore a copy of the repository")
    return delegations.roles


def _delegated(repository: Repository, model: str, keys: Mapping[str, Key], now: datetime) -> Repository:
    changed = copy.deepcopy(repository)
    channels = dict(changed.channels)
    for channel in CHANNELS:
        role, owners = role_of(model, channel), CHANNEL_KEYS[channel]
        paths = [path_of(model, channel, "x")[:-1] + "*"]
        delegated = _delegations(changed)
        delegated[role] = DelegatedRole(role, [], len(owners), True, paths)
        for name, key in keys.items():
            if stem(name) in owners:
                changed.targets.signed.add_key(key, role)
        channels[role] = Metadata(Targets(version=1, expires=expiry(role, now)))
    return changed._replace(channels=channels)
