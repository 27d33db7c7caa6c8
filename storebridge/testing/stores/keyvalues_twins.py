"""Things with two keys."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from storebridge import (
    Database,
    InvalidRecordError,
    KeyNotFoundError,
    RecordExistsError,
    TwinKeyStore,
)
from storebridge.testing.stores.base import Calls, StoreTests, assert_sound, contents

SHED = (1, 5, 42)


class TwinKeyTests(StoreTests):
    """Hardware id and alias: either finds a thing, and neither is given twice."""

    @pytest.fixture
    def sensors(self, database: Database) -> TwinKeyStore:
        sensors = TwinKeyStore(database, "sensors")
        sensors.add(SHED, "environment_sensor_1", "backyard shed sensor")
        sensors.add("28-0416", "kettle", "mash kettle")
        return sensors

    def test_found_by_either(self, sensors: TwinKeyStore) -> None:
        """A thing is found by its hardware id, given as tuple or list, and by its alias."""
        either: tuple[Any, ...] = (SHED, list(SHED), "environment_sensor_1")
        for key in either:
            assert key in sensors
            twin = sensors[key]
            assert (twin.key, twin.alias) == (SHED, "environment_sensor_1")
            assert twin.display_name == "backyard shed sensor"
        assert sensors.by_key("28-0416") == sensors.by_alias("kettle") == sensors["kettle"]
        assert [twin.alias for twin in sensors] == ["environment_sensor_1", "kettle"]
        assert len(sensors) == 2
        missing: tuple[Any, ...] = ((1, 5), (1, 5, 43), "1", 1, "Kettle", "environment_sensor")
        for key in missing:
            assert key not in sensors
            assert sensors.get(key) is None
            with pytest.raises(KeyNotFoundError, match="sensors"):
                sensors[key]
        with pytest.raises(KeyNotFoundError):
            sensors.by_alias("28-0416")
        with pytest.raises(KeyNotFoundError):
            sensors.by_key("kettle")

    def test_neither_is_given_twice(self, sensors: TwinKeyStore) -> None:
        """Each of the keys is that of one thing; a text is not one's hardware id and another's
        alias. What is refused changes nothing.
        """
        kept = contents(sensors.database)
        taken: Calls = (
            partial(sensors.add, SHED, "new"),
            partial(sensors.add, list(SHED), "new"),
            partial(sensors.add, 5, "kettle"),
            partial(sensors.add, 5, "28-0416"),
            partial(sensors.add, "kettle", "new"),
            partial(sensors.rename, "kettle", "environment_sensor_1"),
            partial(sensors.rename, "environment_sensor_1", "28-0416"),
            partial(sensors.rename_all, {"kettle": "x", "environment_sensor_1": "x"}),
            partial(sensors.replace, "kettle", SHED),
        )
        for call in taken:
            with pytest.raises(RecordExistsError, match="sensors") as caught:
                call()
            assert "#" not in str(caught.value)  # ids are nobody's business
        absent: Calls = (
            partial(sensors.rename, "nobody", "new"),
            partial(sensors.rename, "28-0416", "new"),
            partial(sensors.rename_all, {"kettle": "k", "nobody": "new"}),
            partial(sensors.remove, "nobody"),
            partial(sensors.replace, "nobody", 5),
            partial(sensors.set_display_name, 5, "new"),
        )
        for call in absent:
            with pytest.raises(KeyNotFoundError):
                call()
        wrong: tuple[tuple[Any, ...], ...] = (
            (True, "new"), ((), "new"), (5, ""), (5, None), (5, 5), (5, "x" * 200), (5, "new", 5),
        )  # fmt: skip
        for arguments in wrong:
            with pytest.raises(InvalidRecordError):
                sensors.add(*arguments)
        assert contents(sensors.database) == kept

    def test_renaming(self, sensors: TwinKeyStore) -> None:
        """An alias is changed at once, so that two can be swapped, and three go round."""
        sensors.rename("kettle", "mash")
        assert (sensors["mash"].key, "kettle" in sensors) == ("28-0416", False)
        sensors.rename("mash", "mash")
        sensors.rename("mash", "28-0416")
        sensors.rename("28-0416", "kettle")
        sensors.rename_all({"kettle": "environment_sensor_1", "environment_sensor_1": "kettle"})
        assert (sensors["kettle"].key, sensors["environment_sensor_1"].key) == (SHED, "28-0416")
        sensors.add(7, "third")
        sensors.rename_all({"third": "kettle", "kettle": "first", "environment_sensor_1": "third"})
        assert {twin.alias: twin.key for twin in sensors} == {
            "kettle": 7,
            "first": SHED,
            "third": "28-0416",
        }
        assert_sound(sensors.database)

    def test_display_names_and_replacements(self, sensors: TwinKeyStore) -> None:
        """A display name may be that of several; other hardware takes over alias and name."""
        sensors.set_display_name(SHED, "mash kettle")
        assert sensors["environment_sensor_1"].display_name == "mash kettle"
        new = sensors.replace("kettle", (2, 6))
        assert (new.key, new.alias, new.display_name) == ((2, 6), "kettle", "mash kettle")
        assert "28-0416" not in sensors
        assert sensors.remove((2, 6)).alias == "kettle"
        assert [twin.key for twin in sensors] == [SHED]
        sensors.add("28-0416", "kettle")
        assert_sound(sensors.database)

    def test_twins_in_transactions(self, sensors: TwinKeyStore) -> None:
        """Changes of things take part in a transaction: all or none."""
        kept = contents(sensors.database)
        with pytest.raises(ZeroDivisionError), sensors.database.transaction():
            sensors.rename_all({"kettle": "environment_sensor_1", "environment_sensor_1": "kettle"})
            sensors.remove("kettle")
            raise ZeroDivisionError
        assert contents(sensors.database) == kept
