"""A way to Kafka on which one topic can be read as it was before.

A leader that was frozen, and thaws, answers for a moment with the log that it knows, although another node
leads and has acknowledged more. Here that moment lasts for as long as a test needs it.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from kafka.protocol.consumer import FetchResponse, ListOffsetsResponse

from dev.ports import HOST, free_port

#: The client id of one that nothing is hidden from.
SEES_ALL = "sees-all"

_FETCH, _LIST_OFFSETS = 1, 2
_RESPONSES = {_FETCH: FetchResponse, _LIST_OFFSETS: ListOffsetsResponse}


@dataclass
class OldLeader:
    """Passes everything on to Kafka, but for what it hides of one topic.

    Parameters:
      topic: Hidden from those who ask where it ends, and only from them: others write to it as ever.

    Attributes:
      server_port: Where Kafka listens.
      hidden: How often it answered with less than there is.
    """

    topic: str
    server_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    hidden: int = 0

    def __post_init__(self) -> None:
        self._ends: Mapping[int, int] | None = None
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def show_only(self, ends: Mapping[int, int]) -> None:
        """From now on the topic's partitions end there, for whoever reads them."""
        self.hidden = 0
        self._ends = ends

    def show_all(self) -> None:
        self._ends = None

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        reads_topic = False
        with client, suppress(OSError), socket.create_connection((HOST, self.server_port)) as server:
            while (request := _frame(client)) is not None:
                kind, version, _ = struct.unpack(">hhi", request[:8])
                if kind == _LIST_OFFSETS and self.topic.encode() in request:
                    reads_topic = SEES_ALL.encode() not in request
                server.sendall(struct.pack(">i", len(request)) + request)
                if (response := _frame(server)) is None:
                    return
                if reads_topic and kind in _RESPONSES and (ends := self._ends) is not None:
                    response = self._without(response, kind, version, ends)
                client.sendall(struct.pack(">i", len(response)) + response)

    def _without(self, response: bytes, kind: int, version: int, ends: Mapping[int, int]) -> bytes:
        correlation_id = struct.unpack(">i", response[:4])[0]
        message = _RESPONSES[kind][version].decode(response, header=True)
        for topic in message.responses if kind == _FETCH else message.topics:
            for partition in topic.partitions:
                end = ends[partition.partition_index]
                if kind == _LIST_OFFSETS:
                    shown = min(partition.offset, end)
                    self.hidden += shown < partition.offset
                    partition.offset = shown
                elif partition.high_watermark > end:
                    self.hidden += 1
                    partition.high_watermark = partition.last_stable_offset = end
                    partition.records = _below(end, bytes(partition.records or b""))
        message.with_header(correlation_id=correlation_id)
        return bytes(message.encode(header=True))


def _below(end: int, batches: bytes) -> bytes:
    """The batches of records that begin below an offset."""
    place = 0
    while place < len(batches):
        first, size = struct.unpack_from(">qi", batches, place)
        if first >= end:
            break
        place += 12 + size
    return batches[:place]


def _frame(connection: socket.socket) -> bytes | None:
    """The next request or response; None when the connection has ended."""
    size = _exactly(connection, 4)
    return None if size is None else _exactly(connection, struct.unpack(">i", size)[0])


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    read = bytearray()
    while len(read) < size:
        if not (part := connection.recv(size - len(read))):
            return None
        read += part
    return bytes(read)
