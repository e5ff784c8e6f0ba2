"""Draw the overview of SpectralX for ``docs/spectralx.md``.

python docs/make_spectralx_svg.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

FROZEN, TRAINED, DATA, EITHER = "#cfdbe6", "#fbd3a4", "#ffffff", "url(#either)"
INK, FAINT = "#1d2733", "#5b6b7a"
PARTS: list[str] = []


def box(x: float, y: float, width: float, height: float, lines: str, fill: str, size: float = 12.5) -> None:
    """A rounded box with centred lines of text; the first one bold."""
    PARTS.append(
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{fill}" stroke="{INK}" '
        'stroke-width="1.2"/>'
    )
    rows = lines.split("\n")
    top = y + height / 2 - (len(rows) - 1) * (size + 3) / 2 + size * 0.36
    for number, row in enumerate(rows):
        weight = "600" if number == 0 else "400"
        text(x + width / 2, top + number * (size + 3), row, size if number == 0 else size - 1.5, weight, "middle")


def text(x: float, y: float, words: str, size: float = 12, weight: str = "400", anchor: str = "start") -> None:
    """One line of text."""
    PARTS.append(
        f'<text x="{x}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{INK}">{escape(words)}</text>'
    )


def arrow(*points: tuple[float, float], dashed: bool = False) -> None:
    """A line through points with a head at the end."""
    path = " ".join(f"{'M' if number == 0 else 'L'}{x},{y}" for number, (x, y) in enumerate(points))
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    PARTS.append(f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.4"{dash} marker-end="url(#head)"/>')


def frame(x: float, y: float, width: float, height: float, title: str) -> None:
    """A light frame around what belongs together."""
    PARTS.append(
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="none" stroke="{FAINT}" '
        'stroke-width="1" stroke-dasharray="2 4"/>'
    )
    text(x + 12, y + 20, title, 13.5, "600")


def tokenizer() -> None:
    """Hyper tokenizer, low-rank path and their sum."""
    box(24, 150, 104, 70, "image\nC x 224 x 224", DATA)
    frame(150, 24, 756, 216, "Hyper Tokenizer (HyperT)")
    box(168, 62, 104, 66, "stem\nconvolutions, BN\n512 x 28 x 28", EITHER)
    box(306, 52, 152, 44, "spatial block\n784 places of 512", EITHER)
    box(306, 112, 152, 44, "spectral block\n512 attributes of 784", EITHER)
    box(488, 52, 150, 44, "+ place in metres\nspa 784 x 512", DATA)
    box(488, 112, 150, 44, "+ wavelength in nm\nspe 512 x 784", DATA)
    box(668, 62, 118, 84, "attribute match\nqueries attend\nto spa and spe,\nthen MLP", EITHER)
    box(806, 74, 86, 60, "tokens\n196 x 1024", DATA)
    arrow((128, 178), (140, 178), (140, 95), (166, 95))
    for y in (74, 134):
        arrow((272, 95), (288, 95), (288, y), (304, y))
        arrow((458, y), (486, y))
        arrow((638, y), (654, y), (654, 104), (666, 104))
    arrow((786, 104), (804, 104))
    box(306, 186, 332, 40, "low-rank patch path\nconvolutions 4x4 to 16 and 4x4 to 1024 channels", TRAINED, 12.5)
    arrow((128, 206), (304, 206))
    box(806, 176, 86, 48, "+, x scale", TRAINED)
    arrow((638, 206), (804, 206))
    arrow((849, 134), (849, 174))


def encoder() -> None:
    """The frozen transformer with its adapters."""
    frame(24, 270, 1132, 226, "Frozen vision transformer: 24 blocks; its LayerNorms train")
    arrow((849, 224), (849, 254), (52, 254), (52, 336))
    box(36, 338, 96, 52, "+ position\n+ class token", DATA)
    for number, last in enumerate((5, 11, 17, 23)):
        x = 160 + 250 * number
        box(x, 338, 92, 52, f"blocks\n{last - 5} to {last - 1}", FROZEN)
        box(x + 106, 318, 76, 92, "", FROZEN)
        text(x + 144, 338, f"block {last}", 12.5, "600", "middle")
        box(x + 111, 350, 66, 50, "AoMoA\nat fc1, fc2", TRAINED, 12)
        box(x + 196, 338, 38, 52, "Are", TRAINED)
        arrow((x - 28 if number == 0 else x - 16, 364), (x - 2, 364))
        arrow((x + 92, 364), (x + 104, 364))
        arrow((x + 182, 364), (x + 194, 364))
        arrow((x + 215, 390), (x + 215, 446))
        arrow((x + 215, 300), (x + 215, 336), dashed=True)
    PARTS.append(f'<path d="M565,156 L565,164 L925,164 L925,300 L375,300 M925,300 L1125,300" fill="none" '
                 f'stroke="{INK}" stroke-width="1.4" stroke-dasharray="5 4"/>')  # fmt: skip
    text(940, 200, "spa and spe, to the one Are-adapter", 12)
    text(940, 216, "that works after blocks 5, 11, 17, 23", 12)
    text(940, 232, "(stage 2 only)", 12)
    PARTS.append(f'<path d="M375,446 L1125,446" fill="none" stroke="{INK}" stroke-width="1.4"/>')
    text(180, 450, "four maps of 1024 x 14 x 14", 12)
    box(540, 508, 330, 44, "neck (x4, x2, x1, x0.5) and UPerNet head", TRAINED)
    arrow((705, 446), (705, 506))
    box(930, 508, 140, 44, "logits\nK x 224 x 224", DATA)
    arrow((870, 530), (928, 530))
    text(36, 535, "Stage 2, labelled source chips: cross-entropy without void", 12.5, "600")


def details() -> None:
    """AoMoA, Are-adapter and stage 1."""
    frame(24, 578, 440, 196, "AoMoA, beside a frozen linear layer W")
    box(40, 612, 86, 52, "token x\nspa | spe", DATA)
    box(148, 612, 96, 52, "down to 1/4\nLayerNorms", TRAINED)
    box(266, 608, 96, 60, "4 experts\nand a gate\nper half", TRAINED)
    box(384, 612, 66, 52, "up\nx scale", TRAINED)
    arrow((126, 638), (146, 638))
    arrow((244, 638), (264, 638))
    arrow((362, 638), (382, 638))
    text(40, 700, "y = log sum of gate x exp(expert), over the best 2 of 4;", 12)
    text(40, 718, "output = W x + scale * [y_spa ; y_spe], zero at the start.", 12)
    text(40, 736, "All experts are computed for all tokens in batched form:", 12)
    text(40, 754, "no token is dispatched, nothing waits for the device.", 12)
    frame(480, 578, 330, 196, "Are-adapter")
    for number, line in enumerate((
        "Each of the 784 + 512 attribute features finds",
        "its patch token: the best match (released, hard)",
        "or all of them by weight (paper, soft).",
        "Convolutions turn what was found into two",
        "factors per patch, f_spa and f_spe:",
        "tokens += scale * [f_spa * spa ; f_spe * spe]",
        "The class token passes by.",
    )):  # fmt: skip
        text(496, 624 + 20 * number, line, 12)
    frame(826, 578, 330, 196, "Stage 1, source chips without labels")
    for number, line in enumerate((
        "75 % of the patches are blanked before any part",
        "of the model looks at the image; the transformer",
        "sees the tokens of the others.",
        "A light decoder with a learned mask token and",
        "AoMoA reconstructs all bands of hidden patches:",
        "mean squared error, pixels normalised per patch.",
        "Stage 2 starts from the HyperT, low-rank path,",
        "AoMoA and LayerNorms of stage 1.",
    )):  # fmt: skip
        text(842, 624 + 19 * number, line, 12)


def legend() -> None:
    """What the colours mean."""
    for number, (fill, words) in enumerate((
        (FROZEN, "frozen"), (TRAINED, "trained"),
        (EITHER, "trained (paper), or frozen at its random start (released)"), (DATA, "data"),
    )):  # fmt: skip
        x = (930, 1030, 930, 1120)[number]
        y = (48, 48, 78, 48)[number]
        PARTS.append(f'<rect x="{x}" y="{y}" width="18" height="18" rx="4" fill="{fill}" stroke="{INK}"/>')
        if number == 2:
            text(x + 26, y + 13, "trained (paper), or frozen at its", 12)
            text(x + 26, y + 29, "random start (released)", 12)
        else:
            text(x + 26, y + 13, words, 12)
    text(930, 132, "Sizes: ViT-L/16 at 224 px.", 12)


def main() -> None:
    """Write ``spectralx.svg`` beside this file."""
    tokenizer()
    encoder()
    details()
    legend()
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1180 790" font-family="Helvetica, Arial, sans-serif" '
        'role="img" aria-labelledby="t d"><title id="t">Overview of SpectralX</title>'
        '<desc id="d">An image passes the hyper tokenizer and a low-rank path, then a frozen vision transformer whose '
        "blocks 5, 11, 17 and 23 carry AoMoA and are followed by the Are-adapter; a neck and a UPerNet head give "
        "logits.</desc><defs>"
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker>'
        '<pattern id="either" width="10" height="10" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<rect width="10" height="10" fill="{TRAINED}"/><rect width="5" height="10" fill="{FROZEN}"/></pattern>'
        '</defs><rect width="1180" height="790" fill="#f7f8fa"/>'
    )
    path = Path(__file__).with_name("spectralx.svg")
    path.write_text(head + "\n" + "\n".join(PARTS) + "\n</svg>\n", encoding="utf-8")


if __name__ == "__main__":
    main()
