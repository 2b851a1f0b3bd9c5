"""Where video comes from: folders, EPIC-KITCHENS-100, Ego4D, EgoDex and LeRobot datasets, near or far."""

from dreamdojo.curation.sources.ego4d import Ego4D
from dreamdojo.curation.sources.egodex import EgoDex
from dreamdojo.curation.sources.epic_kitchens import EpicKitchens
from dreamdojo.curation.sources.folder import Folder
from dreamdojo.curation.sources.lerobot import LeRobotEpisodes
from dreamdojo.curation.sources.recording import Listing, Recording, Refused, Segment, Source

__all__ = [
    "Ego4D",
    "EgoDex",
    "EpicKitchens",
    "Folder",
    "LeRobotEpisodes",
    "Listing",
    "Recording",
    "Refused",
    "Segment",
    "Source",
]
