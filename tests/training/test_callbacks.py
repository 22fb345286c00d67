import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.training.callbacks import StepReport, TensorBoardLogger, contact_sheet
from lumbar_tf.training.learning_rate import learning_rate_share


def _events(folder: Path) -> dict[str, list[tuple[int, tf.Tensor]]]:
    found: dict[str, list[tuple[int, tf.Tensor]]] = {}
    for path in folder.glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, tf.make_ndarray(value.tensor)))
    return found


def test_the_steps_of_an_epoch_are_written_until_it_ends(tmp_path: Path) -> None:
    report, path = StepReport(tmp_path, num_batches=3), tmp_path / "steps.json"
    report.on_epoch_begin(1)
    report.on_train_batch_end(0)
    assert json.loads(path.read_text()) == {"epoch": 2, "step": 1, "steps": 3}
    # Not after each step: that would take longer than small steps do.
    report.on_train_batch_end(1)
    assert json.loads(path.read_text())["step"] == 1
    report.on_epoch_end(1)
    assert not path.exists()


def test_curves_and_pictures_can_be_read_back(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    board = TensorBoardLogger(tmp_path)
    board.write_epoch(3, {"epoch": 3.0, "loss": 0.5, "learning_rate": 0.01})
    board.write_picture("confusion", picture, epoch=4)
    board.close()
    events = _events(tmp_path)
    assert sorted(events) == ["confusion", "learning_rate", "loss"]
    assert events["loss"] == [(3, 0.5)]
    step, (width, height, encoded) = events["confusion"][0]
    assert (step, int(width), int(height)) == (4, 8, 6)
    np.testing.assert_array_equal(tf.io.decode_png(encoded), picture)


def test_a_contact_sheet_has_each_picture_in_its_place() -> None:
    images = np.linspace(-0.5, 1.5, 13 * 4 * 5).reshape(1, 13, 4, 5).astype(np.float32)
    sheet = contact_sheet(images)
    assert sheet.shape == (8, 50, 1) and sheet.dtype == np.uint8
    np.testing.assert_array_equal(
        sheet[4:, 10:15, 0], np.rint(np.clip(images[0, 12], 0, 1) * 255).astype(np.uint8)
    )
    assert not sheet[4:, 15:].any()
    assert (sheet.min(), sheet.max()) == (0, 255)


def test_the_learning_rate_warms_up_and_falls_to_nearly_nothing() -> None:
    shares = [learning_rate_share(step, 100, warmup_fraction=0.1) for step in range(100)]
    np.testing.assert_allclose(shares[:10], np.arange(1, 11) / 10)
    assert shares[10] == max(shares) == 1.0
    assert (np.diff(shares[10:]) < 0).all()
    assert shares[55] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.001


@pytest.mark.parametrize(("total", "fraction"), [(1, 0.0), (1, 1.0), (3, 1.0), (5, 0.01)])
def test_learning_rate_is_positive_in_short_trainings(total: int, fraction: float) -> None:
    shares = [learning_rate_share(step, total, warmup_fraction=fraction) for step in range(total)]
    assert all(0 < share <= 1 for share in shares)
