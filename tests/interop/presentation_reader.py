"""Presentation states read with pydicom, and rendered with dcmtk and Pillow."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

#: Subpixels of a drawn picture along the edge of a pixel.
ZOOM = 4


@dataclass(frozen=True)
class DrawnText:
    """Text with its anchor, if it has one, and its box, in the units of the state."""

    text: str
    units: str
    anchor: tuple[float, float] | None
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class DrawnSlice:
    """Objects on one image or frame, columns and rows of which 0.5, 0.5 is the centre of the first pixel."""

    sop_instance_uid: str
    frame_number: int | None
    points: dict[str, tuple[float, float]]
    texts: tuple[DrawnText, ...]
    outlines: tuple[np.ndarray, ...]


def read_slices(path: Path) -> list[DrawnSlice]:
    """Returns what a state draws on each image; points by the tracking ID of their finding."""
    found: dict[tuple[str, int | None], list[pydicom.Dataset]] = {}
    for annotation in pydicom.dcmread(path).GraphicAnnotationSequence:
        (image,) = annotation.ReferencedImageSequence
        frame = image.get("ReferencedFrameNumber")
        key = (str(image.ReferencedSOPInstanceUID), None if frame is None else int(frame))
        found.setdefault(key, []).append(annotation)
    return [_read(*key, annotations) for key, annotations in found.items()]


def _read(uid: str, frame: int | None, annotations: list[pydicom.Dataset]) -> DrawnSlice:
    graphics = [item for each in annotations for item in each.get("GraphicObjectSequence", ())]
    texts = [item for each in annotations for item in each.get("TextObjectSequence", ())]
    assert {item.GraphicAnnotationUnits for item in graphics} <= {"PIXEL"}
    return DrawnSlice(
        uid,
        frame,
        {
            str(item.TrackingID): (float(item.GraphicData[0]), float(item.GraphicData[1]))
            for item in graphics
            if item.GraphicType == "POINT"
        },
        tuple(
            DrawnText(
                str(item.UnformattedTextValue),
                str(item.BoundingBoxAnnotationUnits),
                (float(item.AnchorPoint[0]), float(item.AnchorPoint[1])) if "AnchorPoint" in item else None,
                (
                    *map(float, item.BoundingBoxTopLeftHandCorner),
                    *map(float, item.BoundingBoxBottomRightHandCorner),
                ),
            )
            for item in texts
        ),
        tuple(
            np.array(item.GraphicData, float).reshape(-1, 2)
            for item in graphics
            if item.GraphicType == "POLYLINE"
        ),
    )


def run_dcmtk(program: str, *arguments: str | Path) -> str:
    """Returns the output of one of dcmtk's programs; skips the test if it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian: dcmtk)")
    command = [found, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def decompress(image: Path, folder: Path) -> Path:
    """Writes an image without compression into a folder; dcmp2pgm reads no other."""
    dataset = pydicom.dcmread(image)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
    dataset.save_as(folder / "native.dcm")
    return folder / "native.dcm"


def render_grey(state: Path, image: Path, frame: int | None, folder: Path) -> np.ndarray:
    """Returns the grey values of an image under a state, uint8 [rows, columns], as dcmp2pgm renders them.

    It draws no points, lines or texts; `draw` does.
    """
    native = decompress(image, folder)
    arguments = ("--pstate", state, "--frame", str(frame or 1), native, folder / "rendered.pgm")
    run_dcmtk("dcmp2pgm", *arguments)
    return np.asarray(Image.open(folder / "rendered.pgm"))


def draw(grey: np.ndarray, drawn: DrawnSlice) -> Image.Image:
    """Draws points yellow and outlines cyan over grey values, at ZOOM subpixels per pixel (PS3.3 C.10.5)."""
    picture = Image.fromarray(np.kron(grey, np.ones((ZOOM, ZOOM), np.uint8))).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for outline in drawn.outlines:
        pen.line([tuple(corner) for corner in (outline * ZOOM).tolist()], fill=(0, 255, 255))
    for text in drawn.texts:
        left, top, *_ = text.box
        if text.units == "DISPLAY":
            left, top = left * grey.shape[1], top * grey.shape[0]
        pen.text((left * ZOOM, top * ZOOM), text.text.replace("\r", ""), fill=(255, 255, 255))
    for column, row in drawn.points.values():
        pen.ellipse(
            [column * ZOOM - 3, row * ZOOM - 3, column * ZOOM + 3, row * ZOOM + 3], fill=(255, 255, 0)
        )
    return picture
