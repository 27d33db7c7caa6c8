"""Tables, indexes and views in SQL.

A table `job-history` is the SQL table `job_history`: the key fields, the columns, and the body as
text. Columns other than the key may be NULL, so that a table to which a column was added later is
the same as a new one.
"""

from __future__ import annotations

from collections.abc import Iterable

from storebridge.driver import Field, Index, Table

APPLICATION_ID = 0x53544252
"""`STBR` in the file's header: marks it as ours. `file` and `PRAGMA application_id` show it."""

CREATE_TALLY = (
    "CREATE TABLE storebridge (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID"
)

_TYPES = {"text": "TEXT", "integer": "INTEGER"}
"""TEXT keeps '0012' as it is; a type like STRING would have numeric affinity and make it 12."""


def quoted(name: str) -> str:
    """A name of the contract as an SQL identifier."""
    return '"' + name.replace("-", "_").replace('"', '""') + '"'


def joined(names: Iterable[str]) -> str:
    """Names as a list of SQL identifiers."""
    return ", ".join(map(quoted, names))


def unquoted(name: str) -> str:
    """The name as SQLite writes it in its own tables and messages."""
    return name.replace("-", "_")


def index_name(table: Table, index: Index) -> str:
    """Indexes of all tables share one name space with the tables themselves."""
    return f"{table.name}-by-{index.name}"


def rowid_field(table: Table) -> str | None:
    """The field that is SQLite's own row number: an integer of the key that is unique by itself.

    Such an index costs nothing, and rows that come in its order are appended. Only a key field:
    its value never changes.
    """
    integers = [field.name for field in table.key if field.type == "integer"]
    if len(table.key) == 1 and integers:
        return integers[0]
    for index in table.indexes:
        if index.unique and len(index.fields) == 1 and index.fields[0] in integers:
            return index.fields[0]
    return None


def stored_indexes(table: Table) -> list[Index]:
    """The indexes that need one in SQL: all but the one that the row number is."""
    rowid = rowid_field(table)
    return [index for index in table.indexes if index.fields != (rowid,)]


def optional_fields(table: Table, index: Index) -> list[str]:
    """The fields of an index by which an entry may be absent from it."""
    optional = {field.name for field in table.columns if field.optional}
    return [name for name in index.fields if name in optional]


def create_table(table: Table) -> str:
    """The table. With row numbers: bodies of about 1 KB would spill out of the pages of a table
    WITHOUT ROWID, where this was measured to cost up to twice as much.
    """
    rowid = rowid_field(table)
    lines = [_key_column(field, field.name == rowid) for field in table.key]
    lines += [column(field) for field in table.columns]
    lines.append('"body" TEXT NOT NULL')
    key = joined(field.name for field in table.key)
    if rowid is None:
        lines.append(f"PRIMARY KEY ({key})")
    elif len(table.key) > 1:
        lines.append(f"UNIQUE ({key})")
    return f"CREATE TABLE {quoted(table.name)} (\n  " + ",\n  ".join(lines) + "\n)"


def column(field: Field) -> str:
    """A column that is not of the key."""
    return f"{quoted(field.name)} {_TYPES[field.type]}"


def create_index(table: Table, index: Index) -> str:
    """An index; a partial one where entries may be absent."""
    unique = "UNIQUE " if index.unique else ""
    where = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in optional_fields(table, index))
    return (
        f"CREATE {unique}INDEX {quoted(index_name(table, index))}"
        f" ON {quoted(table.name)} ({joined(index.fields)})" + (f" WHERE {where}" if where else "")
    )


def view_columns(table: Table) -> list[str]:
    """The names of what a table's view shows."""
    return [name for name, _ in _view(table)]


def create_view(table: Table) -> str:
    """The members of the bodies as columns. What is a column of the table is taken from there, so
    that its indexes are used; a body that is not JSON has NULL in the others and disturbs no one.
    """
    assert table.view is not None
    shown = ",\n  ".join(f"{sql} AS {quoted(name)}" for name, sql in _view(table))
    return (
        f"CREATE VIEW {quoted(table.view.name)} AS SELECT\n  {shown}\n"
        f'FROM (SELECT *, CASE WHEN json_valid("body") THEN "body" END AS "valid body"'
        f" FROM {quoted(table.name)})"
    )


def _key_column(field: Field, is_rowid: bool) -> str:
    if is_rowid:
        return f"{quoted(field.name)} INTEGER PRIMARY KEY"
    return f"{column(field)} NOT NULL"


def _view(table: Table) -> list[tuple[str, str]]:
    fields = {field.name: field for field in table.key + table.columns}
    shown = []
    for name in table.view.fields if table.view else ():
        field = fields.get(name)
        member = f"""json_extract("valid body", '$."{name}"')"""
        if field is None or field.time:
            shown.append((name, member))
        else:
            shown.append((name, quoted(name)))
        if field is not None and field.time:
            shown.append((f"{name}_epoch", f"{quoted(name)} / 1000000.0"))
    return shown
