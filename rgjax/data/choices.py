"""Which input options go together."""

from __future__ import annotations

import dataclasses

from rgjax.config import InputConfig
from rgjax.errors import UserError


def settled(config: InputConfig, explicit: set[str]) -> InputConfig:
    """`config` with what its own choices decide; raises UserError for an `explicit` flag, of all that are given, that would do nothing."""
    if "replay_share" in explicit and not config.replay:
        raise UserError(f"--replay_share={config.replay_share:g} is given and --replay names no dataset; add --replay, or leave it out.")
    for name in sorted(explicit & {"distill_weight", "distill_temperature"}):
        if not config.distill:
            raise UserError(f"--{name} is given and --distill names no teacher; add --distill, or leave it out.")
    if config.distill and config.replay:
        raise UserError("--distill and --replay are both given, and the teacher read --dataset alone; leave one out.")
    if config.distill and config.control_dropout:
        raise UserError(f"--control_dropout={config.control_dropout:g} changes the prompts that the teacher of --distill read; leave one out.")
    if config.prompt != "chat":
        if "instruction" in explicit:
            raise UserError("--instruction is given and --prompt=markers asks for nothing in words; add --prompt=chat, or leave it out.")
        return config
    if "copy_slots" in explicit and config.copy_slots != "none":
        raise UserError(f"--copy_slots={config.copy_slots} needs --prompt=markers: a chat message has no slots; leave it out, or say none.")
    return dataclasses.replace(config, copy_slots="none")
