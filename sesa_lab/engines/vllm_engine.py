"""vLLM in this process: its own copy of the base weights, and the trained adapter handed over in versions.

Settings that matter, each met by measurement (see CONTRIBUTING.md): log-probs are of the distribution sampled from; each row
has a seed of its own, which vLLM's CPU sampler bears only without chunked prefill; prefix caching serves what rows share.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sesa_lab.config import EngineConfig
from sesa_lab.engines.protocol import Counters, Sampling
from sesa_lab.engines.tokens import Drawn, TokenSession
from sesa_lab.engines.versions import Version, Versions, check_same, probe, room_for
from sesa_lab.errors import InputError, first_line
from sesa_lab.policies import Policy
from sesa_lab.policies.memory import CPU_CACHE_MB

CPU_BLOCK = 32  # tokens of a block of keys and values
QUIET = {"VLLM_NO_USAGE_STATS": "1"}
ON_CPU = {  # environment variables, where there is no GPU
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # cores are shared with the trainer
    "TORCH_COMPILE_DISABLE": "1",  # compiling takes longer than it saves
}


class VllmEngine:
    """See ``protocol.Engine``. One at a time in a process."""

    foreign = True

    def __init__(self, policy: Policy, config: EngineConfig) -> None:
        """Start vLLM on the policy's base model.

        Raises:
            InputError: vLLM is not installed, or cannot hold this model with these settings.
        """
        self.policy, self.config = policy, config
        self.tokenizer = policy.tokenizer
        self.counters = Counters()
        self.longest = _longest(policy, config)
        self._loaded: Version | None = None
        self._llm: Any = None
        self._versions = Versions(policy, config.adapter_folder)
        try:
            self._vllm = _import()
            self._llm = _start(self._vllm, policy, config, self.longest)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def synced(self) -> Iterator[None]:
        """Hand over the adapter if it has changed since, and see that it arrived."""
        version = self._versions.current()
        if self._loaded != version:
            self._check(version)
            before, self._loaded = self._loaded, version
            if before is not None:
                self._llm.llm_engine.remove_lora(before.number)
                self._versions.drop(before)
        yield

    def start(self, contexts: Sequence[Sequence[int]]) -> TokenSession:
        return TokenSession.start(self, contexts)

    def complete(self, contexts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> list[Drawn]:
        """One completion a context, each by its own seed.

        Raises:
            InputError: a context that leaves no room for ``max_tokens``.
        """
        version = self._loaded
        assert version is not None, "draw within `synced`"
        longest = max(map(len, contexts)) + sampling.max_tokens
        if longest > self.longest:
            raise InputError(
                f"a context of {longest} tokens (sampler.max_tokens included) exceeds the {self.longest} that vLLM was started for;"
                " raise engine.max_context, or use a smaller sampler.group_size or sampler.max_tokens"
            )
        drawn = self._draw(version, contexts, sampling, seeds)
        for context, (own, cached) in zip(contexts, drawn, strict=True):
            self.counters.prefilled += len(context) - cached
            self.counters.sampled += len(own.ids)
        return [own for own, _ in drawn]

    def _draw(
        self, version: Version, contexts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[tuple[Drawn, int]]:
        """Completions, each with how many tokens of its context were in the prefix cache."""
        lora = self._vllm.lora.request.LoRARequest(version.name, version.number, str(version.folder))
        prompts = [{"prompt_token_ids": list(context)} for context in contexts]
        asked = [self._params(sampling, seed) for seed in seeds]
        outputs = self._llm.generate(prompts, asked, lora_request=lora, use_tqdm=False)
        found = []
        for output in outputs:
            drawn = output.outputs[0]
            ids = tuple(drawn.token_ids)
            logprobs = tuple(position[i].logprob for i, position in zip(ids, drawn.logprobs, strict=True))
            found.append((Drawn(ids, logprobs), output.num_cached_tokens or 0))
        return found

    def forget(self) -> None:
        """Empty the prefix cache: what was read is read again when it is met next."""
        self._llm.reset_prefix_cache()

    def close(self) -> None:
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            gc.collect()
            self._vllm.distributed.parallel_state.cleanup_dist_env_and_memory()
        self._versions.close()

    def _params(self, sampling: Sampling, seed: int) -> Any:
        return self._vllm.SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            seed=seed,
            logprobs=0,  # those of the drawn token alone
            stop_token_ids=list(sampling.stop_ids),
            ignore_eos=True,  # stop_ids say it all
            stop=[sampling.stop_text] if sampling.stop_text else None,
            detokenize=bool(sampling.stop_text),
        )

    def _check(self, version: Version) -> None:
        """A few tokens drawn by the new version have the log-probs that the trainer gives them."""

        def draw(context: list[int], sampling: Sampling, seed: int) -> Drawn:
            return self._draw(version, [context], sampling, [seed])[0][0]

        check_same(self.policy, probe(self.policy, version, draw, self.longest), "engine vllm")
        if version.number not in self._llm.llm_engine.list_loras():
            raise InputError(f"vLLM did not load version {version.name} of the adapter from {version.folder}")


def _longest(policy: Policy, config: EngineConfig) -> int:
    if config.max_context > policy.positions:
        raise InputError(
            f"engine.max_context = {config.max_context}: the model has {policy.positions} positions; lower it"
        )
    return config.max_context or policy.positions


def _import() -> Any:
    """The package, told what it reads from the environment; what the user set there stays."""
    for name, value in {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this very process, so that nothing outlives it
        "VLLM_LOGGING_LEVEL": "ERROR",
        **QUIET,
        **({} if torch.cuda.is_available() else ON_CPU),
    }.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own libraries, about names that will be others
            import vllm
            import vllm.distributed.parallel_state
            import vllm.lora.request
    except ImportError as error:
        raise InputError(
            f"engine.name = 'vllm' needs vLLM, which cannot be imported ({error}): `make vllm` installs it (its CPU build where"
            " there is no GPU); or use engine 'torch'"
        ) from error
    return vllm


def _start(vllm: Any, policy: Policy, config: EngineConfig, longest: int) -> Any:
    rank = room_for(policy.model.peft_config["default"].r)
    gpu = torch.cuda.is_available()
    room: dict[str, Any] = {"gpu_memory_utilization": config.memory_share} if gpu else {"enforce_eager": True}
    if config.cache_mb or not gpu:
        room["kv_cache_memory_bytes"] = (config.cache_mb or CPU_CACHE_MB) << 20
    set_threads = torch.set_num_threads  # vLLM's CPU worker puts a function there that does nothing
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return vllm.LLM(
                policy.folder,
                dtype=policy.dtype,
                max_model_len=longest,
                tensor_parallel_size=config.tensor_parallel,
                enable_prefix_caching=config.prefix_caching == "yes",
                enable_chunked_prefill=False,
                max_num_batched_tokens=max(longest, 8192),
                block_size=16 if gpu else CPU_BLOCK,
                logprobs_mode="processed_logprobs",
                enable_lora=True,
                max_lora_rank=rank,
                max_loras=1,
                max_cpu_loras=2,
                disable_log_stats=True,
                **room,
            )
    except Exception as error:  # ValueError, RuntimeError, pydantic's, torch's: vLLM raises whatever came
        raise InputError(
            f"engine vllm cannot hold {policy.folder} for dialogues of {longest} tokens: {first_line(error)}; lower"
            " engine.max_context, or give it more by engine.cache_mb or engine.memory_share, or use engine 'torch'"
        ) from error
    finally:
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
