"""Content of a structured report, read with highdicom without the package's own code."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
from highdicom.sr import MeasurementsAndQualitativeEvaluations, srread


@dataclass(frozen=True, eq=False)
class DrawnPoint:
    """Point on an image: its pixel, where 0.5, 0.5 is the centre of the first one, and its image."""

    name: str
    percent: float
    column: float
    row: float
    sop_instance_uid: str
    frame_number: int | None


@dataclass(frozen=True, eq=False)
class ReadGroup:
    """Measurement group of a finding.

    Attributes:
        group: the group, as highdicom reads it.
        is_drawn: whether it is in `Imaging Measurements`.
    """

    group: Any
    is_drawn: bool

    @property
    def name(self) -> str:
        return str(self.group.tracking_identifier)

    @property
    def measurements(self) -> list[Any]:
        """The measurements of its probability set."""
        return [item for item in _items(self._probability_set()) if item.ValueType == "NUM"]

    @property
    def percents(self) -> dict[str, float]:
        """Measured values by code, percent."""
        return {_code(item): float(item.MeasuredValueSequence[0].NumericValue) for item in self.measurements}

    @property
    def units(self) -> set[str]:
        found = [*self.measurements, *(measurement[0] for measurement in self.group.get_measurements())]
        return {item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue for item in found}

    @property
    def level_points(self) -> list[Any]:
        """SCOORD3D items of its probabilities."""
        return [
            point
            for item in self.measurements
            for point in item.get("ContentSequence", [])
            if point.ValueType == "SCOORD3D"
        ]

    @property
    def drawn_point(self) -> DrawnPoint:
        """Its only own measurement, with the only point of this."""
        ((measurement,),) = self.group.get_measurements()
        (point,) = measurement.ContentSequence
        assert (point.ValueType, point.GraphicType) == ("SCOORD", "POINT")
        assert point.RelationshipType == "INFERRED FROM"
        (image,) = point.ContentSequence
        assert (image.ValueType, image.RelationshipType) == ("IMAGE", "SELECTED FROM")
        (reference,) = image.ReferencedSOPSequence
        column, row = point.GraphicData
        frame = reference.get("ReferencedFrameNumber")
        return DrawnPoint(
            measurement.ConceptNameCodeSequence[0].CodeMeaning,
            float(measurement.MeasuredValueSequence[0].NumericValue),
            float(column),
            float(row),
            str(reference.ReferencedSOPInstanceUID),
            None if frame is None else int(frame),
        )

    def _probability_set(self) -> Any:
        (found,) = [item for item in _items(self.group[0]) if _code(item) == "PROBABILITY_SET"]
        return found


def read_groups(report: Path | pydicom.Dataset) -> list[ReadGroup]:
    """Returns the groups of a report, the drawn ones first, in the order of the document."""
    read = srread(report) if isinstance(report, Path) else hd.sr.Comprehensive3DSR.from_dataset(report)
    drawn = [ReadGroup(group, True) for group in read.content.get_image_measurement_groups()]
    (evaluations,) = [item for item in _items(read.content[0]) if _code(item) == "C0034375"]
    others = [item for item in _items(evaluations) if item.ValueType == "CONTAINER"]
    return [
        *drawn,
        *(ReadGroup(MeasurementsAndQualitativeEvaluations.from_sequence([item]), False) for item in others),
    ]


def _items(item: Any) -> Iterator[Any]:
    return iter(item.get("ContentSequence", []))


def _code(item: Any) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)
