"""Generation by vLLM in this process, for machines with an accelerator; adapters go in as LoRA requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safepref.data.records import Message
from safepref.data.render import render_prompt
from safepref.errors import InputError
from safepref.generation.base import Completion, Progress, Sampling


class VllmEngine:
    """Answers conversations with vLLM. Prompts are rendered here, so special tokens in texts stay text.

    Args:
        model: folder or hub id.
        adapter: folder of a PEFT adapter, or null for the base model.
        options: passed to `vllm.LLM`, for example tensor_parallel_size.

    Raises:
        InputError: vLLM is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        adapter: Path | None = None,
        system: str | None = None,
        max_lora_rank: int = 64,
        **options: Any,
    ) -> None:
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise InputError(
                "generation.engine is vllm, which is not installed; pip install 'safepref[vllm]'"
            ) from error
        if adapter is not None:
            options |= {"enable_lora": True, "max_lora_rank": max_lora_rank}
        self._llm = LLM(model=model, trust_remote_code=False, **options)
        self._lora = LoRARequest("adapter", 1, str(adapter)) if adapter is not None else None
        self.system = system
        self.name = f"vllm:{model}"

    def generate(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One completion for each conversation, in the order given."""
        from vllm import SamplingParams

        tokenizer = self._llm.get_tokenizer()
        prompts = [{"prompt_token_ids": render_prompt(tokenizer, m, self.system)} for m in conversations]
        params = SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )
        outputs = self._llm.generate(prompts, params, lora_request=self._lora, use_tqdm=False)
        answers = [output.outputs[0] for output in outputs]
        if progress is not None:
            progress(len(answers))
        return [Completion(a.text.strip(), len(a.token_ids), a.finish_reason == "length") for a in answers]
