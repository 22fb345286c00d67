"""OHIF before an Orthanc server, in a browser tab."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from tests.interop.orthanc import PASSWORD, USER, Orthanc
from tests.reports.browser import Tab

_REPOSITORY = Path(__file__).resolve().parents[2]
#: The unpacked npm package `@ohif/app`, which `make test-viewers` fetches, or another copy of it.
FOLDER = Path(os.environ.get("LUMBAR_TF_OHIF", _REPOSITORY / ".ohif" / "package"))
_LONGEST_S = 120.0
_CONFIGURATION = """
localStorage.setItem('shownTours', '["basicViewerTour"]');
window.config = {
  routerBasename: null, extensions: [], modes: [], showStudyList: true, maxNumberOfWebWorkers: 1,
  showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false,
  investigationalUseDialog: {option: 'never'}, defaultDataSourceName: 'orthanc',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc',
      qidoRoot: location.origin + '/dicom-web', wadoRoot: location.origin + '/dicom-web',
      qidoSupportsIncludeField: false, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true,
      omitQuotationForMultipartRequest: true, bulkDataURI: {enabled: true},
    },
  }],
};
"""
_REPORT = "document.querySelector('[data-cy=study-browser-thumbnail-no-image]')"
_IMAGE_ID = """(() => {
  const element = document.querySelector('.cornerstone-viewport-element');
  const uid = element?.getAttribute('data-viewport-uid');
  const service = window.services?.cornerstoneViewportService;
  return uid && service?.getCornerstoneViewport(uid)?.getCurrentImageId?.();
})()"""
#: Labels in the order of drawing; the lines before a label are its arrow, all of which end at the tip.
_LABELS = """(() => {
  const labels = [];
  let tip = null;
  for (const part of document.querySelectorAll('svg.svg-layer line, svg.svg-layer text')) {
    if (part.tagName === 'text') {
      labels.push({lines: [...part.querySelectorAll('tspan')].map((line) => line.textContent), tip});
    } else if (!part.getAttribute('stroke-dasharray')) {
      tip = [Number(part.getAttribute('x2')), Number(part.getAttribute('y2'))];
    }
  }
  return labels;
})()"""
_CANVAS = "document.querySelector('canvas.cornerstone-canvas')"
#: Grey values of a square of the canvas, row by row.
_PICTURE = """((canvas, left, top, side) => {
  const bytes = canvas.getContext('2d').getImageData(left, top, side, side).data;
  return [...bytes].filter((_, place) => place % 4 === 0);
})"""
#: Standard deviation of every 16th grey value of the canvas.
_CONTRAST = """((canvas) => {
  if (!canvas?.width || !canvas?.height) return 0;
  const bytes = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let [count, sum, squares] = [0, 0, 0];
  for (let place = 0; place < bytes.length; place += 64) {
    count += 1;
    sum += bytes[place];
    squares += bytes[place] ** 2;
  }
  return Math.sqrt(Math.max(squares / count - (sum / count) ** 2, 0));
})"""
#: Height of an image's pixel, pixels of the canvas.
_PIXEL_SIDE = """(() => {
  const uid = document.querySelector('.cornerstone-viewport-element').getAttribute('data-viewport-uid');
  const view = window.services.cornerstoneViewportService.getCornerstoneViewport(uid);
  const [start, end] = [[0, 0], [0, 100]].map((place) => view.canvasToWorld(place));
  const length_mm = Math.hypot(...start.map((value, axis) => value - end[axis]));
  return 100 * view.getImageData().spacing[1] / length_mm;
})()"""


def find_pages() -> Path:
    """Returns the folder of OHIF's built pages; skips the test if they were not fetched."""
    pages = FOLDER / "dist"
    if not (pages / "index.html").is_file():
        pytest.skip("OHIF was not fetched: make test-viewers")
    return pages


@dataclass(frozen=True)
class Label:
    """Label of a drawn point: its lines, and the tip of its arrow, pixels of the canvas."""

    lines: tuple[str, ...]
    tip: tuple[float, float]


class Viewer:
    """OHIF with an open study."""

    def __init__(self, tab: Tab, address: str) -> None:
        self.tab, self._address = tab, address

    def open_study(self, study_uid: str) -> None:
        """Opens a study and waits until its first image is drawn."""
        self.tab.open(f"{self._address}/viewer?StudyInstanceUIDs={study_uid}", width=1500, height=1000)
        wait_for(lambda: self.tab.run(_IMAGE_ID), "an image")
        wait_for(lambda: self.contrast() > 0, "the image's pixels")

    def has_report(self) -> bool:
        """Returns whether the list of series contains a report."""
        return bool(self.tab.run(f"{_REPORT} !== null"))

    def open_report(self) -> None:
        """Double-clicks the report in the list of series."""
        wait_for(self.has_report, "the report in the list")
        self.tab.run(f"{_REPORT}.scrollIntoView({{block: 'center'}})")
        self._click(_REPORT, num_clicks=2)

    def press_arrow(self, *, is_back: bool = False) -> None:
        """Clicks the arrow of the report that leads to the next or previous point."""
        self._click(f"{_arrows()}[{0 if is_back else 1}]")

    def has_arrows(self) -> bool:
        """Returns whether both arrows of the report are shown."""
        return int(self.tab.run(f"{_arrows()}.length")) == 2

    def image(self) -> tuple[str, int] | None:
        """Returns the SOPInstanceUID and frame number of the shown image."""
        found = self.tab.run(_IMAGE_ID)
        if not found:
            return None
        *_, uid, _, frame = found.split("/")
        return uid, int(frame)

    def labels(self) -> list[Label]:
        """Returns the labels of the drawn points."""
        return [Label(tuple(found["lines"]), tuple(found["tip"])) for found in self.tab.run(_LABELS)]

    def picture(self, left: int, top: int, side: int) -> NDArray[np.float64]:
        """Returns grey values of a square of the canvas, float64 [row, column]."""
        found = self.tab.run(f"{_PICTURE}({_CANVAS}, {left}, {top}, {side})")
        return np.reshape(np.array(found, np.float64), (side, side))

    def contrast(self) -> float:
        """Returns the standard deviation of the canvas's grey values; 0 if it is black or absent."""
        return float(self.tab.run(f"{_CONTRAST}({_CANVAS})"))

    def pixel_side(self) -> float:
        """Returns the side of an image's pixel, pixels of the canvas."""
        return float(self.tab.run(_PIXEL_SIDE))

    def text(self) -> str:
        """Returns the text of the page."""
        return str(self.tab.run("document.body.innerText"))

    def _click(self, element: str, *, num_clicks: int = 1) -> None:
        x, y = self.tab.run(
            f"(() => {{const box = {element}.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]})()"
        )
        for count in range(1, num_clicks + 1):
            for kind in ("mousePressed", "mouseReleased"):
                event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": count}
                self.tab.call("Input.dispatchMouseEvent", **event)


def _arrows() -> str:
    titles = (
        "[...document.querySelectorAll('svg title')].filter((title) => title.textContent === 'arrow-left')"
    )
    return f"{titles}.map((title) => title.closest('div'))"


def wait_for(condition: Callable[[], Any], what: str) -> None:
    """Waits until a condition holds, and fails after two minutes: processors draw slowly."""
    end = time.monotonic() + _LONGEST_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"Waited {_LONGEST_S:.0f} s for {what}.")
        time.sleep(0.1)


@contextmanager
def serve(pages: Path, archive: Orthanc) -> Iterator[str]:
    """Serves the pages and, below `/dicom-web`, the archive at one address, which it yields."""

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(pages))

        def do_GET(self) -> None:
            if self.path.startswith("/dicom-web/"):
                self._pass_on()
            elif self.path.startswith("/app-config.js"):
                self._answer(_CONFIGURATION.encode(), "text/javascript")
            elif (pages / self.path.partition("?")[0].lstrip("/")).is_file():
                super().do_GET()
            else:  # a route of the application
                self._answer((pages / "index.html").read_bytes(), "text/html")

        def _pass_on(self) -> None:
            headers = {"Accept": self.headers.get("Accept", "*/*"), "Host": self.headers["Host"]}
            address = archive.url + self.path
            answer = requests.get(address, headers=headers, auth=(USER, PASSWORD), timeout=_LONGEST_S)
            self._answer(answer.content, answer.headers["Content-Type"], answer.status_code)

        def _answer(self, content: bytes, content_type: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
