"""What does each part of the recipe bring? One grader, retrained without it, out of fold.

    python -m lumbar_tf.train --plane=sagittal_t2 --config=configs/spider_t2.yaml --records=REC
    python tests/benchmarks/ablation.py RECORDS --config=configs/spider_t2.yaml --landmarks=RUNS \\
        --labels=A/train.csv,B/train.csv --out=OUT --seeds=2 [--weights=mobilenet_v2:FILE] [--variants=no_ema]
    python tests/benchmarks/ablation.py RECORDS --config=configs/demo.yaml --plane=axial_t2 ...

Every variant of `VARIANTS` is the configuration with a few fields changed; the first backbone is trained on
all folds with each seed, at the level points of the localizers in RUNS. What is scored are the out-of-fold
answers after a calibration that is nested in the same folds (`stack_tables`, competition head): the
weighted log loss, mean over the target families, and both AUCs; and the loss of the same networks at the
annotated points, calibrated in the same way, where `plain.py` has its crops. Differences to the unchanged
configuration are paired: means over the seeds, on the same resamples of studies. What is done is passed over.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from lumbar_tf.config import PlaneConfig, dump_config, load_demo_config, load_plane_config
from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.ensemble.stacking_run import StackingRun, stack_tables
from lumbar_tf.evaluation.bootstrap import bootstrap
from lumbar_tf.evaluation.metrics import StudyTerms, study_terms
from lumbar_tf.labels import Family, Plane, Severity
from lumbar_tf.records.manifest import read_manifest
from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import placement_tables, read_out_of_fold_tables
from lumbar_tf.training.runs import ERROR_NAME, LOCALIZER, OOF_NAME, landmark_tables, open_run

#: The configuration itself.
BASE = "as_it_is"
#: What each variant changes. A variant that the configuration already is (weights none) repeats it.
VARIANTS: dict[str, tuple[str, ...]] = {
    BASE: (),
    "no_localizer_error": ("grader.jitter=0",),
    "no_mirroring": ("grader.crop.mirror_right=false",),
    "mean_of_slices": ("grader.pooling=mean",),
    "recurrent_slices": ("grader.pooling=recurrent",),
    "one_slice": ("grader.crop.num_slices=1",),
    "three_slices": ("grader.crop.num_slices=3",),
    "mixup": ("grader.training.augmentation.mixup=0.5",),
    "cutmix": ("grader.training.augmentation.cutmix=0.5",),
    "ema_0.98": ("grader.training.ema_momentum=0.98",),
    "no_ema": ("grader.training.ema_momentum=0",),
    "weights_none": ("grader.training.weights={}", "grader.training.freeze_batch_norm=false"),
    "crop_0.7": ("crop*0.7",),
    "crop_1.4": ("crop*1.4",),
    "pixels_1.4": ("pixels*1.4",),
    "ordinal_loss": ("grader.loss=ordinal",),
    "level_context": ("grader.level_context=true",),
    "no_level_context": ("grader.level_context=false",),
    "no_augmentation": (
        "grader.training.augmentation="
        "{rotation_deg: 0, zoom: 0, brightness: 0, contrast: 0, gamma: 0, noise: 0}",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """A variant's out-of-fold answers, one blend a seed; at predicted and, if known, at annotated points."""

    name: str
    blends: tuple[StackingRun, ...]
    annotated: tuple[StackingRun, ...] = ()


def variant_config(
    path: Path, name: str, *, seed: int, weights: Sequence[str], overrides: Sequence[str]
) -> PlaneConfig:
    """The configuration with a variant's changes and its first backbone alone."""
    given = [f"grader.training.weights.{each.replace(':', '=', 1)}" for each in weights]
    base = load_plane_config(path, overrides=[*overrides, *given])
    changes = [f"seed={seed}", f"grader.backbones=[{base.grader.backbones[0]}]"]
    for change in VARIANTS[name]:
        field, star, factor = change.partition("*")
        if not star:
            changes.append(change)
        elif field == "crop":
            changes.append(f"grader.crop.side_mm={base.grader.crop.side_mm * float(factor)}")
        else:
            changes.append(f"grader.crop.side_px={round(base.grader.crop.side_px * float(factor) / 16) * 16}")
    return load_plane_config(path, overrides=[*overrides, *given, *changes])


def _take_plane(path: Path, plane: Plane, out: Path) -> Path:
    """Writes one plane of a demo's configuration to a file of its own."""
    (config,) = (each for each in load_demo_config(path).planes if each.plane is plane)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{plane.value}.yaml"
    target.write_text(dump_config(config), encoding="utf-8")
    return target


def train_variant(config: PlaneConfig, words: argparse.Namespace, runs: Path) -> Path:
    """Trains what is missing, and returns the joined out-of-fold table."""
    from lumbar_tf.runners import run_jobs
    from lumbar_tf.training.cross_validation import (
        finish_member,
        grader_jobs,
        run_training_job,
        split_by_fold,
    )

    for table in landmark_tables(words.landmarks, Plane):
        _copy(table, runs / table.relative_to(words.landmarks))
    for plane in Plane:
        error = Path(plane.value) / LOCALIZER / ERROR_NAME
        if (words.landmarks / error).is_file():
            _copy(words.landmarks / error, runs / error)
    run = open_run(config, records=words.records.absolute(), runs=runs.absolute())
    threads = max((os.cpu_count() or 1) // words.workers, 1)
    jobs = grader_jobs(run, run.fold_numbers, threads=threads)
    for _ in run_jobs(
        run_training_job, split_by_fold(jobs), workers=words.workers, name=lambda job: job.name
    ):
        pass
    for job in jobs:
        finish_member(job)
    return run.member_directory(config.grader.backbones[0]) / OOF_NAME


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _target_values(terms: StudyTerms, indices: NDArray[np.intp] | slice = slice(None)) -> float:
    """The mean of the families' weighted log losses, the any-severe term left out."""
    return float(np.nanmean(terms.values(indices)[1 : 1 + len(Family)]))


def _answers(blend: StackingRun) -> NDArray[np.float64]:
    return blend.nested.head(Head.COMPETITION)


def _terms(blend: StackingRun, probabilities: NDArray[np.float64]) -> StudyTerms:
    is_answered = np.isfinite(blend.members.probabilities[0]).all(axis=-1)
    # Findings that the plane does not grade have a label and no member: they are not what is asked here.
    families = is_answered.any(axis=0)
    labels = np.where(families[np.newaxis], blend.labels, -1)
    return study_terms(labels, np.where(np.isfinite(probabilities), probabilities, 1 / 3))


def _aucs(blend: StackingRun) -> tuple[float, float]:
    """AUC of severe and of not normal, over all findings that the plane grades."""
    families = np.isfinite(blend.members.probabilities[0]).all(axis=-1).any(axis=0)
    known = (blend.labels >= 0) & families[np.newaxis]
    labels, probabilities = blend.labels[known], blend.nested.head(Head.PROBABILITY)[known]
    severe = roc_auc_score(labels == Severity.SEVERE, probabilities[:, Severity.SEVERE])
    return severe, roc_auc_score(labels != Severity.NORMAL_MILD, 1 - probabilities[:, Severity.NORMAL_MILD])


def print_table(outcomes: Iterable[Outcome]) -> None:
    """Prints one row a variant, differences beside the first."""
    outcomes = list(outcomes)
    base = [_terms(blend, _answers(blend)) for blend in outcomes[0].blends]
    print(
        "| variant | weighted log loss (seeds) | minus as_it_is | AUC severe | AUC not normal | as it comes "
        "| at annotated points (seeds) |"
    )
    print("|---|---|---|---|---|---|---|")
    for each in outcomes:
        terms = [_terms(blend, _answers(blend)) for blend in each.blends]
        raw = [_target_values(_terms(blend, blend.members.probabilities[0])) for blend in each.blends]

        def difference(indices: NDArray[np.intp], terms: list[StudyTerms] = terms) -> NDArray[np.float64]:
            means = [np.mean([_target_values(one, indices) for one in some]) for some in (terms, base)]
            return np.array([means[0] - means[1]])

        values = [_target_values(one) for one in terms]
        aucs = np.mean([_aucs(blend) for blend in each.blends], axis=0)
        (gap,) = bootstrap(difference, len(each.blends[0].study_ids))
        words = "" if each is outcomes[0] else f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        annotated = [_target_values(_terms(blend, _answers(blend))) for blend in each.annotated]
        print(
            f"| {each.name} | {_with_seeds(values)} | {words} | {aucs[0]:.3f} | {aucs[1]:.3f} | "
            f"{np.mean(raw):.3f} | {_with_seeds(annotated)} |",
            flush=True,
        )


def _with_seeds(values: Sequence[float]) -> str:
    """The mean and the value of each seed."""
    return f"{np.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})" if values else ""


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--landmarks", type=Path, required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--weights", action="append", default=[])
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--plane", help="takes this plane out of a demo's configuration")
    words = parser.parse_args()
    if words.plane:
        words.config = _take_plane(words.config, Plane(words.plane), words.out)
    names = [BASE, *(name for name in words.variants.split(",") if name != BASE)]
    study_ids, labels = read_label_tables([Path(each) for each in words.labels.split(",")])
    folds = read_folds(words.records / FOLDS_NAME, read_manifest(words.records).patient_groups)
    outcomes = []
    for name in names:
        blends, annotated = [], []
        for seed in range(words.seeds):
            config = variant_config(words.config, name, seed=seed, weights=words.weights, overrides=words.set)
            table = train_variant(config, words, words.out / name / f"seed{seed}")
            for path, runs in ((table, blends), (placement_tables(table)[0], annotated)):
                runs.append(stack_tables(read_out_of_fold_tables([path]), study_ids, labels, folds=folds))
            print(f"{name}, seed {seed}: done", file=sys.stderr, flush=True)
        outcomes.append(Outcome(name, tuple(blends), tuple(annotated)))
        print_table([outcomes[0], outcomes[-1]])
    print_table(outcomes)


if __name__ == "__main__":
    main()
