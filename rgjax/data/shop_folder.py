"""The dataset folder of a shop: Parquet tables and dataset.json, which lists them with their checksums.

interactions, items and users always; entities, triples, bundles and user_bundles where the shop has them. Attributes and profiles are
JSON text, so that any attribute of any item keeps its type. The same data gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rgjax.data import bundles as bundles_lib
from rgjax.data import shops
from rgjax.data.bundles import Bundles
from rgjax.data.dataset import FORMAT, check_size, read_manifest
from rgjax.data.interactions import Catalogue, Interactions
from rgjax.data.shards import file_sha256
from rgjax.data.staging import write_json
from rgjax.errors import UserError

KIND = "shop"
_COLUMNS = ("user", "item", "time", "event", "rating", "price", "quantity")
_NEEDED = ("interactions", "items", "users")


@dataclasses.dataclass(frozen=True, eq=False)
class Shop:
    """An opened folder: its data, sha256 of dataset.json (which covers every file), and dataset.json itself."""

    interactions: Interactions
    fingerprint: str
    manifest: dict
    bundles: Bundles | None = None

    @property
    def synthetic(self) -> bool:
        """Whether it was made by a program."""
        return self.manifest.get("synthetic", False)


def write(data: Interactions, folder: pathlib.Path, facts: dict, bundles: Bundles | None = None) -> dict:
    """Writes the tables and dataset.json into an existing empty folder; returns the latter's content, of which `facts` become a part."""
    listed = [_write(folder, name, table) for name, table in _tables(data, bundles).items()]
    manifest = {
        "format": FORMAT,
        "kind": KIND,
        **facts,
        "counts": {
            "users": len(data.users), "items": len(data.items), "interactions": len(data), "triples": len(data.triples),
            "bundles": len(bundles) if bundles else 0,
        },
        "events": list(data.events),
        "relations": list(data.relations),
        "files": listed,
    }  # fmt: skip
    write_json(folder / "dataset.json", manifest)
    return manifest


def _write(folder: pathlib.Path, name: str, table: pa.Table) -> dict:
    path = folder / f"{name}.parquet"
    pq.write_table(table, path, compression="zstd")
    return {"file": path.name, "rows": table.num_rows, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _tables(data: Interactions, bundles: Bundles | None) -> dict[str, pa.Table]:
    events = {name: getattr(data, name) for name in _COLUMNS} | ({"basket": data.basket} if len(data.basket) else {})
    profiles = list(data.profiles) or [{} for _ in data.users]
    items = {"id": list(data.items.ids), "title": list(data.items.titles), "attributes": _json(data.items.attributes)}
    found = {
        "interactions": pa.table(events),
        "items": pa.table(items, schema=_texts(items)),
        "users": pa.table({"id": list(data.users), "profile": _json(profiles)}, schema=_texts(("id", "profile"))),
    }
    if len(data.triples):
        found["entities"] = pa.table({"entity": list(data.entities)}, schema=_texts(["entity"]))
        found["triples"] = pa.table(dict(zip(("head", "relation", "tail"), data.triples.T, strict=True)))
    if bundles:
        members = pa.ListArray.from_arrays(pa.array(bundles.items.indptr, pa.int32()), pa.array(bundles.items.indices, pa.int32()))
        found["bundles"] = pa.table({"id": list(bundles.ids), "intent": list(bundles.intents), "items": members})
        found["user_bundles"] = pa.table({"user": bundles.pairs[:, 0], "bundle": bundles.pairs[:, 1], "time": bundles.time})
    return found


def _texts(names) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])


def _json(dicts) -> list[str]:
    return [json.dumps(d, ensure_ascii=False) for d in dicts]


def open_any(dataset: str, layout: str, source: str) -> Shop:
    """A shop's dataset folder, or raw data in a layout; raises UserError unless just one of the two is named."""
    if bool(dataset) == bool(source):
        raise UserError("Give either --dataset (a shop's folder, written by launch.prepare) or --source with its --layout.")
    if dataset:
        return open_shop(dataset)
    if not layout:
        raise UserError(f"--source={source} needs --layout, which says how it is laid out; use one of {', '.join(shops.LAYOUTS)}.")
    found = shops.load(layout, source)
    return Shop(found.interactions, found.interactions.fingerprint(), {"name": layout}, found.bundles)


def open_shop(folder: str | pathlib.Path) -> Shop:
    """Reads a folder that `write` made and compares every checksum; raises UserError naming the file that is missing or damaged."""
    folder = pathlib.Path(folder)
    raw, manifest = read_manifest(folder)
    if manifest.get("kind") != KIND:
        raise UserError(f"{folder} holds examples of reasons, not a shop's interactions; prepare one with --layout=shop or a public shop.")
    try:
        for entry in manifest["files"]:
            check_size(folder / entry["file"], entry["bytes"])
            if file_sha256(folder / entry["file"]) != entry["sha256"]:
                raise UserError(f"{folder / entry['file']} is damaged (its checksum differs); copy it again or prepare the dataset again.")
        tables = {pathlib.Path(entry["file"]).stem: pq.read_table(folder / entry["file"]) for entry in manifest["files"]}
        missing = [name for name in _NEEDED if name not in tables]
        if missing:
            raise UserError(f"{folder / 'dataset.json'} lists no {missing[0]}.parquet; prepare the dataset again.")
        data = _interactions(tables, manifest)
        return Shop(data, hashlib.sha256(raw).hexdigest(), manifest, _bundles(tables, len(data.items)))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{folder / 'dataset.json'} is damaged or does not fit its tables; prepare the dataset again.") from None


def _interactions(tables: dict[str, pa.Table], manifest: dict) -> Interactions:
    events, items, users = (tables[name] for name in _NEEDED)
    text = lambda table, name: table[name].to_pylist()
    catalogue = Catalogue(text(items, "id"), text(items, "title"), [json.loads(a) for a in text(items, "attributes")])
    columns = {name: events[name].to_numpy() for name in (*_COLUMNS, *(["basket"] if "basket" in events.column_names else []))}
    graph = {}
    if "triples" in tables:
        triples = np.stack([tables["triples"][name].to_numpy() for name in ("head", "relation", "tail")], 1)
        graph = {"triples": triples, "entities": text(tables["entities"], "entity"), "relations": list(manifest["relations"])}
    profiles = [json.loads(p) for p in text(users, "profile")]
    return Interactions(text(users, "id"), catalogue, **columns, events=tuple(manifest["events"]), profiles=profiles, **graph)


def _bundles(tables: dict[str, pa.Table], items: int) -> Bundles | None:
    if "bundles" not in tables:
        return None
    table, owners = tables["bundles"], tables["user_bundles"]
    members = table["items"].combine_chunks()
    sizes = np.diff(members.offsets.to_numpy())
    pairs = np.stack([owners["user"].to_numpy(), owners["bundle"].to_numpy()], 1)
    rows = np.repeat(np.arange(len(sizes)), sizes), members.values.to_numpy()
    return bundles_lib.build(table["id"].to_pylist(), *rows, items, table["intent"].to_pylist(), pairs, owners["time"].to_numpy())
