"""What may leave the machine: texts without its paths, and addresses without what opens them."""

from __future__ import annotations

import re
from typing import Any

_CREDENTIALS = re.compile(r"(\w+://)[^\s/@]*@")
_LOCAL_FILE = re.compile(r"file://(?=/)")
_PATH = re.compile(r"(?<![\w./\\~<-])(?:[A-Za-z]:[\\/]|(?:~\w*|\.{1,2})?/|\\\\)(?!/)[^\s'\"`<>|,;()\[\]{}]+")
"""A path that begins at a root, a home, a drive or a folder above; not an address, a fraction or a hub id."""
_ADDRESS = re.compile(r"@?\bhttps?://(?!(?:[\w-]+\.)*(?:huggingface\.co|arxiv\.org|github\.com)\b)\S+")


def public(text: str) -> str:
    """A text with each path as its last part, and web addresses without user and password."""
    text = _CREDENTIALS.sub(r"\1", _LOCAL_FILE.sub("", text))
    return _PATH.sub(lambda found: _last_part(found.group()), text)


def public_values(value: Any) -> Any:
    """The same for every text in a value of JSON; a server's address is only said to be one."""
    if isinstance(value, dict):
        return {key: public_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public_values(item) for item in value]
    if not isinstance(value, str):
        return value
    text = _ADDRESS.sub("(a server)", value)
    # A path with spaces in it is known by standing alone.
    return _last_part(text) if _PATH.match(text) and "\n" not in text else public(text)


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
