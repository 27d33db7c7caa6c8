"""`storebridge kv …`: the key-value stores of a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from storebridge import times
from storebridge.cli import output
from storebridge.cli.failures import USAGE, Failure
from storebridge.cli.options import (
    F,
    Where,
    for_reading,
    for_writing,
    json_option,
    on_each,
    with_databases,
    with_location,
    yes_option,
)
from storebridge.entries import Entry
from storebridge.errors import InvalidRecordError
from storebridge.keyreading import key_value_stores
from storebridge.keyspace import Key
from storebridge.keyvalues import KeyValueStore
from storebridge.location import Location
from storebridge.locks import LockRecord
from storebridge.typedvalues import dumps, loads

_json_key_option = click.option(
    "--json-key", is_flag=True, help='Keys and prefixes are JSON: 17, "17", ["led", 17].'
)


@click.group()
def kv() -> None:
    """Key-value stores: list, view, get, set, clear.

    \b
    Example:
      storebridge kv list device.db
      storebridge kv view calibrations --prefix pump
    """


@contextmanager
def opened(where: Where, name: str, *, writing: bool = False) -> Iterator[KeyValueStore]:
    """The store of this name, in whichever database has it: asking must not make one."""
    there: list[str] = []
    for location in where.all():
        with for_writing(location) if writing else for_reading(location) as database:
            stores = key_value_stores(database)
            if name in stores:
                yield KeyValueStore(database, name, lifetime=stores[name])
                return
            there += stores
    others = f"there are: {output.plain(there)}" if there else "there is none"
    raise Failure(f"no key-value store is called {name!r}; {others}", USAGE)


def _key(text: str, as_json: bool) -> Any:
    """A key, or a prefix, as it was given."""
    if not as_json:
        return text
    try:
        key = json.loads(text)
    except ValueError:
        raise click.UsageError(
            f'{text!r} is not a key in JSON, such as 17 or ["led", 17]'
        ) from None
    return tuple(key) if isinstance(key, list) else key


def _shown(key: Key) -> str:
    """A text as it is; what is none as JSON."""
    return key if isinstance(key, str) else json.dumps(key, ensure_ascii=False)


def _instant(time: Any) -> str | None:
    """A time as records have it, or none."""
    return None if time is None else times.rfc3339(time)


@kv.command("list", short_help="List the stores: lifetime, number of keys, locks.")
@with_databases
@json_option
def list_(where: Where, as_json: bool) -> None:
    """List the key-value stores: lifetime, number of keys, locks that are held.

    \b
    Example:
      storebridge kv list
      storebridge kv list device.db --json
    """

    def show(location: Location) -> bool:
        with for_reading(location) as database:
            stores = [
                KeyValueStore(database, name, lifetime=lifetime)
                for name, lifetime in key_value_stores(database).items()
            ]
            found = [
                {
                    "store": store.name,
                    "lifetime": store.lifetime,
                    "keys": len(store),
                    "locks": sum(1 for _ in store.locks()),
                }
                for store in stores
            ]
        if as_json:
            output.print_json({"location": location.text, "stores": found})
        else:
            headers = ("store", "lifetime", "keys", "locks")
            output.print_rows(headers, [tuple(row.values()) for row in found], location.text)
        return True

    on_each(where, show)


@kv.command(short_help="Show keys and values, or who holds the locks.")
@click.argument("name")
@with_location
@json_option
@_json_key_option
@click.option("--prefix", metavar="TEXT", help="Only keys that begin with this.")
@click.option("--locks", is_flag=True, help="The locks that are held, and by whom.")
def view(
    where: Where, name: str, as_json: bool, json_key: bool, prefix: str | None, locks: bool
) -> None:
    """Show keys and values of the store NAME, in order, without those that have expired.

    Values are JSON, with tags for what JSON does not have: {"$bytes": "AA=="}. With --json one
    entry on each line.

    \b
    Example:
      storebridge kv view calibrations
      storebridge kv view settings --prefix '["led"]' --json-key --json
      storebridge kv view gpio --locks
    """
    with opened(where, name) as store:
        if locks:
            _print(("key", "token", "owner", "lease_until"), map(_lock, store.locks()), as_json)
        else:
            wanted = None if prefix is None else _key(prefix, json_key)
            entries = map(_entry, store.entries(prefix=wanted))
            _print(("key", "value", "expires_at", "revision", "modified_at"), entries, as_json)


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "value": dumps(entry.value).decode(),
        "expires_at": _instant(entry.expires_at),
        "revision": entry.revision,
        "modified_at": _instant(entry.modified_at),
    }


def _lock(lock: LockRecord) -> dict[str, Any]:
    return {
        "key": lock.key,
        "token": lock.token,
        "owner": str(lock.owner),
        "lease_until": _instant(lock.lease_until),
    }


def _print(headers: tuple[str, ...], found: Iterator[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for each in found:
            _print_entry(each)
    else:
        output.print_rows(headers, [(_shown(each.pop("key")), *each.values()) for each in found])


def _print_entry(entry: dict[str, Any]) -> None:
    value = {"value": json.loads(entry["value"])} if "value" in entry else {}
    output.print_json(entry | value)


@kv.command(short_help="Print the value of a key.")
@click.argument("name")
@click.argument("key")
@with_location
@json_option
@_json_key_option
def get(where: Where, name: str, key: str, as_json: bool, json_key: bool) -> None:
    """Print the value of KEY in the store NAME: a text as it is, anything else as JSON.

    With --json a text is JSON, too. The exit code is 1 if there is no such key.

    \b
    Example:
      storebridge kv get calibrations pump-1
      storebridge kv get leds 17 --json-key --json
    """
    with opened(where, name) as store:
        value = store[_key(key, json_key)]
    click.echo(value if isinstance(value, str) and not as_json else dumps(value))


@kv.command("set", short_help="Set a key to a value.")
@click.argument("name")
@click.argument("key")
@click.argument("value")
@with_location
@json_option
@_json_key_option
@click.option("--text", is_flag=True, help="VALUE is a text, not JSON.")
@click.option("--expires-in", type=float, metavar="SECONDS", help="Let it be gone after so long.")
@click.option("--if-absent", is_flag=True, help="Only if it is not there; else exit with 1.")
def set_(
    where: Where,
    name: str,
    key: str,
    value: str,
    as_json: bool,
    json_key: bool,
    text: bool,
    expires_in: float | None,
    if_absent: bool,
) -> None:
    """Set KEY in the store NAME to VALUE, which is JSON: 5, 0.5, true, '"text"', '{"a": []}'.

    What JSON does not have is written as `view` prints it: '{"$bytes": "AA=="}'. The store must be
    there.

    \b
    Example:
      storebridge kv set leds red 0.5
      storebridge kv set settings name 'left vessel' --text
      storebridge kv set settings muted true --expires-in 3600 --json
    """
    wanted = _key(key, json_key)
    given = value if text else _value(value)
    with opened(where, name, writing=True) as store:
        change: Callable[..., bool | None] = store.set_if_absent if if_absent else store.set
        if change(wanted, given, expires_in=expires_in) is False:
            raise Failure(f"{name} has the key {wanted!r} already")
        entry = _entry(store.entry(wanted))
    if as_json:
        _print_entry(entry)
    else:
        click.echo(f"{output.plain(_shown(wanted))}\t{entry['value']}")


def _value(text: str) -> Any:
    try:
        return loads(text.encode())
    except (ValueError, RecursionError) as error:
        raise InvalidRecordError(
            f"{text[:60]!r} is not JSON ({error}): quote it as JSON, or give --text"
        ) from None


def _what_to_clear(function: F) -> F:
    for option in reversed(
        (
            click.option("--key", "keys", multiple=True, metavar="KEY", help="This key."),
            click.option("--prefix", metavar="TEXT", help="All keys that begin with this."),
            click.option("--all", "everything", is_flag=True, help="All keys."),
            click.option(
                "--unreadable", is_flag=True, help="All keys whose values cannot be read."
            ),
            click.option("--lock", metavar="KEY", help="The lock of this key, whoever holds it."),
        )
    ):
        function = option(function)
    return function


@kv.command(short_help="Remove keys, or break a lock.")
@click.argument("name")
@with_location
@json_option
@yes_option
@_json_key_option
@_what_to_clear
def clear(
    where: Where,
    name: str,
    as_json: bool,
    yes: bool,
    json_key: bool,
    keys: tuple[str, ...],
    prefix: str | None,
    everything: bool,
    unreadable: bool,
    lock: str | None,
) -> None:
    """Remove keys from the store NAME, all that are named or none; or break a lock.

    On a terminal it asks first. Prints how many keys were removed; those whose values cannot be
    read stay unless they are asked for. Breaking a lock is for one whose
    holder is gone without anybody seeing it: whoever holds it goes on as if he did.

    \b
    Example:
      storebridge kv clear calibrations --key pump-1
      storebridge kv clear leds --all --yes
      storebridge kv clear gpio --lock pin-17
    """
    if sum((bool(keys), prefix is not None, everything, unreadable, lock is not None)) != 1:
        raise click.UsageError("give one of --key, --prefix, --all, --unreadable and --lock")
    many = "what cannot be read" if unreadable else f"{prefix}…" if prefix else "all keys"
    asked = " ".join(("lock", lock) if lock else keys or (many,))
    if not output.confirm(f"Clear {asked} of {name}?", yes=yes):
        raise Failure("nothing was cleared")
    with opened(where, name, writing=True) as store:
        if lock is not None:
            store.break_lock(_key(lock, json_key))
            removed = 0
        elif unreadable:
            removed = _discard(store)
        else:
            wanted = [_key(each, json_key) for each in keys]
            removed = _clear(store, wanted, None if prefix is None else _key(prefix, json_key))
    if as_json:
        output.print_json({"store": name, "removed": removed})
    else:
        click.echo(f"{name}\t{removed} removed" if lock is None else f"{name}\t{lock} is free")


def _discard(store: KeyValueStore) -> int:
    keys = [key for key, _ in store.quarantined()]
    for key in keys:
        store.discard(key)
    return len(keys)


def _clear(store: KeyValueStore, keys: list[Any], prefix: Any) -> int:
    with store.database.transaction():
        if not keys:
            before = len(store.keys(prefix=prefix))
            store.clear(prefix=prefix)
            return before - len(store.keys(prefix=prefix))
        for key in keys:
            del store[key]
        return len(keys)
