"""Builds and runs `loader.cc` against the TensorFlow of some interpreter.

    python -m tests.serving.loader BUNDLE [--python=PATH]

prints what the program prints: the largest difference of each output, over all requests of each file. `make
test-serving` calls it with the interpreter of a second environment, whose TensorFlow is another.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cc")
#: The files of a bundle that it replays, below assets.extra.
FILES = ("tf_serving_warmup_requests", "parity_requests.tfrecord")
#: What is asked of every output, in its own unit: probabilities, and landmarks' mm.
TOLERANCE = 1e-4
_SHOW_FLAGS = """
import json, tensorflow as tf
print(json.dumps([tf.sysconfig.get_compile_flags(), tf.sysconfig.get_lib()]))
"""


@dataclass(frozen=True)
class Line:
    """One output over all requests of a file.

    Attributes:
        file: the file's name.
        signature: which was asked.
        output: its name.
        requests: how many asked it.
        largest: the largest difference from what is expected; 0 for warm-up requests, which expect nothing.
    """

    file: str
    signature: str
    output: str
    requests: int
    largest: float


def build_loader(folder: Path, *, python: str = sys.executable) -> Path:
    """Compiles the program against the wheel of an interpreter; returns its path."""
    shown = subprocess.run([python, "-c", _SHOW_FLAGS], capture_output=True, text=True, check=True)
    flags, library = json.loads(shown.stdout.splitlines()[-1])
    program = folder / "loader"
    command = [
        # -w: the wheel's own headers warn by the hundred.
        "g++", "-w", "-O1", *flags, "-std=c++17", "-DEIGEN_MAX_ALIGN_BYTES=64", str(SOURCE),
        "-o", str(program), f"-L{library}", f"-Wl,-rpath,{library}", "-Wl,--no-as-needed",
        "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return program


def replay(program: Path, bundle: Path, files: Sequence[Path] | None = None) -> tuple[str, list[Line]]:
    """Replays a bundle's requests, or other files; returns TensorFlow's version and the lines.

    Raises:
        RuntimeError: the program failed; the message is what it said.
    """
    asked = files or [bundle / "assets.extra" / name for name in FILES]
    done = subprocess.run(
        [program, bundle, *asked],
        capture_output=True,
        text=True,
        check=False,
        env={"TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    version, *rows = done.stdout.splitlines()
    parts = [row.rsplit(" ", 4) for row in rows]
    return version, [Line(Path(a).name, b, c, int(d), float(e)) for a, b, c, d, e in parts]


def main() -> None:
    """Builds, replays, prints, and fails where an output differs by more than is asked."""
    import tempfile

    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        version, lines = replay(build_loader(Path(folder), python=options.python), options.bundle)
    print(version)
    for line in lines:
        print(f"{line.file} {line.signature} {line.output}: {line.requests} requests, {line.largest:.3g}")
    worst = max(line.largest for line in lines)
    sys.exit(0 if worst <= TOLERANCE else f"the largest difference, {worst:.3g}, is over {TOLERANCE}")


if __name__ == "__main__":
    main()
