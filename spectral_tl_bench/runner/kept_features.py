"""A cell on features that are computed once: whether its method can, what the features depend on, where they are."""

from __future__ import annotations

from torch import nn

from spectral_tl_bench.data.loaders import SourceData
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.features.identity import Identify
from spectral_tl_bench.features.kept import FeatureRun
from spectral_tl_bench.protocol.numerics import feature_versions, named_parts
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.progress import Say


def on_features(
    cell: Cell, split: SplitTable, module: nn.Module, source: SourceData, hardware: Hardware, say: Say
) -> FeatureRun | None:
    """Cut a run in two, if its method asks for it.

    Args:
        split: Who does what; of the target, only the sizes of chips are read.
        module: What the cell's method built.
        hardware: Device, and how much room features may take.

    Returns:
        The run on features; None where the method runs on images.

    Raises:
        UserError: If the features would take too much room.
        MethodError: If the method's module or stages are not made for it.
    """
    wanted = cell.method.kept_features()
    if wanted is None:
        return None
    task, benchmark = cell.task(), cell.opened.benchmark
    odd = [
        stage.name for stage in cell.method.stages(task) if not stage.labelled or stage.shared or stage.fit is not None
    ]
    if odd:
        raise MethodError(
            f"stage {odd[0]!r} of method {cell.method_name} cannot run on kept features",
            expected="stages with labels that train a decoder by gradients",
            fix="leave out cache=true",
        )
    identify = Identify(
        task, module, wanted, source.statistics, benchmark.dataset, benchmark.nodata_key, hardware.device,
        feature_versions(cell.numerics()) | named_parts(cell.protocol, ("normalisation", "windows")),
    )  # fmt: skip
    run = FeatureRun(
        module, source, wanted, identify, hardware.feature_limit, hardware.device,
        lambda line: say(f"{cell.title} | {line}"), cell.method_name,
    )  # fmt: skip
    frame = cell.opened.index.frame.loc[split.chips("target")]
    run.check_room([(int(high), int(wide)) for high, wide in zip(frame["height"], frame["width"], strict=True)])
    return run
