"""What is learned from."""

from __future__ import annotations

from typing import Literal

from safepref.recipe.base import Amount, Count, Names, Positive, Section, Share


class Weights(Section):
    """How much a pair of each kind, and a general example, weighs in the loss (multi-task learning)."""

    harmful: Amount = 1.0
    harmless: Amount = 1.0
    ordinary: Amount = 1.0
    preference: Amount = 1.0
    """Ready pairs, as `data.pairs` brings them."""
    general: Amount = 1.0


class DataSection(Section):
    """What is learned from: how many rows of each kind, and where they come from."""

    harmful: Count = 150
    """Pairs of a harmful request: a refusal is chosen over the model's own unsafe answer."""
    harmless: Count = 74
    """Pairs of a request that only looks harmful: the model's own answer is chosen over a refusal."""
    general: Count = 160
    """Ordinary requests with the model's own answer, held in place by the anchor (no pairs)."""
    ordinary: Count = 0
    """Pairs of an ordinary request: the model's own answer is chosen over a refusal."""
    task: Count = 150
    """Pairs of the task where it is not safety, in the place of harmful ones."""
    own: Share = 0.5
    """Share of these whose rejected answer is the model's own, where it is wrong (moderation) or the select
    judge finds it bad (support)."""
    categories: dict[str, str] | None = None
    """Content moderation: what categories mean, for the model; null takes what is known of them."""
    prompts: Names | None = None
    """Harmful prompts to train on, or what else the task asks: a file or a named set, or several of them.
    `starter` is the shipped set, and what null takes; `extended` are more shipped ones."""
    harmless_prompts: Names | None = None
    """Harmless look-alikes to train on, in the same way."""
    general_prompts: Names | None = None
    """Ordinary requests to train on, in the same way; their answers are always the model's own."""
    pairs: str | None = None
    """Ready preference pairs (TRL's formats, or a named set), used as they are beside what is built."""
    pairs_limit: Positive | None = None
    """At most this many of the ready pairs, drawn by seed."""
    drop_bad: bool = False
    """Leave bad rows of the `pairs` file out and say how many, instead of stopping at the first."""
    attacks: tuple[str, ...] = ("suffix_injection", "prefix_injection", "token_manipulation", "jailbreak")
    attacked: Share = 0.5
    """Share of the harmful pairs that is wrapped by an attack's train-side template."""
    refusals: Literal["written", "short", "model", "mixed"] = "written"
    """Chosen refusals. written: by category, in many wordings; short: one opening for all and a reason of the
    category, so that a small model decides at its first words; model: its own, under a safety system prompt;
    mixed: written and own."""
    reasons: Share = 1.0
    """Share of the short refusals, on both sides, that are given whole. The others are cut behind the opening
    as a token cap cuts an answer: the model still learns to go on, from pairs of half the tokens."""
    taught: Share = 0.67
    """Share of the harmless pairs whose rejected refusal is worded like the chosen ones of harmful pairs, so
    that the pair says where these do not belong; the others are refused in a stiff notice."""
    harmless_share: Share = 1 / 3
    """At most this share of all pairs' weight is with look-alikes; more of them are weighted down to it."""
    weights: Weights = Weights()
    """Weights of the kinds in the loss."""
    anchored: tuple[Literal["harmless", "ordinary"], ...] = ()
    """Kinds of pairs whose chosen answers, the model's own, are anchor examples too. With
    `training.anchor_kind: kl` such requests are then answered as before."""
    answer_tokens: Positive = 64
    """Length cap of the model's own sampled answers."""
    temperature: Amount = 0.6
    """Sampling temperature of the unsafe answers (the kept good answers are greedy)."""
    tries: Positive = 2
    """Answers sampled for a harmful prompt until the judge finds one unsafe."""
    flipped: Share = 0.0
    """Label noise: this share of the pairs of each kind gets chosen and rejected exchanged."""
    ches: Share = 0.0
    """Share of the pairs of each kind that is left out: those whose answers are most alike to the model, so
    that they displace likelihood (CHES, arXiv 2410.08847)."""
    vet: Literal["drop", "flip"] | None = None
    """What is done with pairs that the vetting judge (`judges.vet`) finds the wrong way round; null asks no
    judge."""
