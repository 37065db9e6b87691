"""vLLM alone in a process: greedy tokens and their log-probs of a base, an adapter on it, and a merged model, as JSON.

Arguments: BASE ADAPTER MERGED, folders; prompts as lists of token ids on stdin.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1",
    VLLM_NO_USAGE_STATS="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_LOGGING_LEVEL="ERROR",
    TORCH_COMPILE_DISABLE="1",
)


def main(base: str, adapter: str, merged: str) -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    prompts = [{"prompt_token_ids": ids} for ids in json.load(sys.stdin)]
    greedy = SamplingParams(max_tokens=8, temperature=0.0, logprobs=0, ignore_eos=True, detokenize=False)

    def told(folder: str, lora: LoRARequest | None) -> list[Any]:
        llm = LLM(
            folder, distributed_executor_backend="uni", enforce_eager=True, block_size=32, max_model_len=128, dtype="float32",
            kv_cache_memory_bytes=32 << 20, enable_chunked_prefill=False, skip_tokenizer_init=True,
            **({"enable_lora": True, "max_lora_rank": 16} if lora else {}),
        )  # fmt: skip
        found = [each.outputs[0] for each in llm.generate(prompts, greedy, use_tqdm=False, lora_request=lora)]
        llm.llm_engine.engine_core.shutdown()
        return [[list(each.token_ids), [next(iter(d.values())).logprob for d in each.logprobs]] for each in found]

    print(json.dumps([told(base, LoRARequest("policy", 1, adapter)), told(merged, None)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
