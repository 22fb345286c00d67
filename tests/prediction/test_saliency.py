"""What is laid over the slices is what the maps say, the right way round."""

import io

import numpy as np
import pytest
from PIL import Image

from lumbar_tf.labels import Condition, Level, Plane, finding_index
from lumbar_tf.prediction.crop_outlines import CropOutline, PlaneCropOutlines
from lumbar_tf.prediction.saliency import StudySaliency, encode_overlay, make_overlays, take_saliency

MEMBERS = ("axial_t2/one", "sagittal_t2/two", "sagittal_t2/three")
CANAL = finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
ABOVE = finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L3_L4)


def _alpha(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.mode == "RGBA"
    return np.asarray(image)[..., 3].astype(int)


def _outline(index: int, *, look: int, step: int) -> CropOutline:
    return CropOutline(index, np.zeros((4, 3), np.float32), 0.0, look, step)


def _saliency() -> StudySaliency:
    maps = np.full((3, 25, 2, 3, 2, 2), np.nan, np.float32)
    weight = np.full((3, 25), np.nan, np.float32)
    weight[:, CANAL] = [0.3, 0.9, -1.5]
    weight[1, ABOVE] = 0.2
    maps[0, CANAL] = maps[1, CANAL, 0] = maps[1, ABOVE, 0] = 0.0
    maps[1, CANAL, 0, 2, 0, 1] = 2.0
    maps[1, ABOVE, 0, 1, 1, 1] = 8.0
    return StudySaliency(maps, weight)


EVIDENCE = {
    Plane.SAGITTAL_T2: PlaneCropOutlines(
        40.0, {row: (_outline(4, look=0, step=0),) for row in (CANAL, ABOVE)}
    ),
    Plane.AXIAL_T2: PlaneCropOutlines(40.0, {CANAL: (_outline(9, look=0, step=0),)}),
}


def test_the_upper_left_cell_is_at_the_upper_left() -> None:
    alpha = _alpha(encode_overlay(np.array([[1.0, 0.0], [0.2, 0.0]], np.float32)))
    assert alpha.shape == (32, 32) and alpha[0, 0] == 190
    assert alpha[0, 0] > alpha[-1, 0] > alpha[0, -1] == alpha[-1, -1] == 0


def test_a_finding_has_the_map_of_the_member_that_weighed_most_at_one_scale() -> None:
    overlays = make_overlays(_saliency(), MEMBERS, EVIDENCE)
    assert set(overlays) == {CANAL, ABOVE}
    canal, above = overlays[CANAL], overlays[ABOVE]
    assert canal.member == above.member == "sagittal_t2/two" and canal.plane is Plane.SAGITTAL_T2
    # The strongest place of all that the member graded is at the level above.
    assert (canal.strength, above.strength) == (pytest.approx(0.25), 1.0)
    assert (canal.peak, above.peak) == ((0, 1), (0, 0))
    assert set(canal.pictures) == {(0, -1), (0, 0), (0, 1)}
    brightest = {place: int(_alpha(png).max()) for place, png in canal.pictures.items()}
    assert brightest[0, -1] == brightest[0, 0] == 0 < brightest[0, 1] < _alpha(above.pictures[0, 0]).max()
    assert canal.picture(_outline(4, look=0, step=1)) == canal.pictures[0, 1]
    assert canal.picture(_outline(4, look=1, step=1)) is None


def test_without_crops_to_lay_it_over_there_is_no_overlay() -> None:
    assert make_overlays(_saliency(), MEMBERS, {Plane.AXIAL_T2: EVIDENCE[Plane.AXIAL_T2]}) == {}
    pale = _saliency()
    overlays = make_overlays(StudySaliency(pale.maps * 0, pale.weight), MEMBERS, EVIDENCE)
    assert overlays[CANAL].strength == 0 and not overlays[CANAL].pictures


def test_maps_are_taken_out_of_an_answer() -> None:
    outputs = {
        "probability": np.zeros((25, 3)),
        "saliency": np.zeros((1, 25, 1, 1, 2, 2)),
        "weight": np.zeros((1, 25)),
    }
    assert take_saliency(outputs) is not None and set(outputs) == {"probability"}
    assert take_saliency(outputs) is None
