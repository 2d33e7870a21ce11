"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors, written and read."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re

import numpy as np
from safetensors.numpy import save_file

from rgjax import trees
from rgjax.config import AdapterConfig
from rgjax.errors import UserError
from rgjax.hf import modules
from rgjax.hf.folder import mapped, read_json
from rgjax.hf.modules import Linear
from rgjax.hf.table import METADATA, Family
from rgjax.models.adapted import AdaptedFactory
from rgjax.nn.adapters import lowrank, scaled

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "encoder": "FEATURE_EXTRACTION"}
TYPES = {"lora": "LORA", "adalora": "ADALORA", "ia3": "IA3", "prefix": "PREFIX_TUNING", "prompt": "PROMPT_TUNING"}
# Fields of adapter_config.json that are computed, or say nothing about what is computed; any other must be empty, or as in PLAIN.
UNDERSTOOD = frozenset(
    "peft_type task_type auto_mapping peft_version base_model_name_or_path revision inference_mode r lora_alpha lora_dropout "
    "target_modules exclude_modules fan_in_fan_out use_rslora use_dora layers_to_transform layers_pattern rank_pattern alpha_pattern "
    "megatron_core qalora_group_size target_r init_r tinit tfinal deltaT beta1 beta2 orth_reg_weight total_step feedforward_modules "
    "init_ia3_weights num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers prompt_tuning_init "
    "prompt_tuning_init_text tokenizer_name_or_path tokenizer_kwargs encoder_hidden_size init_weights runtime_config".split()
)
NUMBERS = frozenset(("r", "lora_alpha", "lora_dropout", "init_r", "target_r", "num_virtual_tokens"))
PLAIN = {"bias": ("none",), "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva")}  # others change the base's weights


def write(folder: pathlib.Path, factory: AdaptedFactory, family: Family, adapter: dict, base_name: str) -> None:
    """Writes the two files into an existing folder; `adapter` holds host arrays. Raises UserError for kinds that PEFT has no place for."""
    kind = factory.adapter.adapter
    if kind not in TYPES:
        raise UserError(f"PEFT has no format for --adapter={kind}; its run goes on with launch.generate, and 'bottleneck' is written for AdapterHub.")
    body = {"peft_type": TYPES[kind], "task_type": TASKS[factory.config.architecture], "base_model_name_or_path": base_name, "inference_mode": True}
    if kind in ("lora", "adalora"):
        more, tensors = _low_rank(factory, family, adapter)
    elif kind == "ia3":
        more, tensors = _scaled(factory, family, adapter)
    else:
        more, tensors = _virtual(factory, adapter)
    text = json.dumps(body | more, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in tensors.items()}
    save_file(arrays, folder / WEIGHTS, metadata=METADATA)


def _low_rank(factory: AdaptedFactory, family: Family, adapter: dict) -> tuple[dict, dict]:
    c, every = factory.adapter, list(modules.linears(factory.base, family))
    chosen, adaptive = modules.targeted(factory, family, adapter), c.adapter == "adalora"
    ranks = {m.name: lowrank.rank(c) * sum(trees.at(adapter, p) is not None for p in m.parts) for m in chosen}
    widest, tensors, kept = max(ranks.values()), {}, {}
    for module in chosen:
        for i in range(module.layers):
            a, b, e, m = _fused(module, adapter, i, c)
            at = PREFIX + module.at(i)
            if adaptive:
                alive = np.flatnonzero(e) if np.any(e) else np.arange(1)
                kept[f"{module.at(i)}.lora_E"] = [True] * len(alive) + [False] * (widest - len(alive))
                tensors |= {f"{at}.lora_A": a[alive], f"{at}.lora_B": b[:, alive], f"{at}.lora_E": e[alive, None]}
            else:
                tensors |= {f"{at}.lora_A.weight": a, f"{at}.lora_B.weight": b} | ({} if m is None else {f"{at}.lora_magnitude_vector": m})
    body = {
        "target_modules": modules.names(chosen, every), "lora_dropout": c.adapter_dropout, "bias": "none", "fan_in_fan_out": family.name == "gpt2",
        "use_rslora": c.rslora, "use_dora": c.dora,
    }  # fmt: skip
    if adaptive:
        # PEFT divides by the first rank, one for all modules; fused ones have more.
        alpha = c.alpha * (widest + 1e-5) / (c.initial_rank + 1e-5)
        more = {"r": widest, "init_r": widest, "target_r": c.rank, "lora_alpha": alpha, "rank_pattern": kept, "total_step": 1}
        return body | more, tensors
    fused = {m.name.rsplit("{i}.", 1)[1]: ranks[m.name] // c.rank for m in chosen if ranks[m.name] != c.rank}
    patterns = {name: {"rank": c.rank * n, "alpha": c.alpha * (n**0.5 if c.rslora else n)} for name, n in fused.items()}
    body |= {"r": c.rank, "lora_alpha": c.alpha} | {f"{x}_pattern": {n: p[x] for n, p in patterns.items()} for x in ("rank", "alpha")}
    return body, tensors


def _fused(module: Linear, adapter: dict, layer: int, c: AdapterConfig):
    """(A [R, in], B [out, R], E [R] or None, m [out] or None) of one layer's module; parts are blocks of their own ranks."""
    values = [trees.at(adapter, p) for p in module.parts]
    if c.dora and None in values:
        raise UserError(f"DoRA on a part of {module.name} has no place in PEFT; train with --targets that take its parts together, or export merged.")
    present = [v for v in values if v is not None]
    a = np.concatenate([np.asarray(v["a"][layer]).T for v in present])
    b, row, column = np.zeros((sum(module.outputs), len(a)), np.float32), 0, 0
    for value, width in zip(values, module.outputs, strict=True):
        if value is not None:
            block = np.asarray(value["b"][layer]).T
            b[row : row + width, column : column + block.shape[1]] = block
            column += block.shape[1]
        row += width
    joined = lambda name: np.concatenate([np.asarray(v[name][layer]) for v in present]) if name in present[0] else None
    return a, b, joined("e"), joined("m")


def _scaled(factory: AdaptedFactory, family: Family, adapter: dict) -> tuple[dict, dict]:
    every, chosen, tensors = list(modules.linears(factory.base, family)), modules.targeted(factory, family, adapter), {}
    for module in chosen:
        for i in range(module.layers):
            values = [trees.at(adapter, p) for p in module.parts]
            widths = (module.inputs,) if _by_input(module) else module.outputs
            found = [np.ones(n) if v is None else np.asarray(v["l"][i]) for v, n in zip(values, widths, strict=True)]
            tensors[f"{PREFIX}{module.at(i)}.ia3_l"] = np.concatenate(found).reshape((1, -1) if _by_input(module) else (-1, 1))
    forward = modules.names([m for m in chosen if _by_input(m)], every)
    targets = modules.names(chosen, every)
    return {"target_modules": sorted({*targets, *forward}), "feedforward_modules": forward, "fan_in_fan_out": family.name == "gpt2"}, tensors


def _by_input(module: Linear) -> bool:
    return module.parts[0].rsplit(".", 1)[1] in scaled.BY_INPUT


def _virtual(factory: AdaptedFactory, adapter: dict) -> tuple[dict, dict]:
    c, n = factory.config, factory.adapter.virtual_tokens
    heads, kv = c.heads, c.kv_heads or c.heads
    body = {"num_virtual_tokens": n, "num_layers": c.layers, "num_transformer_submodules": 1, "num_attention_heads": heads, "token_dim": c.width}
    if factory.adapter.adapter == "prompt":
        return body | {"prompt_tuning_init": "RANDOM"}, {"prompt_embeddings": np.asarray(trees.at(adapter, "embedding.table"))}
    found = trees.at(adapter, "decoder.blocks.attention")
    both_NLXKA = np.stack([np.asarray(found["k"]), np.asarray(found["v"])], axis=1).transpose(2, 0, 1, 3, 4)
    width = kv * both_NLXKA.shape[-1]
    # With grouped heads PEFT must be told of the key heads.
    return body | {"token_dim": width, "num_attention_heads": kv, "prefix_projection": False}, {"prompt_embeddings": both_NLXKA.reshape(n, -1)}


def read(folder: str | pathlib.Path, factory, family: Family) -> tuple[AdapterConfig, dict]:
    """(our options, nested dict of float32 arrays) of a PEFT folder for a model of `factory`.

    Raises UserError when the folder is unusable, of a kind we don't compute, or of another model.
    """
    folder = pathlib.Path(folder)
    body = read_json(folder / CONFIG)
    kind = next((ours for ours, theirs in TYPES.items() if theirs == body.get("peft_type")), None)
    if kind is None:
        raise UserError(f"{folder}/{CONFIG} says peft_type {body.get('peft_type')!r}; rgjax reads {', '.join(TYPES.values())}.")
    for field in NUMBERS & body.keys():
        least = 0 if field in ("lora_alpha", "lora_dropout") else 1
        if type(body[field]) not in (int, float) or not least <= body[field] < math.inf:
            raise UserError(f"{folder}/{CONFIG} says {field}={body[field]!r}, where a number from {least} on belongs; save the adapter again.")
    for field, value in body.items():
        if field not in UNDERSTOOD and value not in PLAIN.get(field, (None, False, [], {}, "")):
            raise UserError(f"{folder}/{CONFIG} says {field}={value!r}, which rgjax does not compute; use another adapter.")
    if not (folder / WEIGHTS).is_file():
        pickled = "; it holds a pickle, which rgjax never opens" if (folder / "adapter_model.bin").exists() else ""
        raise UserError(f"{folder}/{WEIGHTS} is missing{pickled}; save the adapter again as safetensors.")
    tensors = mapped(folder / WEIGHTS)
    if foreign := next((name for name, tensor in tensors.items() if isinstance(tensor, str)), None):
        raise UserError(f"{folder}/{WEIGHTS}: the tensor {foreign} is of type {tensors[foreign]}, not a float; save the adapter again.")
    reader = {"prompt": _read_virtual, "prefix": _read_virtual, "ia3": _read_scaled}.get(kind, _read_low_rank)
    try:
        return reader(folder, body, tensors, factory, family, kind)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}/{CONFIG} lacks {error} or has it of the wrong type; save the adapter again.") from None


def _modules_of(folder, tensors: dict, factory, family: Family, endings: tuple[str, ...]) -> dict[Linear, list[dict]]:
    """For each module with tensors: per layer, ending -> array ({} where a layer has none). Raises UserError on foreign tensors."""
    found, left = {}, dict(tensors)
    for module in modules.linears(factory, family):
        layers = [{e: left.pop(name) for e in endings if (name := f"{PREFIX}{module.at(i)}.{e}") in left} for i in range(module.layers)]
        if any(layers):
            found[module] = layers
    if left or not found:
        surplus = next(iter(left), "no tensor at all")
        raise UserError(f"{folder}/{WEIGHTS} holds {surplus}, which has no place in this {family.name} model; it is an adapter for another base.")
    return found


def expect(folder, name: str, array: np.ndarray, shape: tuple) -> np.ndarray:
    """`array` as float32; raises UserError unless it has the shape (None: any size) and only numbers."""
    if array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
        wanted = [n if n is not None else "any" for n in shape]
        raise UserError(f"{folder}: the tensor {name} has shape {list(array.shape)}, this model needs {wanted}; it is an adapter for another base.")
    if not np.isfinite(values := np.asarray(array, np.float32)).all():
        raise UserError(f"{folder}: the tensor {name} holds values that are no numbers; train or save the adapter again.")
    return values


def _read_low_rank(folder, body: dict, tensors: dict, factory, family: Family, kind: str) -> tuple[AdapterConfig, dict]:
    ends = ("lora_A", "lora_B", "lora_E") if kind == "adalora" else ("lora_A.weight", "lora_B.weight")
    ends += ("lora_magnitude_vector",) if body.get("use_dora") else ()
    found, values, scales = _modules_of(folder, tensors, factory, family, ends), {}, []
    for module, layers in found.items():
        columns = [_columns(folder, module, i, layer, ends, body) for i, layer in enumerate(layers)]
        for k, path in enumerate(module.parts):
            mine = [c[k] for c in columns]
            if any(np.any(m["b"]) or "m" in m for m in mine) or not any(np.any(m["b"]) for c in columns for m in c):  # a fresh one is whole
                trees.put(values, path, {name: modules.stacked([m[name] for m in mine]) for name in mine[0] if name != "scale"})
                scales.append((path, [m["scale"] for m in mine]))
    rank = max(v.shape[-1] for path, v in trees.flat(values) if path.endswith(".a"))
    one = next((s for _, per_layer in scales for s in per_layer if s), 1.0)
    for path, per_layer in scales:
        put = trees.at(values, path)
        put["b"] *= np.array([1.0 if np.isclose(s, one, rtol=1e-6) else s / one for s in per_layer], np.float32)[:, None, None]
        for name, axis in {"a": 2, "b": 1, "e": 1}.items():
            if name in put:
                put[name] = np.pad(put[name], [(0, rank - put[name].shape[axis] if d == axis else 0) for d in range(put[name].ndim)])
    paths = "|".join(path.replace(".", r"\.") for path, _ in scales)
    made = AdapterConfig(
        adapter=kind, targets=f"^({paths})$", rank=body.get("target_r", rank) if kind == "adalora" else rank, initial_rank=rank,
        alpha=one * ((rank + 1e-5) if kind == "adalora" else rank), dora=bool(body.get("use_dora")), adapter_dropout=body.get("lora_dropout", 0.0),
    )  # fmt: skip
    return _as_given(made, body), values


def _as_given(made: AdapterConfig, body: dict) -> AdapterConfig:
    """With the folder's own alpha and rank-stabilised scale where they mean the same, so that what is read is written again alike."""
    if made.adapter == "lora":
        given = dataclasses.replace(made, alpha=float(body["lora_alpha"]), rslora=bool(body.get("use_rslora")))
        if np.isclose(lowrank.scale(given), lowrank.scale(made), rtol=1e-6):
            return given
    return made


def _columns(folder, module: Linear, layer: int, found: dict, ends: tuple[str, ...], body: dict) -> list[dict]:
    """One layer's module as our arrays a [I, R], b [R, O] (e, m) of each part, with the factor on its term; zeros where it has none."""
    name, total = f"{PREFIX}{module.at(layer)}", sum(module.outputs)
    if not found:
        if body.get("use_dora"):
            raise UserError(f"{folder} has DoRA on some layers of {module.name} only, which rgjax has no place for; merge it with PEFT.")
        empty = {"a": np.zeros((module.inputs, 1)), "b": None, "scale": 0.0} | ({"e": np.zeros(1)} if "lora_E" in ends else {})
        return [empty | {"b": np.zeros((1, width))} for width in module.outputs]
    if missing := [e for e in ends if e not in found or not found[e].size]:
        raise UserError(f"{folder}/{WEIGHTS} lacks the tensor {name}.{missing[0]}; save the adapter again.")
    a = expect(folder, f"{name}.{ends[0]}", found[ends[0]], (None, module.inputs))
    b = expect(folder, f"{name}.{ends[1]}", found[ends[1]], (total, len(a)))
    e = expect(folder, f"{name}.lora_E", found["lora_E"], (len(a), 1))[:, 0] if "lora_E" in ends else None
    m = expect(folder, f"{name}.{ends[-1]}", found[ends[-1]], (total,)) if body.get("use_dora") else None
    scale, parts, row = _scale(module.at(layer), len(a), body), [], 0
    for width in module.outputs:
        mine = slice(row, row + width)
        used = np.flatnonzero(np.any(b[mine] != 0, axis=0)) if len(module.outputs) > 1 else np.arange(len(a))  # the blocks of fused parts
        used = used if len(used) else np.arange(1)
        part = {"a": a[used].T, "b": b[mine][:, used].T, "scale": scale}
        parts.append(part | ({} if e is None else {"e": e[used]}) | ({} if m is None else {"m": m[mine]}))
        row += width
    return parts


def _scale(name: str, rank: int, body: dict) -> float:
    """PEFT's factor on a module's term."""
    if body["peft_type"] == "ADALORA":
        return body["lora_alpha"] / (body["init_r"] + 1e-5)
    try:
        matching = [p for p in (body.get("alpha_pattern") or {}) if re.match(rf"(.*\.)?({p})$", name)]  # as PEFT looks them up
    except re.error as error:
        raise UserError(f"{CONFIG} has an alpha_pattern that is no regular expression ({error}); mend it.") from None
    alpha = body["alpha_pattern"][matching[0]] if matching else body["lora_alpha"]
    return alpha / (rank**0.5 if body.get("use_rslora") else rank)


def _read_scaled(folder, body: dict, tensors: dict, factory, family: Family, kind: str) -> tuple[AdapterConfig, dict]:
    values: dict = {}
    for module, layers in _modules_of(folder, tensors, factory, family, ("ia3_l",)).items():
        widths = (module.inputs,) if _by_input(module) else module.outputs
        shape = (1, sum(widths)) if _by_input(module) else (sum(widths), 1)
        ones = np.ones(shape)
        read = [expect(folder, f"{PREFIX}{module.at(i)}.ia3_l", layer.get("ia3_l", ones), shape).reshape(-1) for i, layer in enumerate(layers)]
        for path, part in zip(module.parts, np.split(np.stack(read), np.cumsum(widths)[:-1], axis=1), strict=True):
            if len(module.parts) == 1 or np.any(part != 1):
                trees.put(values, path, {"l": part})
    paths = sorted({path.rsplit(".", 1)[0].replace(".", r"\.") for path, _ in trees.flat(values)})
    return AdapterConfig(adapter="ia3", targets=f"^({'|'.join(paths)})$"), values


def _read_virtual(folder, body: dict, tensors: dict, factory, family: Family, kind: str) -> tuple[AdapterConfig, dict]:
    c, n = factory.config, body["num_virtual_tokens"]
    kv, a = c.kv_heads or c.heads, c.head_dim or c.width // c.heads
    left = dict(tensors)
    found = left.pop("prompt_embeddings", None)
    if found is None:
        raise UserError(f"{folder}/{WEIGHTS} lacks the tensor prompt_embeddings; save the adapter again.")
    if left:
        raise UserError(f"{folder}/{WEIGHTS} holds {min(left)} beside prompt_embeddings; it is no {body['peft_type']} adapter of PEFT's.")
    if kind == "prompt":
        both = c.architecture == "seq2seq" and len(found) == 2 * n  # PEFT keeps a second, unused half for a decoder
        table = expect(folder, "prompt_embeddings", found[:n] if both else found, (n, c.width))
        return AdapterConfig(adapter="prompt", virtual_tokens=n), {"embedding": {"table": table}}
    both = expect(folder, "prompt_embeddings", found, (n, 2 * c.layers * kv * a)).reshape(n, c.layers, 2, kv, a).transpose(2, 1, 0, 3, 4)
    place = "decoder.blocks.attention"
    return AdapterConfig(adapter="prefix", virtual_tokens=n), trees.nested([(f"{place}.k", both[0]), (f"{place}.v", both[1])])
