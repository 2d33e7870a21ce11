"""Every option of rgjax, once: its name, default, allowed values and help text.

Each job has a frozen dataclass (or several); `launch/` turns their fields into flags, and nothing else reads flags.
A field's name is its flag's name, so names are unique within one job.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rgjax.errors import UserError


def option(default: Any, help: str, *, choices: tuple | None = None, low: float | None = None, high: float | None = None):
    """A dataclass field that carries its help text and the values it admits (`low` and `high` are inclusive)."""
    meta = {"help": help, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=meta)


def check(config) -> None:
    """Raises UserError naming the first flag of `config` whose value is not admitted."""
    for f in dataclasses.fields(config):
        value, meta = getattr(config, f.name), f.metadata
        if meta.get("choices") and value not in meta["choices"]:
            raise UserError(f"--{f.name}={value} is not known; use one of {', '.join(map(str, meta['choices']))}.")
        if meta.get("low") is not None and value < meta["low"]:
            raise UserError(f"--{f.name}={value} is too small; the least is {meta['low']}.")
        if meta.get("high") is not None and value > meta["high"]:
            raise UserError(f"--{f.name}={value} is too large; the most is {meta['high']}.")


def to_json(config) -> dict:
    """A plain dict of a config dataclass, as it is written to `config.json`."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(cls, values: dict):
    """The inverse of `to_json`; raises UserError when a key is unknown to this version."""
    known = {f.name for f in dataclasses.fields(cls)}
    surplus = sorted(set(values) - known)
    if surplus:
        raise UserError(f"The stored configuration has '{surplus[0]}', unknown to this version of rgjax; use the one that wrote it.")
    return cls(**values)


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Raw data -> a dataset folder."""

    source: str = option("", "Folder or file with the raw data (not needed for --layout=demo).")
    output: str = option("", "Dataset folder to write; it must not exist yet unless --overwrite.")
    overwrite: bool = option(False, "Replace an existing dataset folder.")
    layout: str = option(
        "examples",
        "How the source is laid out: 'examples' is JSON lines of whole examples, 'tables' is items, users, interactions and "
        "reasons as CSV, JSON lines or Parquet, 'demo' is the synthetic shop; the others are public layouts.",
        choices=("examples", "tables", "demo", "llmxrec", "advertisegen", "taodescribe", "xrec"),
    )
    split_by: str = option(
        "user",
        "What decides the split, by hash, so that it never crosses one; 'source' keeps the files' own splits.",
        choices=("user", "item", "title", "source"),
    )
    val_share: float = option(0.05, "Share of keys hashed to the validation split.", low=0.0, high=0.9)
    test_share: float = option(0.05, "Share of keys hashed to the test split.", low=0.0, high=0.9)
    controls: str = option(
        "", "Declared control codes, 'name=value|value;name=value|value'; any other value in the data is an error."
    )
    tokenizer: str = option("", "Local Hugging Face folder whose tokenizer to use; empty trains a byte-level BPE on the train split.")
    tokenizer_with: str = option(
        "",
        "Comma-separated dataset folders whose training texts the trained vocabulary learns too, with their control codes, so that "
        "it serves all of them.",
    )
    vocab_size: int = option(8000, "Size of the trained vocabulary, special tokens included.", low=300)
    slots: int = option(64, "History slots <h0>, <h1>, ... reserved in a trained tokenizer, for copying titles.", low=0, high=512)
    min_reason_chars: int = option(4, "Reasons shorter than this many characters are dropped.", low=1)
    max_reason_chars: int = option(2000, "Reasons longer than this many characters are dropped.", low=1)
    drop_duplicates: bool = option(True, "Drop examples equal to an earlier one (same user, history, item and reason).")
    max_bad_share: float = option(0.01, "Refuse the source when more than this share of its lines is malformed.", low=0.0, high=1.0)
    max_tokens: int = option(512, "Length against which the report counts truncated examples, in tokens.", low=16)
    shard_examples: int = option(50_000, "Examples in one shard file.", low=1)
    demo_users: int = option(400, "Users of the synthetic shop (--layout=demo).", low=20)
    demo_items: int = option(120, "Items of the synthetic shop (--layout=demo).", low=20)
    demo_examples: int = option(2000, "Examples of the synthetic shop (--layout=demo).", low=20)
    seed: int = option(0, "Seed of the synthetic shop.", low=0)


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """Dataset folder -> batches."""

    dataset: str = option("", "Dataset folder written by launch.prepare.")
    replay: str = option(
        "",
        "Comma-separated dataset folders of earlier tasks, prepared with the same tokenizer, whose training examples are mixed in so "
        "that what was learnt from them is kept.",
    )
    replay_share: float = option(0.1, "Share of the training examples that is drawn from --replay.", low=0.001, high=0.95)
    distill: str = option(
        "", "Folder of a teacher's probabilities, written by launch.distill --logits for --dataset; the model learns from them too."
    )
    batch_size: int = option(16, "Rows in one optimizer step, over all devices and accumulation steps.", low=1)
    length: int = option(512, "Tokens in a row (decoder-only) or in an encoder row.", low=16)
    target_length: int = option(128, "Most tokens of one reason; the prompt gets the rest of --length (encoder: all of it).", low=8)
    decoder_length: int = option(0, "Tokens in a packed decoder row (encoder-decoder); 0 takes --target_length.", low=0)
    packing: bool = option(True, "Pack several examples into a row; otherwise one a row, in length buckets.")
    buckets: str = option("0.25,0.5,1", "Length buckets as shares of --length, used when packing is off.")
    max_history: int = option(50, "Most history events shown; the oldest go first.", low=0)
    history_order: str = option(
        "time",
        "Order of the shown history: as it happened, or by overlap of attributes with the item (the nearest last).",
        choices=("time", "overlap"),
    )
    copy_slots: str = option(
        "titles",
        "What reasons copy through slot tokens (<h3>, <item>, <a2>) that are filled in from the input afterwards, so that it is "
        "never misspelt: nothing, titles, or 'all' (titles and the item's attribute values).",
        choices=("none", "titles", "all"),
    )
    item_vectors: str = option("", "Parquet table (id, vector) of items, read by --adapter=vectors; an item without id goes by its title.")
    user_vectors: str = option("", "Parquet table (id, vector) of shoppers; one who is not in it gets the mean of their history's items.")
    vectors_as: str = option(
        "given",
        "The vectors as they are, or what shows their worth: zeros, those of others ('shuffle'), or fixed random ones.",
        choices=("given", "zero", "shuffle", "random"),
    )
    control_dropout: float = option(0.0, "Share of training examples that lose their control codes.", low=0.0, high=1.0)
    prompt: str = option(
        "markers",
        "How an example is written down: with this framework's section markers, or in words as one user message of the tokenizer's "
        "own chat template ('chat': titles are written out, not copied through slots).",
        choices=("markers", "chat"),
    )
    instruction: str = option(
        "Write one short, personal reason why this item suits this shopper.", "What the user message asks for at its end (--prompt=chat)."
    )
    loss_on: str = option(
        "reason",
        "Which tokens of a training example carry loss: those of the reason, or 'all' of prompt and reason (decoder-only): "
        "language-model training on item texts and histories too.",
        choices=("reason", "all"),
    )
    workers: int = option(0, "Worker processes that read and tokenize; 0 works in a thread of the main process.", low=0)
    prefetch: int = option(4, "Batches kept ready.", low=1)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The one transformer."""

    architecture: str = option(
        "causal",
        "Decoder-only ('causal') or encoder-decoder ('seq2seq'); 'encoder' alone (BERT) writes no reasons.",
        choices=("causal", "seq2seq", "encoder"),
    )
    encoder_head: str = option(
        "masked", "Of an encoder alone: scores of masked tokens, or one vector from the first position.", choices=("masked", "pooled")
    )
    layers: int = option(4, "Decoder layers.", low=1)
    encoder_layers: int = option(0, "Encoder layers (seq2seq); 0 takes as many as the decoder has.", low=0)
    width: int = option(256, "Width of the residual stream.", low=8)
    heads: int = option(4, "Query heads.", low=1)
    kv_heads: int = option(0, "Key and value heads (grouped-query); 0 takes one per query head.", low=0)
    head_dim: int = option(0, "Width of a head; 0 takes width / heads.", low=0)
    mlp_width: int = option(0, "Hidden width of the feed-forward; 0 takes 8/3 (gated) or 4 (plain) times the width.", low=0)
    activation: str = option(
        "swiglu",
        "Feed-forward: gated 'swiglu' and 'geglu' (tanh), plain 'gelu' (erf), 'gelu_new' (tanh) and 'relu'.",
        choices=("swiglu", "geglu", "gelu", "gelu_new", "relu"),
    )
    positions: str = option("rotary", "How positions enter.", choices=("rotary", "learned", "relative"))
    attention: str = option(
        "auto",
        "How a whole sequence is attended: all rows of the batch at once ('plain'), or one row after another with the scores "
        "recomputed ('rows': less memory, a little faster on CPU); 'auto' takes rows on a single CPU device.",
        choices=("auto", "plain", "rows"),
    )
    norm: str = option("rmsnorm", "Normalisation.", choices=("rmsnorm", "layernorm"))
    norm_eps: float = option(1e-6, "Epsilon of the normalisation.", low=0.0)
    qk_norm: bool = option(False, "RMSNorm on each query and key head before the positions (Qwen3).")
    bias: bool = option(False, "Biases in attention and feed-forward.")
    qkv_bias: bool = option(False, "Biases on queries, keys and values, if nowhere else (Qwen2).")
    post_norm: bool = option(False, "Normalise after each sum instead of before each layer (BERT, BART).")
    embedding_norm: bool = option(False, "Normalise embeddings before the first layer (BERT, BART).")
    tied: bool = option(True, "Output matrix tied to the embedding.")
    embeddings: int = option(0, "Rows of the embedding table; 0 takes one per token (Hugging Face tables may have more).", low=0)
    dropout: float = option(0.1, "Dropout rate on embeddings, attention output and feed-forward output.", low=0.0, high=0.9)
    rope_theta: float = option(10000.0, "Base of the rotary frequencies.", low=1.0)
    max_positions: int = option(1024, "Longest sequence (the table's size for learned positions).", low=8)
    token_types: int = option(0, "Vectors for kinds of token, of which the first is added everywhere (BERT has 2).", low=0)
    position_offset: int = option(0, "Unused rows before the first learned position (BART has 2).", low=0)
    relative_buckets: int = option(32, "Buckets of relative positions (T5).", low=4)
    relative_distance: int = option(128, "Distance from which relative positions share the last bucket (T5).", low=8)
    scan: bool = option(True, "Scan over stacked layers: compiles once per layer shape; off unrolls them, faster for few layers.")
    remat: str = option(
        "none",
        "What the backward pass recomputes: nothing, all but matrix products ('dots'), or whole layers ('full').",
        choices=("none", "dots", "full"),
    )
    dtype: str = option("float32", "Compute type; parameters and softmax stay float32.", choices=("float32", "bfloat16"))
    init_std: float = option(0.02, "Standard deviation of the initial token embeddings; matrices start at 1 / sqrt(fan-in).", low=0.0)


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Which parameters are trained: all, some, or an adapter's beside a frozen model"""

    adapter: str = option(
        "none",
        "Small trained part on the frozen model of --init_from: low-rank matrices ('lora'; 'adalora' spends a budget of ranks where they "
        "count), trained keys and values ('prefix') or embeddings ('prompt'), embeddings computed from precomputed vectors of shopper and "
        "item ('vectors'), rescaled activations ('ia3'), 'bottleneck' layers; or 'none'.",
        choices=("none", "lora", "adalora", "prefix", "prompt", "vectors", "ia3", "bottleneck"),
    )
    adapter_from: str = option("", "Folder of an adapter in PEFT's or AdapterHub's format whose values to begin with.")
    targets: str = option(
        "",
        "Matrices that lora, adalora and ia3 act on, a regular expression found in a parameter's path, as 'attention.w[qv]$'; empty takes all "
        "of the layers (ia3: keys, values and the feed-forward's output).",
    )
    rank: int = option(8, "Rank of lora; ranks per matrix that adalora ends with, on average.", low=1)
    alpha: float = option(16.0, "The low-rank term is scaled by alpha / rank.", low=0.0)
    adapter_dropout: float = option(0.0, "Dropout on the input of the low-rank term.", low=0.0, high=0.9)
    rslora: bool = option(False, "Scale by alpha / sqrt(rank) instead.")
    dora: bool = option(False, "Train the magnitude of each column apart from its direction (lora).")
    initial_rank: int = option(12, "Ranks per matrix that adalora begins with.", low=1)
    budget_start: int = option(0, "adalora: step at which pruning begins; 0 takes a tenth of the steps.", low=0)
    budget_end: int = option(0, "adalora: steps at the end without pruning; 0 takes three tenths of the steps.", low=0)
    budget_every: int = option(10, "adalora: steps between two prunings.", low=1)
    orthogonal: float = option(0.5, "adalora: weight of the penalty that keeps both sides orthogonal.", low=0.0)
    importance_decay: float = option(0.85, "adalora: decay of the averages of importance and of its uncertainty.", low=0.0, high=0.9999)
    virtual_tokens: int = option(16, "Virtual tokens of prefix, prompt and vectors.", low=1, high=1024)
    bottleneck: str = option(
        "houlsby",
        "Bottleneck layers after attention and feed-forward ('houlsby'), or one a block after both ('pfeiffer').",
        choices=("houlsby", "pfeiffer"),
    )
    reduction: int = option(16, "A bottleneck is the model's width divided by this.", low=1)
    freeze: str = option("", "Parameters of --init_from that stay as they are, a regular expression found in their paths.")
    unfreeze: str = option("", "Parameters of the model that are trained beside the adapter, a regular expression found in their paths.")
    base_from: int = option(0, "First stage: until this step only the adapter moves, then --unfreeze's parameters too.", low=0)


NO_ADAPTER = AdapterConfig()


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


    distill_weight: float = option(
        0.5, "Weight of the divergence from the teacher of --distill; the cross entropy has the rest of 1.", low=0.0, high=1.0
    )
    distill_temperature: float = option(1.0, "Temperature at which teacher and model are compared; one that --distill holds.", low=0.01)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training run."""

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
    mesh: str = option("data:1", "Device mesh, e.g. 'data:2,fsdp:2,tensor:2'; one axis may be -1 (all remaining devices).")
    log_every: int = option(10, "Steps between logged metrics.", low=1)
    eval_every: int = option(200, "Steps between evaluations (loss on validation, sample reasons).", low=1)
    eval_batches: int = option(20, "Most validation batches an evaluation reads.", low=1)
    save_every: int = option(200, "Steps between checkpoints.", low=1)
    keep: int = option(2, "Latest checkpoints kept, besides the best one.", low=1)
    patience: int = option(0, "Evaluations without a better validation loss before stopping; 0 never stops early.", low=0)
    samples: int = option(4, "Sample reasons written at each evaluation.", low=0)
    compilation_cache: str = option("~/.cache/rgjax/xla", "Folder of compiled programs; empty keeps none.")


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """How reasons are written."""

    method: str = option(
        "greedy", "Decoding: greedy, sample, beam, or 'mbr': sample --candidates and keep the one most like the others.",
        choices=("greedy", "sample", "beam", "mbr"),
    )
    temperature: float = option(1.0, "Sampling temperature.", low=0.01)
    top_k: int = option(0, "Sample among the k likeliest tokens; 0 among all.", low=0)
    top_p: float = option(1.0, "Sample within this probability mass.", low=0.01, high=1.0)
    beams: int = option(4, "Beams (method beam).", low=1)
    length_penalty: float = option(1.0, "Beam scores are divided by length to this power.")
    candidates: int = option(16, "Candidates per input (method mbr).", low=2)
    n_best: int = option(1, "Reasons returned per input (sample, beam and mbr).", low=1)
    ground_weight: float = option(
        0.2, "mbr: weight, beside agreement, of naming a title of the history and of copied attribute values.", low=0.0
    )
    cite_once: bool = option(False, "A title of the history is named at most once in a reason.")
    no_repeat_ngram: int = option(0, "No token n-gram of this size appears twice; 0 allows it.", low=0)
    banned_words: str = option("", "Comma-separated words never written.")
    min_length: int = option(0, "Least length of a reason, in --length_unit.", low=0)
    max_length: int = option(0, "Hard upper length of a reason, in --length_unit; 0 has none but --max_new_tokens.", low=0)
    length_unit: str = option("tokens", "Unit of --min_length and --max_length.", choices=("tokens", "words", "characters"))
    max_new_tokens: int = option(128, "Most tokens decoded.", low=1)
    decode_batch: int = option(64, "Rows decoded together.", low=1)
    decode_seed: int = option(0, "Seed of sampling.", low=0)


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """Inputs in, reasons out."""

    workdir: str = option("", "Folder of a training run.")
    input: str = option("", "JSON lines of examples without reasons.")
    output: str = option("", "JSON lines to write, one per input line, in input order.")
    checkpoint: str = option("best", "Which checkpoint: the best on validation, or the last.", choices=("best", "last"))
    weights: str = option(
        "float",
        "How the model is kept: as it was trained, or its matrices and tables in int8 (a quarter of the memory, rounded weights).",
        choices=("float", "int8"),
    )
    base: str = option("", "The folder that an adapter's run began with, if it was moved.")
    adapters: str = option(
        "",
        "Further adapters on the run's model, 'name=FOLDER,name=FOLDER' (PEFT or AdapterHub); an input line with \"adapter\": \"name\" is "
        "written with that one, any other with the run's own.",
    )
    control: str = option("", "Control codes for every input, 'name=value,name=value'; they override the input's own.")
    overwrite: bool = option(False, "Replace an existing output file.")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Scores of a run, beside floors."""

    workdir: str = option("", "Folder of a training run.")
    dataset: str = option("", "Folder of the run's dataset, if it was moved.")
    split: str = option("val", "Split to measure.", choices=("train", "val", "test"))
    checkpoint: str = option("best", "Which checkpoint: the best on validation, or the last.", choices=("best", "last"))
    weights: str = option(
        "float",
        "How the model is kept: as it was trained, or its matrices and tables in int8; the loss with floats then stands beside.",
        choices=("float", "int8"),
    )
    limit: int = option(0, "Measure only the first examples; 0 measures all.", low=0)
    base: str = option("", "The folder that an adapter's run began with, if it was moved.")
    outputs: str = option("", "JSON lines with a 'reason' per example: score this file instead of generating.")
    ablate_vectors: bool = option(
        False, "Instead of all else: how much the loss on the references grows when the run's vectors are zeroed, shuffled or random."
    )
    against: str = option("", "Another system's outputs file for a paired bootstrap.")
    earlier: str = option(
        "",
        "Instead of the run's own dataset, comma-separated ones of earlier tasks, prepared with its tokenizer: what the run has forgotten "
        "since the model it began with goes to forgetting.json.",
    )
    before: str = option("", "The model before, a run's workdir or a Hugging Face folder (--earlier); empty takes the run's --init_from.")
    resamples: int = option(1000, "Bootstrap resamples.", low=100)
    max_words: int = option(75, "Word limit of the length compliance (characters for Chinese).", low=1)
    output: str = option("", "Where to write evaluation.json and outputs.jsonl; empty takes the workdir.")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """A run as a Hugging Face folder."""

    workdir: str = option("", "Folder of a training run.")
    init_from: str = option("", "Instead of a run: local Hugging Face folder to read and write again without training.")
    adapter: str = option("", "Adapter folder (PEFT or AdapterHub) to merge into --init_from.")
    adapter_only: bool = option(False, "Write a run's adapter alone, in PEFT's or AdapterHub's format; otherwise it is merged into its model.")
    base: str = option("", "The folder that an adapter's run began with, if it was moved.")
    output: str = option("", "Folder to write.")
    checkpoint: str = option("best", "Which checkpoint of the workdir: the best on validation, or the last.", choices=("best", "last"))
    family: str = option(
        "auto",
        "Hugging Face architecture to write.",
        choices=("auto", "llama", "qwen2", "qwen3", "mistral", "gpt2", "t5", "bart", "bert"),
    )
    export_dtype: str = option(
        "float32",
        "Type of the written tensors; int8 is for the matrices of the layers, in the format of compressed-tensors, beside float32.",
        choices=("float32", "bfloat16", "int8"),
    )
    sentence_pooling: str = option(
        "auto",
        "Write a BERT encoder so that sentence-transformers loads it too, with unit vectors pooled by the mean over tokens or from the "
        "first one ('cls'); 'auto' keeps what --init_from says, if it is of sentence-transformers, and 'none' leaves it out.",
        choices=("auto", "none", "mean", "cls"),
    )
    overwrite: bool = option(False, "Replace an existing folder.")


@dataclasses.dataclass(frozen=True)
class EmbedConfig:
    """Texts as vectors, by a BERT encoder; or items, by behaviour."""

    init_from: str = option("", "Local Hugging Face folder of a BERT encoder.")
    dataset: str = option("", "Instead of texts: vectors of the items in a dataset's training histories, from which items go together.")
    width: int = option(64, "Entries of a vector (--dataset).", low=1)
    input: str = option("", "Table with columns id and text: JSON lines (.jsonl), CSV or Parquet.")
    output: str = option("", "Parquet file to write, with columns id (string) and vector (list of float32), in input order.")
    pooling: str = option(
        "auto",
        "One vector from the tokens' states: their mean or the first ('cls'), of unit length; 'auto' does as the folder says if it is "
        "of sentence-transformers.",
        choices=("auto", "mean", "cls"),
    )
    embed_batch: int = option(64, "Texts computed together.", low=1)
    overwrite: bool = option(False, "Replace an existing output file.")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """What a teacher hands on to a student."""

    workdir: str = option("", "Folder of the teacher's training run.")
    dataset: str = option("", "Dataset whose training examples the teacher reads; empty takes the run's own. It must have its tokenizer.")
    output: str = option("", "Folder to write: a dataset, or with --logits one of probabilities.")
    logits: int = option(
        0,
        "Write the teacher's probabilities instead of its reasons: the so many highest logits at every target token of the training "
        "examples.",
        low=0, high=1024,
    )  # fmt: skip
    temperatures: str = option("1,2,4", "Temperatures that a student of --logits may choose among.")
    checkpoint: str = option("best", "Which checkpoint: the best on validation, or the last.", choices=("best", "last"))
    base: str = option("", "The folder that an adapter's run began with, if it was moved.")
    overwrite: bool = option(False, "Replace an existing folder of the same kind.")


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """A run as one HTML page."""

    workdir: str = option("", "Folder of a training run.")
    output: str = option("", "HTML file to write; empty writes report.html in the workdir.")


@dataclasses.dataclass(frozen=True)
class ShowConfig:
    """Written reasons beside their inputs, on the terminal."""

    workdir: str = option("", "Folder of an evaluated run.")
    count: int = option(10, "Examples shown, spread evenly over the split.", low=1)


@dataclasses.dataclass(frozen=True)
class InspectConfig:
    """What a folder holds."""

    path: str = option(
        "", "Hugging Face folder, workdir of a run, dataset folder or adapter folder; may stand alone, without --path=."
    )
    samples: int = option(3, "Training samples shown token by token (of a run or dataset, or with --dataset).", low=0)
    split: str = option("train", "Split the samples are from.", choices=("train", "val", "test"))
