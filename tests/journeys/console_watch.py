"""What a browser complains about while a page is open."""

from __future__ import annotations

import re

from playwright.sync_api import ConsoleMessage, Page, Request

#: What is not our fault, as whole addresses after the server's own, each with its reason.
ALLOWED = (
    # Streamlit looks for its server below the address of a page first, and only then at the root, so that every page
    # but the first, opened by its address, begins with two answers 404: streamlit#7074, open and confirmed. The part
    # of the address is the page's name; nothing that the application asks for has this form.
    re.compile(r"/[a-z]+/_stcore/(health|host-config)"),
)
#: What a browser says of each request while there is no server, and Streamlit of a part that wanted to renew itself
#: and of pictures that it asked for anew: they lay in the memory of the server that is gone.
_NO_SERVER = re.compile(
    r"ERR_CONNECTION_(REFUSED|RESET|CLOSED)|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED|when disconnected from server"
    r"|Image source error - http://[\d.:]+/media/"
)


class ConsoleWatch:
    """Collects what the pages that it watches complain about.

    Attributes:
        complaints: Errors of the console and of scripts, and every request to another place than the server.
    """

    def __init__(self, url: str) -> None:
        self.complaints: list[str] = []
        self._url = url

    def watch(self, page: Page) -> Page:
        """Watch a page from now on; returns it."""
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        page.on("request", self._see)
        return page

    def forgive_outage(self) -> None:
        """Drop what was said because the server was away, and nothing else."""
        self.complaints = [text for text in self.complaints if not _NO_SERVER.search(text)]

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type != "error":
            return
        address = message.location["url"] if message.location else ""
        own = address.removeprefix(self._url)
        if own != address and "404" in message.text and any(pattern.fullmatch(own) for pattern in ALLOWED):
            return
        self.complaints.append(f"console: {message.text} ({address})")

    def _see(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", "data:", "blob:", "file:", "about:")):
            self.complaints.append(f"request to elsewhere: {request.url}")
