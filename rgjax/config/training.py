"""Options of a training run."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = option(1e-3, "Peak learning rate.", low=0.0)
    schedule: str = option("cosine", "Shape after the warm-up.", choices=("cosine", "wsd", "constant"))
    warmup_steps: int = option(100, "Steps of linear warm-up.", low=0)
    decay_share: float = option(0.2, "Share of the steps in the final decay of 'wsd'.", low=0.0, high=1.0)
    final_share: float = option(0.1, "Learning rate at the end as a share of the peak.", low=0.0, high=1.0)
    weight_decay: float = option(0.1, "Decoupled weight decay, on matrices only (never on norms, biases or positions).", low=0.0)
    beta1: float = option(0.9, "Adam's first decay rate.", low=0.0, high=1.0)
    beta2: float = option(0.98, "Adam's second decay rate.", low=0.0, high=1.0)
    lr_groups: str = option(
        "",
        "Factors on the learning rate and weight decay of groups of parameters, 'PATTERN=FACTOR;PATTERN=FACTOR': a regular expression "
        "searched in paths such as decoder.blocks.attention.wq; the first that matches counts, and 0 keeps a group as it is.",
    )
    layer_decay: float = option(
        1.0,
        "Factor on learning rate and weight decay from each layer to the one below it: 1 at the output, least at the embedding.",
        low=0.0, high=1.0,
    )  # fmt: skip
    clip: float = option(1.0, "Largest global gradient norm; 0 does not clip.", low=0.0)
    accumulate: int = option(1, "Micro-batches per step; gradients are weighted by their target tokens.", low=1)
    ema: float = option(0.0, "Decay of the exponential moving average of the parameters; 0 keeps none.", low=0.0, high=0.99999)
    label_smoothing: float = option(0.0, "Label smoothing in training.", low=0.0, high=0.9)
    rdrop: float = option(
        0.0,
        "R-Drop: weight of the divergence between two passes over the same batch with different dropout; the loss is then the sum "
        "of both cross entropies and it, and a step costs twice as much; 0 makes one pass.",
        low=0.0,
    )
    fgm: float = option(
        0.0,
        "Adversarial perturbation (FGM): length of the step by which an example's token vectors are moved to where its loss grows fastest; the "
        "loss there is added to that of the example, and a step costs about three times as much; 0 moves nothing.",
        low=0.0,
    )
    code_contrast: float = option(
        0.0,
        "Weight of a contrast of control codes: each text is to be likelier under its own codes than with another value of one of them; a step "
        "costs about twice as much; 0 makes none.",
        low=0.0,
    )
    distill_weight: float = option(
        0.5, "Weight of the divergence from the teacher of --distill; the cross entropy has the rest of 1.", low=0.0, high=1.0
    )
    distill_temperature: float = option(1.0, "Temperature at which teacher and model are compared; one that --distill holds.", low=0.01)
    preference: str = option(
        "none",
        "Tune a trained model (--init_from) on a dataset of reasons and rejected ones by direct preference optimization ('dpo'), or its form "
        "with log probabilities per token ('dpo_length').",
        choices=("none", "dpo", "dpo_length"),
    )
    preference_beta: float = option(0.1, "How much a preference counts against staying near the model that --preference begins with.", low=1e-6)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training run."""

    task: str = option(
        "reason",
        "What is trained: a generator of reasons (from --init_from also against a discriminator: 'adversarial', or by rewards for what it writes: "
        "'grpo'), a model of behaviour that ranks items, or one of bundles.",
        choices=("reason", "adversarial", "grpo", "behaviour", "bundle"),
    )
    workdir: str = option("", "Folder of the run; an existing one is continued.")
    init_from: str = option("", "Local Hugging Face folder, or workdir of another run, whose weights to begin with; it decides the model.")
    ewc: float = option(
        0.0,
        "Elastic weight consolidation: how strongly parameters that the task of --ewc_data depends on are held near their values in "
        "--init_from; 0 holds none.",
        low=0.0,
    )
    ewc_data: str = option("", "Dataset folder of the earlier task, prepared with the same tokenizer (--ewc).")
    ewc_examples: int = option(512, "Training examples of --ewc_data that tell which parameters it depends on.", low=1)
    steps: int = option(1000, "Optimizer steps.", low=1)
    seed: int = option(0, "Seed of initial weights, dropout and data order.", low=0)
    mesh: str = option(
        "",
        "Device mesh, e.g. 'data:2,fsdp:2,tensor:2'; one axis may be -1 (all remaining devices). Empty takes one device, or where several "
        "processes run all of theirs (data:-1).",
    )
    log_every: int = option(10, "Steps between logged metrics.", low=1)
    eval_every: int = option(200, "Steps between evaluations (loss on validation, sample reasons).", low=1)
    eval_batches: int = option(20, "Most validation batches an evaluation reads.", low=1)
    save_every: int = option(200, "Steps between checkpoints.", low=1)
    keep: int = option(2, "Latest checkpoints kept, besides the best one.", low=1)
    patience: int = option(0, "Evaluations without a better validation loss before stopping; 0 never stops early.", low=0)
    nonfinite: str = option(
        "stop",
        "What a loss or gradient that is not finite does: end the run, or leave the step out (ten in a row end it too). Its batch is "
        "kept for profiling.replay either way.",
        choices=("stop", "skip"),
    )
    preempted_code: int = option(
        0, "Exit code of a run that SIGTERM ended before it had finished; one that is not 0 lets a cluster start it again.", low=0, high=255
    )
    profile_steps: str = option(
        "", "Steps to trace, FIRST:LAST as 10:15, into WORKDIR/profile: for TensorBoard and profiling.trace. The first step of a process, "
        "which compiles, is traced only where the range begins with it.",
    )  # fmt: skip
    samples: int = option(4, "Sample reasons written at each evaluation.", low=0)
    compilation_cache: str = option("~/.cache/rgjax/xla", "Folder of compiled programs; empty keeps none.")
    optimization_level: str = option(
        "UNKNOWN", "How hard XLA optimizes a program (jax_optimization_level): on several GPUs O1 is to hide collectives behind computing; UNKNOWN "
        "leaves JAX's default.", choices=("UNKNOWN", "O0", "O1", "O2", "O3"),
    )  # fmt: skip
