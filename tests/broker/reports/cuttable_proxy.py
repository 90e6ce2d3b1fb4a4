"""An HTTP proxy that cuts its clients off: their connections stay open, and nothing comes through."""

from __future__ import annotations

import contextlib
import socket
import threading

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
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through until :meth:`restore`. What was sent meanwhile comes late, as with TCP."""
        self._open.clear()

    def restore(self) -> None:
        self._open.set()

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
        self._open.wait()
        server = socket.create_connection((host, int(port)))
        self._sockets.append(server)
        client.sendall(b"HTTP/1.1 200 OK" + HEAD_END)
        threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
        self._copy(client, server)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # of an end that has gone
            while received := source.recv(CHUNK_BYTES):
                self._open.wait()
                target.sendall(received)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
