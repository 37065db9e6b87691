"""An environment of several turns whose episodes end early or late, by chance and by what is said."""

from __future__ import annotations

import dataclasses

from sesa_lab.environments.contract import check_open
from sesa_lab.types import Episode, Task


class Walk:
    """Three turns at most. By chance, fixed by the seed, an episode ends after each turn with probability 1/3.

    A turn whose text holds an "e" earns 1, any other -0.25; an episode that earned something in every turn is a success.
    What is observed hangs on the seed and holds braces, as a hostile text would.
    """

    turns = 3

    def reset(self, task: Task, seed: int = 0) -> Episode:
        return Episode(task, seed, 0)

    def step(self, episode: Episode, text: str) -> Episode:
        check_open(episode)
        turn = episode.state + 1
        rewards = (*episode.rewards, 1.0 if "e" in text else -0.25)
        ended = episode.seed // 3**turn % 3 == 0
        over = ended or turn == self.turns
        return dataclasses.replace(
            episode,
            state=turn,
            observation="" if over else f"s{episode.seed % 7}{{task}}",
            rewards=rewards,
            terminated=ended,
            truncated=over and not ended,
            success=over and min(rewards) > 0,
            strategy=f"{episode.strategy or ''}{len(text)},",
        )
