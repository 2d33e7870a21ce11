"""Layout 'online_retail': every line of a shop's invoices, as one .csv or .csv.gz file.

Columns InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID (any other is ignored). An item is a StockCode in
capital letters, titled with its most frequent description; an order is an InvoiceNo; InvoiceDate is taken as UTC. Lines without a customer
(a quarter of them) belong to user '', who stands for everybody unknown: they are demand, but no history (`Interactions.named`).

Dropped and counted, in this order: cancelled orders (InvoiceNo begins with C); lines without a positive quantity or price (corrections of
the stock, gifts); codes of postage, fees, discounts and manual entries; lines equal to an earlier one in every column; and sales of which
a later cancelled order of the same customer takes back the whole line (the largest two of the public file, 80,995 and 74,215 pieces, were
taken back within minutes; the first alone is 6 % of the pieces of the last eight weeks).
"""

from __future__ import annotations

import collections
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rgjax.data.interactions import Catalogue, build
from rgjax.data.shops.common import Found, Options, distinct, refuse_future
from rgjax.errors import UserError, first_line

_TEXTS = ("InvoiceNo", "StockCode", "Description", "CustomerID", "InvoiceDate")
_NUMBERS = ("Quantity", "UnitPrice")
_SERVICES = ("POST", "DOT", "M", "C2", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS")


def load(path: pathlib.Path, told: Options) -> Found:
    """Raises UserError naming the file, the column or the row that is missing or malformed."""
    if path.is_dir():
        names = [path / f"online_retail.csv{end}" for end in (".gz", "")]
        path = next((name for name in names if name.is_file()), names[0])
    table = _table(path)
    text = {name: np.array(table[name].fill_null("").to_pylist(), object) for name in _TEXTS}
    text["StockCode"] = np.array([code.upper() for code in text["StockCode"]], object)
    number = {name: _numbers(table[name], name, path) for name in _NUMBERS}
    time = _times(table["InvoiceDate"], path)
    refuse_future(time, f"{path}, row {{row}}", told)
    kept, dropped = _clean(text, number, time, path, told)
    text = {name: values[kept] for name, values in text.items()}
    if not kept.any():
        raise UserError(f"{path} holds no sale with a positive quantity and price; check --layout and the file.")
    users, user = np.unique(np.array([c.removesuffix(".0") for c in text["CustomerID"]]), return_inverse=True)
    items, item = np.unique(text["StockCode"].astype(str), return_inverse=True)
    _, basket = np.unique(text["InvoiceNo"].astype(str), return_inverse=True)
    titles = _titles(item, text["Description"], len(items))
    catalogue = Catalogue(items.tolist(), titles, [{} for _ in titles])
    data = build(
        users.tolist(), catalogue, user, item, time[kept], events=("purchase",), basket=basket,
        quantity=number["Quantity"][kept], price=number["UnitPrice"][kept], profiles=[{} for _ in users],
    )  # fmt: skip
    return Found(data, None, dropped)


def _table(path: pathlib.Path) -> pa.Table:
    types = {name: pa.string() for name in (*_TEXTS, *_NUMBERS)}
    convert = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    try:
        table = pyarrow.csv.read_csv(path, convert_options=convert)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the layout online_retail needs its invoice lines.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is empty or no CSV of invoice lines ({first_line(error)}); copy it again or mend it.") from None
    missing = [name for name in types if name not in table.column_names]
    if missing:
        raise UserError(f"{path} lacks the column '{missing[0]}'; it has {', '.join(table.column_names)}: rename or add it.")
    if not table.num_rows:
        raise UserError(f"{path} holds no invoice line; copy it again.")
    return table


def _numbers(column: pa.ChunkedArray, name: str, path: pathlib.Path) -> np.ndarray:
    try:
        return pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        row, value = next((i, v) for i, v in enumerate(column.to_pylist(), 1) if v is not None and not _is_number(v))
        raise UserError(f"{path}, row {row}: {name} '{value}' is no number; mend it.") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _times(column: pa.ChunkedArray, path: pathlib.Path) -> np.ndarray:
    """int64 [E], seconds."""
    found = pc.strptime(column, format="%Y-%m-%d %H:%M:%S", unit="s", error_is_null=True)
    if found.null_count:
        row = int(np.argmax(found.is_null().to_numpy()))
        raise UserError(f"{path}, row {row + 1}: InvoiceDate '{column[row]}' is not like 2023-12-09 12:50:00; mend it.")
    return pc.cast(found, pa.int64()).to_numpy()


def _clean(text: dict, number: dict, time: np.ndarray, path: pathlib.Path, told: Options) -> tuple[np.ndarray, dict[str, int]]:
    """(bool [E]: the lines kept, how many were dropped by cause)."""
    cancelling = np.array([name.startswith("C") for name in text["InvoiceNo"]])
    kept, dropped = np.ones(len(time), bool), {}

    def drop(cause: str, unwanted: np.ndarray) -> None:
        dropped[cause] = int((kept & unwanted).sum())
        kept[unwanted] = False

    drop("cancelled order", cancelling)
    drop("no positive quantity or price", ~((number["Quantity"] > 0) & (number["UnitPrice"] > 0)))
    drop("no article", np.array([code in _SERVICES or code.startswith("GIFT_") for code in text["StockCode"]]))
    columns = [text[name].astype(str) for name in _TEXTS] + [number[name] for name in _NUMBERS]
    places = np.flatnonzero(kept)
    again = np.zeros(len(time), bool)
    again[places[~distinct([c[places] for c in columns], path, told)]] = True
    drop("duplicate", again)
    drop("taken back", _taken_back(text, number["Quantity"], time, cancelling, kept))
    return kept, dropped


def _taken_back(text: dict, quantity: np.ndarray, time: np.ndarray, cancelling: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """bool [E]: the sales of which a later cancelled order takes back all; each takes back one sale, the latest before it."""
    found, open_sales = np.zeros(len(time), bool), collections.defaultdict(list)
    for i in np.argsort(time, kind="stable"):
        customer = text["CustomerID"][i]
        if kept[i] and customer:
            open_sales[customer, text["StockCode"][i], quantity[i]].append(i)
        elif cancelling[i] and (sales := open_sales.get((customer, text["StockCode"][i], -quantity[i]))):
            found[sales.pop()] = True
    return found


def _titles(item: np.ndarray, descriptions: np.ndarray, count: int) -> list[str]:
    """The most frequent description of each item, the first in the alphabet where they tie; '' where there is none."""
    seen: list[collections.Counter] = [collections.Counter() for _ in range(count)]
    for number, text in zip(item.tolist(), descriptions, strict=True):
        if text := " ".join(text.split()):
            seen[number][text] += 1
    return [min(c, key=lambda text: (-c[text], text)) if c else "" for c in seen]
