"""The statements of one table, built by SQLAlchemy once and run as they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql import ClauseElement

from storebridge.driver import Index, Key, Table, Value, Values
from storebridge_sqlalchemy.metadata import DIALECT, make_table
from storebridge_sqlalchemy.scans import Scans

_quote = DIALECT.identifier_preparer.format_table
ONE: sa.ColumnElement[Any] = sa.literal_column("1")


def compiled(statement: ClauseElement, *expected: str) -> str:
    """The SQL of a statement, whose parameters are these in this order."""
    done = statement.compile(dialect=DIALECT)
    assert list(done.positiontup or ()) == list(expected)  # type: ignore[attr-defined]
    return " ".join(str(done).split())


def qualified(made: sa.Table) -> str:
    """A table's name with its schema, quoted."""
    return _quote(made)


class Unique(NamedTuple):
    """A unique index: how to find another entry that has the same fields."""

    name: str
    columns: frozenset[int]
    """Which of the columns are in it."""
    places: tuple[int, ...]
    """Where among key and values the fields are."""
    others: str
    """Finds and keeps an entry with these fields under another key."""

    def parameters(self, key: Key, values: Values) -> Sequence[Value] | None:
        """For `others`; None: the entry is absent from the index, so it clashes with none."""
        fields = (*key, *values)
        wanted = [fields[place] for place in self.places]
        return None if None in wanted else [*wanted, *key]


class Statements:
    """What a transaction executes on a table. Each is built when it is first needed: building one
    costs more than executing it.
    """

    def __init__(self, metadata: sa.MetaData, table: Table, prefix: str) -> None:
        self.table = table
        self.absent = False
        """True: nobody had made the table when it was declared, and we could not."""
        self.made = made = make_table(metadata, table, prefix)
        self.name = qualified(made)
        self.key = tuple(field.name for field in table.key)
        self.columns = tuple(field.name for field in table.columns)
        self.keys = [f"key_{name}" for name in self.key]
        """Names of the parameters that the key is."""
        self.updates: dict[tuple[bool, ...], str] = {}
        """By which columns differ: only these are set."""
        self.numbered = ""
        """See `add_numbered`; empty until it is needed."""
        self.scans = Scans(made, table)
        self.has_unique = any(index.unique for index in table.indexes)
        self.can_hold = not any(
            index.unique and set(index.fields) <= set(self.key) for index in table.indexes
        )
        """False: a placeholder could clash with another entry."""

    @cached_property
    def is_key(self) -> sa.ColumnElement[bool]:
        """The condition that picks the entry of a key."""
        pairs = zip(self.key, self.keys, strict=True)
        return sa.and_(*(self.made.c[name] == sa.bindparam(key) for name, key in pairs))

    @cached_property
    def get(self) -> str:
        """The body."""
        return compiled(sa.select(self.made.c.body).where(self.is_key), *self.keys)

    @cached_property
    def get_locked(self) -> str:
        """The body, which nobody else changes from then on."""
        body = sa.select(self.made.c.body).where(self.is_key)
        return compiled(body.with_for_update(), *self.keys)

    @cached_property
    def keep(self) -> str:
        """Finds the entry, which nobody else removes from then on."""
        found = sa.select(ONE).select_from(self.made).where(self.is_key)
        return compiled(found.with_for_update(read=True), *self.keys)

    @cached_property
    def append(self) -> str:
        """Inserts an entry that cannot be there."""
        return compiled(insert(self.made), *self.key, *self.columns, "body")

    @cached_property
    def add(self) -> str:
        """Inserts an entry, unless it is there."""
        new = insert(self.made).on_conflict_do_nothing(index_elements=self.key)
        return compiled(new, *self.key, *self.columns, "body")

    def add_numbered(self, numbers: sa.Table) -> str:
        """Inserts an entry whose key ends in a named integer's value, or in one less by so many."""
        less = sa.bindparam("less", type_=sa.BigInteger)
        given = [sa.bindparam(key, type_=self.made.c[key].type) for key in self.key[:-1]]
        body = sa.bindparam("body", type_=sa.Text)
        found = sa.select(*given, numbers.c.value - less, body)
        found = found.where(numbers.c.name == sa.bindparam("name"))
        new = insert(self.made).from_select([*self.key, "body"], found)
        return compiled(new, *self.key[:-1], "less", "body", "name")

    @cached_property
    def insert(self) -> str:
        """Inserts an entry; no row tells that it, or one like it, is there."""
        new = insert(self.made).on_conflict_do_nothing().returning(ONE)
        return compiled(new, *self.key, *self.columns, "body")

    @cached_property
    def remove(self) -> str:
        """Deletes the entry."""
        return compiled(sa.delete(self.made).where(self.is_key), *self.keys)

    @cached_property
    def hold(self) -> str:
        """Puts a placeholder where nothing is: whoever inserts this key from now on waits for the
        end of the transaction, also when `release` has taken it out again. For PostgreSQL locks
        only what is there.
        """
        only_key: dict[str, Any] = {name: sa.bindparam(f"key_{name}") for name in self.key}
        placeholder = insert(self.made).values(only_key | {"body": sa.text("''")})
        return compiled(placeholder.on_conflict_do_nothing(), *self.keys)

    @cached_property
    def release(self) -> str:
        """Takes the placeholder out."""
        is_placeholder = self.made.c.body == sa.text("''")
        return compiled(sa.delete(self.made).where(self.is_key, is_placeholder), *self.keys)

    @cached_property
    def unique(self) -> tuple[Unique, ...]:
        """The unique indexes."""
        return tuple(self._unique(index) for index in self.table.indexes if index.unique)

    def update_changed(self, changed: tuple[bool, ...]) -> str:
        """The UPDATE of the columns that differ, and of the body."""
        names = [name for name, differs in zip(self.columns, changed, strict=True) if differs]
        sql = self.update([*names, "body"])
        self.updates[changed] = sql
        return sql

    def update(self, names: Sequence[str]) -> str:
        """The UPDATE of these columns of an entry."""
        new: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in names}
        statement = sa.update(self.made).where(self.is_key).values(new)
        return compiled(statement, *(f"new_{name}" for name in names), *self.keys)

    def _unique(self, index: Index) -> Unique:
        made, fields = self.made, self.key + self.columns
        equal = [made.c[name] == sa.bindparam(f"with_{name}") for name in index.fields]
        others = sa.select(ONE).select_from(made).where(*equal, sa.not_(self.is_key))
        return Unique(
            index.name,
            frozenset(i for i, name in enumerate(self.columns) if name in index.fields),
            tuple(fields.index(name) for name in index.fields),
            compiled(
                others.with_for_update(read=True),
                *(f"with_{name}" for name in index.fields),
                *self.keys,
            ),
        )


class Ours:
    """The statements of the tables that the driver keeps for itself."""

    def __init__(self, metadata: sa.MetaData, prefix: str) -> None:
        text, integer = sa.Text(collation="C"), sa.BigInteger()
        # Rows that change all the time: with room beside them they stay on their page.
        roomy: dict[str, Any] = {"postgresql_with": {"fillfactor": 20}}
        self.numbers = sa.Table(
            f"{prefix}storebridge",
            metadata,
            sa.Column("name", text, primary_key=True),
            sa.Column("value", integer, nullable=False),
            **roomy,
        )
        self.commits = sa.Table(
            f"{prefix}storebridge_commit",
            metadata,
            sa.Column("opener", text, primary_key=True),
            sa.Column("number", integer, nullable=False),
            sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()),
            **roomy,
        )
        self.mark = sa.Table(
            f"{prefix}storebridge_layout",
            metadata,
            sa.Column("name", text, primary_key=True),
            sa.Column("layout", integer, nullable=False),
        )
        self._statements()

    @property
    def tables(self) -> tuple[sa.Table, ...]:
        """All of them."""
        return (self.numbers, self.commits, self.mark)

    def _statements(self) -> None:
        numbers, commits = self.numbers, self.commits
        self._tallies: dict[int, str] = {}
        self.totals = compiled(
            sa.select(numbers.c.name, numbers.c.value).where(
                numbers.c.name >= sa.bindparam("from"),
                sa.func.starts_with(numbers.c.name, sa.bindparam("prefix", type_=sa.Text)),
            ),
            *("from", "prefix"),
        )
        name = qualified(commits)
        self.take_part = f"LOCK TABLE {name} IN ROW SHARE MODE"
        self.stop_commits = f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"
        self.be_alone = f"LOCK TABLE {name} IN EXCLUSIVE MODE"
        self.tokens = name

    def tally(self, names: int) -> str:
        """Adds to so many named integers and gives their new values. Its parameters are name and
        number, in turn.
        """
        found = self._tallies.get(names)
        if found is None:
            numbers = self.numbers
            rows: list[dict[str, Any]] = [
                {"name": sa.bindparam(f"name_{i}"), "value": sa.bindparam(f"value_{i}")}
                for i in range(names)
            ]
            added = insert(numbers).values(rows)
            total = numbers.c.value + added.excluded.value
            found = compiled(
                added.on_conflict_do_update(
                    index_elements=["name"], set_={"value": total}
                ).returning(numbers.c.name, numbers.c.value),
                *(name for i in range(names) for name in (f"name_{i}", f"value_{i}")),
            )
            self._tallies[names] = found
        return found
