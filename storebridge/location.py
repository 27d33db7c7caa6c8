"""Locations: where a database lives, as users write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, get_args
from urllib.parse import parse_qsl, unquote

from storebridge.backends import (
    BUILTIN,
    SERVERS,
    backend_named,
    name_by_suffix,
    name_of_existing,
)
from storebridge.driver import Backend, Durability, Options
from storebridge.errors import ConfigurationError

_scheme = re.compile(r"([a-z][a-z0-9+.-]+):")
# Up to the last @ before the query: a password may hold an @, / or ? that should have been escaped.
# Not what is hidden already: of a message nothing else must go.
_password = re.compile(r"(//[^/@:]*):(?!\*\*\*@)(?:[^?]*|[^/]*)@")
_password_option = re.compile(r"(?i)([?&][^=&]*pass[^=&]*=)[^&]*")
_bare_query = re.compile(r"\?(?=[a-z_]+=)")
OPTIONS = ("compact", "durability", "lock_timeout", "mode", "read_only")


@dataclass(frozen=True, repr=False)
class Location:
    """A parsed location. `text` is fit for logs: it holds no password."""

    backend: Backend
    target: str
    options: Options
    text: str

    @property
    def path(self) -> Path | None:
        """The file or folder, where the backend has one."""
        return Path(self.target) if self.target.startswith("/") else None

    def __repr__(self) -> str:
        return f"<Location {self.text}>"


def hide_password(text: str) -> str:
    """A location without the password in it."""
    return _password_option.sub(r"\1***", _password.sub(r"\1:***@", text))


def parse_location(
    text: str,
    *,
    default_type: str | None = None,
    type_source: str = "type",
    defaults: Mapping[str, str] | None = None,
) -> Location:
    """Understand a location, such as `sqlite:///var/lib/jobs.db?durability=relaxed` or a bare path.

    `default_type` names the backend of a bare path where nothing is yet; where it contradicts the
    scheme or the existing file that is an error that names `type_source`. `defaults` are options
    that the query overrides.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"a location is text or a path, not {type(text).__name__}")
    if not text or "\0" in text:
        raise ConfigurationError("a location must not be empty and must not contain NUL")
    scheme = _scheme.match(text)
    if scheme:
        name, rest = scheme[1], text[scheme.end() :]
        address, _, query = rest.partition("?")
        target = _target(name, address, text)
    else:
        address, query = [*_bare_query.split(text, maxsplit=1), ""][:2]
        target = _absolute(address)
        name = _name_of(Path(target), default_type)
    backend = backend_named(name)
    if default_type not in (None, name, backend.name):
        known = "the location" if scheme else "the existing file"
        raise ConfigurationError(
            f"{type_source} is {default_type!r}, but {known} {hide_password(text)} is {name!r}"
        )
    given = dict(defaults or {}) | _query(query, text)
    return Location(backend, target, _options(backend, given), hide_password(text))


def location_of(given: str | PurePath | Location) -> Location:
    """What a caller names a database by. A path is one literally: whatever looks like a scheme, an
    option or `~` in it is part of a file's name."""
    if isinstance(given, Location):
        return given
    if not isinstance(given, PurePath):
        return parse_location(given)
    path = Path(given).absolute()
    _refuse_nul(str(path))
    return Location(backend_named(_name_of(path, None)), str(path), Options(), str(path))


def _name_of(path: Path, default_type: str | None) -> str:
    return name_of_existing(path) or default_type or name_by_suffix(path)


def _target(scheme: str, address: str, text: str) -> str:
    if scheme == "memory":
        return address.lstrip("/")
    if scheme in SERVERS and not address.startswith("//"):
        raise ConfigurationError(f"{hide_password(text)}: write {scheme}://user@host/database")
    if scheme in SERVERS or (
        scheme not in BUILTIN and "//" in address and not address.startswith("///")
    ):
        return f"{scheme}:{address}"  # a server's URL
    if address.startswith("///"):
        path = "/" + address.lstrip("/")  # with four, as SQLAlchemy writes it, too
    elif address.startswith("//"):
        raise ConfigurationError(
            f"{hide_password(text)}: write {scheme}:///absolute/path or {scheme}:relative/path"
        )
    else:
        path = address
    if not path:
        raise ConfigurationError(f"{text}: names no file; write {scheme}:///absolute/path")
    return _absolute(unquote(path))


def _refuse_nul(text: str) -> None:
    if "\0" in text:
        raise ConfigurationError("a location must not contain NUL")


def _absolute(path: str) -> str:
    _refuse_nul(path)
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:  # ~user
        raise ConfigurationError(f"{path}: {error}") from None


def _query(query: str, text: str) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ConfigurationError(
            f"{hide_password(text)}: options are written ?name=value&name=value"
        ) from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ConfigurationError(
            f"{hide_password(text)}: an option, {_repeated(pairs)}, comes twice"
        )
    return given


def _repeated(pairs: list[tuple[str, str]]) -> str:
    names = [name for name, _ in pairs]
    return next(name for name in names if names.count(name) > 1)


def _options(backend: Backend, given: Mapping[str, str]) -> Options:
    known = sorted({*OPTIONS, *backend.extra_options})
    for name in given:
        if name not in known:
            raise ConfigurationError(
                f"unknown option {name!r}; the {backend.name} backend takes {', '.join(known)}"
            )
    values: dict[str, Any] = {
        name: parse_option(name, given[name]) for name in OPTIONS if name in given
    }
    extra = {name: value for name, value in given.items() if name not in OPTIONS}
    return replace(Options(), **values, extra=extra)


def parse_option(name: str, text: str, source: str | None = None) -> Any:
    """The value of an option. ConfigurationError names `source`, the value and what is accepted."""
    source = source or name
    if name == "durability":
        return _one_of(source, text, get_args(Durability))
    if name == "lock_timeout":
        return _seconds(source, text)
    if name == "compact":
        return _share(source, text)
    if name == "mode":
        return _mode(source, text)
    return _one_of(source, text.lower(), ("true", "false", "1", "0")) in ("true", "1")


def _one_of(source: str, text: str, accepted: tuple[str, ...]) -> str:
    if text not in accepted:
        raise ConfigurationError(f"{source}={text!r}: accepted are {', '.join(accepted)}")
    return text


def _seconds(source: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise ConfigurationError(f"{source}={text!r}: accepted are seconds from 0 to 86400")
    return seconds


def _share(source: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ConfigurationError(
            f"{source}={text!r}: accepted is a share of free space above 0 and under 1, such as 0.5"
        )
    return share


def _mode(source: str, text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0o600 <= mode <= 0o777 or mode & 0o600 != 0o600:
        raise ConfigurationError(
            f"{source}={text!r}: accepted are octal permissions that let the owner read and write,"
            " such as 600 or 0660"
        )
    return mode
