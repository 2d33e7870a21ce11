"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterator

from rgjax.errors import UserError


@contextlib.contextmanager
def staging(output: pathlib.Path, overwrite: bool, manifest: str = "dataset.json") -> Iterator[pathlib.Path]:
    """A folder beside `output` that takes its name when the block succeeds and vanishes when it fails.

    Raises UserError when `output` exists and is not to be replaced, or is another kind of folder (it has no `manifest`).
    """
    if output.exists() or output.is_symlink():
        if not overwrite:
            raise UserError(f"--output={output} exists already; give another folder or add --overwrite.")
        if not (output / manifest).is_file():
            kind = "a dataset folder" if manifest == "dataset.json" else f"a folder with {manifest}"
            raise UserError(f"--output={output} is not {kind}, so --overwrite leaves it alone; give another folder.")
    folder = output.absolute().parent / f".{output.name}.partial"
    try:
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        folder.mkdir(parents=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"--output={output} cannot be written ({error.strerror}); give a folder you may write to.") from None
    try:
        yield folder
        old = folder.with_name(f".{output.name}.old")
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
            output.rename(old)
        folder.rename(output.absolute())
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def tempfolder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder that exists within the block only."""
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: pathlib.Path, value: dict) -> None:
    """Readable JSON, the same bytes for the same value."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
