"""Readers of shops: what they make of tiny files, and one clear sentence for each thing that is wrong with them."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgjax.data import shops
from rgjax.errors import UserError

TABLES = {
    "items.csv": "item,title,colour\na,Lamp,red|blue\nb,,green\nc,Desk,\n",
    "users.csv": "user,city\nu,Oslo\nv,Rome\n",
    "interactions.csv": (
        "user,item,time,event,price,quantity,basket\nu,a,100,buy,2.5,3,o1\nu,b,50,view,,,\nw,c,2024-01-02,buy,1,1,o2\nu,a,100,buy,2.5,3,o1\n"
        ",a,7,buy,2,1,o3\n,a,7,buy,2,1,o3\n"
    ),
    "triples.csv": "head,relation,tail\na,made_of,steel\nsteel,is,metal\nb,goes_with,a\n",
    "bundles.csv": 'bundle,item,intent\nx,a,\nx,b,"light\n work"\ny,a,\ny,c,\ny,c,\n',
    "user_bundles.csv": "user,bundle,time\nu,x,100\n",
}


def folder(tmp_path, **changes):
    """TABLES as files; a changed text of None leaves a table out."""
    for name, text in (TABLES | {f"{k}.csv": v for k, v in changes.items()}).items():
        if text is not None:
            (tmp_path / name).write_text(text)
    return str(tmp_path)


def test_titles_and_attributes_are_clean(tmp_path):
    items = "item,title,colour\na,5&quot; <b>Lamp</b>,red &amp;  blue\nb,,green\nc,Desk,\n"
    found = shops.read("shop", folder(tmp_path, items=items)).items
    assert found.titles == ['5" Lamp', "", "Desk"] and found.attributes == [{"colour": "red & blue"}, {"colour": "green"}, {}]


def test_own_tables_become_columns(tmp_path):
    found = shops.load("shop", folder(tmp_path))
    data = found.interactions
    assert found.dropped == {"duplicate": 1} and len(data) == 5
    assert data.users == ["u", "v", "w", ""] and data.profiles == [{"city": "Oslo"}, {"city": "Rome"}, {}, {}]
    assert data.items.titles == ["Lamp", "", "Desk"] and data.items.attributes == [{"colour": ["red", "blue"]}, {"colour": "green"}, {}]
    assert data.user.tolist() == [0, 0, 2, 3, 3] and data.item.tolist() == [1, 0, 2, 0, 0]
    assert data.time.tolist() == [50, 100, 1_704_153_600, 7, 7] and [data.events[e] for e in data.event] == ["view", "buy", "buy", "buy", "buy"]
    assert data.quantity.tolist()[1:] == [3, 1, 1, 1] and np.isnan(data.quantity[0]) and data.price[1] == 2.5
    assert data.basket[0] == -1 and data.basket[1] != data.basket[2]
    assert len(data.named()) == 3 and len(data.named().basket) == 3
    assert data.entities == ["steel", "metal"] and data.relations == ["made_of", "is", "goes_with"]
    assert data.triples.tolist() == [[0, 0, 3], [3, 1, 4], [1, 2, 0]]
    assert found.bundles.ids == ["x", "y"] and found.bundles.intents == ["light work", ""]
    assert found.bundles.members(1).tolist() == [0, 2] and found.bundles.pairs.tolist() == [[0, 0]]


def test_jsonl_and_parquet_give_the_same(tmp_path):
    first = shops.read("shop", folder(tmp_path))
    items = {"item": ["a", "b", "c"], "title": ["Lamp", None, "Desk"], "colour": ["red|blue", "green", None]}
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    (tmp_path / "items.csv").unlink()
    (tmp_path / "triples.csv").unlink()
    (tmp_path / "triples.jsonl").write_text(
        '{"head": "a", "relation": "made_of", "tail": "steel"}\n{"head": "steel", "relation": "is", "tail": "metal"}\n'
        '{"head": "b", "relation": "goes_with", "tail": "a"}\n'
    )
    assert shops.read("shop", str(tmp_path)).fingerprint() == first.fingerprint()


HEADER = "user,item,time,price,event\n"
MISTAKES = {
    "unknown item": ({"interactions": HEADER + "u,zzz,5,,\n"}, "interactions.csv, row 1: item 'zzz' is not in the table of items"),
    "future": ({"interactions": HEADER + "u,a,5,,\nu,b,2000,,\n"}, "row 2: its time 1970-01-01 00:33 lies in the future"),
    "milliseconds": ({"interactions": HEADER + "u,a,99999999999999999,,\n"}, "lies in the future; give seconds since 1970"),
    "no time": ({"interactions": HEADER + "u,a,,,\n"}, "interactions.csv, row 1 has no time"),
    "bad time": ({"interactions": HEADER + "u,a,soon,,\n"}, "row 1: time 'soon' is neither"),
    "endless time": ({"interactions": HEADER + "u,a,inf,,\n"}, "row 1: time 'inf' is neither"),
    "no number as time": ({"interactions": HEADER + "u,a,nan,,\n"}, "row 1: time 'nan' is neither"),
    "huge time": ({"interactions": HEADER + "u,a,1e300,,\n"}, "row 1: time '1e300' is neither"),
    "bad price": ({"interactions": HEADER + "u,a,5,cheap,\n"}, "row 1: price 'cheap' is not a number from 0"),
    "negative price": ({"interactions": HEADER + "u,a,5,-1,\n"}, "row 1: price '-1' is not a number from 0"),
    "infinite price": ({"interactions": HEADER + "u,a,5,inf,\n"}, "row 1: price 'inf' is not a number from 0"),
    "no item": ({"interactions": HEADER + "u,,5,,\n"}, "row 1: 'item' is empty"),
    "many kinds": ({"interactions": HEADER + "".join(f"u,a,5,,e{n}\n" for n in range(130))}, "row 128: more than 127 kinds of events"),
    "repeated": ({"interactions": HEADER + "u,a,5,,\n" * 4}, "3 of the 4 rows of"),
    "missing column": ({"interactions": "user,item\nu,a\n"}, "lacks the column 'time'"),
    "missing table": ({"interactions": None}, "holds no interactions.csv, interactions.jsonl or interactions.parquet"),
    "no event": ({"interactions": HEADER}, "interactions.csv is empty"),
    "no file content": ({"interactions": ""}, "lacks the column 'user'"),
    "no items": ({"items": "item,title\n"}, "items.csv is empty"),
    "item twice": ({"items": "item,title\na,x\na,y\n"}, "items.csv, row 2: item 'a' was there before"),
    "unknown entity": ({"triples": "head,relation,tail\naa,is,metal\n"}, "row 1: entity 'aa' is neither an item nor the tail of a triple"),
    "unlisted entity": ({"entities": "entity\nsteel\n"}, "triples.csv, row 2: entity 'metal' is in neither items nor entities.csv"),
    "no tail": ({"triples": "head,relation,tail\na,is,\n"}, "triples.csv, row 1: 'tail' is empty"),
    "bundle of one": ({"bundles": "bundle,item\nx,a\nx,a\n", "user_bundles": None}, "Bundle 'x' holds 1 different item"),
    "bundle's item": ({"bundles": "bundle,item\nx,a\nx,q\n"}, "bundles.csv, row 2: item 'q' is not in the table of items"),
    "bundle's user": ({"user_bundles": "user,bundle\nq,x\n"}, "user_bundles.csv, row 1: user 'q' is not in the table of interactions"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path, mistake):
    changes, said = MISTAKES[mistake]
    told = shops.options("1000") if "future" in said else None
    with pytest.raises(UserError) as error:
        shops.load("shop", folder(tmp_path, **changes), told)
    assert said in str(error.value) and str(error.value).endswith(".") and "\n" not in str(error.value)


def test_now_is_a_date_or_seconds():
    assert shops.options("2024-01-02").now == shops.options("1704153600").now == 1_704_153_600
    with pytest.raises(UserError, match="--now=soon is neither"):
        shops.options("soon")


def test_layouts_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="--layout=nowhere holds no interactions; use one of ml1m"):
        shops.load("nowhere", str(tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        shops.load("shop", str(tmp_path / "gone"))


RETAIL = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,85a,RED LAMP ,6,2022-12-01 08:26:00,2.5,17850.0,UK
1,85A,RED LAMP,2,2022-12-01 08:26:00,2.5,17850.0,UK
1,85A,RED LAMP,2,2022-12-01 08:26:00,2.5,17850.0,UK
1,POST,POSTAGE,1,2022-12-01 08:26:00,9,17850.0,UK
2,85A,lamp?,1,2022-12-01 09:00:00,3,,UK
2,9,,1,2022-12-01 09:00:00,3,,UK
3,9,,-5,2022-12-01 09:10:00,0,,UK
4,9,,74215,2022-12-02 09:10:00,1,5.0,UK
C5,9,,-74215,2022-12-02 09:20:00,1,5.0,UK
6,9,,74215,2022-12-02 09:30:00,1,5.0,UK
"""


def test_invoice_lines_become_sales(tmp_path):
    with gzip.open(tmp_path / "online_retail.csv.gz", "wt") as file:
        file.write(RETAIL)
    found = shops.load("online_retail", str(tmp_path))
    data = found.interactions
    assert found.dropped == {"cancelled order": 1, "no positive quantity or price": 1, "no article": 1, "duplicate": 1, "taken back": 1}
    assert data.users == ["", "17850", "5"] and data.items.ids == ["85A", "9"] and data.items.titles == ["RED LAMP", ""]
    assert [(data.users[u], data.items.ids[i], q) for u, i, q in zip(data.user, data.item, data.quantity, strict=True)] == [
        ("", "85A", 1), ("", "9", 1), ("17850", "85A", 6), ("17850", "85A", 2), ("5", "9", 74215),
    ]  # fmt: skip
    assert data.time[2] == 1_669_883_160 and data.basket.tolist() == [1, 1, 0, 0, 2]
    assert len(data.named()) == 3 and data.named().history(0).size == 0


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("InvoiceNo,", "Invoice,", "lacks the column 'InvoiceNo'"),
        (",6,2022", ",six,2022", "row 1: Quantity 'six' is no number"),
        ("2022-12-01 09:10:00", "yesterday", "row 7: InvoiceDate 'yesterday' is not like"),
        ("2022-12-01 09:10:00", "2922-12-01 09:10:00", "row 7: its time 2922-12-01 09:10 lies in the future"),
        (RETAIL.split("\n", 1)[1], "", "holds no invoice line"),
        (RETAIL, "", "is empty or no CSV"),
    ],
)
def test_a_bad_invoice_line_is_named(tmp_path, old, new, said):
    path = tmp_path / "online_retail.csv"
    path.write_text(RETAIL.replace(old, new))
    with pytest.raises(UserError) as error:
        shops.load("online_retail", str(path))
    assert said in str(error.value) and str(path) in str(error.value)


def test_the_facts_of_ml1m_follow_the_numbers_of_movielens(tmp_path):
    base, graph = tmp_path / "ml1m", tmp_path / "ml1m_kg"
    base.mkdir()
    graph.mkdir()
    (base / "ml-1m.txt").write_text("1 1\n1 2\n")
    (base / "sas_to_original_items.txt").write_text("1 1198\n2 7\n")
    (graph / "item_index2entity_id.txt").write_text("7\t0\n1198\t1\n9\t2\n")
    (graph / "kg.txt").write_text("0\tgenre\t50\n1\tgenre\t50\n2\tstar\t0\n")
    data = shops.read("ml1m", str(base))
    assert data.triples.tolist() == [[1, 0, 2], [0, 0, 2], [3, 1, 1]]
    assert data.entities == ["entity 50", "entity 2"] and data.relations == ["genre", "star"]
    (graph / "kg.txt").write_text("0\tgenre\n")
    with pytest.raises(UserError, match="kg.txt, line 1 is not 'entity relation entity'"):
        shops.read("ml1m", str(base))
    (graph / "kg.txt").write_text("0\tgenre\t50\n")
    (base / "sas_to_original_items.txt").unlink()
    with pytest.raises(UserError, match="no sas_to_original_items.txt"):
        shops.read("ml1m", str(base))
