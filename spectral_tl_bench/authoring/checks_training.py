"""Checks of how a method trains: what changes, what comes back under the same seed, what a file keeps."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from spectral_tl_bench.authoring.checks_interface import use
from spectral_tl_bench.authoring.surroundings import changes, reseeded, settings
from spectral_tl_bench.authoring.trial import Trial, predict
from spectral_tl_bench.authoring.verdict import FailedCheckError, described
from spectral_tl_bench.authoring.watching import differing, every_value, listed, same
from spectral_tl_bench.errors import AdapterError
from spectral_tl_bench.methods.adapters_io import card_of, load_adapter, save_adapter


def evaluation(trial: Trial) -> str:
    """In evaluation mode, predicting twice gives the same and changes nothing."""
    task = trial.task()
    module, images = trial.build(task).train().eval(), trial.images(task)
    before = every_value(module)
    first, second = predict(module, images), predict(module, images)
    changed = differing(before, every_value(module))
    if changed:
        raise FailedCheckError(
            f"predicting changes {listed(changed)}",
            "let nothing adapt in evaluation mode: target chips would change the model one after the other",
        )
    if not same(first, second):
        raise FailedCheckError(
            "the same images get other logits the second time",
            "dropout and other noise only where self.training; use nn.Dropout, not functional.dropout as it is",
        )
    return ""


def stages(trial: Trial) -> str:
    """A few steps of every stage run through, with finite losses."""
    trained = trial.first()
    bad = [name for name, seen in trained.seen.items() if not all(map(math.isfinite, seen.losses))]
    if bad:
        raise FailedCheckError(f"the loss of stage {bad[0]!r} is no finite number", "look at the loss on plain noise")
    return "in closed form" if not trained.seen else ""


def trains(trial: Trial) -> str:
    """What is declared trainable trains, and nothing else changes."""
    trained = trial.first()
    wrong = list(trained.wrong)
    idle = trained.declared - trained.covered
    if idle:
        wrong.append(f"require a gradient, but no stage trains them: {listed(idle)}")
    if wrong:
        raise FailedCheckError(
            "; ".join(wrong),
            "requires_grad=False on all that does not train, or Stage(..., unreached={name: reason}) where a count "
            "must hold what no gradient can reach; never change weights outside the optimiser but in after_step",
        )
    return ""


def seed(trial: Trial) -> str:
    """The same seed gives the same weights and the same training, also after another run in the same process."""
    first = trial.first()
    first_build, second_build = every_value(trial.build()), every_value(trial.build())
    drawn = differing(first_build, second_build)
    fix = "draw from PyTorch's global random state, which the suite seeds, or from generators seeded from numbers"
    if drawn:
        raise FailedCheckError(f"built twice under one seed, these differ: {listed(drawn)}", fix)
    predict(first.module, trial.images(trial.task(), seed=9))  # a run ends with the target; nothing may stay of it
    second = trial.train()
    differ = differing(first.values, second.values)
    if differ:
        raise FailedCheckError(
            f"trained twice under one seed, these differ: {listed(differ)}", f"{fix}; keep nothing from run to run"
        )
    return ""


def files(trial: Trial) -> str:
    """Stored weights give the same predictions in a module that is built afresh."""
    task, trained = trial.task(), trial.first()
    module, stored = trained.module, {name: trained.values[name] for name in trained.kept}
    images = trial.images(task, seed=4)
    fresh = trial.build(task, seed=77)
    fix = "keep all that a prediction depends on in parameters and buffers (register_buffer), or set it in build"
    with tempfile.TemporaryDirectory(prefix="stbench-") as folder:
        path, card = Path(folder) / "weights.safetensors", card_of(trial.name, trial.method, task)
        try:
            save_adapter(module, path, card, stored)
            load_adapter(fresh, path, card)
        except (AdapterError, ValueError, RuntimeError) as error:
            raise FailedCheckError(f"the weights cannot be stored and read again: {described(error)}", fix) from None
    if not same(predict(module, images), predict(fresh, images)):
        raise FailedCheckError("the module predicts otherwise after its weights were stored and read again", fix)
    return ""


def surroundings(trial: Trial) -> str:
    """Nothing outside the module is changed: random states, settings of PyTorch, environment."""
    task, before = trial.task(), settings()

    def action() -> None:
        use(trial, task, trial.method.build(task))

    seeds = reseeded(action)
    changed = changes(before, settings())
    if seeds:
        raise FailedCheckError(
            f"a global random state is seeded by the method: {', '.join(seeds)}",
            "leave it out: the suite seeds; or use torch.random.fork_rng() around it",
        )
    if changed:
        raise FailedCheckError(
            f"changed for the whole process: {', '.join(changed)}", "leave it out, or set it back before returning"
        )
    return ""
