"""Views that show the members of bodies as columns."""

from __future__ import annotations

from collections.abc import Sequence

from storebridge.driver import Table
from storebridge_sqlalchemy.metadata import sql_name

_quoted = '"{}"'.format


def view_columns(table: Table) -> list[str]:
    """The names of what a table's view shows."""
    return [name for name, _ in _shown(table)]


def create_view(table: Table, schema: str, prefix: str, existing: Sequence[str]) -> str:
    """The view, in place of one that has the `existing` columns: they stay where they are, for
    PostgreSQL adds others only behind them, and keeps what people built upon the view.

    A body that is not JSON has NULL in what is not a column, and disturbs no one.
    """
    assert table.view is not None
    shown = dict(_shown(table))
    order = [name for name in existing if name in shown]
    order += [name for name in shown if name not in order]
    columns = ", ".join(f"{shown[name]} AS {_quoted(name)}" for name in order)
    place = _quoted(schema)
    return (
        f"CREATE OR REPLACE VIEW {place}.{_quoted(sql_name(table.view.name, prefix))}"
        f" AS SELECT {columns} FROM (SELECT *, {place}.{_quoted(function_name(prefix))}(body)"
        f' AS "the body" FROM {place}.{_quoted(sql_name(table.name, prefix))}) AS "entry"'
    )


def function_name(prefix: str) -> str:
    """The function that the views use."""
    return f"{prefix}storebridge_json"


def create_function(schema: str, prefix: str) -> str:
    """A body as `jsonb`, which has no NUL: it shows as U+FFFD. NULL where it is not JSON."""
    return (
        f"CREATE OR REPLACE FUNCTION {_quoted(schema)}.{_quoted(function_name(prefix))}(body text)"
        " RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $function$"
        r" BEGIN RETURN regexp_replace(body, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::jsonb;"
        " EXCEPTION WHEN OTHERS THEN RETURN NULL; END $function$"
    )


def _shown(table: Table) -> list[tuple[str, str]]:
    fields = {field.name: field for field in table.key + table.columns}
    shown = []
    for name in table.view.fields if table.view else ():
        field = fields.get(name)
        if field is None or field.time:
            shown.append((name, f"\"the body\" ->> '{name}'"))
        else:
            shown.append((name, _quoted(name)))
        if field is not None and field.time:
            shown.append((f"{name}_epoch", f"{_quoted(name)} / 1000000.0::float8"))
    return shown
