"""Video files -> a dataset of clips."""

from dreamdojo.curation.curate import CurateSettings, curate
from dreamdojo.curation.report import CuratedVideo, CurationReport

__all__ = ["CurateSettings", "CuratedVideo", "CurationReport", "curate"]
