"""How much memory a device has left, as this process may take it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

ROOT = Path("/")


def available(device: str) -> int | None:
    """Bytes that are free on ``device``; None where that cannot be told, as of a device that is not there.

    On a CPU what the system has available, or what a control group (a container, a batch job) leaves, whichever is less. Files
    that the group has read count as taken there, but go when room is needed: they are free.
    """
    kind = device.partition(":")[0]
    if kind == "cpu":
        return min([int(psutil.virtual_memory().available), *_left_by_groups(ROOT)])
    if kind == "cuda" and torch.cuda.is_available():
        index = torch.device(device).index
        if index is None or index < torch.cuda.device_count():
            return int(torch.cuda.mem_get_info(device)[0])
    return None


def total(device: str) -> int:
    """Bytes that a GPU has, taken or free; 0 where there is no such GPU."""
    if not torch.cuda.is_available():
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory)


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each memory limit on this process leaves, in bytes; nothing where there are no control groups.

    Args:
        root: the root of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers == "":  # version 2
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / inside.lstrip("/")
        for group in (folder, *folder.parents):  # a limit holds for all groups below
            if group == top or top in group.parents:
                yield from _left(group, *names)


def _left(group: Path, limit: str, usage: str, files: str) -> Iterator[int]:
    try:
        most, taken = (group / limit).read_text().strip(), int((group / usage).read_text())
        stat = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        reclaimable = next((int(value) for name, value in stat if name == files), 0)
    except (OSError, ValueError):  # the topmost group has no limit, a container sees its own group alone
        return
    if most.isdigit():
        yield max(0, int(most) - taken + reclaimable)
