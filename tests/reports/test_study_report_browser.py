"""The page in a browser: interaction, without requests to other addresses and without errors."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.labels import Condition, Level, finding_index
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.reports.study_report import write_study_report
from tests.reports.browser import CHROMIUM, Tab, open_tab
from tests.reports.reported_study import (
    SOURCE,
    make_crop_outlines,
    make_result,
    make_saliency,
    make_study,
    severe_row,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
CANAL = finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L3_L4)
T1 = "document.querySelector('[data-plane=sagittal_t1]')"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    outlines = make_crop_outlines(make_result())
    write_study_report(path, make_study(), make_result(), SOURCE, outlines, make_saliency())
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with open_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, page: str) -> Iterator[Tab]:
    """The freshly opened page; afterwards checks that nothing failed and nothing else was requested."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open("about:blank")
    browser.requests.clear()
    browser.open(page)
    yield browser
    assert browser.errors == []
    assert browser.requests == [page]


def _text(tab: Tab, selector: str) -> str:
    return str(tab.run(f"{T1}.querySelector('{selector}').textContent"))


def _shown(tab: Tab) -> list[str]:
    found: list[str] = tab.run("[...document.querySelectorAll('.finding:not([hidden])')].map((e) => e.id)")
    return found


def test_it_opens_at_the_most_severe_finding_on_the_slice_that_was_graded(tab: Tab) -> None:
    assert _shown(tab) == ["left_neural_foraminal_narrowing_l4_l5"]
    assert _text(tab, ".position") == "Slice 10 of 11, 16 mm left of the canal, graded"
    assert _text(tab, ".graded-slices") == "Graded on slice91011"
    assert _text(tab, ".source") == "Series 900, image 1"
    assert tab.run(f"{T1}.querySelectorAll('polygon').length") == 1
    alt = str(tab.run(f"{T1}.querySelector('img').alt"))
    assert alt.startswith("Sagittal T1. Slice 10 of 11, 16 mm left of the canal.") and "L4/L5" in alt


@pytest.mark.parametrize("has_clipboard", [True, False])
def test_the_impression_is_copied_with_the_keyboard(tab: Tab, has_clipboard: bool) -> None:
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    tab.call("Browser.grantPermissions", permissions=permissions)
    tab.run("navigator.clipboard.writeText('before')")
    tab.run("const clipboard = navigator.clipboard; 0")
    if not has_clipboard:
        tab.run("Object.defineProperty(navigator, 'clipboard', { value: undefined }); 0")
    tab.run("document.getElementById('copy').focus()")
    tab.press("Space")
    tab.run("new Promise((done) => setTimeout(done, 100))")
    assert tab.run("document.getElementById('copied').textContent") == "Copied."
    assert tab.run("clipboard.readText()") == make_impression(make_result())


def test_the_point_is_drawn_on_the_pixel_given_by_the_geometry(tab: Tab) -> None:
    """By hand: column (5 + 80) / 2 and row (100 + 30) / 2 of 80 by 100 pixels of 2 mm."""
    measure = f"""(() => {{
      const image = {T1}.querySelector('img').getBoundingClientRect();
      const point = {T1}.querySelector('.chosen').getBoundingClientRect();
      return [(point.x + point.width / 2 - image.x) / image.width,
              (point.y + point.height / 2 - image.y) / image.height];
    }})()"""
    expected = [(42.5 + 0.5) / 80, (65 + 0.5) / 100]
    assert tab.run(measure) == pytest.approx(expected, abs=2e-3)
    tab.run("document.getElementById('closeup').click()")
    assert tab.run(measure) == pytest.approx(expected, abs=2e-3)
    # Close up, what was graded is in the middle of the stage.
    middle = tab.run(f"""(() => {{
      const stage = {T1}.querySelector('.stage').getBoundingClientRect();
      const crop = {T1}.querySelector('polygon').getBoundingClientRect();
      return [(crop.x + crop.width / 2 - stage.x) / stage.width,
              (crop.y + crop.height / 2 - stage.y) / stage.height];
    }})()""")
    assert middle == pytest.approx([0.5, 0.5], abs=5e-3)


def test_a_finding_is_chosen_by_mouse_by_keys_and_by_address(tab: Tab, page: str) -> None:
    tab.run(f"document.querySelector('.cell[data-row=\"{CANAL}\"]').click()")
    assert _shown(tab) == ["spinal_canal_stenosis_l3_l4"]
    assert tab.run("location.hash") == "#spinal_canal_stenosis_l3_l4"
    assert _text(tab, ".graded-slices") == "No member graded this finding on this plane."
    assert tab.run(f"{T1}.querySelectorAll('polygon').length") == 0
    tab.run(f"document.querySelector('.cell[data-row=\"{CANAL}\"]').focus()")
    tab.press("ArrowDown")
    tab.press("ArrowLeft")
    tab.press("Enter")
    assert tab.run("document.activeElement.dataset.row") == str(
        finding_index(Condition.RIGHT_SUBARTICULAR_STENOSIS, Level.L4_L5)
    )
    tab.run("location.hash = '#left_neural_foraminal_narrowing_l4_l5'")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    assert _shown(tab) == ["left_neural_foraminal_narrowing_l4_l5"]
    pressed = tab.run("[...document.querySelectorAll('[aria-pressed=true]')].map((e) => e.dataset.row)")
    assert pressed == [str(severe_row())]


def test_the_slider_and_the_buttons_move_through_the_stack(tab: Tab) -> None:
    before = tab.run(f"{T1}.querySelector('img').src")
    tab.run(f"{T1}.querySelector('.slider').focus()")
    tab.press("ArrowLeft")
    tab.press("ArrowLeft")
    assert _text(tab, ".position") == "Slice 8 of 11, 8 mm left of the canal"
    assert tab.run(f"{T1}.querySelector('img').src") != before
    assert tab.run(f"{T1}.querySelectorAll('polygon').length") == 0
    tab.run(f"{T1}.querySelector('.graded-slices button').click()")
    assert _text(tab, ".position") == "Slice 9 of 11, 12 mm left of the canal, graded"
    assert tab.run(f"{T1}.querySelector('.slider').getAttribute('aria-valuetext')").startswith(
        "Slice 9 of 11"
    )


def test_crops_and_points_can_be_switched_off(tab: Tab) -> None:
    visibility = f"getComputedStyle({T1}.querySelector('svg')).visibility"
    assert tab.run(visibility) == "visible"
    tab.run("document.getElementById('overlays').click()")
    assert tab.run(visibility) == "hidden"


def test_saliency_is_off_at_first_and_lies_on_the_crop_when_it_is_switched_on(
    tab: Tab, tmp_path: Path
) -> None:
    count = f"{T1}.querySelectorAll('.heat image').length"
    text = "document.getElementById('saliency-text').textContent"
    key = "getComputedStyle(document.getElementById('saliency-key')).display"
    assert (tab.run(count), tab.run(text), tab.run(key)) == (0, "", "none")
    assert "saliency" not in tab.run(f"{T1}.querySelector('img').alt")
    # By the keyboard; and without the outlines, which have a switch of their own.
    tab.run("document.getElementById('overlays').click()")
    tab.run("document.getElementById('saliency').focus()")
    tab.press("Space")
    assert (tab.run(count), tab.run(key)) == (1, "block")
    assert tab.run(text).startswith("Saliency of sagittal_t1/net, on Sagittal T1.")
    assert "on slice 10, at 100%" in tab.run(text)
    assert "With saliency of sagittal_t1/net" in tab.run(f"{T1}.querySelector('img').alt")
    # Back to the slice with the strongest place.
    tab.run(f"{T1}.querySelector('.graded-slices button').click()")
    assert _text(tab, ".position").startswith("Slice 9 of 11")
    tab.run("document.getElementById('saliency-show').click()")
    assert _text(tab, ".position").startswith("Slice 10 of 11")
    tab.run(f"{T1}.scrollIntoView()")
    # The crop covers 40 mm around (43, 65) pixels of 2 mm; its cells have 10 mm.
    x, y, width, height = tab.run(
        f"(({{ x, y, width, height }}) => [x, y, width, height])({T1}.querySelector('.heat image')"
        ".getBoundingClientRect())"
    )
    left, top, whole = tab.run(
        f"(({{ x, y, width }}) => [x, y, width])({T1}.querySelector('img').getBoundingClientRect())"
    )
    assert width == pytest.approx(whole * 40 / 160, rel=0.01) and height == pytest.approx(width, rel=0.01)
    assert (x - left) / whole == pytest.approx((86 - 20 - 0.0) / 160, abs=0.01)
    assert (y - top) / whole == pytest.approx((131 - 20) / 160, abs=0.01)
    tab.photograph(tmp_path / "on.png", is_whole=False)
    tab.run("document.getElementById('saliency').click()")
    tab.photograph(tmp_path / "off.png", is_whole=False)
    on, off = (_pixels(tmp_path / name, (x, y, width, height)) for name in ("on.png", "off.png"))
    # Magenta in the upper left cell and nowhere else.
    redder = (on[..., 0] - off[..., 0]) - (on[..., 1] - off[..., 1])
    quarter = len(redder) // 4
    assert redder[:quarter, :quarter].mean() > 50
    assert abs(redder[2 * quarter :].mean()) < 2 and abs(redder[:, 2 * quarter :].mean()) < 2


def _pixels(path: Path, box: tuple[float, float, float, float]) -> np.ndarray:
    from PIL import Image

    x, y, width, height = (round(value) for value in box)
    picture = Image.open(path).convert("RGB").crop((x, y, x + width, y + height))
    return np.asarray(picture, np.float32)


def test_a_finding_without_a_member_states_that_it_has_no_saliency(tab: Tab) -> None:
    tab.run("document.getElementById('saliency').click()")
    tab.run(f"document.querySelector('.cell[data-row=\"{CANAL}\"]').click()")
    assert tab.run("document.querySelectorAll('.heat image').length") == 0
    assert "has no saliency" in tab.run("document.getElementById('saliency-text').textContent")


def test_a_drag_changes_the_window_as_the_pixels_show(tab: Tab, tmp_path: Path) -> None:
    """Grey g becomes (g - low) / (high - low): measured on a stage that shows one grey."""
    tab.run(f"""new Promise((done) => {{
      const canvas = document.createElement('canvas');
      canvas.width = canvas.height = 8;
      const context = canvas.getContext('2d');
      context.fillStyle = 'rgb(100, 100, 100)';
      context.fillRect(0, 0, 8, 8);
      const image = {T1}.querySelector('img');
      image.onload = done;
      image.src = canvas.toDataURL();
      document.getElementById('overlays').click();
      image.src = canvas.toDataURL();
      {T1}.scrollIntoView();
    }})""")
    x, y, side = tab.run(
        f"(({{ x, y, width }}) => [x, y, width])({T1}.querySelector('.stage').getBoundingClientRect())"
    )
    middle = (x + side / 2, y + side / 3)
    tab.drag(middle, (middle[0] - 60, middle[1] - 20))
    level, width = (float(tab.run(f"{T1}.querySelector('.{name}').value")) for name in ("level", "width"))
    assert width < 250 and level < 125
    expected = 255 * (100 - (level - width / 2)) / width
    tab.photograph(tmp_path / "shot.png", is_whole=False)
    from PIL import Image

    seen = Image.open(tmp_path / "shot.png").convert("L").getpixel((round(middle[0]), round(middle[1])))
    # The sliders hold whole numbers.
    assert seen == pytest.approx(expected, abs=3)
    tab.run(f"{T1}.querySelector('.reset').click()")
    assert float(tab.run(f"{T1}.querySelector('.width').value")) > width


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(tab: Tab, page: str, width: int) -> None:
    tab.requests.clear()
    tab.open(page, width=width)
    assert tab.run("document.documentElement.scrollWidth") <= width
