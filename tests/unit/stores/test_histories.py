"""The quick way to compare histories with records finds what the thorough one does."""

from __future__ import annotations

import random
from datetime import timedelta

import msgspec
import pytest

from storebridge import Database, Job, JobStore, Retention, open_database
from storebridge.check import check
from storebridge.driver import Fault
from storebridge.histories import _faults
from storebridge.testing.stores.base import Ticks, all_rows
from storebridge.transaction import Unit
from storebridge.values import values_from_body

LIVES = 60
DAY = timedelta(days=1)


def live(jobs: JobStore, chance: random.Random, steps: int) -> None:
    """Jobs come, change and go, some of them more than once under one id."""
    for _ in range(steps):
        name = chance.choice("abcdef")
        found = jobs.find(prefix=name).records if jobs.count() else []
        if not found:
            jobs.create(Job(id=name))
        elif chance.random() < 0.2:
            jobs.delete(name)
        elif chance.random() < 0.5:
            jobs.update(name, priority=chance.randrange(9))
        else:
            jobs.set_state(name, chance.choice([s for s in ("Queued", "Running", "Pending")
                                                if s != found[0].state]))  # fmt: skip


def spoil(database: Database, chance: random.Random) -> None:
    """Lose or change a record, an event or some of them."""
    history, records = all_rows(database, "job-history"), all_rows(database, "job")

    def change(unit: Unit) -> None:
        engine = unit.engine
        what = chance.randrange(5)
        if what == 0:
            for key, _ in chance.sample(history, min(len(history), chance.choice((1, 1, 2, 5)))):
                engine.remove("job-history", key, ())
        elif what == 1:
            key, body = chance.choice(history)
            told = msgspec.json.decode(body)
            told["revision"] += chance.choice((-1, 1))
            engine.replace("job-history", key, (), (), msgspec.json.encode(told))
        elif what == 2:
            key, _ = chance.choice(history)
            engine.replace("job-history", key, (), (), b"{")
        elif what == 3 and records:
            engine.remove("job", chance.choice(records)[0], None)
        elif records:
            key, body = chance.choice(records)
            held = msgspec.json.decode(body)
            held[chance.choice(("revision", "state"))] = 77 if chance.random() < 0.5 else "Failed"
            values = values_from_body(database.layouts["job"].record)(key, body)
            assert values is not None
            engine.replace("job", key, values, values, msgspec.json.encode(held))

    database.write(change)


@pytest.mark.parametrize("seed", range(LIVES))
def test_the_quick_way_finds_what_the_thorough_one_does(seed: int) -> None:
    """Whatever was lost or changed, both name the same records; and neither any where all is well,
    also where retention has removed the beginning."""
    chance, clock = random.Random(seed), Ticks()
    with open_database(f"memory:histories-{seed}", clock=clock) as database:
        jobs = JobStore(database)
        live(jobs, chance, 60)
        if seed % 3 == 0:
            clock.time += DAY
            rules = Retention(events_count=2), Retention(deleted_keep=timedelta(0))
            database.compact(rules[: seed % 2 + 1])
            live(jobs, chance, 20)
        assert _named(database, jobs) == ([], [])
        spoil(database, chance)
        quick, thorough = _named(database, jobs)
        assert quick == thorough


@pytest.mark.parametrize("pair", range(12))
def test_two_records_in_each_others_state(pair: int) -> None:
    """What one record says is as it should be of the other: both are named, whichever they are."""
    names = f"one-{pair}", f"other-{pair}"
    with open_database(f"memory:exchanged-{pair}", clock=Ticks()) as database:
        jobs = JobStore(database)
        for name, state in zip(names, ("Queued", "Running"), strict=True):
            jobs.create(Job(id=name))
            jobs.set_state(name, state)

        def exchange(unit: Unit) -> None:
            values_of = values_from_body(jobs.layout.record)
            bodies = [body for _, body in all_rows(database, "job")]
            for name, state in zip(names, ("Running", "Queued"), strict=True):
                (old,) = (body for body in bodies if f'"{name}"'.encode() in body)
                new = old.replace(b'"state":"Queued"', b'"state":"%b"' % state.encode())
                new = new.replace(b'"state":"Running"', b'"state":"%b"' % state.encode())
                was, becomes = values_of((name,), old), values_of((name,), new)
                assert was is not None
                assert becomes is not None
                unit.engine.replace("job", (name,), was, becomes, new)

        database.write(exchange)
        quick, thorough = _named(database, jobs)
        assert quick == thorough
        assert [fault.key for fault in quick] == [(name,) for name in names]


def _named(database: Database, jobs: JobStore) -> tuple[list[Fault], list[Fault]]:
    table = jobs.layout.history.name
    quick = [f for f in check(database, history=True) if f.table == table and len(f.key or ()) == 1]
    thorough = list(_faults(database, jobs.layout, lambda *_: None))
    return sorted(set(quick)), sorted(set(thorough))
