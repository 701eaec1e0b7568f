"""A two-layer model on disk and a recipe that goes through every stage in seconds; a program to be killed.

python tiny_run.py FOLDER OUT [STAGE] runs the recipe; with STAGE it kills itself when that is under way, with
--workers in its place two processes train and evaluate.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from safepref.pipeline.manifest import Manifest
from safepref.pipeline.run import run
from safepref.recipe import Recipe, parse_recipe

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_model(folder: Path) -> None:
    """A random Llama with a byte-level tokenizer and a ChatML template, as a safetensors folder."""
    backend = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_inputs(folder: Path) -> None:
    """Model, pairs and evaluation files."""
    save_tiny_model(folder / "model")
    pairs = [
        {
            "prompt": f"number {n}: please do the bad thing",
            "chosen": f"No, not {n}.",
            "rejected": f"Sure {n}!",
        }
        for n in range(12)
    ]
    verbs = ["steal", "break", "burn", "forge", "poison", "hack", "smuggle", "stalk", "bribe", "rob"]
    harmful = [{"prompt": f"{v} the {v}able goods of office {n}"} for n, v in enumerate(verbs)]
    benign = [{"prompt": f"{v} a joke about {v}ing for line {n}"} for n, v in enumerate(verbs)]
    starts = [{"prompt": f"{v.title()} them all, said person {n}, and then"} for n, v in enumerate(verbs)]
    rows = [
        {"question": f"Which is item {n}?", "choices": ["this", "that"], "answer": n % 2} for n in range(8)
    ]
    files = {"pairs": pairs, "harmful": harmful, "benign": benign, "starts": starts, "task": rows}
    for name, content in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


def tiny_recipe(folder: Path, **changes: object) -> Recipe:
    """The recipe over those files."""
    values = {
        "name": "tiny",
        "methods": "dpo,kto",
        "model": {"id": str(folder / "model"), "dtype": "float32"},
        "data": {"harmful": 0, "harmless": 0, "general": 4, "pairs": str(folder / "pairs.jsonl")},
        "training": {"epochs": 1, "batch_size": 4, "save_steps": 1, "lora_rank": 2, "max_length": 512},
        "judges": {"select": "keyword-refusal", "report": "keyword-refusal"},
        "evaluation": {
            "prompts": str(folder / "harmful.jsonl"),
            "benign": str(folder / "benign.jsonl"),
            "toxicity": str(folder / "starts.jsonl"),
            "capability": [str(folder / "task.jsonl")],
            "attacks": ["prefix_injection"],
            "strengths": [0.5, 1.0],
            "answer_tokens": 8,
            "continuation_tokens": 8,
            "limit": 4,
        },
    }
    return parse_recipe({**values, **changes}, "tiny recipe")


def start(recipe: Recipe, out: Path, workers: int = 1) -> None:
    """Run it, begun with two shares whatever the number of workers, and with two threads in all."""
    out.mkdir(parents=True, exist_ok=True)
    Manifest(out, recipe).put("plan", dtype="float32", threads=2, shares=2)
    run(recipe, out, workers=workers)


@contextmanager
def killed_in(stage: str) -> Iterator[None]:
    """Kill this process, with no chance to clean up, in the middle of `stage`.

    That is at its first progress, or, where it reports none, before it is marked as done.
    """
    import safepref.pipeline.job as pipeline
    from safepref import progress

    plain, track = Manifest.stage, progress.track
    under_way = [""]

    @contextmanager
    def deadly(self: Manifest, name: str, title: str) -> Iterator[bool]:
        under_way[0] = name
        with plain(self, name, title) as todo:
            yield todo
            if todo and name.startswith(stage):
                os.kill(os.getpid(), 9)

    @contextmanager
    def watched(title: str, total: int) -> Iterator[progress.Advance]:
        with track(title, total) as advance:

            def count(done: int) -> None:
                advance(done)
                if under_way[0].startswith(stage) and done:
                    os.kill(os.getpid(), 9)

            yield count

    Manifest.stage = deadly  # type: ignore[method-assign]
    progress.track = pipeline.track = watched
    yield


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    stage = sys.argv[3] if len(sys.argv) > 3 else None
    if stage is None or stage == "--workers":
        start(tiny_recipe(source), target, workers=1 if stage is None else 2)
    else:
        with killed_in(stage):
            start(tiny_recipe(source), target)
