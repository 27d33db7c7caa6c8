"""Walking two tables side by side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storebridge import CorruptStoreError, Job, JobStore, open_database
from storebridge.driver import Key, Rows
from storebridge.transfer.content import Pages, content_of, differences
from storebridge.transfer.digests import digest_of

tables = st.dictionaries(st.integers(0, 12), st.sampled_from((b"x", b"y", b"")), max_size=13)
sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def pages(table: dict[int, bytes], sizes: list[int]) -> Pages:
    rows: Rows = [((number,), table[number]) for number in sorted(table)]
    turn = 0
    while rows:
        size = sizes[turn % len(sizes)]
        yield rows[:size]
        rows, turn = rows[size:], turn + 1


@given(tables, tables, sizes, sizes)
def test_differences(
    left: dict[int, bytes], right: dict[int, bytes], some: list[int], others: list[int]
) -> None:
    """Whatever the sizes of the pages, exactly the entries that differ are told, in order."""
    expected = [
        ((number,), left.get(number), right.get(number))
        for number in sorted({**left, **right})
        if left.get(number) != right.get(number)
    ]
    assert list(differences(pages(left, some), pages(right, others))) == expected


def test_keys_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table whose keys are not in order is refused: neither a digest nor a comparison of it
    would say anything.
    """
    with open_database("memory:out-of-order") as database:
        jobs = JobStore(database)
        for number in range(3):
            jobs.create(Job(id=f"j-{number}"))
        scan = database.read_scan

        def turned(table: str, part: object) -> tuple[Rows, Key | None]:
            rows, position = scan(table, part)  # type: ignore[arg-type]
            return rows[::-1], position

        monkeypatch.setattr(database, "read_scan", turned)
        with content_of(database) as content, pytest.raises(CorruptStoreError, match="in order"):
            digest_of(content)


def test_large_bodies_come_a_few_at_a_time() -> None:
    """However large the bodies are, a page of them is not much larger than one."""
    with open_database("memory:large") as database:
        jobs = JobStore(database)
        with database.transaction():
            for number in range(100):
                jobs.create(Job(id=f"j-{number}", message="x" * 2**20))
        with content_of(database) as content:
            found = list(content.pages(content.layouts[0].record))
    assert sum(map(len, found)) == 100
    assert max(map(_size, found[1:])) < 4 * 2**20


def _size(rows: Rows) -> int:
    return sum(len(body) for _, body in rows)


def test_stores_of_another_process(tmp_path: object) -> None:
    """A store whose entry in the database cannot be read stops everything: nobody knows which
    tables it has.
    """
    with open_database(f"memory:{tmp_path}") as database:
        JobStore(database)
        key = ("store job",)
        database.write(lambda unit: unit.engine.replace("storebridge-meta", key, (), (), b"?"))
        with pytest.raises(CorruptStoreError, match="'store job'"), content_of(database):
            pass
