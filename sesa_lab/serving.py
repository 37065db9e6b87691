"""``sesa-lab serve``: a vLLM server that engine ``server`` draws from, with every setting that the engine relies on.

A server of one's own making needs the same: LoRA adapters that can be loaded while it runs, log-probs of the distribution
sampled from, and no chunked prefill on a CPU, where vLLM's sampler does not bear it beside seeds of single requests.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
from typing import Any, NoReturn

from sesa_lab.errors import InputError
from sesa_lab.settings import DTYPES

TEXT = (
    "Start a vLLM server for `train --engine server`, here or where the adapter's folder is seen at the same path. It runs until it"
    " is interrupted."
)
SIDE_BY_SIDE = 2  # adapters that one batch may mix; twice as many are kept in memory


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's options."""
    command.add_argument(
        "--policy",
        default="lab",
        metavar="NAME",
        help="as of `train`: lab, a name under data/policies, a folder, or a model on the Hub (default: lab)",
    )
    command.add_argument(
        "--environment",
        default="path_exploration",
        metavar="NAME",
        help="chooses the lab policy where that is asked for (default: path_exploration)",
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="address it answers at; whoever reaches it can load adapters from this machine's folders: beyond your own machine,"
        " set the environment variable VLLM_API_KEY to a secret here and where you train (default: 127.0.0.1)",
    )
    command.add_argument("--port", type=int, default=8000, metavar="X", help="its port (default: 8000)")
    command.add_argument(
        "--lora-rank", type=int, default=16, metavar="X", help="largest rank of the adapters (default: 16)"
    )
    command.add_argument(
        "--dtype",
        default="float32",
        metavar="NAME",
        help="weights' data type, that of the trained policy [float32 | bfloat16 | float16] (default: float32)",
    )
    command.add_argument(
        "--max-context",
        type=int,
        default=0,
        metavar="X",
        help="most tokens of a dialogue; 0: as many as the model has positions (default: 0)",
    )
    command.add_argument(
        "extra",
        nargs="*",
        metavar="-- FLAGS",
        help="vLLM's own flags after --, which win, e.g. -- --tensor-parallel-size 2 --data-parallel-size 4",
    )


def run(chosen: argparse.Namespace) -> NoReturn:
    """Print the server's command, and become it.

    Raises:
        InputError: vLLM is not installed, or an option names nothing.
    """
    import torch

    from sesa_lab import environments
    from sesa_lab.engines.versions import room_for
    from sesa_lab.policies.load import resolve

    if chosen.dtype not in DTYPES:
        raise InputError(f"--dtype {chosen.dtype}: expected float32, bfloat16 or float16")
    for name, low, high in (("port", 1, 65_535), ("lora_rank", 1, 1024), ("max_context", 0, 10**9)):
        if not low <= getattr(chosen, name) <= high:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {getattr(chosen, name)} is out of range: expected {low} to {high}")
    folder = resolve(chosen.policy, chosen.environment, environments.make(chosen.environment).options)
    rank = room_for(chosen.lora_rank)
    if importlib.util.find_spec("vllm") is None:
        raise InputError("vLLM is not installed: `make vllm` installs it (its CPU build where there is no GPU)")
    variables, command = server_command(folder, rank, chosen, gpu=torch.cuda.is_available())
    print(shlex.join([*(f"{name}={value}" for name, value in variables.items()), *command]), flush=True)
    os.execve(command[0], command, {**variables, **os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"})


def server_command(folder: str, rank: int, chosen: Any, gpu: bool) -> tuple[dict[str, str], list[str]]:
    """Environment variables, and the command.

    Args:
        folder: the policy's, or its name on the Hub.
        rank: largest rank of adapters, one that vLLM knows.
        chosen: host, port, dtype, max_context and extra flags.
        gpu: whether there is one.
    """
    from sesa_lab.engines.vllm_engine import CPU_BLOCK, ON_CPU, QUIET
    from sesa_lab.policies.memory import CPU_CACHE_MB

    variables = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", **QUIET}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]  # the script `vllm` fails in its CPU build
    command += ["--model", folder, "--host", chosen.host, "--port", str(chosen.port), "--dtype", chosen.dtype]
    command += ["--load-format", "safetensors", "--generation-config", "vllm"]
    command += ["--enable-lora", "--max-lora-rank", str(rank)]
    command += ["--max-loras", str(SIDE_BY_SIDE), "--max-cpu-loras", str(2 * SIDE_BY_SIDE)]
    command += ["--logprobs-mode", "processed_logprobs", "--no-enable-chunked-prefill", "--enable-prefix-caching"]
    command += ["--enable-prompt-tokens-details", "--uvicorn-log-level", "warning"]
    if chosen.max_context:
        command += ["--max-model-len", str(chosen.max_context)]
    if not gpu:
        variables |= ON_CPU
        command += [
            "--enforce-eager",
            "--block-size",
            str(CPU_BLOCK),
            "--kv-cache-memory-bytes",
            str(CPU_CACHE_MB << 20),
        ]
    return variables, [*command, *chosen.extra]
