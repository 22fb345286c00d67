"""Faulty tables of labels, series descriptions and points."""

from collections.abc import Sequence
from pathlib import Path

from lumbar_tf.dicom.reasons import RejectReason
from tests.dicom.made_sources import (
    CORONAL,
    GOOD_STUDY,
    OTHER_STUDY,
    T2,
    write_competition,
    write_series,
    write_slice,
)
from tests.dicom.source_damage import SourceFault, Write, in_competition


def _tables(**rows: Sequence[str]) -> Write:
    return lambda folder: (write_competition(folder / "data", **rows),)


def _edited(name: str, old: str, new: str) -> Write:
    """Returns a writer that replaces the last occurrence of a text in a table of the competition's layout."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_competition(folder / "data")
        before, found, after = (root / name).read_text().rpartition(old)
        if not found:
            raise ValueError(f"{name} must hold {old!r}.")
        (root / name).write_text(before + new + after)
        return (root,)

    return write


TABLE_FAULTS: tuple[SourceFault, ...] = (
    SourceFault(
        "label_outside_the_vocabulary", RejectReason.BAD_LABEL, _edited("train.csv", "Moderate", "Sever")
    ),
    SourceFault("short_label_row", RejectReason.BAD_TABLE_ROW, _tables(train=("1003,Severe",))),
    SourceFault("study_graded_twice", RejectReason.BAD_TABLE_ROW, _tables(train=(GOOD_STUDY + "," * 25,))),
    SourceFault(
        "unknown_series_description",
        RejectReason.BAD_TABLE_ROW,
        _tables(train_series_descriptions=(f"{OTHER_STUDY},4,Jane Doe T2",)),
    ),
    SourceFault(
        "series_left_out_by_the_table",
        RejectReason.LEFT_OUT_BY_MAP,
        _edited("train_series_descriptions.csv", "Axial T2", "none"),
    ),
    SourceFault(
        "table_names_an_absent_series",
        RejectReason.ABSENT_SERIES,
        _tables(train_series_descriptions=(f"{OTHER_STUDY},77,Axial T2",)),
    ),
    SourceFault(
        "table_names_an_absent_study",
        RejectReason.ABSENT_STUDY,
        _tables(train_series_descriptions=("1099,1,Axial T2", "1098,1,Axial T2")),
    ),
    SourceFault(
        "point_on_an_absent_slice",
        RejectReason.NO_SUCH_SLICE,
        _tables(train_label_coordinates=(f"{OTHER_STUDY},2,99,Spinal Canal Stenosis,L2/L3,8,3",)),
    ),
    SourceFault(
        "point_outside_the_image",
        RejectReason.POINT_OUTSIDE_IMAGE,
        _tables(train_label_coordinates=(f"{OTHER_STUDY},2,4,Spinal Canal Stenosis,L2/L3,16,3",)),
    ),
    SourceFault(
        "point_on_one_of_two_slices",
        RejectReason.AMBIGUOUS_SLICE,
        in_competition(
            lambda images: write_slice(
                images / OTHER_STUDY / "2" / "8.dcm",
                20.0,
                number=4,
                study=OTHER_STUDY,
                series="2",
                sop=f"{OTHER_STUDY}.2.8",
                **T2,
            )
        ),
    ),
    SourceFault(
        "point_without_a_number",
        RejectReason.BAD_TABLE_ROW,
        _tables(train_label_coordinates=(f"{OTHER_STUDY},2,,Spinal Canal Stenosis,L2/L3,8,3",)),
    ),
    SourceFault(
        "point_given_twice",
        RejectReason.BAD_TABLE_ROW,
        _tables(
            train_label_coordinates=(
                f"{OTHER_STUDY},2,4,Spinal Canal Stenosis,L2/L3,8,3",
                f"{OTHER_STUDY},2,4,Spinal Canal Stenosis,L2/L3,8,4",
            )
        ),
    ),
    SourceFault(
        "table_against_headers",
        RejectReason.PLANE_CONTRADICTION,
        in_competition(
            lambda images: write_series(
                images / OTHER_STUDY, study=OTHER_STUDY, series="3", orientation=CORONAL, **T2
            )
        ),
    ),
)
