"""Video files -> a dataset of clips."""

from dreamdojo.curation.curate import curate
from dreamdojo.curation.decide import Decision
from dreamdojo.curation.report import CuratedVideo, CurationReport
from dreamdojo.curation.settings import CurateSettings

__all__ = ["CurateSettings", "CuratedVideo", "CurationReport", "Decision", "curate"]
