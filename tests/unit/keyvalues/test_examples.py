"""The examples run as their READMEs say, wherever their variable points."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
LOCATIONS = ("{}/device.db", "bolt:{}/device.bolt")


def run(where: dict[str, str], script: str, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        command(script, *arguments),
        env={"PATH": os.environ["PATH"], **where},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments]


@pytest.mark.parametrize("location", LOCATIONS)
def test_lab_device(location: str, tmp_path: Path) -> None:
    """A calibration is kept, and doses count."""
    where = {"LAB_DEVICE_DATABASE": location.format(tmp_path)}
    device = "lab_device/device.py"
    run(where, device, "calibrate", "pump-1", "10=200", "20=410", "30=590")
    assert "done" in run(where, device, "dose", "pump-1", "0.5")
    run(where, device, "dose", "pump-1", "0.25")
    status = run(where, device, "status").splitlines()
    assert re.fullmatch(r"pump-1\tcalibrated \d{4}-\d\d-\d\d\tdosed 0.75 ml", status[0])
    assert status[1:] == ["led\tpump-1\toff"]


def test_a_killed_dose(tmp_path: Path) -> None:
    """While one doses nobody else can; killed, it has the pin no more, and its LED tells."""
    where = {"LAB_DEVICE_DATABASE": str(tmp_path / "device.db")}
    device = "lab_device/device.py"
    run(where, device, "calibrate", "pump-1", "10=1")
    dosing = subprocess.Popen(
        command(device, "dose", "pump-1", "6"),
        env={"PATH": os.environ["PATH"], **where},
        stdout=subprocess.PIPE,
        text=True,
    )
    with dosing:
        assert dosing.stdout is not None
        assert "runs for 60.00 s" in dosing.stdout.readline()
        refused = run(where, device, "dose", "pump-1", "0.001", code=1)
        assert f"process {dosing.pid}" in refused
        assert f"pin\t17\tprocess {dosing.pid}" in run(where, device, "status")
        dosing.send_signal(signal.SIGKILL)
    assert "led\tpump-1\ton" in run(where, device, "status")
    assert "done" in run(where, device, "dose", "pump-1", "0.001")
    assert "led\tpump-1\toff" in run(where, device, "status")


def test_what_is_not_there(tmp_path: Path) -> None:
    """A mistake is one line, or what can be asked."""
    where = {
        "LAB_DEVICE_DATABASE": str(tmp_path / "device.db"),
        "CONTROLLER_DATABASE": str(tmp_path / "controller.db"),
    }
    device, controller = "lab_device/device.py", "controller/controller.py"
    said = run(where, device, "dose", "pump-9", "1", code=1)
    assert said == "calibrations has no key 'pump-9'\n"
    said = run(where, controller, "swap", "one", "other", code=1)
    assert said == "sensors: nothing has the alias 'one'\n"
    for script in (device, controller):
        assert f"python {Path(script).name}" in run(where, script, "frob", code=2)


@pytest.mark.parametrize("location", LOCATIONS)
def test_controller(location: str, tmp_path: Path) -> None:
    """The commands of its README do what it says."""
    where = {"CONTROLLER_DATABASE": location.format(tmp_path)}
    text = (EXAMPLES / "controller" / "README.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    shown = ""
    for line in re.findall(r"^python controller.py (.*)$", block, re.MULTILINE):
        shown = run(where, "controller/controller.py", *shlex.split(line))
    rows = [row.split("\t") for row in shown.splitlines()]
    assert ["last_profile", "id", "londinium"] in rows
    assert ["last_reading", "environment_sensor_1", "18.5"] in rows
    assert ["environment_sensor_2", "(1, 5, 42)", "backyard shed sensor"] in rows
    assert ["environment_sensor_1", "(1, 5, 43)", "greenhouse"] in rows
