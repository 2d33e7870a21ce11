"""Options of rewards for written reasons, and of tuning by them."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """What a written reason is judged by."""

    rewards: str = option(
        "",
        "What reasons are judged by, 'name=number,name=number'; the number is the least that passes in launch.refine, elsewhere a weight. "
        "codes: how sure a classifier, learned from half of the training references, is of the codes asked for; discriminator: how likely that of "
        "--discriminator_from takes it for a real one; fluency: the mean log probability of its words under trigrams of the same half, 0 or less; "
        "grounding: 1 for naming a title of the history, the share of the item's attribute values "
        "named, less 1 for each title invented; length: 1 in the band that is asked for, less the further away; repetition: the share of its "
        "three-word sequences that are new.",
    )
    discriminator_from: str = option("", "Workdir of a run of --task=adversarial whose discriminator judges (reward 'discriminator').")


NO_REWARDS = RewardConfig()


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """Tuning by groups of reasons for the same input (--task=grpo)."""

    group: int = option(8, "Reasons drawn for each input of a step.", low=2)
    group_kl: float = option(0.04, "Weight of the divergence from the model that tuning begins with (nats per token).", low=0.0)
    any_codes: bool = option(
        False, "Ask each input of a step for values that are drawn for all control codes, in place of its own, so that a model learns to obey also "
        "what does not suggest itself; without --group_nll.",
    )  # fmt: skip
    group_nll: float = option(0.0, "Weight of the references' negative log-likelihood (nats per token).", low=0.0)


@dataclasses.dataclass(frozen=True)
class RefineConfig:
    """Filtered fine-tuning: rounds of writing, filtering and learning from what passed."""

    init_from: str = option("", "Workdir of the run to refine.")
    plain: str = option("", "Workdir of another run, for the same rounds, as that of maximum likelihood which --init_from was tuned from.")
    output: str = option("", "Folder of the rounds; an existing one is continued.")
    dataset: str = option("", "Folder of the run's dataset, if it was moved.")
    rounds: int = option(3, "Rounds.", low=1)
    draws: int = option(4, "Reasons written for each training example in a round.", low=1)
    steps: int = option(200, "Optimizer steps of a round.", low=1)
    any_codes: bool = option(
        False, "Ask for values drawn for some of the control codes that --rewards judge (one at least), in place of an example's own, so that a "
        "model learns to obey also what does not suggest itself.",
    )  # fmt: skip
    shown: int = option(200, "Validation examples that are written for before and after each round, to be measured.", low=2)
    seed: int = option(0, "Seed of data order and dropout; round r draws with --decode_seed + r.", low=0)
