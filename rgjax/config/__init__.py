"""Every option of rgjax, once: its name, default, allowed values and help text.

Each job has a frozen dataclass (or several); `launch/` turns their fields into flags, and nothing else reads flags.
A field's name is its flag's name, so names are unique within one job.
"""

from rgjax.config.adversarial import AdversarialConfig, BenchConfig, CaptionsConfig, DiscriminatorConfig, OracleConfig
from rgjax.config.behaviour import BehaviourConfig, RankingConfig, RecommendConfig, ShopConfig
from rgjax.config.bundle import BundleConfig, OfferConfig
from rgjax.config.data import InputConfig, PrepareConfig
from rgjax.config.decoding import DecodeConfig, planned
from rgjax.config.jobs import DistillConfig, EmbedConfig, EvaluateConfig, ExportConfig, GenerateConfig, InspectConfig, ReportConfig, ShowConfig
from rgjax.config.model import MOST_PACKED, NO_ADAPTER, AdapterConfig, ModelConfig
from rgjax.config.options import check, from_json, option, to_json
from rgjax.config.rewards import NO_REWARDS, GroupConfig, RefineConfig, RewardConfig
from rgjax.config.training import OptimizerConfig, TrainConfig

__all__ = [
    "AdapterConfig",
    "AdversarialConfig",
    "BehaviourConfig",
    "BenchConfig",
    "BundleConfig",
    "CaptionsConfig",
    "DecodeConfig",
    "DiscriminatorConfig",
    "DistillConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "GroupConfig",
    "InputConfig",
    "InspectConfig",
    "MOST_PACKED",
    "ModelConfig",
    "NO_ADAPTER",
    "NO_REWARDS",
    "OfferConfig",
    "OptimizerConfig",
    "OracleConfig",
    "PrepareConfig",
    "RankingConfig",
    "RecommendConfig",
    "RefineConfig",
    "ReportConfig",
    "RewardConfig",
    "ShopConfig",
    "ShowConfig",
    "TrainConfig",
    "check",
    "from_json",
    "option",
    "planned",
    "to_json",
]
