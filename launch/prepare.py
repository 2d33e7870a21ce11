"""Raw data -> a dataset folder: shards, tokenizer, dataset.json with checksums, splits and a validation report.

    python -m launch.prepare --flagfile=configs/data/demo.cfg --output=/tmp/demo
    python -m launch.prepare --layout=examples --source=my.jsonl --output=/tmp/mine --controls='style=short|long'
    python -m launch.prepare --layout=shop --source=FOLDER --output=/tmp/shop

Layouts (--layout): 'examples' reads JSON lines of whole examples; 'tables' reads a folder of items, users, interactions and reasons as
.csv, .jsonl or .parquet (columns: rgjax/data/readers/tables.py); 'demo' makes a synthetic shop; the others read public data sets.
Layouts of shops give interactions for recommenders instead, as Parquet tables: 'shop' reads a folder of own tables (columns:
rgjax/data/shops/tables.py), 'demo_shop' makes one; 'ml1m', 'online_retail' and 'bundle_intent' are public.
The split of examples is decided by hash of the user, item or title, never by row. The same source and flags give the same bytes.
"""

from launch import app
from rgjax.config import PrepareConfig


def main() -> dict:
    """Reads the flags, prepares, and returns the summary that is printed last."""
    config = app.read(PrepareConfig)
    app.require(output=config.output)
    if config.layout not in ("demo", "demo_shop"):
        app.require(source=config.source)
    from rgjax.data.prepare import prepare

    return prepare(config)


if __name__ == "__main__":
    app.define(PrepareConfig)
    app.run(main, __doc__)
