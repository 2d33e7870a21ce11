"""Options of preparing data and of reading it."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Raw data -> a dataset folder."""

    source: str = option("", "Folder or file with the raw data (not needed for --layout=demo and demo_shop).")
    output: str = option("", "Dataset folder to write; it must not exist yet unless --overwrite.")
    overwrite: bool = option(False, "Replace an existing dataset folder.")
    layout: str = option(
        "examples",
        "How the source is laid out: 'examples' is JSON lines of whole examples, 'tables' is items, users, interactions and "
        "reasons as CSV, JSON lines or Parquet, 'preferences' which of two reasons people liked better, 'demo' is the synthetic shop; llmxrec to "
        "llmxrec_preferences are public layouts. The last five give a "
        "shop's interactions for recommenders instead: 'shop' from own tables, 'demo_shop' synthetic, the others public.",
        choices=(
            "examples", "tables", "preferences", "demo", "llmxrec", "advertisegen", "taodescribe", "xrec", "bundle_intents",
            "llmxrec_preferences", "shop", "demo_shop", "ml1m", "online_retail", "bundle_intent",
        ),
    )  # fmt: skip
    split_by: str = option(
        "user",
        "What decides the split, by hash, so that it never crosses one; 'source' keeps the files' own splits.",
        choices=("user", "item", "title", "source"),
    )
    val_share: float = option(0.05, "Share of keys hashed to the validation split.", low=0.0, high=0.9)
    test_share: float = option(0.05, "Share of keys hashed to the test split.", low=0.0, high=0.9)
    controls: str = option("", "Declared control codes, 'name=value|value;name=value|value'; any other value in the data is an error.")
    length_bands: str = option(
        "", "Adds the control code 'length', measured on each reason: 'words:30,60' (or characters:) gives under30, 30to59 and from60."
    )
    derive_words: str = option(
        "",
        "Adds control codes by the words of each reason: a JSON file of code -> value -> words, or 'builtin' (emotion and topic, English and "
        "Chinese); the value most of whose words are named wins. A code that an example has of its own stays, and the words are measured on it.",
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
    demo_users: int = option(400, "Users of the synthetic shop (--layout=demo and demo_shop).", low=20)
    demo_items: int = option(120, "Items of the synthetic shop (--layout=demo and demo_shop).", low=20)
    demo_examples: int = option(2000, "Examples of the synthetic shop (--layout=demo).", low=20)
    seed: int = option(0, "Seed of the synthetic shop.", low=0)
    now: str = option("", "Shops: seconds or an ISO date after which an event is an error; empty takes the clock.")
    max_duplicate_share: float = option(
        0.5, "Shops: refuse the source when more than this share of its events repeats an earlier one.", low=0.0, high=1.0
    )


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
    length: int = option(512, "Most tokens of one example (decoder-only) or of its prompt (encoder-decoder).", low=16)
    target_length: int = option(128, "Most tokens of one reason; the prompt gets the rest of --length (encoder: all of it).", low=8)
    decoder_length: int = option(0, "Tokens in a packed decoder row (encoder-decoder); 0 takes --target_length.", low=0)
    packing: bool = option(True, "Pack several examples into a row; otherwise one a row, in length buckets.")
    row_length: int = option(
        0,
        "Tokens in a packed row (decoder-only) or packed encoder row; 0 takes --length. Rows of twice --length leave far less empty where "
        "examples are about as long as --length.",
        low=0,
    )
    row_examples: int = option(
        0,
        "Most examples in a packed row; 0 allows one for every 16 tokens, at most 64. The fused kernel of a GPU works for as many, there or "
        "not, so the row's length divided by the examples' usual one is faster there.",
        low=0,
        high=64,
    )
    buckets: str = option(
        "6",
        "Length buckets when packing is off, each compiled once: how many, then cut where the examples' lengths leave the fewest slots empty; or "
        "shares of --length, as 0.25,0.5,1.",
    )
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
    streams: int = option(
        0,
        "Streams that the examples are dealt to when a run begins; any number of processes that divides them can go on with it. 0 takes 8, "
        "or one per process where there are more, as far as --batch_size divides.",
        low=0,
    )
    workers: int = option(0, "Worker processes that read and tokenize; 0 works in a thread of the main process.", low=0)
    prefetch: int = option(4, "Batches kept ready.", low=1)
