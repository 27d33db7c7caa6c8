"""Configuration by environment variables. With a prefix P, such as `BACALHAU_`, each has it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from storebridge.backends import backend_named
from storebridge.compaction.retention import Retention, parse_retention
from storebridge.errors import ConfigurationError, UnknownBackendError
from storebridge.location import Location, hide_password, parse_location, parse_option

_ROLES = {"JOB": "requester", "EXECUTION": "compute"}
_DEFAULTED = ("durability", "lock_timeout")


def location_from_environment(
    role: str, *, prefix: str = "", environ: Mapping[str, str] | None = None
) -> Location:
    """Where the store of a role (`JOB` or `EXECUTION`) lives, and how it is to be opened.

    ConfigurationError names the variable, its value and what is accepted.
    """
    environ = os.environ if environ is None else environ
    source, text = _path(role, prefix, environ)
    type_variable = f"{prefix}{role}_STORE_TYPE"
    _check_type(type_variable, environ)
    defaults: dict[str, str] = {}
    for option in _DEFAULTED:
        for variable in (
            f"{prefix}STORE_{option.upper()}",
            f"{prefix}{role}_STORE_{option.upper()}",
        ):
            if value := environ.get(variable):
                parse_option(option, value, variable)
                defaults[option] = value
    try:
        return parse_location(
            text,
            default_type=environ.get(type_variable) or None,
            type_source=type_variable,
            defaults=defaults,
        )
    except ConfigurationError as error:
        raise type(error)(f"{source}: {error}") from error


def retention_from_environment(
    role: str, *, prefix: str = "", environ: Mapping[str, str] | None = None
) -> tuple[Retention, ...]:
    """What may go from the database of a role; `()` if the environment says nothing. What is said
    of the role's own store is about no other, unless it names others."""
    environ = os.environ if environ is None else environ
    general, own = f"{prefix}STORE_RETENTION", f"{prefix}{role}_STORE_RETENTION"
    if text := environ.get(own):
        name = role.lower()
        rules = parse_retention(text, own)
        return tuple(replace(rule, stores=rule.stores or (name,)) for rule in rules)
    text = environ.get(general)
    return parse_retention(text, general) if text else ()


def _check_type(variable: str, environ: Mapping[str, str]) -> None:
    if name := environ.get(variable):
        try:
            backend_named(name)
        except UnknownBackendError as error:
            raise UnknownBackendError(f"{variable}={name!r}: {error}") from None


def is_configured(role: str, *, prefix: str = "", environ: Mapping[str, str] | None = None) -> bool:
    """Whether the environment says anything of where the store of a role lives, right or wrong."""
    environ = os.environ if environ is None else environ
    # A node may have a name and yet keep nothing in a folder.
    names = (*_path_variables(role, prefix), _default_variables(prefix)[0])
    return any(environ.get(name) for name in names)


def _path_variables(role: str, prefix: str) -> list[str]:
    names = [f"{prefix}{role}_STORE_PATH"]
    return [*names, f"{prefix}COMPUTE_STORE_PATH"] if role == "EXECUTION" else names


def _default_variables(prefix: str) -> tuple[str, str]:
    return f"{prefix}DIR" if prefix else "STOREBRIDGE_DIR", f"{prefix}NODE_ID"


def _path(role: str, prefix: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that says where, and what it says."""
    names = _path_variables(role, prefix)
    given = {name: environ[name] for name in names if environ.get(name)}
    if len(set(given.values())) > 1:
        both = " and ".join(f"{name}={hide_password(value)!r}" for name, value in given.items())
        raise ConfigurationError(f"{both} mean the same and differ: set one of them")
    for name, value in given.items():
        return name, value
    return _default_path(role, prefix, environ, names[0])


def _default_path(
    role: str, prefix: str, environ: Mapping[str, str], wanted: str
) -> tuple[str, str]:
    directory, node = _default_variables(prefix)
    missing = [name for name in (directory, node) if not environ.get(name)]
    if missing:
        raise ConfigurationError(f"set {wanted} (a location), or {directory} and {node}")
    if "/" in environ[node]:
        raise ConfigurationError(f"{node}={environ[node]!r}: accepted is a name without '/'")
    return directory, str(Path(environ[directory]) / f"{environ[node]}-{_ROLES[role]}.db")


def node_id_from_environment(
    *, prefix: str = "", environ: Mapping[str, str] | None = None
) -> str | None:
    """The node that this process says it is."""
    environ = os.environ if environ is None else environ
    return environ.get(f"{prefix}NODE_ID") or None
