"""A headless Chromium, driven through the DevTools protocol over a pipe: no driver and no library needed."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: File descriptors from which Chromium reads commands and to which it writes answers; a zero byte ends each.
_READS, _WRITES = 3, 4
_SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


class Tab:
    """An open page.

    Attributes:
        errors: exceptions of the page's scripts and error messages of the browser.
        requests: requested addresses, without `data:` URIs.
    """

    def __init__(self, reader: Any, writer: int) -> None:
        self._reader, self._writer, self._count, self._session = reader, writer, 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._reader.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            text += byte
        message: dict[str, Any] = json.loads(text)
        given = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(given["exceptionDetails"]))
            case "Log.entryAdded" if given["entry"]["level"] == "error":
                self.errors.append(given["entry"]["text"])
            case "Runtime.consoleAPICalled" if given["type"] == "error":
                self.errors.append(json.dumps(given["args"]))
            case "Network.requestWillBeSent" if not given["request"]["url"].startswith("data:"):
                self.requests.append(given["request"]["url"])
        return message

    def open(self, address: str, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> None:
        """Opens an address and waits until it is loaded."""
        self.set_window(width=width, height=height, is_dark=is_dark)
        self.call("Page.navigate", url=address)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def set_window(self, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> None:
        """Sets the window size and the preferred colour scheme without reloading the page."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """Returns the value of an expression; waits for a promise."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str) -> None:
        """Presses a key."""
        for kind in ("rawKeyDown", "keyUp"):
            codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
            code = {"Enter": 13, "Space": 32, **codes}[key]
            character = " " if key == "Space" else key
            event = {"type": kind, "key": character, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", **event)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drags the mouse with its left button."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def photograph(self, path: Path, *, is_whole: bool = True) -> None:
        """Writes a PNG of the whole page or of the window."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def open_tab(profile: Path, *, has_webgl: bool = False) -> Iterator[Tab]:
    """Starts Chromium and yields a tab.

    Args:
        profile: an empty folder for the browser profile.
        has_webgl: whether pages can use WebGL, which the processor then renders.
    """
    assert CHROMIUM is not None
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()

    def set_descriptors() -> None:
        # Duplicated to high numbers first: one of the four may already have the number of another.
        kept = [
            os.dup2(descriptor, 200 + place) for place, descriptor in enumerate((command_read, answer_write))
        ]
        os.dup2(kept[0], _READS)
        os.dup2(kept[1], _WRITES)

    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--remote-debugging-pipe"]
    flags += _SOFTWARE_WEBGL if has_webgl else ["--disable-gpu"]
    process = subprocess.Popen(
        [CHROMIUM, *flags, "--disable-background-networking", f"--user-data-dir={profile}"],
        preexec_fn=set_descriptors, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(command_read)
    os.close(answer_write)
    try:
        with os.fdopen(answer_read, "rb") as reader:
            yield Tab(reader, command_write)
    finally:
        os.close(command_write)
        process.kill()
        process.wait()
