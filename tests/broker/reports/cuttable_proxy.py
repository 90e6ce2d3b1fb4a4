"""An HTTP proxy that cuts its clients off, or slows them down: their connections stay open."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

HEAD_END = b"\r\n\r\n"
CHUNK_BYTES = 64 * 1024


class CuttableProxy:
    """Serves CONNECT requests until it is closed.

    Attributes:
      url: Its address, as the setting ``proxy_url`` of a Kafka client.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._cut: set[int | None] = set()
        self._changed = threading.Condition()
        self._delays_s: dict[int, float] = {}
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, port: int | None = None) -> None:
        """Let nothing through until :meth:`restore`. What was sent meanwhile comes late, as with TCP.

        Parameters:
          port: That of the one server that is cut off; by default all are.
        """
        with self._changed:
            self._cut.add(port)

    def slow_down(self, port: int, delay_s: float) -> None:
        """Let everything that a server answers wait, until :meth:`restore`."""
        self._delays_s[port] = delay_s

    def restore(self) -> None:
        self._delays_s.clear()
        with self._changed:
            self._cut.clear()
            self._changed.notify_all()

    def close(self) -> None:
        self.restore()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # of close()
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while HEAD_END not in head:
            if not (received := client.recv(1)):
                return
            head += received
        host, _, port = head.split()[1].decode().partition(":")
        self._wait_until_open(int(port))
        try:
            server = socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            client.close()
            return
        self._sockets.append(server)
        client.sendall(b"HTTP/1.1 200 OK" + HEAD_END)
        answers = threading.Thread(target=self._copy, args=(server, client, int(port), True), daemon=True)
        answers.start()
        self._copy(client, server, int(port), False)

    def _wait_until_open(self, port: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._cut.isdisjoint((None, port)))

    def _copy(self, source: socket.socket, target: socket.socket, port: int, is_answer: bool) -> None:
        with contextlib.suppress(OSError):  # of an end that has gone
            while received := source.recv(CHUNK_BYTES):
                if is_answer and (delay_s := self._delays_s.get(port)):
                    time.sleep(delay_s)
                self._wait_until_open(port)
                target.sendall(received)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
