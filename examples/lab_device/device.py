"""A lab device: calibrations that stay, LED states of this boot, one program at a time at a pin.

    export LAB_DEVICE_DATABASE=device.db
    python device.py calibrate pump-1 10=0.19 20=0.41 30=0.58
    python device.py dose pump-1 0.5
    python device.py status

LAB_DEVICE_DATABASE alone says where all of it is kept.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from storebridge import KeyValueStore, StorebridgeError, open_database

PINS = {"pump-1": 17, "pump-2": 27}


class Device:
    """What every program that works with the device shares."""

    def __init__(self) -> None:
        self.database = open_database(os.environ["LAB_DEVICE_DATABASE"])
        self.calibrations = KeyValueStore(self.database, "calibrations")
        self.leds = KeyValueStore(self.database, "leds", lifetime="boot")
        self.pins = self.leds.section("gpio")

    def calibrate(self, pump: str, *points: str) -> None:
        """Keep measured points, `seconds=millilitres`."""
        pairs = [tuple(map(float, point.split("="))) for point in points]
        self.calibrations[pump] = {"points": pairs, "at": datetime.now(UTC)}

    def seconds_for(self, pump: str, millilitres: float) -> float:
        """How long the pump has to run: by the line through zero that fits best."""
        points: list[tuple[float, float]] = self.calibrations[pump]["points"]
        return millilitres * sum(s * s for s, _ in points) / sum(s * ml for s, ml in points)

    def dose(self, pump: str, millilitres: str) -> None:
        """Run a pump, unless another program has its pin."""
        seconds = self.seconds_for(pump, float(millilitres))
        with self.pins.lock(PINS[pump], timeout=0):
            self.leds[pump] = "on"
            print(f"{pump}\truns for {seconds:.2f} s", flush=True)
            time.sleep(seconds)
            self.leds[pump] = "off"
            self.calibrations.increment(("dosed", pump), float(millilitres))
        print(f"{pump}\tdone", flush=True)

    def status(self) -> None:
        """Say what is known."""
        for pump in filter(self.calibrations.__contains__, PINS):
            kept, total = self.calibrations[pump], self.calibrations.get(("dosed", pump), 0.0)
            print(pump, f"calibrated {kept['at']:%Y-%m-%d}", f"dosed {total:g} ml", sep="\t")
        for led, state in self.leds.items():
            print("led", led, state, sep="\t")
        for lock in self.pins.locks():
            print("pin", lock.key, lock.owner, sep="\t")


def main(command: str = "status", *arguments: str) -> int:
    """Run a command."""
    commands: dict[str, Callable[..., None]] = {
        "calibrate": Device.calibrate,
        "dose": Device.dose,
        "status": Device.status,
    }
    if command not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        device = Device()
        with device.database:
            commands[command](device, *arguments)
    except StorebridgeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
