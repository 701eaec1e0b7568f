"""Prompts and preference pairs: records, readers, public sets, the starter set, splits, doctor, rendering.

Nothing here knows a model. `render` and `limits` turn conversations into token ids, `doctor` finds what would
spoil a run, `splits` keeps training and evaluation apart by template.
"""
