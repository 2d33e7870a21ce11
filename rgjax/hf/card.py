"""The model card (README.md) of an exported run: what it is, what it was trained on, how good it is, how to load it."""

from __future__ import annotations

import pathlib

from rgjax.hf.table import Family

SHOWN = (
    "rouge_1", "rouge_2", "rouge_l", "bleu_4", "chrf", "chatglm_bleu_4", "chatglm_rouge_l", "history_mention", "invented_quotes",
    "attribute_copy", "length_compliance", "distinct_2", "usr",
)  # fmt: skip


def render(facts: dict, step: int, parameters: int, evaluation: dict, family: Family, prompt: str, alone: bool = False) -> str:
    """Markdown text; `facts` is the run's config.json, `evaluation` its evaluation.json or {}, `prompt` an input as the model reads it.

    `alone`: of an adapter without its model.
    """
    synthetic = "**The training data is synthetic (a generated shop); do not use the model for real shoppers.**\n\n" if facts["synthetic"] else ""
    begun, kind = facts["train"].init_from, facts["adapter"].adapter
    origin = f"from the weights of `{pathlib.PurePath(begun).name}`" if begun else "from scratch"
    origin += f" (the {kind} adapter alone{'' if alone else ', merged into them here'})" if kind != "none" else ""
    library = ("adapter-transformers" if kind == "bottleneck" else "peft") if alone else "transformers"
    tag = "text2text-generation" if family.seq2seq else "text-generation"
    return (
        f"---\nlibrary_name: {library}\npipeline_tag: {tag}\ntags: [recommendation, explanation]\n---\n\n"
        f"# Recommendation reasons: {facts['dataset_name']}\n\n{synthetic}"
        f"A {family.name} model of {parameters:,} parameters, trained {origin} with rgjax for {step:,} steps on the dataset "
        f"`{facts['dataset_name']}`. It writes the short text beside a recommended product that says why it suits the shopper.\n\n"
        f"## Data\n\n{_data(facts)}\n\n## Scores\n\n{_scores(evaluation, step)}\n\n## Use\n\n{_use(facts, family, prompt, alone)}\n\n"
        "## Limits\n\n"
        "- It knows the products and phrasing of its training data only; facts about a product that are not in the input are invented.\n"
        f"{_slots(facts)}"
        "- Nothing filters its output for claims that advertising law forbids.\n"
    )


def _slots(facts: dict) -> str:
    if facts["input"].copy_slots == "none":
        return ""
    return "- Slot tokens such as `<item>` and `<h0>` in its output stand for titles of the input and must be filled in before display.\n"


def _data(facts: dict) -> str:
    counts = ", ".join(f"{n:,} {split}" for split, n in facts.get("counts", {}).items())
    inputs = facts["input"]
    return (
        f"Examples: {counts}. Text is NFKC-normalised and cleaned of HTML and control characters; duplicates are dropped; splits never "
        f"share a user, item or title, as chosen when the data was prepared (`dataset.json`, sha256 `{facts['dataset_fingerprint'][:16]}`). "
        f"Prompts show at most {inputs.max_history} history events in order of {inputs.history_order} within {inputs.length} tokens; "
        f"copied through slots: {inputs.copy_slots}."
    )


def _scores(evaluation: dict, step: int) -> str:
    if not evaluation or evaluation.get("outputs") or evaluation.get("checkpoint") != step:
        return "Not evaluated yet (`python -m launch.evaluate` writes the scores here on the next export)."
    lines = []
    for part in [evaluation, *evaluation.get("others", [])]:  # one per language
        examples = f"{part['examples']} examples ({part['language']})" if evaluation.get("others") else f"{part['examples']} examples"
        lines += [f"Split `{evaluation['split']}`, {examples}, decoding `{evaluation['method']}`; 95 % bootstrap intervals.", ""]
        lines += [*_table(part), ""]
    return "\n".join([*lines, f"Perplexity of the references: {evaluation['references']['perplexity']:.2f} per token."])


def _table(scores: dict) -> list[str]:
    floors = scores.get("floors", {})
    lines = ["| metric | model | " + " | ".join(floors) + " |", "|---" * (2 + len(floors)) + "|"]
    for name in [n for shown in SHOWN for n in (shown, shown + "_char")]:  # Chinese overlap is named after its tokens
        score = scores["system"].get(name)
        if score and score.get("value") is not None:
            cells = [f"{f[name]['value']:.3g}" if f.get(name) and f[name].get("value") is not None else "" for f in floors.values()]
            low, high = score.get("low"), score.get("high")
            span = f" [{low:.4g}, {high:.4g}]" if low is not None else ""
            lines.append(f"| {name} | {score['value']:.4g}{span} | " + " | ".join(cells) + " |")
    return lines


def _use(facts: dict, family: Family, prompt: str, alone: bool) -> str:
    loader = "AutoModelForSeq2SeqLM" if family.seq2seq else "AutoModelForCausalLM"
    controls = "; ".join(f"{n}: {', '.join(v)}" for n, v in facts["controls"].items())
    chat = facts["input"].prompt == "chat"
    place = "a line `Wanted: name: value; name: value` before the instruction" if chat else "`<|control|><|name=value|>` before `<|reason|>`"
    declared = f"\n\nControl codes: {controls}. Write them as {place}." if controls else ""
    tokenizer, base = f'{family.tokenizer_class}.from_pretrained(".")', pathlib.PurePath(facts["train"].init_from).name
    opened, library = f'{loader}.from_pretrained("{base if alone else "."}")', ""
    if alone and facts["adapter"].adapter == "bottleneck":
        library, opened = "import adapters\n", f'{opened}\nadapters.init(model)\nmodel.set_active_adapters(model.load_adapter("."))'
    elif alone:
        library, opened = "from peft import PeftModel\n", f'PeftModel.from_pretrained({opened}, ".")'
    return (
        f"```python\n{library}"
        f"from transformers import {family.tokenizer_class}, {loader}\n\n"
        f"tokenizer = {tokenizer}\nmodel = {opened}\n"
        f"{_chat_input(prompt) if chat else _plain_input(prompt)}"
        "print(tokenizer.decode(model.generate(**ids)[0]))\n```" + declared
    )


def _plain_input(prompt: str) -> str:
    return f"prompt = {prompt!r}\n" 'ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)\n'


def _chat_input(message: str) -> str:
    call = "tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors=\"pt\")"
    return f'messages = [{{"role": "user", "content": {message!r}}}]\nids = {call}\n'
