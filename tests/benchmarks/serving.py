"""How long a bundle takes to answer, beside its networks alone.

    python tests/benchmarks/serving.py BUNDLE [BUNDLE ...] --runs=RUNS --studies=DIR [--rounds=15]

BUNDLE is an exported version, RUNS what the first was exported from, DIR a folder of DICOM studies. All is
timed in turns within one run, so that what else the machine does falls on all alike; medians, by the clock.
It prints

- the first bundle on a three-plane study, against the sum of its networks' bare forward passes (each fold
  of each localizer and grader, its inputs ready) and of what makes these inputs from serialized Examples
  (parsing, decoding, cutting),
- the first request after the warm-up requests, against the median,
- a batch of eight studies, a study of it against one alone,
- memory over 500 requests,
- the bytes that are sent for a study beside those of its DICOM files,
- a line a bundle: members, sizes, and how long a study takes.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import tensorflow as tf

from lumbar_tf.bundle.loading import ServedEnsemble
from lumbar_tf.bundle.members import find_landmarks
from lumbar_tf.bundle.prediction_log import read_requests
from lumbar_tf.bundle.trained_ensemble import PlaneNetworks, load_trained_ensemble
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.inputs.grader_dataset import study_crops
from lumbar_tf.inputs.localizer_dataset import field_of_view, study_localizer_inputs
from lumbar_tf.labels import Plane
from lumbar_tf.models.bundle_folder import EXTRA, STACKER_NAME, WARMUP_NAME
from lumbar_tf.models.fold_ensemble import FoldEnsemble
from lumbar_tf.records.cohort import open_cohort
from lumbar_tf.records.parsing import parse_example
from lumbar_tf.records.schema import PixelEncoding, encode_plane
from lumbar_tf.serving.contract import GRADE

Examples = Mapping[Plane, bytes]
Work = Callable[[], Any]
_BATCH = 8
_REQUESTS = 500


def read_studies(folder: Path, count: int) -> tuple[list[Examples], list[tuple[int, int, int]]]:
    """Returns three-plane studies as Examples, and the bytes of each: raw, PNG, DICOM."""
    studies, sizes = [], []
    with open_cohort([folder]) as cohort:
        for job in cohort.jobs:
            study = read_study_files(job.files, job.series_planes)
            if len(study.planes) < len(Plane):
                continue
            raw, png = (
                {
                    plane: encode_plane(study.study_id, plane, slices, codec=codec)
                    for plane, slices in study.planes.items()
                }
                for codec in (PixelEncoding.RAW, PixelEncoding.PNG)
            )
            dicom = sum(path.stat().st_size for path in folder.rglob(f"{job.study_id}/*/*.dcm"))
            studies.append(raw)
            sizes.append((sum(map(len, raw.values())), sum(map(len, png.values())), dicom))
            if len(studies) == count:
                break
    return studies, sizes


def medians(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each, all done in turns; the first two rounds are not counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 2):
        for name, work in works.items():
            started = time.perf_counter()
            tf.nest.map_structure(np.asarray, work())
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(each[2:]) for name, each in taken.items()}


def _traced(function: Callable[..., Any], *inputs: Any) -> Work:
    concrete = tf.function(function, autograph=False)
    return lambda: concrete(*inputs)


def _passes(folded: FoldEnsemble, inputs: dict[str, tf.Tensor], name: str) -> dict[str, Work]:
    """The bare network, once for each fold: a pass takes as long whichever weights it has."""
    batch = {key: value[tf.newaxis] for key, value in inputs.items()}
    work = _traced(lambda given: folded.model(given, training=False), batch)
    return {f"bare {name} fold {fold}": work for fold in range(folded.num_folds)}


def parts(networks: Mapping[Plane, PlaneNetworks], study: Examples) -> dict[str, Work]:
    """Returns the bare passes, and what makes their inputs, of one study."""
    points, _ = find_landmarks(dict(networks), {plane: tf.constant([study[plane]]) for plane in Plane})
    works: dict[str, Work] = {}
    for plane, each in networks.items():
        serialized = tf.constant(study[plane])
        if each.localizer is not None and each.config.localizer is not None and plane.is_sagittal:
            spec = field_of_view(each.config.localizer)
            cut = _traced(
                lambda given, spec=spec: study_localizer_inputs(parse_example(given), spec), serialized
            )
            works[f"decode field {plane.value}"] = cut
            works |= _passes(each.localizer, cut(), f"{plane.value} localizer")
        layout, crop = each.layout, each.config.grader.crop
        cut = _traced(
            lambda given, at, layout=layout, crop=crop: study_crops(parse_example(given), at, layout, crop),
            serialized,
            points[0],
        )
        works[f"decode crops {plane.value}"] = cut
        for backbone, folded in each.graders.items():
            works |= _passes(folded, cut(), f"{plane.value} {backbone}")
    return works


def show_share(bundle: ServedEnsemble, runs: Path, study: Examples, rounds: int) -> None:
    """Prints the bundle's time beside its parts'."""
    ensemble = load_trained_ensemble(runs, bundle.path / EXTRA / STACKER_NAME)
    works: dict[str, Work] = {"bundle": lambda: bundle.predict([study])}
    works |= parts(ensemble.networks, study)
    taken = medians(works, rounds)
    bare, decode = (
        sum(value for name, value in taken.items() if name.startswith(kind)) for kind in ("bare", "decode")
    )
    print(
        f"bundle {1e3 * taken['bundle']:.0f} ms; bare passes {1e3 * bare:.0f} ms + decoding "
        f"{1e3 * decode:.0f} ms: {taken['bundle'] / (bare + decode):.3f} (the aim is 1.15)"
    )


def show_first(path: Path, studies: list[Examples], rounds: int) -> ServedEnsemble:
    """Prints the first request after the warm-up beside the median; returns the bundle."""
    bundle = ServedEnsemble(path)
    started = time.perf_counter()
    for each in read_requests(path / EXTRA / WARMUP_NAME):
        if each.signature != GRADE:
            continue
        bundle.predict_inputs(each.inputs)
    warming = time.perf_counter() - started
    taken = []
    for place in range(rounds + 1):
        started = time.perf_counter()
        bundle.predict([studies[place % len(studies)]])["probability"]
        taken.append(time.perf_counter() - started)
    median = statistics.median(taken[1:])
    print(
        f"warm-up {warming:.1f} s; first request after it {1e3 * taken[0]:.0f} ms, median "
        f"{1e3 * median:.0f} ms: {taken[0] / median:.2f} (the aim is 1.5)"
    )
    return bundle


def show_batch(bundle: ServedEnsemble, studies: list[Examples], rounds: int) -> None:
    """Prints a study's share of a batch beside a study alone."""
    batch = [studies[place % len(studies)] for place in range(_BATCH)]
    works = {f"alone {place}": (lambda each=each: bundle.predict([each])) for place, each in enumerate(batch)}
    taken = medians({**works, "batch": lambda: bundle.predict(batch)}, rounds)
    alone = sum(value for name, value in taken.items() if name != "batch") / _BATCH
    share = taken["batch"] / _BATCH
    print(
        f"a study of a batch of {_BATCH} {1e3 * share:.0f} ms, alone {1e3 * alone:.0f} ms: "
        f"{share / alone:.2f} (the aim is 1)"
    )


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (each for each in status.splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def show_memory(bundle: ServedEnsemble, studies: list[Examples], requests: int) -> None:
    """Prints resident memory over many requests."""
    seen = []
    for number in range(requests + 1):
        if number % (requests // 5) == 0:
            seen.append(_resident_mb())
        bundle.predict([studies[number % len(studies)]])["probability"]
    print(f"memory over {requests} requests, MB: {', '.join(f'{each:.0f}' for each in seen)}")


def show_bundles(paths: list[Path], study: Examples, rounds: int) -> None:
    """Prints a line a bundle."""
    bundles = {str(place): ServedEnsemble(path) for place, path in enumerate(paths)}
    taken = medians(
        {name: (lambda each=each: each.predict([study])) for name, each in bundles.items()}, rounds
    )
    print("| members | weights, MB | saved_model.pb, MB | a study, ms |\n|---|---|---|---|")
    for name, each in bundles.items():
        weights = sum(path.stat().st_size for path in (each.path / "variables").glob("*")) / 1e6
        graph = (each.path / "saved_model.pb").stat().st_size / 1e6
        print(f"| {', '.join(each.members)} | {weights:.1f} | {graph:.1f} | {1e3 * taken[name]:.0f} |")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--studies", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=_REQUESTS)
    words = parser.parse_args()
    studies, sizes = read_studies(words.studies, _BATCH)
    raw, png, dicom = (statistics.median(each) / 1e6 for each in zip(*sizes, strict=True))
    print(f"a study, MB: raw Examples {raw:.2f}, PNG Examples {png:.2f}, its DICOM files {dicom:.2f}")
    bundle = show_first(words.bundles[0], studies, words.rounds)
    show_share(bundle, words.runs, studies[0], words.rounds)
    show_batch(bundle, studies, max(words.rounds // 4, 2))
    show_memory(bundle, studies, words.requests)
    if len(words.bundles) > 1:
        show_bundles(words.bundles, studies[0], words.rounds)


if __name__ == "__main__":
    main()
