"""Turns texts into vectors with a BERT encoder, as sentence-transformers would, and writes them as a Parquet file.

    python -m launch.embed --init_from=FOLDER --input=TEXTS.jsonl --output=VECTORS.parquet
    python -m launch.embed --dataset=DATASET --width=64 --output=VECTORS.parquet    (items, by who had to do with them)

Each input line is {"id": ..., "text": ...}; the output has the columns id (string) and vector (list of float32), in input order.
"""

from __future__ import annotations

from launch import app
from rgjax.config import EmbedConfig
from rgjax.errors import UserError


def main() -> dict:
    """Reads the flags, writes the vectors, and returns the summary that is printed last."""
    config = app.read(EmbedConfig)
    if config.dataset:
        if config.init_from or config.input:
            raise UserError("--dataset makes vectors of items from behaviour, and --init_from and --input of texts; give one or the other.")
        app.require(output=config.output)
        from rgjax.tasks import embed

        return embed.embed_items(config.dataset, config.width, config.output, config.overwrite)
    app.require(init_from=config.init_from, input=config.input, output=config.output)

    from rgjax.tasks import embed

    embedder = embed.Embedder.open(config.init_from, config.pooling)
    with app.progress("embedding") as show:
        return embed.embed_file(embedder, config.input, config.output, config.embed_batch, config.overwrite, show)


if __name__ == "__main__":
    app.define(EmbedConfig)
    app.run(main, __doc__)
