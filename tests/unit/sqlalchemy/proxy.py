"""A network between a client and its server that can be slow, and can fail at any word."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

Watch = Callable[[bytes], bool]


class Proxy:
    """Hands on what both sides say, on loopback, and counts how often the client waits.

    `delay`: seconds that each word is under way. `cut_when`: asked for each piece that the client
    sends; at the first True the connection is lost, as `deliver` says: the piece arrives at the
    server or not, its answer never arrives. `hold`: the piece arrives when `release` is called;
    `delivered` tells when the server is done with it. `then`: `cut_when` and `deliver` after that.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.delay = 0.0
        self.round_trips = 0
        self.cut_when: Watch | None = None
        self.deliver = True
        self.then: tuple[Watch, bool] | None = None
        self.hold = False
        self.cut = threading.Event()
        self.delivered = threading.Event()
        self._release = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def url(self, url: str) -> str:
        """The URL of the server, by way of this."""
        parts = urlsplit(url)
        user = f"{parts.username}@" if parts.username else ""
        return parts._replace(netloc=f"{user}127.0.0.1:{self.port}").geturl()

    def release(self) -> None:
        """Let what was held arrive."""
        self._release.set()

    def close(self) -> None:
        self._release.set()
        # A thread that waits in accept() is not woken by close().
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._sockets:
            _end(each)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            line = _Line()
            self._start(self._to_server, client, server, line)
            self._start(self._to_client, client, server, line)

    def _to_server(self, client: socket.socket, server: socket.socket, line: _Line) -> None:
        for piece in _pieces(client):
            if line.answered:
                line.answered = False
                self.round_trips += 1
            time.sleep(self.delay)
            if self.cut_when is not None and self.cut_when(piece):
                self.cut_when = None
                deliver = self.deliver
                if self.then is not None:
                    (self.cut_when, self.deliver), self.then = self.then, None
                self._cut(client, server, piece, line, deliver)
                return
            with suppress(OSError):
                server.sendall(piece)
        _end(server)

    def _to_client(self, client: socket.socket, server: socket.socket, line: _Line) -> None:
        for piece in _pieces(server):
            time.sleep(self.delay)
            line.answered = True
            if not line.cut:
                with suppress(OSError):
                    client.sendall(piece)
        line.silent.set()
        _end(client)

    def _cut(
        self,
        client: socket.socket,
        server: socket.socket,
        piece: bytes,
        line: _Line,
        deliver: bool,
    ) -> None:
        line.cut = True
        if self.hold:
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)
            self.cut.set()
            self._release.wait(60)
            piece += b"".join(_pieces(client))  # what it said before it noticed
        if deliver:
            with suppress(OSError):
                server.sendall(piece)
                server.shutdown(socket.SHUT_WR)
            # Its answer goes nowhere; when the server has no more to say, it is done.
            line.silent.wait(20)
            self.delivered.set()
        _end(client)
        _end(server)
        self.cut.set()


class _Line:
    """One connection: whether the server spoke last, has ended it, and whether it was cut."""

    def __init__(self) -> None:
        self.answered = True
        self.cut = False
        self.silent = threading.Event()


def _pieces(source: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            piece = source.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return
        if not piece:
            return
        yield piece


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy_to(url: str) -> Iterator[Proxy]:
    """A proxy to the server of a URL."""
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    try:
        yield proxy
    finally:
        proxy.close()
