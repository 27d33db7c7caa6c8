"""The node of the demo: the service of `examples/node`, as a process or, for a database that none
outlives, in this one."""

from __future__ import annotations

import importlib.util
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from storebridge.cli.demo.scenario import Said
from storebridge.cli.failures import Failure
from storebridge.executions import ExecutionStore
from storebridge.jobs import JobStore
from storebridge.opening import open_database

NODE_ID = "demo"
_LONGEST = 60.0
_INTO_THE_LONG_ONES = 0.5


def service_folder() -> Path:
    """Where the service is: in a checkout, or where the wheel has put it."""
    checkout = Path(__file__).parents[3] / "examples" / "node"
    installed = Path(__file__).parent / "node"
    for folder in (checkout, installed):
        if (folder / "service.py").is_file():
            return folder
    raise Failure("the node service is not installed: it is in the folder examples/node")


class NodeProcess:
    """The service as a process of its own, told by environment variables where its stores are."""

    how = "SIGKILL to it and to the commands it runs"

    def __init__(self, location: str, log: Path) -> None:
        self._environment = dict(os.environ) | {
            "JOB_STORE_PATH": location,
            "EXECUTION_STORE_PATH": location,
            "NODE_ID": NODE_ID,
            "PYTHONUTF8": "1",
        }
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._asked = False

    def submit(self) -> dict[str, str]:
        lines = (line.rstrip("\n").split("\t") for line in self._lines("submit.py"))
        return {line[0]: line[1] for line in lines}

    def start(self) -> Iterator[Said]:
        self._asked = False
        for line in self._lines("service.py"):
            yield Said(*line.rstrip("\n").split("\t", 2))

    def _lines(self, program: str) -> Iterator[str]:
        command = [sys.executable, str(service_folder() / program)]
        with self._log.open("a") as log:
            process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                # Of its own, so that a kill takes its commands along, and Ctrl-C is ours to handle.
                start_new_session=True,
            )
        self._process = process
        watchdog = threading.Timer(_LONGEST, self._kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            with process.stdout as lines:
                yield from lines
            self._check(program, process.wait())
        finally:
            watchdog.cancel()
            self._kill()
            process.wait()

    def _check(self, program: str, code: int) -> None:
        if code and not self._asked:
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise Failure(f"{program} ended with {code}: {said[-1] if said else 'it said nothing'}")

    def interrupt(self) -> None:
        time.sleep(_INTO_THE_LONG_ONES)
        self._asked = True
        self._kill()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def _kill(self) -> None:
        # The group has no members left when all ended by themselves; its number is not given to
        # another process before the node was waited for.
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


class NodeThread:
    """The service in a thread of this process, on a database that this process keeps open."""

    how = "a clean stop: nothing of this backend outlives its process, so a kill would lose all"

    def __init__(self, location: str) -> None:
        self._database = open_database(location)
        self.jobs, self.executions = JobStore(self._database), ExecutionStore(self._database)
        self._service = _module("service")
        self._node: Any = None

    def submit(self) -> dict[str, str]:
        return {job.id: job.name for job in _module("submit").submit(self.jobs)}

    def start(self) -> Iterator[Said]:
        said: queue.SimpleQueue[Said | BaseException | None] = queue.SimpleQueue()
        node = self._service.Node(
            self.jobs, self.executions, NODE_ID, say=lambda *line: said.put(Said(*line))
        )
        self._node = node
        threading.Thread(target=_work, args=(node, said), daemon=True).start()
        while (line := said.get(timeout=_LONGEST)) is not None:
            if isinstance(line, BaseException):
                raise line
            yield line

    def interrupt(self) -> None:
        self._node.stopping.set()

    def stop(self) -> None:
        self._node.stopping.set()

    def close(self) -> None:
        """Let the database, and all that is in it, go."""
        self._database.close()


def _work(node: Any, said: queue.SimpleQueue[Said | BaseException | None]) -> None:
    try:
        node.recover()
        node.run()
    except BaseException as error:
        said.put(error)
    said.put(None)


def _module(name: str) -> Any:
    path = service_folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"storebridge_demo_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
