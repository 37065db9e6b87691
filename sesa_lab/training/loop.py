"""The training loop: one step is draw -> score -> credit -> update -> log. No formulas here."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sesa_lab import engines, environments, runs
from sesa_lab.collapse import Alarm
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.policies import load_policy, model_card, shard
from sesa_lab.prompts import Speaker, Templates
from sesa_lab.runs import RunWriter
from sesa_lab.runs.environment import PROJECT, git
from sesa_lab.runs.lineage import Lineage
from sesa_lab.samplers import Request, draw
from sesa_lab.samplers.sequential import check_world
from sesa_lab.seeding import stream
from sesa_lab.team import ALONE, Team
from sesa_lab.training import room
from sesa_lab.training.credit import advantages, credited, sketch_advantages, sketch_rewards, transfers, verdicts
from sesa_lab.training.evaluate import recorded_prompts
from sesa_lab.training.exact import exact
from sesa_lab.training.held_out import Judge, guided
from sesa_lab.training.measure import step_measures
from sesa_lab.training.mismatch import mismatch_measures, recomputed
from sesa_lab.training.table import rollout_rows, sketch_rows
from sesa_lab.training.trackers import Trackers
from sesa_lab.training.trackers import names as tracker_names
from sesa_lab.training.update import Report, update
from sesa_lab.training.watch import Watch, alarm_row
from sesa_lab.types import Group, Scored

Progress = Callable[[int, dict[str, Any]], None]
"""(step, metrics) after every step."""
Begin = Callable[[str], None]
"""What begins now, once all is read: ``evaluating`` the policy as it is given, where that is to be done; ``running``: the steps."""


class Trainer:
    """One run's moving parts: environment, policy, engine, optimiser, and what it has found so far."""

    def __init__(
        self,
        config: Config,
        checkpoint: Path | None = None,
        recorded: Templates | None = None,
        team: Team = ALONE,
        anew: bool = False,
    ) -> None:
        """Make everything a step needs.

        Args:
            config: all settings.
            checkpoint: continue from here: adapter, optimiser and counters as they were.
            recorded: the prompts that the run began with; None: those that ``config`` names, as they are now.
            team: the processes that train together, this one among them.
            anew: the checkpoint is another run's, and this one draws or trains otherwise from there on: what was watched for before
                is not taken over.

        Raises:
            InputError: environment, policy or settings that cannot be used.
        """
        torch.set_num_threads(config.run.threads)
        team.check(config.run.groups)
        tracker_names(config.run.trackers)  # refused before anything is read
        self.given = self.config = config  # what the run began with, and what it has now: a switch may lie between
        self.team = team
        self.watch = Watch(config)
        self.alarm: Alarm | None = None  # of the last step
        self.environment = environments.make(config.environment.name, **config.environment.options)
        self._check_environment()
        chosen = config.policy if checkpoint is None else config.changed(policy={"adapter": str(checkpoint)}).policy
        options, work = self.environment.options, room.workload(config, self.environment, team.size)
        self.policy = load_policy(chosen, config.environment.name, options, config.run.seed, work)
        parameters = [p for p in self.policy.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(parameters, lr=config.update.learning_rate)
        name, texts = config.environment.name, config.policy.prompts
        self.speaker = Speaker(self.policy.tokenizer, self.policy.form, name, self.policy.stop_ids, texts, recorded)
        self.world = self.environment if self.environment.turns > 1 else None
        self._check_prompts()
        if team.sharded:
            if config.engine.name != "server":
                raise InputError(
                    f"engine.name = {config.engine.name!r} with --use_fsdp: no process has the whole model to draw from; start"
                    " a server (`sesa-lab serve`) and use engine 'server'"
                )
            shard(self.policy, team.size)
        if team.size > 1 and config.engine.name == "vllm":
            raise InputError(
                f"engine.name = 'vllm' in each of {team.size} processes: vLLM in a process is alone in it; start one server"
                " (`sesa-lab serve`, which vLLM's own tensor- and data-parallel options scale) and use engine 'server', or 'torch'"
            )
        self.engine = engines.make(config.engine, self.policy, team)
        try:
            self.judge_of = Judge(config, self.environment, self.engine, self.policy, self.speaker, team)
            self.found: dict[str, list[str]] = {}  # task -> successful strategies since the run began
            self.tokens_total = 0
            self.seconds_total = 0.0
            self.taken = 0  # this and what follows are for the adapter's card: the last step,
            self.judged: dict[str, Any] = {}  # measures of the last evaluation,
            self.commit = (git(PROJECT) or {}).get("commit", "")  # and of the code
            if checkpoint is not None:
                self._restore(checkpoint, anew)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Gives back what the engine holds."""
        self.engine.close()

    def _check_environment(self) -> None:
        """Raises ``InputError`` where the environment is not one to train on, or not with these settings."""
        split = self.environment.options.get("split", "train")
        if split != "train":
            raise InputError(
                f"environment.options: split = {split!r}: a run is trained on split 'train' alone; validation and test tasks are"
                " for its evaluations (and `sesa-lab evaluate RUN --split ...`); leave split out"
            )
        scopes = {phase.sampler.sketch_scope for phase in self.config.phases}
        if "turn" in scopes and self.environment.turns == 1:
            raise InputError(
                f"sampler.sketch_scope = 'turn' makes no sense with environment {self.environment.name} as it is set: it has one"
                " turn; use 'episode'"
            )

    def _check_prompts(self) -> None:
        """Raises ``InputError`` where the first step could not be asked: too long a dialogue, or one that cannot grow."""
        requests = [self.request(index) for index in range(self.config.run.groups)]
        evaluation = self.config.evaluation
        endings = ("", " or change watch.switch")
        ways = [(phase.sampler, ending) for phase, ending in zip(self.config.phases, endings, strict=False)]
        if any(way.name == "sequential" for way, _ in ways):
            check_world(self.world)
        if evaluation.test_guided == "yes":
            ways.append((guided(self.config, evaluation.eval_samples), " or set evaluation.test_guided = 'no'"))
        for way, otherwise in ways:
            room.check(self.policy, room.extent(self.speaker, self.environment, way, requests))
            room.check_group(self.policy, self.speaker, way, requests, otherwise)
        if self.world is not None:
            self.speaker.observed("stop", "")

    def step(self, number: int) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        """Draw, score, credit and update once; returns the step's metrics and its tables, by kind."""
        self.taken = number
        clock = [time.perf_counter()]
        groups = self.draw(number)
        clock.append(time.perf_counter())
        scored = [self.judge(group) for group in groups]
        clock.append(time.perf_counter())
        if self.engine.foreign:
            scored = recomputed(self.policy, self.config, scored, self.team)
        scored = self.team.gather(scored)
        report = self.learn(scored, number)
        clock.append(time.perf_counter())
        metrics = step_measures(scored, report) | mismatch_measures(scored) | self._counts(scored)
        spent = np.diff(clock).round(4).tolist()
        metrics |= dict(zip(("seconds_draw", "seconds_score", "seconds_update"), spent, strict=True))
        self.seconds_total += sum(spent)
        metrics["peak_memory_mb"] = _peak_memory_mb(self.policy.device)
        self.alarm = self.watch.look(number, scored, report.entropy)
        rows = rollout_rows(number, scored, report, self.config.update.conditioning)
        return metrics, {"rollouts": rows, "sketches": sketch_rows(number, scored)}

    def draw(self, number: int) -> list[Group]:
        """This process's share of the step's groups, drawn from the weights as they are now."""
        run, own = self.config.run, self.team.share(self.config.run.groups)
        requests = [self.request((number - 1) * run.groups + g) for g in own]
        with self.engine.synced():
            return draw(
                self.engine, requests, self.config.sampler, self.speaker,
                lambda g, i: stream(run.seed, "sampling", number, own[g], i), self.world,
            )  # fmt: skip

    def request(self, index: int) -> Request:
        """Task ``index`` with its prompt's token ids."""
        task = self.environment.task(index)
        return Request(task, self.speaker.answer(task))

    def judge(self, group: Group) -> Scored:
        """The environment's verdicts on a group, the rule for repeats, advantages; the same for its sketches."""
        update_rule = self.config.update
        rule = self.environment.repeats if update_rule.repeats == "environment" else update_rule.repeats
        scores = verdicts(self.environment, group)
        rewards = credited(scores, rule)
        found = Scored(group, scores, rewards, advantages(rewards, update_rule.advantage))
        found.transfers = transfers(group.candidates, scores, update_rule.transfer)
        if update_rule.train_sketches != "none":
            count = len(group.sketches)
            earned = sketch_rewards(group.candidates, scores, rewards, count, update_rule.train_sketches)
            found.sketch_rewards = earned
            found.sketch_advantages = sketch_advantages(earned, update_rule.advantage)
        return found

    def learn(self, scored: list[Scored], number: int) -> Report:
        """Update the adapter on all candidates, and sketches, of the step, those of the other processes too."""
        return update(self.policy, self.optimiser, self.config, scored, number, self.team)

    def act(self, number: int) -> str:
        """What is done about the alarm of step ``number``, and done it; training may go on with other settings from here."""
        action = self.config.watch.on_alarm
        if action == "switch":
            self.config = self.config.switched()
            self.watch.switch(number, self.config)
            self._set_rate()
        return action

    def _set_rate(self) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.update.learning_rate

    def evaluate(self, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measures of the policy as it is now, and what they were worked out from, one row a task and strategy.

        Exact, over the environment's own tasks, where their answers can be enumerated; else from samples on held-out tasks.
        """
        if self.environment.enumerate(self.environment.task(0)) is None:
            measures, rows = self.judge_of.validation(number)
        else:
            measures, rows = exact(self.policy, self.environment, self.speaker, self.given, number)
        self.judged = {"step": number} | measures
        return measures | self._spent(), rows

    def test(self) -> list[dict[str, Any]]:
        """Measures on the test split, direct and (``test_guided``) with sketches; nothing where ``test_tasks`` is 0."""
        return [measures | self._spent() for measures in self.judge_of.test()]

    def _spent(self) -> dict[str, Any]:
        return {"tokens_total": self.tokens_total, "seconds_total": round(self.seconds_total, 3)}

    def save(self, folder: Path) -> None:
        """Adapter (peft format, with a card), optimiser and counters: all that a step depends on besides the config."""
        self.policy.model.save_pretrained(folder)
        model_card.write_adapter(folder, self.given, self.policy.folder, self.taken, self.judged, self.commit)
        torch.save(self.optimiser.state_dict(), folder / "optimizer.pt")
        state = {"found": self.found, "tokens_total": self.tokens_total, "seconds_total": self.seconds_total}
        state |= {"taken": self.taken, "judged": self.judged, "watch": self.watch.state()}
        (folder / "loop.json").write_text(json.dumps(state))

    def _restore(self, folder: Path, anew: bool) -> None:
        self.optimiser.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        state = json.loads((folder / "loop.json").read_text())
        self.found, self.tokens_total = state["found"], state["tokens_total"]
        self.seconds_total = state["seconds_total"]
        self.taken, self.judged = state.get("taken", 0), state.get("judged", {})
        watched = state.get("watch")  # None: by a version that did not watch
        if watched is not None and not anew:
            if watched["switched"] is not None:
                self.config = self.config.switched()
            self.watch.restore(watched, self.config)
        self._set_rate()  # the optimiser's state has that of the settings it was saved under

    def _counts(self, scored: list[Scored]) -> dict[str, int]:
        for s in scored:
            known = self.found.setdefault(json.dumps(s.group.task.data, sort_keys=True), [])
            known += sorted({v.strategy for v in s.scores if v.success and v.strategy is not None} - set(known))
        counters = self.engine.counters
        spent = self.team.sum_counts({"sampled": counters.sampled, "prefilled": counters.prefilled})
        sampled, prefilled = spent["sampled"], spent["prefilled"]
        counters.sampled = counters.prefilled = 0
        self.tokens_total += sampled
        return {
            "found": sum(map(len, self.found.values())),
            "tokens_sampled": sampled,
            "tokens_prefilled": prefilled,
            "tokens_total": self.tokens_total,
        }


def train(config: Config, out: Path | str, progress: Progress | None = None, begin: Begin | None = None) -> Path:
    """Train from the start into a new run folder ``out``; returns it.

    Of several processes, which ``accelerate launch`` starts, the first one writes the folder and reports progress. What ``begin``
    or ``progress`` raises ends the run there: what was done until then is kept.

    Raises:
        InputError: bad settings, or ``out`` exists and is not empty.
    """
    team = Team.join(config.policy.device)
    with closing(Trainer(config, team=team)) as trainer:  # first: a run that cannot start leaves nothing behind
        texts = trainer.speaker.templates.texts
        with RunWriter.create(Path(out), config, texts) if team.main else nullcontext() as writer:
            _run(trainer, writer, None, progress, begin)
    return Path(out)


def revive(config: Config, origin: Lineage, out: Path | str, progress: Progress | None = None) -> Path:
    """Train on from a checkpoint of another run, with other settings, in a run folder of its own; returns it.

    Steps count on from the checkpoint's, and so do tokens, seconds and what was found. Adapter and optimiser are those of the
    checkpoint, prompts those that its run recorded; with the settings of that run the steps are its own, bit for bit.

    Args:
        config: all settings; ``run.steps`` is the last step, counted as above.
        origin: the run and its checkpoint (``runs.lineage.find``).
        out: must be new or empty.
        progress: called after every step.

    Raises:
        InputError: bad settings, a damaged checkpoint, no step to take, or ``out`` exists and is not empty.
    """
    if config.run.steps <= origin.checked().step:
        raise InputError(
            f"run.steps = {config.run.steps}: expected more than the checkpoint's {origin.step}, where it begins"
        )
    team = Team.join(config.policy.device)
    recorded = recorded_prompts(runs.load(origin.run), config)
    with closing(Trainer(config, origin.folder, recorded, team, anew=origin.otherwise)) as trainer:
        texts = trainer.speaker.templates.texts
        with RunWriter.create(Path(out), config, texts, origin) if team.main else nullcontext() as writer:
            _run(trainer, writer, None, progress, None, origin.step)
    return Path(out)


def resume(out: Path | str, progress: Progress | None = None, begin: Begin | None = None) -> Path:
    """Continue a run from its last checkpoint to its last step, to the result an uninterrupted run gives.

    It goes on with the prompts that it recorded when it began, whatever has become of the folder that ``policy.prompts`` names;
    a run made before these were recorded, with those that are there now.

    Raises:
        InputError: not a run folder, a damaged checkpoint, or another process is writing to it.
    """
    stored = runs.load(Path(out))
    recorded = recorded_prompts(stored)  # before the folder is touched
    team = Team.join(stored.config.policy.device)
    with RunWriter.resume(Path(out)) if team.main else nullcontext() as writer:
        team.wait()  # what lies beyond the last checkpoint is cut away now
        committed, origin = runs.load(Path(out)).checkpoints, stored.lineage
        done, folder = committed[-1] if committed else (None, None)
        anew = False
        if done is None and origin is not None:  # killed before its own first checkpoint
            folder, anew = origin.checked().folder, origin.otherwise
        with closing(Trainer(stored.config, folder, recorded, team, anew=anew)) as trainer:
            _run(trainer, writer, done, progress, begin, origin.step if origin is not None else 0)
    return Path(out)


def _run(
    trainer: Trainer,
    writer: RunWriter | None,
    done: int | None,
    progress: Progress | None,
    begin: Begin | None,
    first: int = 0,
) -> None:
    """The steps after ``done``; without a writer, taken with the process that has it.

    None: nothing is committed yet, not even step ``first``, the policy as it is given.
    """
    if writer is None:
        _take_steps(trainer, None, done, None, None, first)
        return
    settings = trainer.given.to_dict()
    with Trackers(trainer.config.run.trackers, writer.path, settings, done) as trackers:
        _take_steps(trainer, _Records(writer, trackers), done, progress, begin, first)


@dataclass(frozen=True)
class _Records:
    """Where the run is written: its folder, and the trackers, which are told every line of its metrics."""

    writer: RunWriter
    trackers: Trackers

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        self.writer.log(kind, step, values)
        self.trackers.log(kind, step, values)


def _take_steps(
    trainer: Trainer,
    records: _Records | None,
    done: int | None,
    progress: Progress | None,
    begin: Begin | None,
    first: int,
) -> None:
    run = trainer.config.run
    if done is None:
        if begin is not None:
            begin("evaluating")
        _evaluate(trainer, records, first)
        if records is not None:
            records.writer.commit(first, trainer.save)
    if begin is not None:
        begin("running")
    for number in range((first if done is None else done) + 1, run.steps + 1):
        metrics, tables = trainer.step(number)
        if records is not None:
            records.log("step", number, metrics)
            records.writer.add_rollouts(tables["rollouts"])
            records.writer.add_sketches(tables["sketches"])
        kept = _answer(trainer, records, number)
        last = number == run.steps
        if last or number % run.evaluate_every == 0:
            metrics = metrics | _evaluate(trainer, records, number)
        if records is not None and (last or kept or number % run.checkpoint_every == 0):
            records.writer.commit(number, trainer.save)
        if records is not None and progress is not None:
            try:
                progress(number, metrics)
            except BaseException:  # whoever looks on ends the run here: the step is done, and is kept
                if records.writer.step < number:
                    records.writer.commit(number, trainer.save)
                raise


def _answer(trainer: Trainer, records: _Records | None, number: int) -> bool:
    """Does what is to be done about an alarm of this step; whether a checkpoint is to be kept."""
    if trainer.alarm is None:
        return False
    action = trainer.act(number)
    if records is not None:
        records.log("alarm", number, alarm_row(trainer.alarm, action))
    return action != "report"


def _evaluate(trainer: Trainer, records: _Records | None, number: int) -> dict[str, Any]:
    measures, rows = trainer.evaluate(number)
    tests = trainer.test() if number == trainer.config.run.steps else []
    if records is not None:
        records.log("evaluation", number, measures)
        records.writer.add_evaluation(rows)
        for found in tests:
            records.log("test", number, found)
    return measures


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    kilo = 1024 if sys.platform != "darwin" else 1024**2
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kilo, 1)
