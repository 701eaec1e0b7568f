"""Risk categories as data: macro and micro categories, their other spellings, and their codes elsewhere.

The shipped taxonomy is ALERT's (arXiv 2404.08676): 6 macro and 32 micro categories, each mapped to
Llama Guard 3 hazards S1-S14, MLCommons AILuminate hazards and OpenAI moderation keys. `load_taxonomy(path)`
reads a user's own in the same YAML layout, which `alert.yaml` beside this file shows.
"""

from safepref.taxonomy.loader import load_taxonomy
from safepref.taxonomy.types import MacroCategory, MicroCategory, Scheme, Taxonomy

__all__ = ["MacroCategory", "MicroCategory", "Scheme", "Taxonomy", "load_taxonomy"]
