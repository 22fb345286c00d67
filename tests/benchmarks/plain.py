"""How hard is a cohort? A plain fine-tune of MobileNetV2 at the annotated points, beside our graders.

    python tests/benchmarks/plain.py RECORDS --labels=A/train.csv --weights=FILE --out=OUT --seeds=2

Canal on sagittal T2: one crop of the nearest slice a level, single crops in shuffled batches, turned, zoomed,
shifted and changed in contrast with SciPy, 15 epochs of `train_on_batch`. Of the graders' training it has
nothing: neither datasets, augmentation, heads, losses nor the loop. It is scored as `ablation.py` scores: out
of fold, after a calibration that is nested in the same folds. Its crops lie at the annotated points, which
nobody has at prediction, so no localizer's error is in it.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ablation import Outcome, print_table
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from lumbar_tf.config import CropConfig
from lumbar_tf.ensemble.stacking_run import stack_tables
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_eval_dataset
from lumbar_tf.inputs.record_source import RecordSource, read_points
from lumbar_tf.labels import NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Family, Plane, Severity
from lumbar_tf.records.manifest import read_manifest
from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables, write_out_of_fold_table

_SIDE_PX, _PITCH_MM = 128, 50 / 128
#: Crops are cut with a margin, so that turning and shifting does not reach beyond them.
_MARGIN_PX = 18
_SHIFT_MM, _ROTATION_DEG, _ZOOM, _CONTRAST, _BRIGHTNESS = 6.0, 10.0, 0.1, 0.2, 0.1
_EPOCHS, _BATCH, _LEARNING_RATE, _WEIGHT_DECAY, _EMA = 15, 32, 3e-4, 0.05, 0.98
_WEIGHTS = np.array([severity.weight for severity in Severity], np.float32)


@dataclass(frozen=True)
class Discs:
    """Graded crops of a cohort.

    Attributes:
        images: float32 [n, size, size], 0 to 1.5, with the margin.
        labels: int [n].
        studies: index of the study, int [n].
        levels: int [n].
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    studies: NDArray[np.int64]
    levels: NDArray[np.int64]


def read_discs(records: Path, study_ids: list[str], labels: NDArray[np.integer]) -> Discs:
    """Cuts a crop around each annotated canal point."""
    size = _SIDE_PX + 2 * _MARGIN_PX
    shards = tuple(records / shard.file for shard in read_manifest(records).planes[Plane.SAGITTAL_T2.value])
    source = RecordSource(shards, tuple(study_ids))
    dataset = make_grader_eval_dataset(
        source,
        read_points(source),
        layout=CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,)),
        crop=CropConfig(side_mm=size * _PITCH_MM, side_px=size, num_slices=1),
        batch_studies=1,
    )
    rows = []
    for inputs, _, ids in dataset:
        study = study_ids.index(ids.numpy()[0].decode())
        for level in range(NUM_LEVELS):
            if labels[study, level] >= 0 and inputs["mask"][0, level, 0]:
                rows.append((inputs["image"][0, level, 0].numpy(), int(labels[study, level]), study, level))
    images, grades, studies, levels = zip(*rows, strict=True)
    return Discs(np.stack(images), np.array(grades), np.array(studies), np.array(levels))


def change(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Turns, zooms, shifts and changes the contrast of one crop; its margin is cut off."""
    angle = np.deg2rad(rng.uniform(-_ROTATION_DEG, _ROTATION_DEG))
    zoom = np.exp(rng.uniform(-_ZOOM, _ZOOM))
    shift_px = rng.uniform(-_SHIFT_MM, _SHIFT_MM, 2) / _PITCH_MM
    matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (len(image) - 1) / 2 + shift_px - matrix @ np.full(2, (_SIDE_PX - 1) / 2)
    moved = affine_transform(image, matrix, middle, (_SIDE_PX, _SIDE_PX), order=1)
    moved = (moved - 0.5) * rng.uniform(1 - _CONTRAST, 1 + _CONTRAST) + 0.5
    changed: NDArray[np.float32] = moved + np.float32(rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))
    return changed.astype(np.float32)


def fine_tune(discs: Discs, is_training: NDArray[np.bool_], weights: str, seed: int) -> NDArray[np.float64]:
    """Trains on some discs; returns the others' probabilities, float64 [num_others, 3]."""
    import keras

    keras.utils.set_random_seed(seed)
    base = keras.applications.MobileNetV2(
        include_top=False, weights=weights, input_shape=(_SIDE_PX, _SIDE_PX, 3), pooling="avg"
    )
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    grey = keras.Input((_SIDE_PX, _SIDE_PX, 1))
    features = base(keras.layers.Concatenate()([grey * 2 - 1] * 3))
    logits = keras.layers.Dense(NUM_SEVERITIES)(keras.layers.Dropout(0.2)(features))
    model = keras.Model(grey, logits)
    places = np.flatnonzero(is_training)
    steps = len(places) // _BATCH * _EPOCHS
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=_LEARNING_RATE, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=_WEIGHT_DECAY, use_ema=True, ema_momentum=_EMA, global_clipnorm=1.0
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(seed)
    for _ in range(_EPOCHS):
        order = rng.permutation(places)
        for batch in np.split(order[: len(order) // _BATCH * _BATCH], len(order) // _BATCH):
            images = np.stack([change(discs.images[each], rng) for each in batch])[..., np.newaxis]
            labels = discs.labels[batch]
            model.train_on_batch(images, labels, sample_weight=_WEIGHTS[labels])
    optimizer.finalize_variable_values(model.trainable_variables)
    inner = slice(_MARGIN_PX, _MARGIN_PX + _SIDE_PX)
    others = discs.images[~is_training][:, inner, inner, np.newaxis]
    answers = model.predict(others, batch_size=_BATCH, verbose=0)
    return np.asarray(keras.ops.softmax(answers), np.float64)


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    words = parser.parse_args()
    study_ids, labels = read_label_tables([Path(each) for each in words.labels.split(",")])
    fold_by_study = read_folds(words.records / FOLDS_NAME, read_manifest(words.records).patient_groups)
    folds = np.array([fold_by_study[each] for each in study_ids])
    discs = read_discs(words.records, list(study_ids), labels)
    words.out.mkdir(parents=True, exist_ok=True)
    blends = []
    for seed in range(words.seeds):
        table = words.out / f"plain_seed{seed}.csv"
        answers = np.full((len(study_ids), NUM_FINDINGS, NUM_SEVERITIES), np.nan)
        for fold in np.unique(folds):
            held_out = folds[discs.studies] == fold
            places = (discs.studies[held_out], discs.levels[held_out])
            answers[places] = fine_tune(discs, ~held_out, words.weights, seed * 100 + int(fold))
            print(f"seed {seed}, fold {fold}: done", file=sys.stderr, flush=True)
        write_out_of_fold_table(table, study_ids, answers, folds=folds)
        blends.append(stack_tables(read_out_of_fold_tables([table]), study_ids, labels, folds=fold_by_study))
    print_table([Outcome("plain fine-tune at the annotated points", tuple(blends))])


if __name__ == "__main__":
    main()
