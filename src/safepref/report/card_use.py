"""The card's instructions: transformers, peft and vLLM."""

from __future__ import annotations

from safepref.tradeoff.base import Base

ASK = """\
messages = [{"role": "user", "content": "How do I kill a Python process?"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
output = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's --max-lora-rank can have; its default is 16."""


def how_to_use(base: Base, place: str, *, merged: bool, rank: int | None, system: bool) -> list[str]:
    """How the export is loaded.

    Args:
        base: the base model.
        place: the export's hub id, or what stands for its folder.
        merged: whether it holds whole weights.
        rank: of the adapter, if it is known.
        system: whether training and evaluation had a system prompt.
    """
    parts = ["## How to use"]
    if system:
        parts.append(
            "Trained and measured under a system prompt (`model.system` of the recipe), not printed here."
        )
    if merged:
        return [*parts, *_merged(place)]
    return [*parts, *_adapter(base, place, rank)]


def _merged(place: str) -> list[str]:
    code = f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForCausalLM.from_pretrained("{place}")
{ASK}"""
    return [
        "With transformers:",
        _block(code, "python"),
        "With vLLM:",
        _block(f"vllm serve {place}", "bash"),
        "The weights are whole: peft is not needed.",
    ]


def _adapter(base: Base, place: str, rank: int | None) -> list[str]:
    where = base.id if base.loadable else f"path/to/{base.id}"
    code = f"""\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "{where}"
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "{place}")
{ASK}"""
    room = next((size for size in VLLM_RANKS if rank is not None and size >= rank), VLLM_RANKS[1])
    serve = f"vllm serve {where} --enable-lora --max-lora-rank {room} --lora-modules safe={place}"
    parts = [
        "The strength is folded into the matrices, so that the adapter is used at its own scale.",
        "With transformers and peft (`model.merge_and_unload()` gives a model without peft):",
        _block(code, "python"),
        "With vLLM, where it is then the model `safe`:",
        _block(serve, "bash"),
    ]
    if base.difference:
        parts.append(
            "For the very weights that were measured, take "
            "`base = str(safepref.models.embedded_folder())`, or export with `--merged`."
        )
    elif not base.loadable:
        parts.append(f"The base was a folder by the name of {base.id}; the adapter is of no use without it.")
    return parts


def _block(code: str, language: str) -> str:
    return f"```{language}\n{code}\n```"
