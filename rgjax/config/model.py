"""Options of the model and of what is trained of it."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option

MOST_PACKED = 64  # examples in a packed row: the fused kernel is told as many bounds a row, used or not


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
    block: str = option(
        "transformer",
        "A layer: attention and feed-forward, or HSTU's gated pointwise attention without one (models of behaviour only).",
        choices=("transformer", "pointwise"),
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
        "recomputed ('rows': less memory, a little faster on CPU), or by cuDNN's fused kernel ('cudnn': bfloat16, Hopper GPUs and later); "
        "'auto' takes rows on a single CPU device and cuDNN on one GPU; a GPU that computes in bfloat16 and can't have it is an error.",
        choices=("auto", "plain", "rows", "cudnn"),
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
