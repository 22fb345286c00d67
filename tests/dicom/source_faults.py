"""What can be wrong with series, studies, sources and tables: one small source for each, and its reason.

`SOURCE_FAULTS` is the table. Every source holds the sound study `made_sources.GOOD_STUDY` besides what is
wrong, so that a test can see the rest go on.
"""

from tests.dicom.folder_faults import FOLDER_FAULTS
from tests.dicom.series_faults import SERIES_FAULTS
from tests.dicom.source_damage import SourceFault
from tests.dicom.table_faults import TABLE_FAULTS

SOURCE_FAULTS: tuple[SourceFault, ...] = (*SERIES_FAULTS, *FOLDER_FAULTS, *TABLE_FAULTS)
