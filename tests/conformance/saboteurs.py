"""Drivers that each break one promise."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from storebridge.driver import (
    ErrorKind,
    Fault,
    Key,
    Position,
    Range,
    Rows,
    UniqueClash,
    Values,
    ValuesOf,
)
from storebridge.testing.model import Model
from tests.conformance.plain import PlainDriver, PlainTransaction


class OrderAccents(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        rows, position = super().scan(table, range)
        return sorted(rows, key=lambda row: unicodedata.normalize("NFD", str(row[0]))), position


class OrderUtf16(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        rows, position = super().scan(table, range)
        return sorted(rows, key=lambda row: str(row[0][0]).encode("utf-16-be")), position


class OrderIntegersAsText(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        rows, position = super().scan(table, range)
        return sorted(rows, key=lambda row: tuple(map(str, row[0]))), position


class OneRowTooMany(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        return super().scan(table, range._replace(limit=range.limit + 1))


class PositionAtTheEnd(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        rows, position = super().scan(table, range)
        if range.by is None and len(rows) == range.limit:
            position = rows[-1][0]
        return rows, position


class AfterIncludesItself(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        if range.after is not None and range.by is None and not range.prefix:
            return super().scan(table, range._replace(after=None, lower=range.after[0]))
        return super().scan(table, range)


class AfterForgotten(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        return super().scan(table, range._replace(after=None))


class AfterWidens(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        return super().scan(table, range._replace(lower=None) if range.after else range)


class UpperIncluded(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        if isinstance(range.upper, int):
            range = range._replace(upper=range.upper + 1)
        return super().scan(table, range)


class LowerExcluded(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        rows, position = super().scan(table, range)
        return [row for row in rows if row[0][0] != range.lower], position


class PrefixOfText(PlainTransaction):
    def count(self, table: str, range: Range) -> int:
        if len(range.prefix) == 1 and isinstance(range.prefix[0], str):
            bound = range.prefix[0]
            range = range._replace(prefix=(), lower=bound, upper=bound + "\U0010ffff")
        return super().count(table, range)


class ReverseForgotten(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        return super().scan(table, range._replace(reverse=False))


class CountLimited(PlainTransaction):
    def count(self, table: str, range: Range) -> int:
        return min(range.limit, super().count(table, range))


class CountAfter(PlainTransaction):
    def count(self, table: str, range: Range) -> int:
        return len(self.scan(table, range._replace(limit=10**6))[0])


class NoneIsInTheIndex(PlainTransaction):
    def count(self, table: str, range: Range) -> int:
        by_key = range.by is not None and not range.prefix and range.lower is range.upper is None
        return super().count(table, range._replace(by=None) if by_key else range)


class TallySurvivesRollback(PlainTransaction):
    def rollback(self) -> None:
        self.driver.committed.numbers = self.model.numbers


class TotalsIgnoreCase(PlainTransaction):
    def totals(self, prefix: str) -> dict[str, int]:
        found = super().totals("").items()
        return {n: v for n, v in found if n.lower().startswith(prefix.lower())}


class TotalsShowTheLayout(PlainTransaction):
    def totals(self, prefix: str) -> dict[str, int]:
        found = super().totals(prefix)
        return {"layout": 7, **found} if not prefix else found


class TallyIsLastMinute(PlainTransaction):
    def totals(self, prefix: str) -> dict[str, int]:
        return self.driver.committed.totals(prefix)


class TallyReturnsDeltas(PlainTransaction):
    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        super().tally(deltas)
        return dict(deltas)


class TallyInFloats(PlainTransaction):
    def tally(self, deltas: Mapping[str, int]) -> dict[str, int]:
        return {name: int(float(total)) for name, total in super().tally(deltas).items()}


class InsertOverwrites(PlainTransaction):
    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        if self.model.get(table, key) is not None:
            self.model.put(table, key, values, body)
            return False
        return super().insert(table, key, values, body)


class ClashBeforeExists(PlainTransaction):
    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        self.refuse(table, key, values)
        return super().insert(table, key, values, body)


class ClashAfterHalf(PlainTransaction):
    def refuse(self, table: str, key: Key, values: Values) -> None:
        try:
            super().refuse(table, key, values)
        except UniqueClash:
            self.model.put(table, key, (*values[:-1], None), b"{}")
            raise


class ClashNamesTheTable(PlainTransaction):
    def refuse(self, table: str, key: Key, values: Values) -> None:
        for _ in self.model.clashes(table, key, values):
            raise UniqueClash(table)


class ClashNever(PlainTransaction):
    def refuse(self, table: str, key: Key, values: Values) -> None:
        return


class NoneClashes(PlainTransaction):
    def refuse(self, table: str, key: Key, values: Values) -> None:
        super().refuse(table, key, values)
        nameless = [v for k, (v, _) in self.model.entries[table].items() if k != key]
        if len(values) == 6 and values[-1] is None and values in nameless:
            raise UniqueClash("name")


class ReplaceKeepsIndexes(PlainTransaction):
    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        super().replace(table, key, old_values, (*values[:3], *old_values[3:]), body)


class ReplaceKeepsTheBody(PlainTransaction):
    def replace(
        self, table: str, key: Key, old_values: Values, values: Values, body: bytes
    ) -> None:
        if old_values != values:
            super().replace(table, key, old_values, values, body)


class RemoveNeedsValues(PlainTransaction):
    def remove(self, table: str, key: Key, values: Values | None) -> None:
        if values is not None:
            super().remove(table, key, values)


class RemoveTakesTheNeighbour(PlainTransaction):
    def remove(self, table: str, key: Key, values: Values | None) -> None:
        for other in [k for k in self.model.entries[table] if str(k[0]).strip() == key[0]]:
            self.model.remove(table, other)


class BodyStripped(PlainTransaction):
    def get(self, table: str, key: Key) -> bytes | None:
        body = super().get(table, key)
        return body and body.replace(b" ", b"")


class BodyAsView(PlainTransaction):
    def get(self, table: str, key: Key) -> Any:
        body = super().get(table, key)
        return None if body is None else memoryview(body)


class TextThatLooksLikeNumbers(PlainTransaction):
    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        rows, position = super().scan(table, range)
        return [(tuple(_number(part) for part in key), body) for key, body in rows], position


class IdsCutShort(PlainTransaction):
    def insert(self, table: str, key: Key, values: Values, body: bytes) -> bool:
        return super().insert(table, tuple(_short(part) for part in key), values, body)


class RollbackKeeps(PlainTransaction):
    def rollback(self) -> None:
        self.commit()


class RollbackKeepsLongOnes(PlainTransaction):
    def rollback(self) -> None:
        if len(self.model.entries["suite-pair"]) > 20:
            self.commit()


class CommitForgets(PlainTransaction):
    def commit(self) -> None:
        if sum(map(len, self.model.entries.values())) < 10:
            super().commit()


class CommitInTwo(PlainTransaction):
    def commit(self) -> None:
        if self.write:
            half = self.driver.committed.copy()
            half.numbers = self.model.numbers
            self.driver.committed = half
            time.sleep(0.01)
        super().commit()


class WritesShowAtOnce(PlainTransaction):
    def __init__(self, driver: PlainDriver, write: bool) -> None:
        super().__init__(driver, write)
        driver.committed = self.model


class BlindToItsOwnWrites(PlainTransaction):
    def count(self, table: str, range: Range) -> int:
        return self.driver.committed.count(table, range)


class NoSnapshot(PlainTransaction):
    model: Any = property(
        lambda self: self.own if self.write else self.driver.committed,
        lambda self, model: setattr(self, "own", model),
    )


class ReadersWrite(PlainTransaction):
    def __init__(self, driver: PlainDriver, write: bool) -> None:
        super().__init__(driver, write)
        self.write = True


class NothingIsWrong(PlainTransaction):
    def faults(self, table: str, values_of: ValuesOf) -> Iterator[Fault]:
        return iter(())


class EverythingIsWrong(PlainTransaction):
    def faults(self, table: str, values_of: ValuesOf) -> Iterator[Fault]:
        return (Fault(table, key, "wrong") for key in list(self.model.entries[table]))


class RebuildsNothing(PlainTransaction):
    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        return


class RebuildDropsTheUnreadable(PlainTransaction):
    def rebuild(self, table: str, values_of: ValuesOf) -> None:
        for key, (_, body) in list(self.model.entries[table].items()):
            if values_of(key, body) is None:
                self.model.remove(table, key)
        super().rebuild(table, values_of)


class RarelyWrong(PlainTransaction):
    """Wrong only for one of a range's many shapes: for the random operations to find."""

    def scan(self, table: str, range: Range) -> tuple[Rows, Position | None]:
        if range.reverse and range.upper is not None and range.by == "created":
            range = range._replace(upper=None)
        return super().scan(table, range)


class LayoutForgotten(PlainDriver):
    def layout(self) -> int | None:
        return None


class CreatesTablesAnew(PlainDriver):
    def create_tables(self, tables: Any, layout: int) -> None:
        self.committed = Model()
        super().create_tables(tables, layout)


class ClaimsEveryError(PlainDriver):
    def kind(self, error: BaseException) -> ErrorKind | None:
        return super().kind(error) or ErrorKind.OTHER


class ReadsAfterClosing(PlainDriver):
    def close(self) -> None:
        return


class SharesEverything(PlainDriver):
    committed = Model()

    def __init__(self) -> None:
        self.written = None
        self.closed = False

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(type(self) if name == "committed" else self, name, value)


def _number(part: str | int) -> str | int:
    return int(part) if isinstance(part, str) and part.isdigit() else part


def _short(part: str | int) -> str | int:
    return part[:100] if isinstance(part, str) else part
