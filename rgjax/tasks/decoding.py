"""How a run is asked to write: its own options of decoding, overridden by flags, and the control codes that are asked for."""

from __future__ import annotations

import dataclasses

from rgjax.config import DecodeConfig, planned, to_json
from rgjax.data import length_bands
from rgjax.data.derived import WordCodes
from rgjax.data.length_bands import LengthBands
from rgjax.errors import UserError
from rgjax.tasks.run import reads_bare


def parse_control(text: str, declared: dict[str, list[str]]) -> dict[str, str]:
    """'style=concise,topic=price' as a dict; raises UserError naming the allowed names or values."""
    control = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, mark, value = part.partition("=")
        if not mark or name not in declared:
            listed = ", ".join(declared) or "none are declared"
            raise UserError(f"--control={text} names '{name}', which is no control code of this run; its codes: {listed}.")
        if value not in declared[name]:
            raise UserError(f"--control={text}: '{value}' is no value of {name}; use one of {', '.join(declared[name])}.")
        if name in control:
            raise UserError(f"--control={text} asks for {name} twice; give one value.")
        control[name] = value
    return control


def check_lengths(run: dict, decode: DecodeConfig, control: dict[str, str]) -> None:
    """Raises UserError where the `length` asked for has a band that no text of the lengths asked for falls into."""
    bands = LengthBands.parse(run["length_bands"]) if run.get("length_bands") else None
    if not bands or length_bands.NAME not in control or bands.unit != decode.length_unit:
        return
    (low, high), value = bands.sizes(control[length_bands.NAME]), control[length_bands.NAME]
    least, most = planned(decode).min_length, planned(decode).max_length
    if (high is not None and least > high) or (most and most < low):
        flags = "--plan_length" if decode.plan_length else "--min_length and --max_length"
        raise UserError(f"--control asks for length={value}, in {bands.unit}, and {flags} for another length; change one.")


def configured(run: dict, given: DecodeConfig, explicit: set[str]) -> DecodeConfig:
    """The run's own decoding options, overridden by those given explicitly.

    Raises UserError for guidance by control codes it never read, words of codes it has not, and the tolerance of a length that is not planned.
    """
    chosen = {name: getattr(given, name) for name in explicit}
    if chosen.get("plan_length"):  # goes before the lengths of the run
        chosen = {"min_length": 0, "max_length": 0} | chosen
    if "plan_tolerance" in explicit and not dataclasses.replace(run["decode"], **chosen).plan_length:
        raise UserError(f"--plan_tolerance={given.plan_tolerance} is for a planned length; give --plan_length too, or leave it out.")
    guided = chosen.get("guidance", 1.0) != 1.0
    if guided and not run["controls"]:
        raise UserError(f"--guidance={given.guidance:g} weighs control codes, and this run was trained without any; leave it out.")
    if guided and not reads_bare(run):
        raise UserError(
            f"--guidance={given.guidance:g} needs a model that also read prompts without control codes; train it with --control_dropout=0.1."
        )
    found = dataclasses.replace(run["decode"], **chosen)
    check_code_words(found, run["controls"])
    if (odd := {"code_pull", "code_mentions"} & explicit) and not found.code_words:
        raise UserError(f"--{min(odd)} is for --code_words; give these too, or leave it out.")
    return found


def check_code_words(decode: DecodeConfig, declared: dict[str, list[str]]) -> None:
    """Raises UserError where the lists of --code_words can't be read, or have words for what the run does not declare."""
    lists = WordCodes.open(decode.code_words, declared, "code_words").lists if decode.code_words else {}
    if odd := next((name for name in lists if name not in declared), None):
        listed = ", ".join(declared) or "none are declared"
        raise UserError(f"--code_words={decode.code_words} has words for '{odd}', which is no control code of this run; its codes: {listed}.")


def facts(decode: DecodeConfig) -> dict:
    """Decoding options by which outputs are told apart, word lists by what they say."""
    lists = {"code_words": WordCodes.open(decode.code_words, {}, "code_words").lists} if decode.code_words else {}
    return to_json(decode) | lists
