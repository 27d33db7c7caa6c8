"""get, insert, replace and remove, and the bodies that they carry."""

from __future__ import annotations

from itertools import combinations

import pytest

from storebridge.driver import Driver, Key, Range, Transaction, UniqueClash, Values
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import reading, writing
from storebridge.testing.model import Model, add, agree, agree_on_table
from storebridge.testing.samples import ENTRY, INTEGERS, LONG_TEXTS, PAIR, TEXTS, body_of, entry

EVERY_BODY = (
    b"{}",
    b'{"a":{"b":[{}]}}',
    rb'{"nul":"\u0000","escapes":"\"\\\/\b\f\n\r\t"}',
    '{"text":"é e\u0301 ß 中 😀 \U0010ffff \ufffd \ufeff \u2028 \u2029 \x7f \x80"}'.encode(),
    b'{"integers":[-9223372036854775808,9223372036854775807],"zip":"0012"}',
    b'{"floats":[0.1,-0.0,1e308,5e-324,1.0,100000000000000000000.0]}',
    b'{"quotes":"it\'s -- ; drop %s ? :a \xc2\xa0"}',
    b'{"spaces" :  " a  b "}',
    b'{"long":"' + b"x" * 2**20 + b'"}',
    b'{"long":"' + "😀\\u0000é".encode() * 2**15 + b'"}',
)


class EntryTests(DriverTests):
    """What a table promises of one entry."""

    def test_insert_get_remove(self, driver: Driver) -> None:
        """An inserted entry is there until it is removed, and nothing else is."""
        with writing(driver) as transaction:
            assert transaction.get(ENTRY.name, ("a",)) is None
            assert transaction.insert(ENTRY.name, ("a",), entry(), b"{}") is True
            assert transaction.get(ENTRY.name, ("a",)) == b"{}"
        with reading(driver) as transaction:
            assert transaction.get(ENTRY.name, ("a",)) == b"{}"
            assert transaction.get(ENTRY.name, ("a ",)) is None
        with writing(driver) as transaction:
            transaction.remove(ENTRY.name, ("a",), entry())
            assert transaction.get(ENTRY.name, ("a",)) is None
        agree(driver, Model())

    def test_insert_existing_key(self, driver: Driver) -> None:
        """Inserting a key that exists is False and changes nothing, even where an index would
        have forbidden it too; the transaction goes on.
        """
        model = Model()
        with writing(driver) as transaction:
            for key, name in (("a", "first"), ("b", "second")):
                add(transaction, model, ENTRY, (key,), entry(name=name))
            assert transaction.insert(ENTRY.name, ("a",), entry("other"), b'{"x":1}') is False
            assert transaction.insert(ENTRY.name, ("a",), entry(name="second"), b"{}") is False
            add(transaction, model, ENTRY, ("c",), entry())
            agree_on_table(transaction, model, ENTRY)
        agree(driver, model)

    def test_bodies_come_back_identical(self, driver: Driver) -> None:
        """A body is bytes: what comes back, by get and by scan, are these bytes."""
        with writing(driver) as transaction:
            for number, body in enumerate(EVERY_BODY):
                assert transaction.insert(ENTRY.name, (f"n{number}",), entry(), b"{}")
                transaction.replace(ENTRY.name, (f"n{number}",), entry(), entry("x"), body)
                assert transaction.get(ENTRY.name, (f"n{number}",)) == body
        with reading(driver) as transaction:
            for number, body in enumerate(EVERY_BODY):
                found = transaction.get(ENTRY.name, (f"n{number}",))
                assert found == body
                assert type(found) is bytes
            rows, _ = transaction.scan(ENTRY.name, Range(by="state"))
            assert rows == [((f"n{number}",), body) for number, body in enumerate(EVERY_BODY)]
            assert all(type(body) is bytes for _, body in rows)

    def test_replace_every_subset_of_values(self, driver: Driver) -> None:
        """Replacing an entry moves it in exactly those indexes whose fields changed, to None and
        back too.
        """
        before = entry("new", 5, "node", 7, "space", "name")
        after = entry("old", -5, None, None, "other", None)
        model = Model()
        subsets = [c for size in range(7) for c in combinations(range(6), size)]
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("neighbour",), entry("new", 5, "node", 7))
            for number, subset in enumerate(subsets):
                key = (f"k{number}",)
                old = (*before[:4], f"space{number}", "name")
                new = tuple(after[i] if i in subset else value for i, value in enumerate(old))
                if 4 in subset and 5 not in subset:
                    new = (*new[:4], f"other{number}", "name")
                add(transaction, model, ENTRY, key, old)
                for source, target in ((old, new), (new, old), (old, new)):
                    transaction.replace(ENTRY.name, key, source, target, body_of(key, target))
                model.put(ENTRY.name, key, new, body_of(key, new))
            agree_on_table(transaction, model, ENTRY)
        agree(driver, model)

    def test_replace_only_the_body(self, driver: Driver) -> None:
        """Replacing a body under unchanged values changes the body and no index."""
        model = Model()
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("a",), entry(name="n"))
        for note in range(3):
            body = body_of(("a",), entry(name="n"), note)
            with writing(driver) as transaction:
                values = entry(name="n")
                transaction.replace(ENTRY.name, ("a",), values, values, body)
            model.put(ENTRY.name, ("a",), entry(name="n"), body)
            agree(driver, model)

    @pytest.mark.parametrize("known", [True, False], ids=["values", "unreadable"])
    def test_remove_takes_every_index_entry(self, driver: Driver, known: bool) -> None:
        """Removing takes the entry out of every index, also where the caller cannot tell its
        values, and leaves the neighbours.
        """
        model = Model()
        with writing(driver) as transaction:
            for key in ("a", "a ", "aa", "b"):
                add(transaction, model, ENTRY, (key,), entry("s", 1, "n", 2, "d", key))
            for number in (1, 2):
                add(transaction, model, PAIR, ("a", number), (number, "same"))
        with writing(driver) as transaction:
            values = entry("s", 1, "n", 2, "d", "a") if known else None
            transaction.remove(ENTRY.name, ("a",), values)
            transaction.remove(PAIR.name, ("a", 1), (1, "same") if known else None)
            model.remove(ENTRY.name, ("a",))
            model.remove(PAIR.name, ("a", 1))
            agree_on_table(transaction, model, ENTRY)
        agree(driver, model)
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("a",), entry("s", 1, "n", 2, "d", "a"))
        agree(driver, model)

    def test_none_is_absent_from_an_index(self, driver: Driver) -> None:
        """An entry with None in a field of an index is absent from that index and no other."""
        model = Model()
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("none",), entry())
            add(transaction, model, ENTRY, ("zero",), entry(node="0", size=0, name="0"))
        with reading(driver) as transaction:
            for by, present in (("node", 1), ("size", 1), ("name", 1), ("state", 2), (None, 2)):
                assert transaction.count(ENTRY.name, Range(by=by)) == present
                assert len(transaction.scan(ENTRY.name, Range(by=by))[0]) == present
        agree(driver, model)

    def test_unique_index_refuses(self, driver: Driver) -> None:
        """Fields that another entry has in a unique index are a UniqueClash that names the index,
        changes nothing and leaves the transaction usable; None clashes with nothing.
        """
        model = Model()
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("a",), entry(name="n"))
            add(transaction, model, ENTRY, ("b",), entry(name="m", node="x"))
            add(transaction, model, ENTRY, ("c",), entry())
            add(transaction, model, ENTRY, ("d",), entry())
        with writing(driver) as transaction:
            _clash(transaction, model, ("new",), entry("s", 3, "x", 4, name="n"))
            _clash(transaction, model, ("b",), entry("s", 3, "y", 4, name="n"))
            _clash(transaction, model, ("c",), entry(name="m"))
            add(transaction, model, ENTRY, ("e",), entry(name="n", namespace="other"))
            agree_on_table(transaction, model, ENTRY)
        agree(driver, model)

    def test_unique_fields_are_free_again(self, driver: Driver) -> None:
        """What a removed or changed entry had in a unique index is free at once, in the same
        transaction.
        """
        model = Model()
        with writing(driver) as transaction:
            add(transaction, model, ENTRY, ("a",), entry(name="n"))
            transaction.remove(ENTRY.name, ("a",), entry(name="n"))
            model.remove(ENTRY.name, ("a",))
            add(transaction, model, ENTRY, ("b",), entry(name="n"))
            transaction.replace(ENTRY.name, ("b",), entry(name="n"), entry(name="m"), b"{}")
            assert transaction.insert(ENTRY.name, ("c",), entry(name="n"), b"{}")
            with pytest.raises(UniqueClash):
                transaction.insert(ENTRY.name, ("d",), entry(name="m"), b"{}")

    def test_integers_and_texts_stay_what_they_are(self, driver: Driver) -> None:
        """A key comes back as it was put, type and all: '0012' stays text, 2**63-1 an integer."""
        keys = [(text, integer) for text in TEXTS[:30] for integer in (INTEGERS[0], INTEGERS[-1])]
        with writing(driver) as transaction:
            for number, key in enumerate(keys):
                assert transaction.insert(PAIR.name, key, (number, "12"), b"{}")
        with reading(driver) as transaction:
            rows, _ = transaction.scan(PAIR.name, Range(limit=1000))
            assert sorted(key for key, _ in rows) == sorted(keys)
            assert {type(part) for key, _ in rows for part in key} == {str, int}
            assert all(type(key) is tuple for key, _ in rows)

    def test_longest_ids(self, driver: Driver) -> None:
        """Ids of the longest allowed size are told apart to their last character."""
        model = Model()
        with writing(driver) as transaction:
            for text in LONG_TEXTS:
                for key in (text, text[:-1], text[:-1] + "A"):
                    add(transaction, model, ENTRY, (key,), entry())
        agree(driver, model)


def _clash(transaction: Transaction, model: Model, key: Key, values: Values) -> None:
    """Putting these values at this key, new or not, is refused for the index `name`."""
    found = model.entries[ENTRY.name].get(key)
    if found is None:
        with pytest.raises(UniqueClash) as caught:
            transaction.insert(ENTRY.name, key, values, b"{}")
    else:
        with pytest.raises(UniqueClash) as caught:
            transaction.replace(ENTRY.name, key, found[0], values, b"{}")
    assert caught.value.index == "name"
    agree_on_table(transaction, model, ENTRY)
