"""Options of adversarial training: the discriminator, what each side minimises, and who is trained how often."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """What tells written texts from real ones."""

    discriminator: str = option("cnn", "Kind of discriminator.", choices=("cnn", "transformer"))
    d_width: int = option(64, "Width of the discriminator's token vectors.", low=1)
    d_windows: str = option("2,3,4,5", "cnn: comma-separated widths of the windows, in tokens.")
    d_filters: int = option(100, "cnn: filters of each width.", low=1)
    d_highway: bool = option(True, "cnn: a highway layer over what the filters found.")
    d_layers: int = option(2, "transformer: layers.", low=1)
    d_heads: int = option(4, "transformer: heads.", low=1)
    d_dropout: float = option(0.25, "Dropout in the discriminator.", low=0.0, high=0.9)
    d_spectral: bool = option(False, "Divide the discriminator's matrices by their largest singular value.")
    d_norm: bool = option(False, "cnn: layer norm over what the filters found (the transformer always has its norms).")
    d_codes: bool = option(
        False,
        "Control codes count as much as all else that is read of a prompt (cnn), and a real reason beside the codes of another one is learned as "
        "if it were written.",
    )


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """Adversarial training."""

    gan_loss: str = option(
        "relativistic",
        "What both sides minimise: the discriminator's cross entropy and its opposite ('bce'), the generator's own cross entropy "
        "('nonsaturating'), 'hinge', 'wasserstein' with a gradient penalty, or 'relativistic' (a text against a real one).",
        choices=("bce", "nonsaturating", "hinge", "wasserstein", "relativistic"),
    )
    estimator: str = option(
        "none",
        "How the generator's gradient passes its discrete tokens: straight-through 'gumbel' softmax, or 'reinforce' with a reward per token.",
        choices=("none", "gumbel", "reinforce"),
    )
    heat: float = option(1.0, "gumbel: the softmax's temperature at the start.", low=1e-3)
    heat_end: float = option(0.5, "gumbel: its temperature at the end.", low=1e-3)
    heat_schedule: str = option("exponential", "gumbel: how it gets there.", choices=("exponential", "linear", "constant"))
    reward: str = option(
        "discriminator",
        "reinforce: the discriminator's verdict; or, to see what tuning does without one, 'constant' (1) or 'random' (uniform in 0 to 1).",
        choices=("discriminator", "constant", "random"),
    )
    completions: int = option(
        0, "reinforce: completions of each beginning of a text, whose mean verdict is its last token's reward; 0 gives every token the verdict on "
        "the whole text.", low=0,
    )  # fmt: skip
    completions_every: int = option(
        1,
        "reinforce: tokens from one beginning that is completed to the next; those between have its reward (a "
        "transformer then draws as much less).", low=1,
    )
    baseline: str = option(
        "batch",
        "reinforce: what is taken off the rewards: nothing, or at each position the mean of the batch's other texts.",
        choices=("none", "batch"),
    )
    g_steps: int = option(1, "Steps of the generator in a round.", low=1)
    d_steps: int = option(5, "Steps of the discriminator in a round.", low=0)
    d_warmup: int = option(100, "First rounds in which the generator rests.", low=0)
    g_learning_rate: float = option(1e-3, "Adam's learning rate of the generator.", low=0.0)
    d_learning_rate: float = option(1e-4, "Adam's learning rate of the discriminator.", low=0.0)
    g_clip: float = option(5.0, "Largest norm of the generator's gradient.", low=1e-6)
    gradient_penalty: float = option(10.0, "Weight of the gradient penalty (wasserstein).", low=0.0)
    nll_weight: float = option(0.0, "Weight of the real texts' negative log-likelihood in the generator's loss.", low=0.0)
    old_samples: int = option(0, "Written texts kept; half of what the discriminator sees as written is drawn from them. 0 keeps none.", low=0)


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """Benchmarks of text GANs: what is compared, and how it learns."""

    rows: str = option(
        "mle,constant_reward",
        "Comma-separated rows: mle (stopped early), mle@T (the same, sampled at temperature T), mle_published (after 20 epochs), "
        "constant_reward, random_reward, reinforce, gumbel_relativistic, bce, nonsaturating, hinge, wasserstein; those after mle_published "
        "begin with mle.",
    )
    seeds: int = option(5, "Seeds, each with its own generator, whose mean and spread are told; all learn the same texts.", low=1)
    rounds: int = option(200, "Adversarial rounds.", low=1)
    mle_epochs: int = option(60, "Most epochs of maximum likelihood; it stops when fresh texts get less likely.", low=1)
    reinforce_learning_rate: float = option(1e-2, "Adam's learning rate of the generator in rows that use REINFORCE (SeqGAN's).", low=0.0)
    mle_learning_rate: float = option(1e-2, "Adam's learning rate of maximum likelihood.", low=0.0)


@dataclasses.dataclass(frozen=True)
class OracleConfig:
    """The oracle benchmark of text GANs: an LSTM with random weights is the truth, so that both directions can be measured."""

    oracle: str = option(
        "", "Whose texts are learned: 'drawn' draws an oracle's weights from a fixed key, or an .npz file has them by the names of SeqGAN's."
    )
    oracle_texts: int = option(10_000, "Training texts, and fresh ones that are measured on.", low=64)
    oracle_vocabulary: int = option(5000, "Tokens of a drawn oracle.", low=2)


@dataclasses.dataclass(frozen=True)
class CaptionsConfig:
    """The benchmark of text GANs on real texts, which are split anew: what is written is compared with texts that were not learned."""

    captions: str = option("", "Texts to learn, one a line: a folder of .txt files, or a comma-separated list of files; they are merged.")
    caption_length: int = option(40, "Most tokens of a text, the end token included; what goes beyond is neither learned nor scored.", low=2)
    caption_width: int = option(128, "Width of the generator's token vectors and of its memory.", low=1)
