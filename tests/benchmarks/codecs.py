"""Ways to hold a slice in a record: size, encoding, decoding inside TensorFlow.

    python tests/benchmarks/codecs.py /somewhere/cohort

One core, medians over the slices of a cohort (see building.py), beside the time in which the DICOM file
itself is parsed and decoded.
"""

import statistics
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import tensorflow as tf
from pydicom.pixels import pixel_array

from lumbar_tf.records.schema import _PNG_OPTIONS

Decode = Callable[[Any], tf.Tensor]
CODECS: dict[str, tuple[Callable[[np.ndarray], bytes], Decode]] = {
    "raw": (lambda image: image.tobytes(), lambda data: tf.io.decode_raw(data, tf.uint16)),
    "png, level 1, run-length": (
        lambda image: imagecodecs.png_encode(image, **_PNG_OPTIONS),
        lambda data: tf.io.decode_png(data, channels=1, dtype=tf.uint16),
    ),
    "png, level 1": (
        lambda image: imagecodecs.png_encode(image, level=1),
        lambda data: tf.io.decode_png(data, channels=1, dtype=tf.uint16),
    ),
    "zlib, level 1": (
        lambda image: zlib.compress(image, 1),
        lambda data: tf.io.decode_raw(tf.io.decode_compressed(data, "ZLIB"), tf.uint16),
    ),
    "libdeflate, level 1": (
        lambda image: imagecodecs.deflate_encode(image.tobytes(), level=1),
        lambda data: tf.io.decode_raw(tf.io.decode_compressed(data, "ZLIB"), tf.uint16),
    ),
}


def _median_ms(work: Callable[[Any], object], items: list[Any]) -> float:
    times = []
    for item in items:
        started = time.perf_counter()
        work(item)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    files = sorted(Path(sys.argv[1]).rglob("*.dcm"))
    files = files[:: max(len(files) // 200, 1)]
    plugin = "pylibjpeg"
    images = [np.ascontiguousarray(pixel_array(pydicom.dcmread(each))) for each in files]
    bare = _median_ms(lambda each: pixel_array(pydicom.dcmread(each), decoding_plugin=plugin), files)
    print(f"{len(files)} slices; parsing and decoding the DICOM file: {bare:.2f} ms")
    print(f"{'codec':26} {'of raw':>7} {'encode ms':>10} {'decode ms':>10}")
    for name, (encode, decode) in CODECS.items():
        encoded = [encode(each) for each in images]
        share = sum(map(len, encoded)) / sum(each.nbytes for each in images)
        constants = [tf.constant(bytes(each)) for each in encoded]
        for image, data in zip(images, constants, strict=True):
            if not np.array_equal(np.ravel(decode(data)), image.ravel()):
                raise ValueError(f"{name} must be lossless.")
        times = _median_ms(encode, images), _median_ms(decode, constants)
        print(f"{name:26} {share:7.2f} {times[0]:10.2f} {times[1]:10.2f}")


if __name__ == "__main__":
    main()
