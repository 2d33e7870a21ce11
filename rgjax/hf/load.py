"""Weights of a Hugging Face folder as parameters, read slice by slice onto the mesh that will hold them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from rgjax import config as config_lib
from rgjax import trees
from rgjax.config import ModelConfig
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError
from rgjax.hf.families import FAMILIES
from rgjax.hf.folder import Folder, release
from rgjax.hf.table import Family, Rule, resolved
from rgjax.models.build import ModelFactory
from rgjax.parallel import sharding

NOISE = 0.1  # of new embedding rows, as a share of the table's own spread


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A folder whose architecture is known; `options` are those of our options that its config.json decides."""

    folder: Folder
    family: Family
    options: dict

    @classmethod
    def open(cls, path: str) -> Pretrained:
        """Raises UserError when the folder is unusable or its architecture is none of ours."""
        folder = Folder.open(path)
        kind = folder.config.get("model_type")
        if not isinstance(kind, str) or kind not in FAMILIES:
            raise UserError(f"{path}/config.json has model_type {kind!r}, which rgjax does not read; use one of {', '.join(FAMILIES)}.")
        family = FAMILIES[kind]
        folder = dataclasses.replace(folder, tensors={family.renamed(name): tensor for name, tensor in folder.tensors.items()})
        try:
            options = family.read(folder.config)
            config_lib.check(config := dataclasses.replace(ModelConfig(), **options))
            options = {name: getattr(resolved(config), name) for name in options}
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except KeyError as error:
            raise UserError(f"{path}/config.json lacks {error.args[0]}; fetch it again.") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}/config.json has a value of the wrong type ({error}); fetch it again.") from None
        return cls(folder, family, options)

    @property
    def fingerprint(self) -> str:
        """Changes with the weights."""
        return self.folder.fingerprint

    def configure(self, given: ModelConfig, explicit: set[str], tokenizer: Tokenizer) -> ModelConfig:
        """`given` with the folder's architecture; raises UserError when an `explicit` option or the tokenizer contradicts it."""
        self._check_tokenizer(tokenizer)
        options = self.options | {"embeddings": max(self._rows(), tokenizer.vocab_size)}
        for name in sorted(explicit & set(options)):
            if getattr(given, name) != options[name]:
                said = f"{self.folder.path}/config.json, which says {options[name]}"
                raise UserError(f"--{name}={getattr(given, name)} contradicts {said}; leave the flag out.")
        return dataclasses.replace(given, **options)

    def own_config(self) -> ModelConfig:
        """The folder's architecture with as many embeddings as its table has rows, whatever its tokenizer."""
        return dataclasses.replace(ModelConfig(), **self.options, embeddings=self._rows())

    def _rows(self) -> int:
        rows = self.folder.config.get("vocab_size")
        if not isinstance(rows, int):
            raise UserError(f"{self.folder.path}/config.json lacks vocab_size as a whole number; fetch it again.")
        return rows

    def _check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Every token of the folder must have the same id in `tokenizer`, which may know more."""
        own = Tokenizer.load(self.folder.path)
        theirs, ours = own.backend.get_vocab(with_added_tokens=True), tokenizer.backend.get_vocab(with_added_tokens=True)
        differing = [token for token, i in theirs.items() if ours.get(token) != i]
        if differing:
            raise UserError(
                f"The dataset's vocabulary ({tokenizer.vocab_size} tokens) is not that of {self.folder.path} ({own.vocab_size} tokens; they differ "
                f"at {differing[0]!r}); prepare the dataset again with --tokenizer={self.folder.path}."
            )

    def check(self, factory: ModelFactory) -> None:
        """Raises UserError naming the first tensor that is missing, misshapen, surplus, or not what a tie or a buffer says."""
        found, where = self.folder.tensors, self.folder.path
        if max(factory.config.layers, factory.config.encoder_layers) > len(found):
            raise UserError(f"{where} holds {len(found)} tensors, and config.json says {factory.config.layers} layers; mend config.json.")
        wanted = self._shapes(factory)
        for name, shape in wanted.items():
            if (tensor := self._tensor(name)) is None:
                raise UserError(f"{where} lacks the tensor {name}; fetch the weights again, or mend config.json.")
            if isinstance(tensor, str):
                raise UserError(f"{where}: the tensor {name} is of type {tensor}, not a float; use the model's float weights.")
            if tensor.shape != shape:
                raise UserError(f"{where}: the tensor {name} has shape {list(tensor.shape)}, config.json makes it {list(shape)}; mend one of them.")
        copies, buffers = self._copies, self.family.buffers(self._rows())
        known = {*wanted, *copies, *buffers}
        for name, tensor in found.items():
            name = next((n for n in self._variants(name) if n in known), name)
            if name in wanted or name.endswith(self.family.ignored):
                continue
            if name in copies:
                if isinstance(tensor, str):
                    raise UserError(f"{where}: the tensor {name} is of type {tensor}, not a float; use the model's float weights.")
                equal = np.array_equal(tensor, original := self._tensor(copies[name]))
                release(tensor), release(original)
                if not equal:
                    raise UserError(f"{where}: the tensor {name} differs from {copies[name]}, to which config.json ties it; mend config.json.")
            elif name in buffers:
                if np.any(tensor):
                    raise UserError(f"{where}: the tensor {name} is not zero, and rgjax has no place for it; use another model.")
            else:
                raise UserError(f"{where} has the tensor {name}, which a {self.family.name} model of this config.json lacks; mend one of them.")

    def _shapes(self, factory: ModelFactory) -> dict[str, tuple[int, ...]]:
        """The tensors that the folder must hold, with their shapes."""
        ours, shapes = {name: leaf.shape for name, leaf in trees.flat(nnx.to_pure_dict(factory.abstract))}, {}
        for rule in self.family.rules(factory.config):
            shape = ours[rule.ours]
            if "{i}" in rule.theirs:
                shapes |= dict.fromkeys((rule.theirs.format(i=i) for i in range(shape[0])), rule.shape(shape[1:]))
            else:
                shapes[rule.theirs] = (self._rows(), *shape[1:]) if _by_token(rule) else rule.shape(shape)
        return shapes

    @functools.cached_property
    def _copies(self) -> dict[str, str]:
        """The family's duplicates of tied tensors, without those that are parameters of this model."""
        wanted = {rule.theirs for rule in self.family.rules(dataclasses.replace(ModelConfig(), **self.options))}
        return {copy: original for copy, original in self.family.copies.items() if copy not in wanted}

    def _variants(self, name: str) -> tuple[str, str, str]:
        """The name, also as a base model saved alone has it, and as a model around it has."""
        prefix = self.family.prefix
        return name, name.removeprefix(prefix), prefix + name

    def _tensor(self, name: str) -> np.ndarray | str | None:
        """The tensor of this name, or the first duplicate tied to it, or its stand-in."""
        names = (name, *(copy for copy, original in self._copies.items() if original == name))
        found = next((n for each in names for n in self._variants(each) if n in self.folder.tensors), None)
        if found is None and name in self.family.stand_ins:
            return self._tensor(self.family.stand_ins[name])
        return self.folder.tensors.get(found)

    def params(self, factory: ModelFactory, mesh: jax.sharding.Mesh, seed: int = 0) -> dict:
        """The parameters as float32 arrays on `mesh`; each process reads what its devices hold. Raises UserError as `check`."""
        self.check(factory)
        rules = {rule.ours: rule for rule in self.family.rules(factory.config)}
        placed = dict(trees.flat(sharding.parameters(factory.abstract, mesh)))
        arrays = {}
        for name, leaf in trees.flat(nnx.to_pure_dict(factory.abstract)):
            read = self._reader(rules[name], leaf.shape, seed)
            arrays[name] = _place(leaf.shape, placed[name], read)
        return trees.nested(arrays.items())

    def _reader(self, rule: Rule, shape: tuple[int, ...], seed: int):
        """A function from an index of our array to its values there."""
        if "{i}" in rule.theirs:
            return lambda index: self._layers(rule, shape, index)
        tensor = self._tensor(rule.theirs)
        if _by_token(rule) and shape[0] > len(tensor):
            return lambda index: _extended(tensor, shape, index, seed)
        return lambda index: _read(rule, tensor, shape, index)

    def _layers(self, rule: Rule, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
        layers = range(*index[0].indices(shape[0]))
        spans = [len(range(*s.indices(n))) for s, n in zip(index[1:], shape[1:], strict=True)]
        out = np.empty((len(layers), *spans), np.float32)
        for k, i in enumerate(layers):
            out[k] = _read(rule, self._tensor(rule.theirs.format(i=i)), shape[1:], index[1:])
        return out


def _place(shape: tuple[int, ...], sharding: jax.sharding.Sharding, read: Callable[[tuple[slice, ...]], np.ndarray]) -> jax.Array:
    """A float32 array made part by part, so that beside it the host holds one device's part at a time; equal parts are read once."""
    wanted: dict[tuple, list] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        wanted.setdefault(tuple((s.start, s.stop) for s in index), []).append(device)
    parts = []
    for spans, devices in wanted.items():
        found = read(tuple(slice(*span) for span in spans))
        parts += jax.block_until_ready([jax.device_put(found, device) for device in devices])
    return jax.make_array_from_single_device_arrays(shape, sharding, parts, dtype=np.float32)


def _read(rule: Rule, tensor: np.ndarray, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """`rule.read`, which leaves no page of the file in this process's memory."""
    found = rule.read(tensor, shape, index)
    release(tensor)
    return found


def _by_token(rule: Rule) -> bool:
    return rule.ours in ("embedding.tokens", "embedding.output", "b_vocab")


def _extended(tensor: np.ndarray, shape: tuple[int, ...], index: tuple[slice, ...], seed: int) -> np.ndarray:
    """Rows of a table, those beyond its end drawn about the mean of the others: alike on every process."""
    span = (slice(None), *index[1:])
    old = np.asarray(tensor[span], np.float32)
    new = np.random.default_rng([seed, 1]).standard_normal((shape[0] - len(old), *shape[1:]), np.float32)[span]
    rows = np.concatenate([old, old.mean(0) + NOISE * old.std(0) * new])
    release(tensor)
    return rows[index[0]]
