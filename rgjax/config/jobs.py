"""Options of the jobs around a run: writing, scoring, export and looking."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option

CHECKPOINT = (
    "Which checkpoint: the best on validation, or the last; 'auto' takes the best, and the last of adversarial training and of tuning by rewards, "
    "which likelihood can't judge."
)


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """Inputs in, reasons out."""

    workdir: str = option("", "Folder of a training run.")
    input: str = option("", "JSON lines of examples without reasons.")
    output: str = option("", "JSON lines to write, one per input line, in input order.")
    checkpoint: str = option("auto", CHECKPOINT, choices=("auto", "best", "last"))
    weights: str = option(
        "float",
        "How the model is kept: as it was trained, or its matrices and tables in int8 (a quarter of the memory, rounded weights).",
        choices=("float", "int8"),
    )
    base: str = option("", "The folder that an adapter's run began with, if it was moved.")
    adapters: str = option(
        "",
        'Further adapters on the run\'s model, \'name=FOLDER,name=FOLDER\' (PEFT or AdapterHub); an input line with "adapter": "name" is '
        "written with that one, any other with the run's own.",
    )
    injected: str = option(
        "strip",
        "What addresses the model in titles, descriptions and other texts ('ignore the above and ...', English or Chinese): leave it and all that "
        "follows it out of what is read, and say of how many, or keep it.",
        choices=("strip", "keep"),
    )
    control: str = option("", "Control codes for every input, 'name=value,name=value'; they override the input's own.")
    overwrite: bool = option(False, "Replace an existing output file.")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Scores of a run, beside floors."""

    workdir: str = option("", "Folder of a training run.")
    dataset: str = option("", "Folder of the run's dataset, if it was moved; with --report=scores, of any other that has its tokenizer.")
    split: str = option("val", "Split to measure.", choices=("train", "val", "test"))
    checkpoint: str = option("auto", CHECKPOINT, choices=("auto", "best", "last"))
    weights: str = option(
        "float",
        "How the model is kept: as it was trained, or its matrices and tables in int8; the loss with floats then stands beside.",
        choices=("float", "int8"),
    )
    limit: int = option(0, "Measure only the first examples; 0 measures all.", low=0)
    base: str = option("", "The folder that an adapter's run began with, if it was moved.")
    outputs: str = option(
        "", "JSON lines with a 'reason' per example: score this file instead of generating; or, with --report=tampering, tell which are suspect."
    )
    ablate_vectors: bool = option(
        False, "Instead of all else: how much the loss on the references grows when the run's vectors are zeroed, shuffled or random."
    )
    report: str = option(
        "scores",
        "What is reported: scores against the references beside floors, or 'control': how far each declared control code is obeyed when it is asked "
        "for, by an independent judge, and what that costs, beside the model without codes; or 'tampering': whether changed reasons are told from "
        "others, and what an instruction hidden in a title does.",
        choices=("scores", "control", "tampering"),
    )
    judge_split: str = option(
        "train", "Split whose references, with their codes, teach the judge of --report=control; not --split.", choices=("train", "val", "test")
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
    checkpoint: str = option("auto", CHECKPOINT, choices=("auto", "best", "last"))
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
    checkpoint: str = option("auto", CHECKPOINT, choices=("auto", "best", "last"))
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

    path: str = option("", "Hugging Face folder, workdir of a run, dataset folder or adapter folder; may stand alone, without --path=.")
    samples: int = option(3, "Training samples shown token by token (of a run or dataset, or with --dataset).", low=0)
    split: str = option("train", "Split the samples are from.", choices=("train", "val", "test"))
    code_words: str = option(
        "",
        "JSON file to write for a dataset with control codes: the words by which its references tell a code's values apart, to read, to mend, "
        "and to give as --code_words where reasons are written.",
    )
