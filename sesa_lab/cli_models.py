"""The command ``sesa-lab merge``: a trained adapter as a plain model folder."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from sesa_lab.errors import InputError
from sesa_lab.settings import DTYPES

TEXT = (
    "Merge a trained LoRA adapter into its base model: a plain Hugging Face folder (weights, tokenizer, chat template, generation"
    " config, model card) that transformers, vLLM and --policy read. Matrices are added in float32 and rounded once."
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's options."""
    command.add_argument(
        "source",
        metavar="RUN_OR_ADAPTER",
        help="a run, whose last checkpoint is taken; or a folder with a LoRA adapter",
    )
    command.add_argument("--out", required=True, metavar="FOLDER", help="model folder; must be new or empty")
    command.add_argument(
        "--policy",
        default="",
        metavar="NAME",
        help="base model, a folder or a name on the Hub (default: the run's, or what the adapter names)",
    )
    command.add_argument(
        "--dtype",
        default="",
        metavar="NAME",
        help="stored weights' data type [float32 | bfloat16 | float16] (default: the base's). 16-bit weights lose what is less"
        " than half their last bit; how much that is of the adapter's change is printed",
    )


def run(chosen: argparse.Namespace) -> None:
    """Merge, write the card, and say what was written."""
    from sesa_lab.policies import merge, model_card
    from sesa_lab.runs import layout

    if chosen.dtype and chosen.dtype not in DTYPES:
        raise InputError(f"--dtype = {chosen.dtype!r}: expected one of {', '.join(DTYPES)}")
    source, out = Path(chosen.source).expanduser(), Path(chosen.out).expanduser()
    merge.check_new(out)  # before the base is read, which may take minutes
    trained, trusted = "", False
    if layout.is_run(source):
        adapter, base, trained, trusted = _of_run(source, chosen.policy)
    elif not (source / "adapter_config.json").is_file():
        raise InputError(f"{source} is neither a run folder nor one with a LoRA adapter; check the path")
    else:
        adapter, base = source, _base(chosen.policy or merge.base_of(source))
    rounding = merge.merge(adapter, base, out, chosen.dtype, trusted)
    model_card.write_merged(out, base, str(adapter), rounding, trained)
    lost = "" if math.isnan(rounding.share) else f" ({rounding.share:.2g} of the adapter's change lost by rounding)"
    print(f"wrote {out}: {base} with {adapter}, stored as {rounding.dtype}{lost}")


def _of_run(path: Path, policy: str) -> tuple[Path, str, str, bool]:
    """Last checkpoint of a run, verified; its base; how it was trained; whether code of the base's own may run."""
    from sesa_lab import environments, runs
    from sesa_lab.policies import model_card
    from sesa_lab.policies.load import resolve
    from sesa_lab.runs import checkpoint

    stored = runs.load(path)
    committed = checkpoint.newest(path)
    if committed is None:
        raise InputError(f"{path} has no checkpoint yet; there is nothing to merge")
    config = stored.config
    options = environments.make(config.environment.name, **config.environment.options).options
    base = resolve(policy or config.policy.model, config.environment.name, options)
    adapter, step = committed[0], committed[1].step
    judged = stored.evaluations[stored.evaluations["step"] <= step]
    evaluation = judged.iloc[-1].dropna().to_dict() if len(judged) else {}
    git = stored.environment.get("git")
    trained = model_card.training(config, step, evaluation, git["commit"] if git else "")
    return adapter, base, trained, config.policy.trust_remote_code == "yes"


def _base(name: str) -> str:
    from sesa_lab.policies.load import POLICIES

    shipped = POLICIES / name
    return str(shipped) if name and shipped.is_dir() else str(Path(name).expanduser()) if name.startswith("~") else name
