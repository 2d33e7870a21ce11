"""What every launcher shares: flags made from config dataclasses, errors as one sentence, results as one JSON line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Collection, Iterator

from absl import app, flags, logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from rgjax import config as config_lib
from rgjax.errors import UserError

FLAGS = flags.FLAGS
_DEFINE = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}


def define(*classes, skip: Collection[str] = ()) -> None:
    """Defines one flag per field of each config dataclass but those to `skip`; type, default, choices and help come from the field."""
    for cls in classes:
        for f in (f for f in dataclasses.fields(cls) if f.name not in skip):
            kind, meta = type(f.default), f.metadata
            if meta["choices"]:
                flags.DEFINE_enum(f.name, f.default, [str(c) for c in meta["choices"]], meta["help"], module_name=_group(cls))
            else:
                _DEFINE[kind](f.name, f.default, meta["help"], module_name=_group(cls))


def _group(cls) -> str:
    return (cls.__doc__ or cls.__name__).strip().splitlines()[0]


def read(cls):
    """The config dataclass `cls` filled from the parsed flags and checked; raises UserError on a value out of range."""
    config = cls(**{f.name: getattr(FLAGS, f.name) for f in dataclasses.fields(cls)})
    config_lib.check(config)
    return config


def given(cls) -> set[str]:
    """Names of the fields of `cls` that the command line or a flagfile set explicitly."""
    return {f.name for f in dataclasses.fields(cls) if FLAGS[f.name].present}


def require(**values: str) -> None:
    """Raises UserError for the first flag that was left empty."""
    for name, value in values.items():
        if not value:
            raise UserError(f"--{name} is missing; give it on the command line or in the flagfile.")


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `show(done, total)`: a bar on a terminal, a line every ten seconds elsewhere, both on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(what)
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Lines:
    """`show(done, total)` as lines on stderr, one in ten seconds at most; nothing redraws itself between calls."""

    def __init__(self, what: str):
        self.what, self.first, self.shown = what, None, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        began, before = self.first = self.first or (now, done)  # what an earlier run wrote took this one no time
        if done == total or now - self.shown > 10:
            self.shown = now
            left = f", {(now - began) / (done - before) * (total - done):.0f} s left" if done > before else ""
            print(f"{self.what} {done:,} of {total:,}{left}", file=sys.stderr, flush=True)


def run(main: Callable[[], dict | None], doc: str, positional: str = "") -> None:
    """Runs `main` under absl: prints its result as the last line; a UserError becomes one sentence and exit code 2.

    `positional` names the flag whose value may stand alone, without --name=, or its values, if it takes several; other launchers
    refuse such an argument.
    """
    if positional:
        FLAGS.set_gnu_getopt(True)  # flags may follow the argument

    def wrapped(argv):
        if positional and len(argv) > 1 and not FLAGS[positional].present:
            several = isinstance(FLAGS[positional], flags.MultiFlag)
            alone, argv = (argv[1:], argv[:1]) if several else (argv[1], [argv[0], *argv[2:]])
            FLAGS[positional].parse(alone)
        if len(argv) > 1:
            return _fail(f"Unexpected argument '{argv[1]}'; every option is a flag, --name=value.")
        try:
            result = main()
        except UserError as error:
            return _fail(str(error))
        except KeyboardInterrupt:
            return _fail("Interrupted; run the same command again to go on.", code=130)
        except OSError as error:
            return _fail(_os_sentence(error))
        except Exception as error:
            if "No space left" in str(error) or "RESOURCE_EXHAUSTED: Disk" in str(error):  # how writers in other languages say it
                return _fail("No space left on the device while writing; free some and run the same command again.")
            cluster = sys.modules.get("rgjax.parallel.cluster")  # without it this process is alone
            if lost := cluster and cluster.parted(error):
                return _fail(lost, code=1)
            _leave(1, error)
            raise
        if result is not None:
            print(json.dumps(result, ensure_ascii=False, allow_nan=False), flush=True)
        return 0

    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().addFilter(_told_elsewhere)
    sys.modules["__main__"].__doc__ = doc
    app.run(wrapped, flags_parser=_parse)


def _told_elsewhere(record) -> bool:
    """Leaves out what Orbax's saving threads log before they hand it on: the same error is raised here, and told in one sentence."""
    return "orbax" not in record.pathname or record.levelname not in ("ERROR", "CRITICAL")


def _os_sentence(error: OSError) -> str:
    if isinstance(error, BrokenPipeError):
        return "Whatever read the output stopped before its end; write it to a file."
    if error.errno in (28, 122):  # no space, quota
        return f"No space left on the device while writing {error.filename or 'output'}; free some and run the same command again."
    return f"{error.filename or 'A file'} can't be used ({error.strerror or error}); check the path and its permissions."


def _parse(argv):
    try:
        if any(a in ("--help", "-h", "-help") for a in argv[1:]):
            argv = [argv[0]] + [a for a in argv[1:] if a not in ("--help", "-h", "-help")]
            with contextlib.suppress(BrokenPipeError):  # whoever reads may have seen enough
                print(_usage(argv[0]), flush=True)
            sys.exit(0)
        return FLAGS(argv)
    except flags.Error as error:
        print(f"error: {error}".replace("\n", " "), file=sys.stderr)
        sys.exit(2)


_LIBRARIES = ("absl", "etils", "grain", "jax", "tensor")  # whose own flags are not told


def _usage(program: str) -> str:
    """Help text: the module's docstring, then the flags by group with their defaults."""
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), ""]
    for group, members in sorted(FLAGS.flags_by_module_dict().items()):
        if not (group == program or group.startswith("profiling.")) and (group.startswith(_LIBRARIES) or "." in group.removesuffix(".")):
            continue
        lines += ["Of this program." if group == program else group]
        for f in members:
            choice = f" [{'|'.join(f.parser.enum_values)}]" if hasattr(f.parser, "enum_values") else ""
            lines += _wrap(f"  --{f.name}={f.default!r}{choice}", f.help)
        lines.append("")
    return "\n".join(lines + ["Flags may be kept in a file: --flagfile=configs/NAME.cfg; later flags override earlier ones."])


def _wrap(head: str, text: str) -> list[str]:
    return [head] + textwrap.wrap(text, 110, initial_indent="      ", subsequent_indent="      ")


def _fail(message: str, code: int = 2) -> int:
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)  # names from files may hold a terminal's commands
    print(f"error: {shown}", file=sys.stderr, flush=True)
    _leave(code)
    return code


def check_apart(output: str, *sources: str) -> None:
    """Raises UserError when writing the folder `output` would replace one of the folders that are read ('' is none)."""
    for source in filter(None, sources):
        if pathlib.Path(source).resolve().is_relative_to(pathlib.Path(output).resolve()):
            raise UserError(f"--output={output} is or holds {source}, which is read; give another folder.")


def _leave(code: int, error: Exception | None = None) -> None:
    """Ends a process that has joined others at once; `error` is shown as Python would. Without jax there are no others."""
    cluster = sys.modules.get("rgjax.parallel.cluster")
    if cluster and cluster.several():
        if error:
            traceback.print_exception(error)
        cluster.leave(code)
