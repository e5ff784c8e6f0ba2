"""Adapters of the literature, by HuggingFace peft, with the settings of their papers.

timm has one linear layer for queries, keys and values: LoRA and its relatives give it one pair of factors for the
three together, where papers that adapt separate layers count a pair for each; (IA)3 scales the queries, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.options import EMBED_DIFFERS, NORMS_TEXT
from spectral_tl_bench.methods.tuners import LinearTunerMethod, TunerMethod, block_layers, pattern

if TYPE_CHECKING:
    from peft import PeftConfig


class Lora(LinearTunerMethod):
    """Low-rank adaptation of the linear layers of the frozen backbone.

    Rank 16 is that of the SpectralX and SLR papers; alpha = rank leaves the update unscaled, and the LayerNorms train,
    as they do.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Hu et al., LoRA, ICLR 2022, eq. 3"
    starts: ClassVar[str] = "A uniform (He et al., as in nn.Linear), B 0: untrained it changes nothing"
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"rank": (4, 8, 16, 32, 64)}
    use_dora: ClassVar[bool] = False
    differs: ClassVar[tuple[str, ...]] = (
        *LinearTunerMethod.differs,
        "Hu et al. adapt queries and values and keep the LayerNorms; all four layers and trained LayerNorms are the "
        "setting of the SpectralX and SLR papers, whose variant with biases is lora-biased.",
    )

    train_norms: bool = Field(True, description=f"{NORMS_TEXT} (SpectralX and SLR papers)")
    rank: int = Field(16, ge=1, description="width between the factors, of which one starts at 0")
    alpha: float = Field(16.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the inputs dropped in training")

    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """Low-rank matrices beside the chosen layers."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, use_dora=self.use_dora,
            target_modules=self.targets(backbone),
        )  # fmt: skip


class Dora(Lora):
    """DoRA: LoRA for the direction of a weight, and a learned magnitude for each of its outputs.

    Rank and alpha are those of ``lora``; with ``-o train_norms=true`` the two differ in the magnitudes alone.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Liu et al., DoRA, ICML 2024, eq. 5"
    starts: ClassVar[str] = "A and B as in LoRA, magnitudes those of the weight: untrained it changes nothing"
    use_dora: ClassVar[bool] = True
    differs: ClassVar[tuple[str, ...]] = LinearTunerMethod.differs

    train_norms: bool = Field(False, description=NORMS_TEXT)


class Ia3(LinearTunerMethod):
    """(IA)3: learned scales of queries, keys and values, and of what enters the second layer of the MLP.

    The paper scales keys and values; timm's one layer for the three brings the queries with it. Scaling a query is
    scaling the key that it meets, so that this adds parameters but no other function.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Liu et al., Few-Shot PEFT is Better and Cheaper than In-Context Learning, NeurIPS 2022"
    places: ClassVar[str] = "queries, keys, values and the inputs of the MLP's second layer in every block"
    starts: ClassVar[str] = "scales 1: untrained it changes nothing"
    differs: ClassVar[tuple[str, ...]] = (
        "Queries are scaled, too, since timm has one layer for queries, keys and values; no new function comes of it.",
        EMBED_DIFFERS,
    )

    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """Scales of the outputs of the attention's first layer and of the inputs of the MLP's last."""
        from peft import IA3Config

        names = block_layers(backbone, nn.Linear, self.where)
        inputs = [name for name in names if name.endswith("mlp.fc2")]
        outputs = [name for name in names if name.rpartition(".")[2] in ("qkv", "kv", "k_proj", "v_proj")]
        # No name matches the empty pattern.
        return IA3Config(
            target_modules=pattern(outputs + inputs, self.where),
            feedforward_modules=pattern(inputs, self.where) if inputs else "",
        )


class Vera(LinearTunerMethod):
    """VeRA: learned scales between two random matrices that all layers share and that stay as they are.

    Rank 256 and the start of the scales at 0.1 are those of the paper's vision transformers. The random matrices come
    from a fixed seed and are in no checkpoint.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Kopiczko et al., VeRA, ICLR 2024, eq. 2"
    starts: ClassVar[str] = "inner scales 0.1, outer 0, matrices uniform (He et al.): untrained it changes nothing"
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"rank": (64, 256, 1024)}

    rank: int = Field(256, ge=1, description="inner width of the shared matrices")
    start: float = Field(0.1, description="start of the inner scales; the outer ones start at 0")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the inputs dropped in training")

    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """Scales beside the chosen layers."""
        from peft import VeraConfig

        return VeraConfig(
            r=self.rank, d_initial=self.start, vera_dropout=self.dropout, save_projection=False, projection_prng_key=0,
            target_modules=self.targets(backbone),
        )  # fmt: skip


class Oft(LinearTunerMethod):
    """Orthogonal fine-tuning: the inputs of every layer are rotated in blocks.

    Blocks of 32 are peft's default. Rotations are exact (Cayley transform) unless ``approximate`` asks for the series
    of Qiu et al. 2025, which is faster and no longer quite orthogonal.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Qiu et al., Controlling Text-to-Image Diffusion by Orthogonal Finetuning, NeurIPS 2023"
    starts: ClassVar[str] = "no rotation: untrained it changes nothing"

    block: int = Field(32, ge=2, description="channels that are rotated together")
    approximate: bool = Field(False, description="Cayley-Neumann series of five terms instead of the Cayley transform")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the blocks that are left out in a training step")

    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """Rotations before the chosen layers."""
        from peft import OFTConfig

        # peft would go on with another block size than the one asked for.
        for name in block_layers(backbone, nn.Linear, self.where):
            channels = backbone.get_submodule(name).in_features
            if channels % self.block:  # type: ignore[operator]
                raise MethodError(
                    f"{channels} inputs of {name} cannot be rotated in blocks of {self.block}",
                    fix="choose a divisor of the backbone's width for the option block",
                )
        return OFTConfig(
            oft_block_size=self.block, module_dropout=self.dropout, use_cayley_neumann=self.approximate,
            target_modules=self.targets(backbone),
        )  # fmt: skip


class FourierFt(LinearTunerMethod):
    """FourierFT: the update of a weight has a few learned entries in its two-dimensional spectrum.

    3,000 frequencies and the factor 300 are those of the paper's vision transformers. The paper draws the first
    entries from N(0, 1); the update then starts with a standard deviation of scaling * sqrt(frequencies / 2) / entries
    of the weight: small at a width of 1,024, and larger than the weights themselves at a width of 100. Entries
    therefore start at 0 unless ``random_start`` is given.
    """

    numerics_version = 1

    reference: ClassVar[str] = (
        "Gao et al., Parameter-Efficient Fine-Tuning with Discrete Fourier Transform, ICML 2024, eqs. 2-4"
    )
    starts: ClassVar[str] = "entries 0: untrained it changes nothing"
    differs: ClassVar[tuple[str, ...]] = (
        *LinearTunerMethod.differs,
        "Entries start at 0, the paper's from N(0, 1): -o random_start=true.",
    )
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"frequencies": (1000, 3000, 10000)}

    frequencies: int = Field(3000, ge=1, description="learned entries per layer; a smaller weight has all of its own")
    scaling: float = Field(300.0, gt=0, description="factor of the update")
    random_start: bool = Field(False, description="entries start from N(0, 1), as in the paper, instead of 0")

    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """Spectra beside the chosen layers; which entries they have follows from a fixed seed."""
        from peft import FourierFTConfig

        sizes = {
            name: backbone.get_parameter(f"{name}.weight").numel()
            for name in block_layers(backbone, nn.Linear, self.where)
        }
        return FourierFTConfig(
            n_frequency=self.frequencies, scaling=self.scaling, init_weights=not self.random_start,
            n_frequency_pattern={name: size for name, size in sizes.items() if size < self.frequencies},
            random_loc_seed=777, target_modules=self.targets(backbone),
        )  # fmt: skip


class LnTuning(TunerMethod):
    """LayerNorm tuning: scale and shift of the LayerNorms in the blocks train.

    peft trains copies, so that all parameters together are a few more than those of the backbone.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Zhao et al., Tuning LayerNorm in Attention, ICLR 2024"
    places: ClassVar[str] = "the LayerNorms of every block"
    starts: ClassVar[str] = "the values of the backbone: untrained it changes nothing"
    differs: ClassVar[tuple[str, ...]] = (
        "peft trains copies of the norms; they are the method itself, so that there is no option train_norms.",
        EMBED_DIFFERS,
    )

    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """Copies of the norms before the attention, before the MLP, or of all in the blocks."""
        from peft import LNTuningConfig

        ends = {"all": "", "attention": "norm1", "mlp": "norm2"}[self.where]
        names = [name for name in block_layers(backbone, nn.LayerNorm) if name.endswith(ends)]
        return LNTuningConfig(target_modules=pattern(names, self.where))
