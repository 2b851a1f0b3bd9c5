"""Video files -> a dataset of clips."""

from dreamdojo.curation.curate import CuratedVideo, CurateSettings, CurationReport, curate

__all__ = ["CurateSettings", "CuratedVideo", "CurationReport", "curate"]
