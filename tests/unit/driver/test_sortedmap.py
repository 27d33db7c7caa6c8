"""The sorted map against a dict, and its snapshots."""

from __future__ import annotations

import random

import pytest

from storebridge.driver.sortedmap import Draft, SortedMap


def filled(pairs: dict[bytes, bytes]) -> SortedMap:
    draft = SortedMap().draft()
    for key, value in pairs.items():
        draft.put(key, value)
    return draft.frozen()


def churn(draft: Draft, model: dict[bytes, bytes], rng: random.Random, rounds: int) -> None:
    for _ in range(rounds):
        key = b"%d" % rng.randrange(3000)
        if rng.random() < 0.45:
            draft.delete(key)
            model.pop(key, None)
        else:
            draft.put(key, b"%d" % rng.random().hex().__hash__())
            model[key] = draft.get(key) or b""


@pytest.mark.parametrize("size", [0, 512, 1500])
@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_a_dict(seed: int, size: int) -> None:
    """From its beginning, empty or made at once, through drafts of drafts."""
    rng = random.Random(seed)
    model = {b"%d" % rng.randrange(3000): b"%d" % number for number in range(size)}
    current = SortedMap.of(model)
    for _ in range(30):
        draft = current.draft()
        churn(draft, model, rng, 400)
        current = draft.frozen()
        start, stop = sorted(b"%d" % rng.randrange(3000) for _ in range(2))
        inside = sorted(pair for pair in model.items() if start <= pair[0] < stop)
        assert current.items(b"", None, False, 10_000) == sorted(model.items())
        assert current.items(start, stop, False, 50) == inside[:50]
        assert current.items(start, stop, True, 50) == inside[::-1][:50]
        assert current.count(start, stop) == len(inside)
        assert current.count(b"", None) == len(current) == len(model)
        assert all(current.get(key) == value for key, value in model.items())


def test_keys_that_grow_leave_full_chunks() -> None:
    current = filled({b"%06d" % i: b"" for i in range(5000)})
    assert len(current._chunks) == 10


def test_an_empty_map_has_nothing() -> None:
    empty = SortedMap()
    assert empty.items(b"", None, False, 5) == empty.items(b"a", b"b", True, 5) == []
    assert (len(empty), empty.get(b"a"), empty.count(b"", None)) == (0, None, 0)


def test_a_bound_before_all_keys_and_behind_them() -> None:
    current = filled({b"m": b"1", b"n": b"2"})
    assert current.items(b"a", b"b", False, 5) == []
    assert current.items(b"z", None, True, 5) == []
    assert current.items(b"z", b"a", False, 5) == []


def test_deleting_all_and_beginning_again() -> None:
    draft = filled({b"%d" % i: b"" for i in range(2000)}).draft()
    for i in range(2000):
        draft.delete(b"%d" % i)
    draft.delete(b"never there")
    assert (len(draft), draft.items(b"", None, False, 5)) == (0, [])
    draft.put(b"a", b"1")
    assert draft.items(b"", None, False, 5) == [(b"a", b"1")]


def test_a_snapshot_stays_as_it_is_while_a_draft_changes() -> None:
    snapshot = filled({b"%04d" % i: b"old" for i in range(2000)})
    before = snapshot.items(b"", None, False, 5000)
    draft = snapshot.draft()
    for i in range(0, 2000, 2):
        draft.put(b"%04d" % i, b"new")
        draft.delete(b"%04d" % (i + 1))
    draft.put(b"zzz", b"new")
    assert snapshot.items(b"", None, False, 5000) == before
    after = draft.frozen()
    second = after.draft()
    second.put(b"0000", b"newer")
    assert (after.get(b"0000"), second.get(b"0000"), len(after)) == (b"new", b"newer", 1001)


def test_a_draft_copies_only_the_chunks_that_it_changes() -> None:
    snapshot = filled({b"%06d" % i: b"" for i in range(5000)})
    draft = snapshot.draft()
    draft.put(b"000000", b"changed")
    same = [a is b for a, b in zip(snapshot._chunks, draft._chunks, strict=True)]
    assert same == [False] + [True] * (len(same) - 1)
