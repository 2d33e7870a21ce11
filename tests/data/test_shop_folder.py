"""A shop's dataset folder: it gives back what was written, the same bytes each time, and names what is damaged."""

import collections
import json

import numpy as np
import pytest

from rgjax.config import PrepareConfig
from rgjax.data import shop_folder
from rgjax.data.dataset import Dataset
from rgjax.data.interactions import last_out
from rgjax.data.prepare import prepare
from rgjax.data.shops.common import Options, distinct
from rgjax.errors import UserError


def make(output, **changes):
    return prepare(PrepareConfig(layout="demo_shop", output=str(output), demo_users=60, demo_items=40, **changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("shops") / "demo"
    make(output)
    return output


def test_it_gives_back_what_was_written(folder, tmp_path):
    shop = shop_folder.open_shop(folder)
    data, bundles = shop.interactions, shop.bundles
    assert shop.manifest["kind"] == "shop" and shop.manifest["synthetic"] and shop.manifest["counts"]["interactions"] == len(data)
    shop_folder.write(data, tmp_path, {}, bundles)
    again = shop_folder.open_shop(tmp_path)
    assert again.interactions.fingerprint() == data.fingerprint() and again.bundles.fingerprint() == bundles.fingerprint()
    for name in ("users", "events", "profiles", "entities", "relations"):
        assert list(getattr(again.interactions, name)) == list(getattr(data, name))
    assert again.interactions.items.attributes == data.items.attributes and again.interactions.user.dtype == np.int32
    assert again.interactions.event.dtype == np.int8 and again.interactions.time.dtype == np.int64 and again.interactions.price.dtype == np.float32


def test_own_tables_survive_with_empty_parts(tmp_path):
    (tmp_path / "items.csv").write_text("item,title\na,\nb,x\n")
    (tmp_path / "interactions.csv").write_text("user,item,time\nu,a,5\nu,a,5\nu,b,6\n")
    result = prepare(PrepareConfig(layout="shop", source=str(tmp_path), output=str(tmp_path / "out")))
    shop = shop_folder.open_shop(tmp_path / "out")
    assert result["dropped"] == shop.manifest["dropped"] == {"duplicate": 1} and shop.manifest["untitled_items"] == 1
    assert shop.bundles is None and shop.interactions.triples.shape == (0, 3) and len(shop.interactions.basket) == 0
    assert shop.interactions.history(0).tolist() == [0, 1] and np.isnan(shop.interactions.price).all()


def test_flags_of_time_and_duplicates_reach_the_reader(tmp_path):
    (tmp_path / "items.csv").write_text("item\na\n")
    (tmp_path / "interactions.csv").write_text("user,item,time\nu,a,5\nu,a,5\nu,a,6\n")
    config = {"layout": "shop", "source": str(tmp_path), "output": str(tmp_path / "out")}
    with pytest.raises(UserError, match="row 3: its time 1970-01-01 00:00 lies in the future"):
        prepare(PrepareConfig(**config, now="5"))
    with pytest.raises(UserError, match="1 of the 3 rows .* more than --max_duplicate_share=0.1"):
        prepare(PrepareConfig(**config, max_duplicate_share=0.1))
    assert not (tmp_path / "out").exists()


def test_the_same_data_gives_the_same_bytes(folder, tmp_path):
    make(tmp_path / "b")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    make(tmp_path / "c", seed=1)
    assert shop_folder.open_shop(tmp_path / "c").fingerprint != shop_folder.open_shop(folder).fingerprint


@pytest.mark.parametrize("name", ["items.parquet", "interactions.parquet", "bundles.parquet"])
def test_a_damaged_or_missing_file_is_named(folder, tmp_path, name):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        shop_folder.open_shop(tmp_path)
    path.write_bytes(raw[:-1])
    with pytest.raises(UserError, match=f"{name} has .* bytes instead of"):
        shop_folder.open_shop(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        shop_folder.open_shop(tmp_path)


def test_a_damaged_manifest_is_named(folder, tmp_path):
    with pytest.raises(UserError, match="is not a dataset folder"):
        shop_folder.open_shop(tmp_path)
    manifest = json.loads((folder / "dataset.json").read_text())
    for text, said in (
        ("{", "is damaged"),
        ("[]", "is not of format 1"),
        (json.dumps(manifest | {"files": 3}), "is damaged or does not fit"),
        (json.dumps(manifest | {"files": []}), "lists no interactions.parquet"),
    ):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(UserError, match=said):
            shop_folder.open_shop(tmp_path)


def test_each_kind_of_folder_says_what_it_is(folder, dataset_folder):
    with pytest.raises(UserError, match="holds a shop's interactions, not examples of reasons"):
        Dataset.open(folder)
    with pytest.raises(UserError, match="holds examples of reasons, not a shop's interactions"):
        shop_folder.open_shop(dataset_folder)


def test_in_the_synthetic_shop_order_beats_popularity(tmp_path):
    prepare(PrepareConfig(layout="demo_shop", output=str(tmp_path / "d"), demo_users=300, demo_items=120))
    shop, truth = shop_folder.open_shop(tmp_path / "d"), json.loads((tmp_path / "d" / "truth.json").read_text())
    data = shop.interactions
    train, held = last_out(data)
    cold = {data.items.index[name] for name in truth["cold"]["items"]}
    assert len(cold) == 12 and not cold & set(data.item.tolist())
    assert all(len(set(data.basket[data.user == data.users.index(u)])) == 1 for u in truth["cold"]["users"])
    follows = collections.defaultdict(collections.Counter)
    for user in range(len(data.users)):
        history = train.history(user).tolist()
        for before, after in zip(history, history[1:], strict=False):
            follows[before][after] += 1
    top = set(np.argsort(-train.counts, kind="stable")[:10].tolist())
    hits = {"popular": 0, "markov": 0}
    for user in np.flatnonzero(held >= 0):
        hits["popular"] += held[user] in top
        hits["markov"] += held[user] in [i for i, _ in follows[train.history(user)[-1]].most_common(10)]
    assert hits["markov"] > 2 * hits["popular"] > 0
    prices = data.price[data.item == data.item[0]]
    assert np.unique(prices).size == 2 and prices.min() == pytest.approx(0.8 * prices.max())
    assert len(data.triples) == 3 * 120 and shop.bundles.items.shape == (108, 120)


def test_distinct_keeps_the_first_of_equal_rows(tmp_path):
    kept = distinct([np.array([1, 2, 1, 1]), np.array(["a", "a", "a", "b"])], tmp_path, Options(0, 0.25))
    assert kept.tolist() == [True, True, False, True]
