"""The health of a latent action model: what it knows, whether its decoder listens, what else moves it, in one verdict.

human = gather("human", dataset, indices, frames, model, rate=10)
health = examine(model, human)
print(judge_health(health).text)
"""

from dreamdojo.evaluation.health.decoding import Decoding, Utilisation, measure_decoding, measure_utilisation
from dreamdojo.evaluation.health.examine import Health, SetHealth, examine
from dreamdojo.evaluation.health.pairs import PairModel, Pairs, Targets, make_pairs
from dreamdojo.evaluation.health.probing import (
    MotionProbes,
    Transfer,
    fit_mlp,
    probe_motion,
    read_elsewhere,
    transfer_probe,
)
from dreamdojo.evaluation.health.recordings import gather, true_motion
from dreamdojo.evaluation.health.response import Response, measure_response
from dreamdojo.evaluation.health.sections import default_data_sheet, health_report
from dreamdojo.evaluation.health.spread import Spread, measure_spread
from dreamdojo.evaluation.health.verdict import Check, HealthVerdict, Thresholds, judge_health

__all__ = [
    "Check",
    "Decoding",
    "Health",
    "HealthVerdict",
    "MotionProbes",
    "PairModel",
    "Pairs",
    "Response",
    "SetHealth",
    "Spread",
    "Targets",
    "Thresholds",
    "Transfer",
    "Utilisation",
    "default_data_sheet",
    "examine",
    "fit_mlp",
    "gather",
    "health_report",
    "judge_health",
    "make_pairs",
    "measure_decoding",
    "measure_response",
    "measure_spread",
    "measure_utilisation",
    "probe_motion",
    "read_elsewhere",
    "transfer_probe",
    "true_motion",
]
