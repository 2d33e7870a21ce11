"""A tokenizer's own chat template: Jinja text out of a model folder, rendered in a sandbox and in the way transformers renders it.

The text is not ours and is never trusted: it can call nothing but what is given to it here, reach no attribute that leads out of
the sandbox, and change none of its inputs.
"""

from __future__ import annotations

import datetime
import json

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from rgjax.errors import UserError


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}, by which some templates mark what the assistant says, renders what it encloses."""

    tags = {"generation"}

    def parse(self, parser) -> nodes.Scope:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class _Names(Namespace):
    """Jinja's namespace without names that begin with an underscore, which lead into Python."""

    def __init__(*args, **kwargs):  # positional only, so that a template may call a value `self`
        for name in (values := dict(*args[1:], **kwargs)):
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name, value):
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"the name {name!r} begins with an underscore")


class _Dict:
    """What templates call as `dict`, without the class itself."""

    def __call__(self, *args, **kwargs) -> dict:
        return dict(*args, **kwargs)

    def fromkeys(self, *args) -> dict:
        return dict.fromkeys(*args)


def _raise(message: str):
    raise jinja2.exceptions.TemplateError(message)


def _json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, which lets an unsafe attribute pass as undefined until it is used, and here never."""

    def unsafe_undefined(self, obj, attribute: str):
        raise jinja2.exceptions.SecurityError(f"access to {attribute!r} of a {type(obj).__name__} is unsafe")


def _environment() -> _Sandbox:
    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    sandbox.filters["tojson"] = _json  # Jinja's own writes for HTML
    now = lambda form: datetime.datetime.now().strftime(form)
    sandbox.globals |= {"raise_exception": _raise, "strftime_now": now, "namespace": _Names, "dict": _Dict()}
    return sandbox


class ChatTemplate:
    """A compiled template; `specials` are what it may name, as `bos_token`."""

    def __init__(self, text: str, specials: dict[str, str]):
        """Raises UserError when `text` is no Jinja template."""
        self.specials = specials
        try:
            self._compiled = _environment().from_string(text)
        except Exception as error:  # whatever a foreign text provokes
            raise _fails(error) from None

    def render(self, messages: list[dict[str, str]], prompt: bool) -> str:
        """The conversation as text, and after it what begins an answer if `prompt`; raises UserError when the template fails."""
        try:
            return self._compiled.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **self.specials
            )
        except Exception as error:
            raise _fails(error) from None


def _fails(error: Exception) -> UserError:
    told = (str(error).strip().splitlines() or [""])[0][:160]
    return UserError(f"The tokenizer's chat template fails ({type(error).__name__}: {told}); mend it, or take --prompt=markers.")
