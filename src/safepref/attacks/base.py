"""What an attack is: a named family of rewrites of a request, each kept on one side of the splits."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files

import yaml

from safepref.data.records import SPLITS, Message, Prompt, Split, content_id
from safepref.errors import InputError

SLOT = "{request}"
"""Where a text template takes the request."""

Rewrite = Callable[[str, random.Random], str]
"""A request and a generator in, the rewritten request out. Equal inputs give equal outputs."""


@dataclass(frozen=True, slots=True)
class Template:
    """One way to rewrite a request. `key` is unique within its attack and never stands on two sides."""

    key: str
    rewrite: Rewrite


Sides = Mapping[Split, Sequence[Template]]
"""The templates of an attack on each side of the splits."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A family of rewrites that tries to get a harmful request past a model's refusal.

    `load` gives the templates of every side; it is called when the attack is used, so that a family that
    lives in a downloaded file costs nothing until then.
    """

    name: str
    summary: str
    source: str
    load: Callable[[], Sides]

    def templates(self, side: Split) -> tuple[Template, ...]:
        """The templates of one side.

        Raises:
            InputError: `side` is not a split.
        """
        if side not in SPLITS:
            raise InputError(
                f"attack {self.name}: side {side!r} is not known; use one of {', '.join(SPLITS)}"
            )
        return tuple(self.load()[side])

    def apply(self, prompt: Prompt, *, side: Split, seed: int = 0, variant: int = 0) -> Prompt:
        """Put the attack round the last user turn of `prompt`; all other turns stay as they are.

        The template is drawn from `side` by the prompt's id and the seed alone, so the result does not depend
        on order or on other prompts. `variant` 0, 1, ... walks through the side's templates without repeats.
        A template that would leave this text as it is (misspelling a text without letters) gives way to the
        next one; a text that none of them changes passes through as it is.

        Returns:
            The rewritten prompt with `attack`, `template` ("attack/key"), `base_id` and a new `id`. `split`
            stays the prompt's own, so that a prompt wrapped from the wrong side is visible to the checks.

        Raises:
            InputError: the prompt is under attack already, or has no user turn.
        """
        if prompt.attack is not None:
            raise InputError(
                f"prompt {prompt.id}: already under attack {prompt.attack!r}; give {self.name} the plain one"
            )
        turns = [index for index, message in enumerate(prompt.messages) if message["role"] == "user"]
        if not turns:
            raise InputError(
                f"prompt {prompt.id}: no user turn for attack {self.name}; add one to its messages"
            )
        text = prompt.messages[turns[-1]]["content"]
        order = self._order(prompt.id, side, seed)
        start = variant % len(order)
        for template in (*order[start:], *order[:start]):
            attacked = template.rewrite(text, generator(self.name, template.key, prompt.id, str(seed)))
            if attacked != text:
                break
        else:
            template = order[start]
        message: Message = {**prompt.messages[turns[-1]], "content": attacked}
        return replace(
            prompt,
            id=content_id("attack", prompt.id, self.name, template.key, attacked),
            messages=(*prompt.messages[: turns[-1]], message, *prompt.messages[turns[-1] + 1 :]),
            attack=self.name,
            base_id=prompt.base_id or prompt.id,
            plain=text,
            template=f"{self.name}/{template.key}",
        )

    def _order(self, prompt_id: str, side: Split, seed: int) -> list[Template]:
        # Ranked by hash, not by position: adding a template leaves most prompts with the one they had.
        return sorted(
            self.templates(side),
            key=lambda template: content_id(self.name, template.key, prompt_id, str(seed)),
        )


def generator(*parts: str) -> random.Random:
    """A generator seeded by texts, equal on every machine and run."""
    return random.Random(int(content_id(*parts), 16))


def fill(text: str, request: str, _: random.Random | None = None) -> str:
    """Put a request into the slot of a text template; braces in the request are only text."""
    return text.replace(SLOT, request, 1)


def text_template(key: str, text: str) -> Template:
    """A template that is a text with one `{request}` in it.

    Raises:
        InputError: the slot is missing or stands there twice.
    """
    if text.count(SLOT) != 1:
        raise InputError(
            f"attack template {key!r}: {text.count(SLOT)} times {SLOT}; it must stand there once"
        )
    return Template(key, partial(fill, text))


@cache
def shipped_templates(name: str) -> Sides:
    """The text templates of `templates/NAME.yaml`: for each side a list of {key, text}."""
    content = files("safepref.attacks").joinpath("templates", f"{name}.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(content)
    return {side: tuple(text_template(row["key"], row["text"]) for row in table[side]) for side in SPLITS}
