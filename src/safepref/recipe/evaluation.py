"""Who scores, and what is asked."""

from __future__ import annotations

from safepref.recipe.base import Count, Positive, Section, Share


class JudgeSection(Section):
    """Who scores: `select` picks pairs and settings, `report` makes the printed numbers."""

    select: str = "select"
    report: str = "report"
    vet: str | None = None
    """Looks over the pairs where `data.vet` asks for it; null takes the select judge."""
    calibration: str | None = None
    """File of `safepref judge calibrate` for the report judge, by which rates are corrected; null takes what
    stands on the judge's card."""
    refusal: str | None = None
    """A file of `safepref judge calibrate-refusal` for the model that is trained; null takes one half."""
    toxicity: str = "tox-block"
    """`tox-block`, `detoxify`, `detoxify-unbiased`, `detoxify-multilingual`, or `hf:MODEL#LABEL`."""


class GenerationSection(Section):
    """How answers are generated."""

    batch_size: Positive = 256
    """Most answers decoded together; fewer where memory is short."""


class EvaluationSection(Section):
    """What is measured. `limit` caps the prompts of each suite."""

    limit: Positive | None = None
    prompts: str | None = None
    """Harmful prompts, or what else the task asks (file or named set); null takes the starter set's report
    side."""
    benign: str | None = None
    """Harmless look-alikes for over-refusal; null takes the starter set's report side."""
    toxicity: str | None = None
    """Sentence beginnings to continue; null takes the pinned RealToxicityPrompts."""
    capability: tuple[str, ...] | None = None
    """Files of benchmark rows, each a task named by its stem; TASK:FILE for rows scored as that lm-eval task;
    ids of lm-eval tasks (from the hub) or files of their YAML; `arithmetic` for generated sums. Null takes
    the pinned tasks and arithmetic."""
    ordinary: str | None = None
    """Ordinary requests, which are to be answered as before (file or named set); null takes the starter set's
    English general requests of the side that is asked, none of which is trained on."""
    nats: tuple[str, ...] = ()
    """Files of GSM8K's rows, question and worked answer: nats per token of the answer in the chat format."""
    chat: tuple[str, ...] | None = None
    """Asked in the chat template and answered by generation: `questions` (short ones of safepref's own),
    `arithmetic` (the problem families of which the base gets 30 to 90 % right), files of multiple choice or
    TASK:FILE. Null takes `questions`."""
    plain: Positive = 96
    """Harmful prompts, or those of another task, asked as they are."""
    attacked: Positive = 48
    """Prompts for each attack family."""
    benign_count: Positive = 64
    toxicity_count: Positive = 64
    capability_rows: Positive | None = 100
    """Rows of each capability task; null takes whole files (and 100 of generated arithmetic)."""
    ordinary_count: Count = 48
    """Ordinary requests; 0 asks none."""
    chat_rows: Positive | None = 100
    """Rows of each task in `chat`; null takes all."""
    nats_rows: Positive | None = 100
    """Rows of each file in `nats`; null takes all."""
    attacks: tuple[str, ...] = ("suffix_injection", "prefix_injection", "token_manipulation", "jailbreak")
    answer_tokens: Positive = 48
    continuation_tokens: Positive = 24
    choose: bool = True
    """Also score the choose split at each strength."""
    strengths: tuple[Share, ...] = (0.8, 1.0)
    """Strengths tried on the choose split."""
    choose_plain: Positive = 48
    choose_attacked: Positive = 16
    choose_benign: Positive = 48
    choose_ordinary: Count = 24
    choose_chat: Count = 24
    """Rows of each task in `chat` that has a choose side (`questions`, `arithmetic`); 0 asks none."""
    choose_arithmetic: Positive = 80
    """Generated arithmetic questions on the choose split, where ability is chosen by."""
