"""Plain fine-tune of MobileNetV2 at the annotated points, to compare the graders with.

    python tests/benchmarks/plain.py RECORDS --labels=A/train.csv --weights=FILE --out=OUT --seeds=2 \\
        [--plane=sagittal_t1] [--epochs=15]

One crop of the nearest slice for each finding of the plane, single crops in shuffled batches, turned, zoomed,
shifted and changed in contrast with SciPy, trained by `train_on_batch`. Crops of the right side are
mirrored by the code that cuts them. Otherwise it has nothing of the graders' training: neither datasets,
augmentation, heads, losses nor the loop. It is scored as `ablation.py` scores: out of fold, after a
calibration that is nested in the same folds. Its crops lie at the annotated points, which nobody has at
prediction, so no localizer's error is in it.
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
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_SEVERITIES, Family, Plane, Severity
from lumbar_tf.records.manifest import read_manifest
from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables, write_out_of_fold_table

_SIDE_PX = 128
#: Edge of the crops; axial ones show the canal and both recesses.
_SIDE_MM = {Plane.SAGITTAL_T1: 50.0, Plane.SAGITTAL_T2: 50.0, Plane.AXIAL_T2: 60.0}
_TARGETS = {
    Plane.SAGITTAL_T1: (Family.FORAMINAL,),
    Plane.SAGITTAL_T2: (Family.CANAL,),
    Plane.AXIAL_T2: (Family.CANAL, Family.SUBARTICULAR),
}
#: Crops are cut with a margin, so that turning and shifting does not reach beyond them.
_MARGIN_PX = 18
_SHIFT_MM, _ROTATION_DEG, _ZOOM, _CONTRAST, _BRIGHTNESS = 6.0, 10.0, 0.1, 0.2, 0.1
_BATCH, _LEARNING_RATE, _WEIGHT_DECAY, _EMA = 32, 3e-4, 0.05, 0.98
_WEIGHTS = np.array([severity.weight for severity in Severity], np.float32)


@dataclass(frozen=True)
class Crops:
    """Graded crops of a cohort.

    Attributes:
        images: float32 [n, size, size], 0 to 1.5, with the margin.
        labels: int [n].
        studies: index of the study, int [n].
        findings: row of the 25 findings, int [n].
        pitch_mm: distance of neighbouring pixels.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    studies: NDArray[np.int64]
    findings: NDArray[np.int64]
    pitch_mm: float


def read_crops(records: Path, plane: Plane, study_ids: list[str], labels: NDArray[np.integer]) -> Crops:
    """Cuts a crop around the annotated point of each labelled finding."""
    size, pitch_mm = _SIDE_PX + 2 * _MARGIN_PX, _SIDE_MM[plane] / _SIDE_PX
    manifest, layout = read_manifest(records), CropLayout(plane, _TARGETS[plane])
    source = RecordSource(tuple(manifest.shard_paths(records, plane)), tuple(study_ids))
    dataset = make_grader_eval_dataset(
        source,
        read_points(source),
        layout=layout,
        crop=CropConfig(side_mm=size * pitch_mm, side_px=size, num_slices=1),
        batch_studies=1,
    )
    # The canal is on the crops of both sides; the first is taken.
    places = [(row, views.index(True)) for row, views in zip(layout.rows, layout.row_views, strict=True)]
    found = []
    for inputs, _, ids in dataset:
        study = study_ids.index(ids.numpy()[0].decode())
        for row, place in places:
            if labels[study, row] >= 0 and inputs["mask"][0, place, 0]:
                found.append((inputs["image"][0, place, 0].numpy(), int(labels[study, row]), study, row))
    images, grades, studies, findings = zip(*found, strict=True)
    return Crops(np.stack(images), np.array(grades), np.array(studies), np.array(findings), pitch_mm)


def change(image: NDArray[np.float32], pitch_mm: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Turns, zooms, shifts and changes the contrast of one crop; its margin is cut off."""
    angle = np.deg2rad(rng.uniform(-_ROTATION_DEG, _ROTATION_DEG))
    zoom = np.exp(rng.uniform(-_ZOOM, _ZOOM))
    shift_px = rng.uniform(-_SHIFT_MM, _SHIFT_MM, 2) / pitch_mm
    matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (len(image) - 1) / 2 + shift_px - matrix @ np.full(2, (_SIDE_PX - 1) / 2)
    moved = affine_transform(image, matrix, middle, (_SIDE_PX, _SIDE_PX), order=1)
    moved = (moved - 0.5) * rng.uniform(1 - _CONTRAST, 1 + _CONTRAST) + 0.5
    changed: NDArray[np.float32] = moved + np.float32(rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))
    return changed.astype(np.float32)


def fine_tune(
    crops: Crops, is_training: NDArray[np.bool_], *, weights: str, seed: int, epochs: int
) -> NDArray[np.float64]:
    """Trains on some crops; returns the others' probabilities, float64 [num_others, 3]."""
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
    # One head a family; a crop's own is chosen by its one-hot row.
    families = np.array([list(Family).index(FINDINGS[row].condition.family) for row in crops.findings])
    chosen = keras.Input((len(Family),))
    heads = keras.layers.Dense(len(Family) * NUM_SEVERITIES)(keras.layers.Dropout(0.2)(features))
    heads = keras.layers.Reshape((len(Family), NUM_SEVERITIES))(heads)
    logits = keras.ops.sum(heads * keras.ops.expand_dims(chosen, -1), axis=1)
    model = keras.Model([grey, chosen], logits)
    one_hot = np.eye(len(Family), dtype=np.float32)[families]
    places = np.flatnonzero(is_training)
    steps = len(places) // _BATCH * epochs
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=_LEARNING_RATE, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=_WEIGHT_DECAY, use_ema=True, ema_momentum=_EMA, global_clipnorm=1.0
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(places)
        for batch in np.split(order[: len(order) // _BATCH * _BATCH], len(order) // _BATCH):
            images = np.stack([change(crops.images[each], crops.pitch_mm, rng) for each in batch])
            labels = crops.labels[batch]
            inputs = [images[..., np.newaxis], one_hot[batch]]
            model.train_on_batch(inputs, labels, sample_weight=_WEIGHTS[labels])
    optimizer.finalize_variable_values(model.trainable_variables)
    inner = slice(_MARGIN_PX, _MARGIN_PX + _SIDE_PX)
    others = [crops.images[~is_training][:, inner, inner, np.newaxis], one_hot[~is_training]]
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
    parser.add_argument("--plane", type=Plane, choices=list(Plane), default=Plane.SAGITTAL_T2)
    parser.add_argument("--epochs", type=int, default=15)
    words = parser.parse_args()
    study_ids, labels = read_label_tables([Path(each) for each in words.labels.split(",")])
    fold_by_study = read_folds(words.records / FOLDS_NAME, read_manifest(words.records).patient_groups)
    folds = np.array([fold_by_study[each] for each in study_ids])
    crops = read_crops(words.records, words.plane, list(study_ids), labels)
    words.out.mkdir(parents=True, exist_ok=True)
    blends = []
    for seed in range(words.seeds):
        table = words.out / f"plain_seed{seed}.csv"
        answers = np.full((len(study_ids), NUM_FINDINGS, NUM_SEVERITIES), np.nan)
        for fold in np.unique(folds):
            held_out = folds[crops.studies] == fold
            places = (crops.studies[held_out], crops.findings[held_out])
            answers[places] = fine_tune(
                crops, ~held_out, weights=words.weights, seed=seed * 100 + int(fold), epochs=words.epochs
            )
            print(f"seed {seed}, fold {fold}: done", file=sys.stderr, flush=True)
        write_out_of_fold_table(table, study_ids, answers, folds=folds)
        blends.append(stack_tables(read_out_of_fold_tables([table]), study_ids, labels, folds=fold_by_study))
    print_table([Outcome("plain fine-tune at the annotated points", tuple(blends))])


if __name__ == "__main__":
    main()
