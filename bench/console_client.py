"""Browsers of the web console that cost little themselves: HTTP/1.1 on plain connections."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

TIMEOUT_S = 60.0


class Visitor:
    """A user who has logged in, and asks for one page after another.

    Raises of all methods:
      OSError: When the console does not answer.
      RuntimeError: When it answers with another status than 200.
    """

    def __init__(self, port: int, password: str) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self.cookie = self._log_in(password)

    def _log_in(self, password: str) -> str:
        headers = {
            "Origin": f"http://127.0.0.1:{self._port}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        body = urlencode({"user": "admin", "password": password})
        self._connection.request("POST", "/log-in", body, headers)
        answer = self._connection.getresponse()
        answer.read()
        cookie = answer.headers["Set-Cookie"]
        if answer.status != 303 or cookie is None:
            raise RuntimeError(f"the log-in ended with status {answer.status}")
        return str(cookie).partition(";")[0]

    def page(self, path: str, **headers: str) -> bytes:
        self._connection.request("GET", path, headers={"Cookie": self.cookie, **headers})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} has the status {answer.status}: {body[:200]!r}")
        return body

    def document(self, path: str) -> Any:
        return json.loads(self.page(path, Accept="application/json"))

    def latencies_s(self, path: str, count: int) -> list[float]:
        """The durations of some requests for a page, one after the other."""
        found = []
        for _ in range(count):
            began_s = time.perf_counter()
            self.page(path)
            found.append(time.perf_counter() - began_s)
        return found

    def close(self) -> None:
        self._connection.close()


@dataclass(slots=True)
class Crowd:
    """Browsers that show a page at once: each loads it again at each event of the server.

    Attributes:
      latencies_s: The durations of all loads of the page.
    """

    port: int
    cookie: str
    path: str = "/"
    latencies_s: list[float] = field(default_factory=list)

    def look(self, count: int, seconds: float) -> None:
        """Let so many browsers look for a while."""
        asyncio.run(self._look(count, seconds))

    async def _look(self, count: int, seconds: float) -> None:
        browsers = [asyncio.create_task(self._browser()) for _ in range(count)]
        done, _ = await asyncio.wait(browsers, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for one in browsers:
            one.cancel()
        await asyncio.gather(*browsers, return_exceptions=True)
        for one in done:
            one.result()

    async def _browser(self) -> None:
        events, ask_events = await asyncio.open_connection("127.0.0.1", self.port)
        pages, ask_page = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await self._load(pages, ask_page)
            self._request(ask_events, "/events")
            while line := await events.readline():
                if line.startswith(b"event: changed"):
                    await self._load(pages, ask_page)
            raise RuntimeError("the console has ended the event stream")
        finally:
            for writer in (ask_events, ask_page):
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    def _request(self, writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {self.cookie}\r\n\r\n".encode())

    async def _load(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began_s = time.perf_counter()
        self._request(writer, self.path)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in head.splitlines()[0]:
            raise RuntimeError(f"{self.path} was answered with {head.splitlines()[0]!r}")
        length = next(line for line in head.splitlines() if line.startswith("content-length:"))
        await reader.readexactly(int(length.partition(":")[2]))
        self.latencies_s.append(time.perf_counter() - began_s)
