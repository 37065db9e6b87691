"""Where a run comes from that began at a checkpoint of another one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError
from sesa_lab.runs import checkpoint, layout
from sesa_lab.runs.files import read_json


@dataclass(frozen=True)
class Lineage:
    """A checkpoint of another run; what lineage.json holds.

    Attributes:
        run: its folder.
        step: the checkpoint's.
        adapter: sha256 of the adapter's weights.
        changes: section -> setting -> its value from there on, those that are others than that run's at the checkpoint.
        before: where that run came from in turn, oldest last; each as this is, in plain values.
    """

    run: str
    step: int
    adapter: str
    changes: dict[str, dict[str, Any]]
    before: tuple[dict[str, Any], ...] = ()

    @property
    def folder(self) -> Path:
        """The checkpoint's."""
        return checkpoint.folder(Path(self.run), self.step)

    @property
    def otherwise(self) -> bool:
        """Whether the run draws, trains or is watched otherwise than the other one did when the checkpoint was made."""
        return bool(self.changes.keys() & {"sampler", "update", "watch"})

    def checked(self) -> Lineage:
        """Itself, where the checkpoint is still there and whole.

        Raises:
            InputError: it is not, or its run has been made anew with other weights since.
        """
        state = checkpoint.verified(Path(self.run), self.step)
        if _weights(state) != self.adapter:
            raise InputError(
                f"{self.folder} holds other weights than this run began with; begin it anew with another --out"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def find(run: Path | str, step: int | None, changes: dict[str, dict[str, Any]]) -> Lineage:
    """A run's checkpoint to begin at, verified.

    Args:
        run: the run folder.
        step: of the checkpoint; None: the last.
        changes: section -> setting -> value from there on.

    Raises:
        InputError: no run folder, no such checkpoint (those that are there are named), or a damaged one.
    """
    path = Path(run)
    layout.check_run(path)
    steps = [number for number, _ in layout.checkpoints(path)]
    if not steps:
        raise InputError(f"{path} has no checkpoint yet; let it train on (sesa-lab resume {path})")
    at = steps[-1] if step is None else step
    if at not in steps:
        raise InputError(
            f"{path} has no checkpoint of step {at}; there are those of steps {', '.join(map(str, steps))}"
        )
    own = read(path)
    before = () if own is None else ({**own.to_dict(), "before": []}, *own.before)
    return Lineage(str(path.resolve()), at, _weights(checkpoint.verified(path, at)), changes, before)


def read(path: Path) -> Lineage | None:
    """lineage.json of the run folder ``path``; None where a run began by itself; an ``InputError`` where it is damaged."""
    file = path / layout.LINEAGE
    if not file.exists():
        return None
    remedy = "restore it from a copy, or begin the run anew with another --out"
    data = read_json(file, remedy)
    try:
        before = tuple(data.pop("before"))
        found = Lineage(**data, before=before)
        if isinstance(found.run, str) and isinstance(found.step, int) and isinstance(found.changes, dict):
            return found
    except (KeyError, TypeError, AttributeError):
        pass
    raise InputError(f"{file}: expected run, step, adapter, changes and before; {remedy}")


def _weights(state: checkpoint.State) -> str:
    try:
        return str(state.files["adapter_model.safetensors"]["sha256"])
    except KeyError as error:
        raise InputError(
            f"the checkpoint of step {state.step} has no adapter_model.safetensors; restore it from a copy"
        ) from error
