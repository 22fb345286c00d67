"""Build time against bare decoding, memory against cohort size, reading against raw reading.

    python -m lumbar_tf.synthetic --out=/somewhere/cohort --studies=60 --seed=77 --resolution=full
    python tests/benchmarks/building.py /somewhere/cohort [--workers=2] [--rounds=5] [--earlier=/checkout]

Whole processes are timed, in turn, so that what else the machine does falls on both; the figures to quote
are the ratios of medians. The files are in the page cache (the first round, which fills it, does not count).
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Cost(NamedTuple):
    """Seconds of a command.

    Attributes:
        wall: from start to end.
        processor: of all its processes; other work on the machine changes it less.
    """

    wall: float
    processor: float


def decode_file(path: str) -> int:
    """What any reader has to do: parse the file and decode its pixels, here by the build's own decoder."""
    import pydicom
    from pydicom.encaps import get_frame

    from lumbar_tf.dicom.files.code_streams import PixelLayout
    from lumbar_tf.dicom.files.codecs import decode_stream

    dataset = pydicom.dcmread(path)
    layout = PixelLayout(
        dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored, False, False
    )
    stream = memoryview(get_frame(dataset.PixelData, 0, number_of_frames=1))
    return int(decode_stream(dataset.file_meta.TransferSyntaxUID, stream, layout).size)


def decode_file_by_plugin(path: str) -> int:
    """The same by pydicom's own way and pylibjpeg-rle, which is how competition code reads these files."""
    import pydicom
    from pydicom.pixels import pixel_array

    return int(pixel_array(pydicom.dcmread(path), decoding_plugin="pylibjpeg").size)


def decode_bare(cohort: Path, workers: int, decode: Callable[[str], int]) -> None:
    files = sorted(str(path) for path in cohort.rglob("*.dcm"))
    if workers == 1:
        total = sum(map(decode, files))
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            total = sum(pool.imap_unordered(decode, files, chunksize=64))
    print(len(files), "files", total, "pixels")


def build(cohort: Path, out: Path, workers: int, codec: str) -> None:
    from lumbar_tf.records.build import BuildTask, run_build_task
    from lumbar_tf.records.manifest import BuildOptions
    from lumbar_tf.records.schema import PixelEncoding

    options = BuildOptions(studies_per_shard=4, num_folds=5, fold_seed=0, codec=PixelEncoding(codec))
    run_build_task(BuildTask(sources=[cohort], out=out, options=options), workers=workers)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print("peak_mb", json.dumps([round(each / 1024, 1) for each in peaks]))


def read_back(out: Path, rounds: int) -> None:
    import tensorflow as tf

    from lumbar_tf.records.parsing import records_dataset
    from lumbar_tf.runners.memory import keep_freed_memory

    keep_freed_memory()  # as training does
    files = sorted(out.rglob("*.tfrecord"))
    size = sum(path.stat().st_size for path in files)
    datasets = {
        "raw": lambda: tf.data.TFRecordDataset([str(path) for path in files]),
        "parsed": lambda: records_dataset(files),
    }
    times: dict[str, list[float]] = {name: [] for name in datasets}
    for place in range(rounds + 1):
        for name, make in datasets.items():
            started = time.perf_counter()
            for _ in make():
                pass
            if place:
                times[name].append(time.perf_counter() - started)
    speeds = {name: size / 1e6 / statistics.median(each) for name, each in times.items()}
    print(f"read back, MB/s: {speeds}")
    print(f"parsed / raw reading: {speeds['parsed'] / speeds['raw']:.3f}")


def _run(*words: str, root: Path = ROOT) -> tuple[Cost, str]:
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, __file__, *words], check=True, capture_output=True, text=True, env=_environment(root)
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = [getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime")]
    return Cost(time.perf_counter() - started, sum(used)), done.stdout


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "2"}


def compare(cohort: Path, workers: int, rounds: int, codec: str, earlier: Path | None) -> None:
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        building = ("--do=build", str(cohort), f"--out={out}", f"--workers={workers}", f"--codec={codec}")
        commands: dict[str, tuple[Sequence[str], Path]] = {
            "bare": (("--do=bare", str(cohort), f"--workers={workers}"), ROOT),
            "plugin": (("--do=plugin", str(cohort), f"--workers={workers}"), ROOT),
            **({"earlier": (building, earlier)} if earlier else {}),
            "build": (building, ROOT),
        }
        for place in range(rounds + 1):
            for name, (words, root) in commands.items():
                shutil.rmtree(out, ignore_errors=True)
                cost, _ = _run(*words, root=root)
                if place:
                    costs.setdefault(name, []).append(cost)
        medians = {name: Cost(*map(statistics.median, zip(*each))) for name, each in costs.items()}
        print(f"{workers} processes, {rounds} rounds, codec {codec}; medians in s")
        for name, cost in medians.items():
            ratios = [own / bare for own, bare in zip(cost, medians["bare"])]
            print(
                f"{name}: wall {cost.wall:.2f}, processor {cost.processor:.2f}; "
                f"{ratios[0]:.3f} and {ratios[1]:.3f} of bare decoding"
            )
        print(_run("--do=read", str(out), f"--rounds={rounds}")[1], end="")


def compare_memory(cohort: Path, codec: str) -> None:
    studies = sorted((cohort / "train_images").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for count in (len(studies) // 4, len(studies)):
            part = Path(folder, f"cohort{count}")
            (part / "train_images").mkdir(parents=True)
            for study in studies[:count]:
                # Hard links: the reader follows no symbolic ones.
                subprocess.run(["cp", "-rl", str(study), str(part / "train_images")], check=True)
            for table in cohort.glob("*.csv"):
                os.link(table, part / table.name)
            out = Path(folder, f"out{count}")
            _, text = _run("--do=build", str(part), f"--out={out}", "--workers=2", f"--codec={codec}")
            peaks[count] = json.loads(text.split("peak_mb")[1])
        print(f"peak memory, MB, [parent, largest worker], by number of studies: {peaks}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--do", default="compare")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codec", default="raw")
    parser.add_argument("--earlier", type=Path, help="checkout of another commit, built with in turn")
    words = parser.parse_args()
    actions: dict[str, Callable[[], None]] = {
        "bare": lambda: decode_bare(words.cohort, words.workers, decode_file),
        "plugin": lambda: decode_bare(words.cohort, words.workers, decode_file_by_plugin),
        "build": lambda: build(words.cohort, words.out, words.workers, words.codec),
        "read": lambda: read_back(words.cohort, words.rounds),
        "memory": lambda: compare_memory(words.cohort, words.codec),
        "compare": lambda: compare(words.cohort, words.workers, words.rounds, words.codec, words.earlier),
    }
    actions[words.do]()


if __name__ == "__main__":
    main()
