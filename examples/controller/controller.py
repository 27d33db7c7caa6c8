"""A controller: settings by header and key, and sensors with a hardware id and an alias.

    export CONTROLLER_DATABASE=controller.db
    python controller.py profile londinium
    python controller.py sensor 1.5.42 environment_sensor_1 "backyard shed sensor"
    python controller.py read 1.5.42=18.5
    python controller.py swap environment_sensor_1 environment_sensor_2
    python controller.py show

CONTROLLER_DATABASE alone says where all of it is kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from storebridge import (
    KeyNotFoundError,
    KeyValueStore,
    StorebridgeError,
    TwinKeyStore,
    open_database,
)


def hardware_id(text: str) -> tuple[int, ...]:
    """As it is on the bus: `1.5.42`."""
    return tuple(int(part) for part in text.split("."))


class Controller:
    """Keeps what must be there again after a restart."""

    def __init__(self) -> None:
        self.database = open_database(os.environ["CONTROLLER_DATABASE"])
        self.settings = KeyValueStore(self.database, "settings")
        self.sensors = TwinKeyStore(self.database, "sensors")

    def profile(self, name: str) -> None:
        """Use another profile; id and time change together."""
        self.settings.section("last_profile").update({"id": name, "at": datetime.now(UTC)})

    def sensor(self, address: str, alias: str, display_name: str = "") -> None:
        """Give a sensor its names."""
        self.sensors.add(hardware_id(address), alias, display_name)

    def swap(self, one: str, other: str) -> None:
        """Two sensors were mounted the wrong way round: swap their aliases."""
        self.sensors.rename_all({one: other, other: one})

    def read(self, *readings: str) -> None:
        """Take readings from the bus, `1.5.42=18.5`, and keep the last of each sensor."""
        last = self.settings.section("last_reading")
        with self.database.transaction():
            for address, _, value in (reading.partition("=") for reading in readings):
                try:
                    alias = self.sensors.by_key(hardware_id(address)).alias
                except KeyNotFoundError as error:
                    print(error, file=sys.stderr)
                    continue
                last[alias or address] = float(value)

    def show(self) -> None:
        """Say what is kept."""
        for header, members in self.settings.sections().items():
            for key, value in members.items():
                print(header, key, value, sep="\t")
        for sensor in self.sensors:
            print(sensor.alias, sensor.key, sensor.display_name, sep="\t")


def main(command: str = "show", *arguments: str) -> int:
    """Run a command."""
    commands: dict[str, Callable[..., None]] = {
        "profile": Controller.profile,
        "sensor": Controller.sensor,
        "swap": Controller.swap,
        "read": Controller.read,
        "show": Controller.show,
    }
    if command not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        controller = Controller()
        with controller.database:
            commands[command](controller, *arguments)
    except StorebridgeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
