"""What training needs to go on where it was cut off, step for step: gathered between two steps, and put back.

Where several processes train together the first one decides when, and writes; the others send it what is theirs alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from spectral_tl_bench import pause
from spectral_tl_bench.data.shares import agreed, gathered, mine
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.base import Stage
from spectral_tl_bench.training.active_objectives import ActiveObjectives
from spectral_tl_bench.training.checkpoints import CheckpointStore, Places
from spectral_tl_bench.training.plain import CannotTellError, plain
from spectral_tl_bench.training.trained import Convergence, StageSummary, TrainedModel

TOGETHER = 8
"""Steps after which several processes agree whether they keep a checkpoint or pause; one process looks at each."""


def random_states() -> dict[str, Any]:
    """The state of every global source of chance; of GPUs, of those that are this process's own."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device) for device in _own_gpus()],
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put them back."""
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == len(_own_gpus()):
        for device, state in zip(_own_gpus(), states["cuda"], strict=True):
            torch.cuda.set_rng_state(state, device)
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])


def _own_gpus() -> list[int]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.current_device()] if mine().size > 1 else list(range(torch.cuda.device_count()))


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, those that no state dict holds, too."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def signature(tensor: Tensor) -> int:
    """A number that tells whether a tensor has changed; quick, since frozen backbones are large."""
    whole = {8: torch.int64, 4: torch.int32, 2: torch.int16}.get(tensor.element_size(), torch.uint8)
    flat = tensor.detach().contiguous().flatten()
    return int((flat if flat.dtype == torch.bool else flat.view(whole)).sum(dtype=torch.int64))


class Keeper:
    """Keeps checkpoints of a module while it goes through its stages, and puts back what the last one holds.

    Args:
        store: Where they are; None keeps none.
        module: What the method built, with a shared first stage in it.
        places: Folders whose files belong to a checkpoint.
    """

    def __init__(self, store: CheckpointStore | None, module: nn.Module, places: Places) -> None:
        self.store, self.module, self._places = store, module, places
        self._built = {name: signature(value) for name, value in tensors_of(module).items()} if store else {}
        self._begun = time.monotonic()
        self.found = self._read()

    @property
    def earlier(self) -> float:
        """Seconds of the parts before this one."""
        return float(self.found["seconds"]) if self.found else 0.0

    @property
    def resumed(self) -> int:
        """How often the work has been taken up again."""
        return int(self.found["resumed"]) + 1 if self.found else 0

    @property
    def stage(self) -> int:
        """Number of the stage to go on with."""
        return int(self.found["stage"]) if self.found else 0

    def _read(self) -> dict[str, Any] | None:
        if self.store is None:
            return None
        found = self._fitting(self.store) if mine().rank == 0 else None
        if not agreed(found is not None):
            return None
        if found is None and (found := self.store.read(self._places)) is None:
            raise DataError(
                f"process {mine().rank} cannot read the checkpoint that process 0 goes on from",
                where=self.store.path, expected="--out on a disk that all nodes see",
            )  # fmt: skip
        own = tensors_of(self.module)
        with torch.no_grad():
            for name, value in {**found["weights"], **(theirs_of(found) or {}).get("weights", {})}.items():
                own[name].copy_(value)
        return found

    def _fitting(self, store: CheckpointStore) -> dict[str, Any] | None:
        """What the last checkpoint holds, if it is one of this module."""
        found = store.read(self._places)
        own = tensors_of(self.module)
        if found and any(name not in own or own[name].shape != value.shape for name, value in found["weights"].items()):
            store.set_aside("its weights do not fit the module")
            return None
        return found

    def moved(self) -> dict[str, Tensor]:
        """What is not as it was built: what trains, what follows, and what is frozen but was changed all the same."""
        return {
            name: value.detach()
            for name, value in tensors_of(self.module).items()
            if value.requires_grad or name not in self._built or signature(value) != self._built[name]
        }

    def save(
        self, stage: int, own: Callable[[], Mapping[str, Any]],
        write: Callable[[Path, dict[str, Any]], None] | None = None,
    ) -> None:  # fmt: skip
        """Write a checkpoint; where several processes train together, all of them come here.

        Args:
            stage: Number of the stage to go on with.
            own: Gives what else is to be known then; in a process other than the first, what it alone knows.
            write: Writes the file, see ``CheckpointStore.save``; by default with nothing but ours in it.

        Raises:
            CannotTellError: If something in it is not plain; in the first process.
        """
        if self.store is None:
            return
        content, problem = dict[str, Any](), ""
        try:
            content = plain(own(), "the run")
        except CannotTellError as error:
            problem = str(error)
        share, weights = mine(), self.moved()
        if share.size > 1:
            first = agreed({name: signature(value) for name, value in weights.items()} if share.rank == 0 else None)
            differing = {name: value for name, value in weights.items() if first.get(name) != signature(value)}
            # The first one's is here already; it need not become bytes.
            own_alone = {**content, "weights": differing}
            sent = None if share.rank == 0 else tree_map_only(Tensor, lambda tensor: tensor.cpu(), own_alone)
            _, *others = gathered((sent, problem)) or [None]
            if share.rank:
                return
            content["others"] = [theirs for theirs, _ in others]
            problem = problem or next((theirs for _, theirs in others if theirs), "")
        if problem:
            raise CannotTellError(problem)
        seconds = self.earlier + time.monotonic() - self._begun
        content |= {"stage": stage, "seconds": seconds, "resumed": self.resumed, "weights": weights}
        self.store.save(content, self._places, write or _write)

    def between_stages(self, stage: int, results: Callable[[], Mapping[str, Any]]) -> None:
        """Where one stage is over and the next has not begun: keep what there is if it is worth it, and pause if asked.

        Args:
            stage: Number of the next stage.
            results: What earlier stages have left, by name.

        Raises:
            Paused: If somebody has asked for it.
        """
        asked, worth_it = agreed((pause.asked(), self.store is not None and self.store.is_worth_it()))
        if self.store is not None and (asked or worth_it):
            try:
                self.save(stage, lambda: {"done": 0, **results()} if mine().rank == 0 else {})
            except CannotTellError as error:
                self.store.say_once(f"no checkpoint: {error}; cut off, it starts again")
        if asked:
            raise pause.Paused


def theirs_of(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a checkpoint holds of this process alone: {} for the first; None where other numbers of them trained."""
    others, share = found.get("others", []), mine()
    if len(others) + 1 != share.size:
        return None
    return others[share.rank - 1] if share.rank else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    torch.save(content, path)


def results_of(trained: TrainedModel, folder: Path) -> dict[str, Any]:
    """What stages have left, as a checkpoint holds it.

    Args:
        trained: What they have left.
        folder: Where the files of validated checkpoints lie.
    """
    return {
        "stages": [asdict(summary) for summary in trained.stages],
        "trace": trained.trace,
        "selected": trained.selected,
        "last": trained.last,
        "checkpoints": [path.relative_to(folder).as_posix() for path in trained.checkpoints],
        "averaged": trained.averaged,
        "convergence": asdict(trained.convergence) if trained.convergence else None,
        "settled": sorted(trained.settled),
    }


def put_results(trained: TrainedModel, results: Mapping[str, Any], folder: Path) -> None:
    """The other way."""
    trained.stages = [StageSummary(**summary) for summary in results["stages"]]
    trained.trace = [(int(step), float(value)) for step, value in results["trace"]]
    trained.selected, trained.last = tuple(results["selected"]), tuple(results["last"])
    trained.checkpoints = [folder / name for name in results["checkpoints"]]
    trained.averaged, trained.settled = results["averaged"], set(results["settled"])
    ending = results.get("convergence")
    trained.convergence = Convergence(**{**ending, "plateaus": tuple(ending["plateaus"])}) if ending else None


@dataclass
class StageKeeper(Callback):
    """Keeps checkpoints within one stage by gradients.

    They are written when all of a step is over, its validation included: as the next one begins. What has been read
    ahead by then does not matter, since batches are counted.

    Attributes:
        number: Number of the stage.
        objectives: The objectives at work in it.
        results: What earlier stages have left, by name.
    """

    keeper: Keeper
    number: int
    stage: Stage
    objectives: ActiveObjectives | None
    results: Callable[[], Mapping[str, Any]]

    def __post_init__(self) -> None:
        """Look whether the last checkpoint is within this stage."""
        found = self.keeper.found
        self._found = found if found and found["stage"] == self.number and found["done"] else None
        self._begun, self._own = time.monotonic(), dict[str, Any]()

    @property
    def done(self) -> int:
        """Steps that are done already."""
        return int(self._found["done"]) if self._found else 0

    @property
    def earlier(self) -> float:
        """Seconds of the stage before this part."""
        return float(self._found["stage_seconds"]) if self._found else 0.0

    @property
    def path(self) -> Path | None:
        """What Lightning goes on from."""
        return self.keeper.store.path if self._found and self.keeper.store is not None else None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Put back what is remembered outside the module, which is on its device by now."""
        if self._found is None:
            return
        own = {**self._found, **(theirs_of(self._found) or {})}
        if self.stage.memory is not None:
            self.stage.memory.load(self.keeper.module, own["memory"])
        if self.objectives is not None:
            self.objectives.restore(own["objectives"])

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Between two steps: write a checkpoint if it is time, and pause if somebody has asked for it."""
        store, new = self.keeper.store, batch_idx > self.done
        if self._found is not None and batch_idx == self.done:
            self._restore_chance(self._found)  # not before: whatever reads batches ahead draws a seed
        if mine().size > 1 and batch_idx % ((store and store.rhythm.steps) or TOGETHER):
            return
        asked, due = agreed((pause.asked(), store is not None and store.is_due(batch_idx)))
        if store is not None and new and (asked or due):
            self._save(trainer, batch_idx, store)
        elif asked and batch_idx == 0:
            self.keeper.between_stages(self.number, self.results)
        if asked:
            raise pause.Paused

    def _restore_chance(self, found: Mapping[str, Any]) -> None:
        """Go on with random states, or begin others where each belonged to one of another number of processes."""
        theirs, store = theirs_of(found), self.keeper.store
        if theirs is not None:
            set_random_states({**found, **theirs}["random"])
            return
        # Where the stage begins each process has a seed of its own.
        seed = seed_from(torch.initial_seed(), "gone on", self.done)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        if store is not None:
            store.say_once("it was trained on another number of devices before: what is drawn from here on is other")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Add what is ours to what Lightning keeps: progress of its loops, optimiser, rate, callbacks."""
        checkpoint.update(self._own)

    def _save(self, trainer: Any, done: int, store: CheckpointStore) -> None:
        met = False

        def write(path: Path, own: dict[str, Any]) -> None:
            nonlocal met
            self._own = own
            try:
                trainer.save_checkpoint(path)  # Lightning ends with a barrier
                met = True
            finally:
                self._own = {}

        try:
            self.keeper.save(self.number, lambda: self._state(done), write)
        except CannotTellError as error:
            store.say_once(f"no checkpoint within stage {self.stage.name!r}: {error}; cut off, the stage starts again")
        if not met:
            trainer.strategy.barrier()

    def _state(self, done: int) -> dict[str, Any]:
        stage = self.stage
        if stage.after_step is not None and stage.memory is None:
            raise CannotTellError("its after_step may remember something, and the stage has no `memory` that tells it")
        return {
            **(self.results() if mine().rank == 0 else {}),
            "done": done,
            "stage_seconds": self.earlier + time.monotonic() - self._begun,
            "memory": plain(stage.memory.save(self.keeper.module), "the stage") if stage.memory is not None else None,
            "objectives": self.objectives.state() if self.objectives is not None else None,
            "random": random_states(),
        }
