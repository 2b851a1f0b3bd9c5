"""Video files in and out: probe, random access, encode, join and resize. The only home of PyAV."""

from dreamdojo.video.colour import colour_depth
from dreamdojo.video.decode import TimedFrame, VideoReader, iter_frames, read_frames
from dreamdojo.video.encode import VideoCodec, encode, encode_gray12
from dreamdojo.video.join import VideoJoiner
from dreamdojo.video.probe import VideoInfo, probe
from dreamdojo.video.resize import Size, center_crop_box, resize
from dreamdojo.video.sample import Look, PacketTable, look_at, look_at_keyframes, read_packets

__all__ = [
    "Look",
    "PacketTable",
    "Size",
    "TimedFrame",
    "VideoCodec",
    "VideoInfo",
    "VideoJoiner",
    "VideoReader",
    "center_crop_box",
    "colour_depth",
    "encode",
    "encode_gray12",
    "iter_frames",
    "look_at",
    "look_at_keyframes",
    "probe",
    "read_frames",
    "read_packets",
    "resize",
]
