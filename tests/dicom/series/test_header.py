from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from lumbar_tf.dicom.series.header import SeriesHeader, read_series_header


def _dataset(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def test_an_empty_header_has_no_attributes() -> None:
    assert read_series_header(Dataset()) == SeriesHeader()


def test_a_classic_header() -> None:
    header = read_series_header(
        _dataset(
            SeriesDescription="t2_tse_sag",
            ProtocolName="LWS",
            StudyDescription="MRT",
            BodyPartExamined="LSPINE",
            ImageType=["ORIGINAL", "PRIMARY", "M", "ND"],
            EchoTime=101.0,
            RepetitionTime=3500.0,
            InversionTime=160.0,
            ScanningSequence=["SE", "IR"],
            ScanOptions=["PFP", "FS"],
            ContrastBolusAgent="Gadovist",
            Manufacturer="SIEMENS",
            MagneticFieldStrength=2.89362,
        )
    )
    assert header == SeriesHeader(
        description="t2_tse_sag",
        protocol="LWS",
        study_description="MRT",
        body_part="LSPINE",
        image_type=("ORIGINAL", "PRIMARY", "M", "ND"),
        echo_time_ms=101.0,
        repetition_time_ms=3500.0,
        inversion_time_ms=160.0,
        scanning_sequence=("SE", "IR"),
        is_fat_suppressed=True,
        is_contrast=True,
        vendor="siemens",
        field_strength_tesla=3.0,
    )


def test_an_enhanced_header_is_read_from_its_macros() -> None:
    shared = _dataset(
        MRTimingAndRelatedParametersSequence=[_dataset(RepetitionTime=4000.0)],
        MRModifierSequence=[
            _dataset(
                InversionRecovery="YES", InversionTimes=[150.0, 0.0], SpectrallySelectedSuppression="FAT"
            )
        ],
        MRImageFrameTypeSequence=[
            _dataset(
                FrameType=["ORIGINAL", "PRIMARY", "STIR", "NONE"],
                AcquisitionContrast="STIR",
                ComplexImageComponent="MAGNITUDE",
            )
        ],
    )
    frame = _dataset(MREchoSequence=[_dataset(EffectiveEchoTime=48.0)])
    header = read_series_header(
        _dataset(
            ImageType=["ORIGINAL", "PRIMARY", "STIR", "NONE"],
            EchoPulseSequence="SPIN",
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=[frame, frame],
        )
    )
    assert (header.echo_time_ms, header.repetition_time_ms, header.inversion_time_ms) == (48.0, 4000.0, 150.0)
    assert header.scanning_sequence == ("SE", "IR")
    assert header.acquisition_contrast == "STIR"
    assert header.is_fat_suppressed
    assert header.image_type == ("ORIGINAL", "PRIMARY", "STIR", "NONE", "MAGNITUDE")


@pytest.mark.parametrize("agent", ["", "NO", "none", "0", "n/a", "without"])
def test_texts_for_no_contrast_agent_are_recognized(agent: str) -> None:
    assert not read_series_header(_dataset(ContrastBolusAgent=agent)).is_contrast


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [
        ("SIEMENS", "siemens"),
        ("Siemens Healthineers", "siemens"),
        ("GE MEDICAL SYSTEMS", "ge"),
        ("Philips Medical Systems", "philips"),
        ("TOSHIBA", "canon"),
        ("CANON_MEC", "canon"),
        ("Hitachi Medical Corporation", "hitachi"),
        ("FUJIFILM Healthcare Corporation", "fujifilm"),
        ("UIH", "united_imaging"),
        ("ESAOTE", "other"),
        ("Gerlach", "other"),
        (" ", ""),
    ],
)
def test_manufacturers_are_normalized(manufacturer: str, vendor: str) -> None:
    assert read_series_header(_dataset(Manufacturer=manufacturer)).vendor == vendor


@pytest.mark.filterwarnings("ignore")
def test_invalid_values_count_as_absent() -> None:
    dataset = Dataset.from_json(
        {
            "00180081": {"vr": "DS", "Value": [-3.0]},
            "00180080": {"vr": "DS", "Value": [0.0]},
            "00180087": {"vr": "DS"},
            "00180020": {"vr": "CS"},
        }
    )
    raw = pydicom.dataelem.RawDataElement
    tag = pydicom.tag.Tag("InversionTime")
    dataset[tag] = raw(tag, "DS", 4, b"1..2", 0, False, True)
    tag = pydicom.tag.Tag("ImageType")
    dataset[tag] = raw(tag, "FD", 3, b"abc", 0, False, True)
    assert read_series_header(dataset) == SeriesHeader()


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        # Read off a printout of the files by pydicom; the first two are Enhanced, the last two classic.
        ("dcm_qa_enh/In/Philips/IM_0027_fMAP.dcm", ("philips", 3.0, ("GR",), 1.52, "BRAIN")),
        ("dcm_qa_enh/In/Siemens/XA10/6_1.dcm", ("siemens", 3.0, ("GR", "EP"), 30.0, "BRAIN")),
        ("nema_wg04/MR4_UNC.dcm", ("philips", 1.0, ("IR",), 64.0, "")),
        ("dcm_qa_ts/In/1.dcm", ("siemens", 3.0, ("EP",), 30.0, "")),
    ],
)
def test_real_headers(shared_data: Path, file: str, expected: tuple[Any, ...]) -> None:
    dataset = pydicom.dcmread(shared_data / "formats" / file, stop_before_pixels=True)
    header = read_series_header(dataset)
    assert (
        header.vendor,
        header.field_strength_tesla,
        header.scanning_sequence,
        header.echo_time_ms,
        header.body_part,
    ) == expected
