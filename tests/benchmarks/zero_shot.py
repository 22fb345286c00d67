"""Levels of an ensemble on real scans that none of its networks saw: SPIDER's annotated discs.

    python -m lumbar_tf.build_records --data=SPIDER/midsagittal,SPIDER/t2space --out=RECORDS
    python tests/benchmarks/zero_shot.py --data=SPIDER/midsagittal,SPIDER/t2space --records=RECORDS

With --model=BUNDLE it measures that, without it the package's pretrained ensemble. The records give the
annotated disc centres. A point has the right level if its own disc is the nearest one in the sagittal plane;
the error along the spine is measured in the direction of the neighbouring discs. Canal points come from T2;
the points of the foramina, from T1, lie 6 to 9 mm above their disc, so only their level counts.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

import lumbar_tf
from lumbar_tf.inputs.record_source import RecordSource, find_records, read_points
from lumbar_tf.labels import NUM_LEVELS, Flag, Plane

Array = NDArray[np.floating]


def annotated_discs(records: Path) -> dict[str, Array]:
    """Returns the disc centres of each study, [5, 3], LPS mm."""
    shards = tuple(sorted((records / Plane.SAGITTAL_T2.value).glob("*.tfrecord")))
    ids = tuple(position.study_id for position in find_records(shards))
    points = read_points(RecordSource(shards, ids))
    return {study: values[:NUM_LEVELS].astype(np.float64) for study, values in points.items()}


def compare_levels(points: Array, discs: Array) -> tuple[Array, Array]:
    """Returns whether each level is right and its error along the spine, mm, both [5]; NaN where unknown."""
    known = np.isfinite(discs).all(axis=-1)
    right, along_mm = np.full(NUM_LEVELS, np.nan), np.full(NUM_LEVELS, np.nan)
    for level in np.flatnonzero(known):
        if not np.isfinite(points[level]).all():
            right[level] = 0.0
            continue
        gaps = np.linalg.norm((points[level] - discs)[:, 1:], axis=-1)
        right[level] = np.argmin(np.where(known, gaps, np.inf)) == level
        above, below = max(level - 1, 0), min(level + 1, NUM_LEVELS - 1)
        axis = discs[below] - discs[above]
        along_mm[level] = abs((points[level] - discs[level]) @ axis) / np.linalg.norm(axis)
    return right, along_mm


def measure(name: str, found: dict[str, tuple[Array, bool]], discs: dict[str, Array]) -> None:
    """Prints a line of the table."""
    compared = {
        study: compare_levels(points, discs[study]) for study, (points, _) in found.items() if study in discs
    }
    right = np.array([values[0] for values in compared.values()])
    along_mm = np.array([values[1] for values in compared.values()])
    is_shifted = (right == 0).sum(axis=1) >= 2
    is_flagged = np.array([found[study][1] for study in compared])
    print(
        f"{name}: {len(compared)} studies, right level {np.nanmean(right):.3f}, along the spine "
        f"{np.nanmedian(along_mm):.1f} mm (median); {is_shifted.sum()} wrong ladders, "
        f"{(is_shifted & is_flagged).sum()} of them flagged; {(~is_shifted).sum()} right ones, "
        f"{(~is_shifted & is_flagged).sum()} flagged",
        flush=True,
    )


def main() -> None:
    """Grades every study and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    words = parser.parse_args()
    discs = annotated_discs(words.records)
    with lumbar_tf.load_ensemble(words.model) as ensemble:
        for folder in map(Path, words.data.split(",")):
            canals: dict[str, tuple[Array, bool]] = {}
            foramina: dict[str, tuple[Array, bool]] = {}
            for study in lumbar_tf.read_studies(folder):
                findings = ensemble.predict(study).graded.findings
                points = findings.landmarks.reshape(-1, NUM_LEVELS, 3).astype(np.float64)
                flags = findings.flags[:, list(Flag).index(Flag.LEVEL_SHIFT)].reshape(-1, NUM_LEVELS)
                canals[study.study_id] = points[0], bool(flags[0].any())
                if any(plane is Plane.SAGITTAL_T1 for plane in study.planes):
                    foramina[study.study_id] = points[1:3].mean(axis=0), bool(flags[1:3].any())
            measure(f"{folder.name}, canal points on T2", canals, discs)
            if foramina:
                measure(f"{folder.name}, foramina on T1", foramina, discs)


if __name__ == "__main__":
    main()
