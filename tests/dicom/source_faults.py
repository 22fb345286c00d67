"""Faulty series, studies, sources and tables: one small source per fault, with its reason.

Every source of `SOURCE_FAULTS` contains the valid study `made_sources.GOOD_STUDY` besides the fault, so that
a test can check that the rest is read.
"""

from tests.dicom.folder_faults import FOLDER_FAULTS
from tests.dicom.series_faults import SERIES_FAULTS
from tests.dicom.source_damage import SourceFault
from tests.dicom.table_faults import TABLE_FAULTS

SOURCE_FAULTS: tuple[SourceFault, ...] = (*SERIES_FAULTS, *FOLDER_FAULTS, *TABLE_FAULTS)
