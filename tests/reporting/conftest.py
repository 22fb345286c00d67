"""Records of a few synthetic studies, and what figures say."""

from pathlib import Path

import matplotlib.figure
import matplotlib.text
import pytest

from lumbar_tf.data.build import BuildTask, build_records
from lumbar_tf.imaging.phantom import CohortOptions, write_cohort
from lumbar_tf.records.manifest import BuildOptions
from lumbar_tf.records.schema import Codec

# What its checks compared is shown, as in a test's own file.
pytest.register_assert_rewrite("tests.reporting.html_page")


@pytest.fixture(scope="session")
def phantom_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic studies as DICOM files with their tables, small matrices."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, CohortOptions(num_studies=4, seed=3))
    return folder


@pytest.fixture(scope="session")
def phantom_records(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their records, in two folds."""
    folder = tmp_path_factory.mktemp("records")
    options = BuildOptions(studies_per_shard=2, num_folds=2, fold_seed=0, codec=Codec.RAW)
    build_records(BuildTask(sources=[phantom_cohort], out=folder, options=options))
    return folder


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text of the figures that are saved."""
    texts: list[str] = []
    save = matplotlib.figure.Figure.savefig

    def watch(self: matplotlib.figure.Figure, *args: object, **options: object) -> None:
        texts.extend(each.get_text() for each in self.findobj(matplotlib.text.Text) if each.get_text())
        save(self, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", watch)
    return texts
