"""The commands `ablate`, `compare` and `published`."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from sbirlib.cli.train import Flags, Start, flags_of, taking
from sbirlib.errors import InputError, printable
from sbirlib.experiments import ablation, finished, grids, published
from sbirlib.training.signals import noted

Table = Literal["all", "ClothesV1", "ChairV2", "ShoeV2", "ShoeV1", "ChairV1", "HandbagV1"]


def ablate_from(start: Start) -> Callable[..., int]:
    """The `ablate` command with the values of `start` as defaults of its flags."""
    base = flags_of(start.config)

    def ablate_command(
        out: Path,
        config: Flags = base,
        preset: str = start.preset,
        grid: grids.GridName | None = None,
        vary: tuple[str, ...] = (),
        seeds: tuple[int, ...] = (0, 1, 2),
        frozen: str | None = None,
        weights: Path | None = None,
    ) -> int:
        """Train variants over seeds and compare them; a run that OUT already holds is not done again.

        Args:
            out: Folder for runs/, results.csv (one row per run) and ablation.png.
            config: Hyper-parameters of every variant.
            preset: Where the defaults of all other flags come from.
            grid: All methods and two baselines, or variants of ARNet; the others are compared with the first.
            vary: Instead of a grid: fields and their values, such as mstr.weight=0.1,0.5 (all combinations).
            seeds: Seeds of weights, data order, views and validation split.
            frozen: Also a row for this timm backbone as it is, without any training.
            weights: With frozen: a local file instead of the published weights.
        """
        if (grid is not None) + bool(vary) != 1 and not (frozen and grid is None and not vary):
            raise InputError("name either --grid or --vary (or --frozen alone)")
        settings = config.config()
        if frozen is not None:
            ablation.score_frozen(settings, frozen, weights=weights or "", out=out)
        variants = grids.grid(grid, settings) if grid else grids.vary(vary) if vary else []
        # A scheduler ends the job with SIGTERM: as Ctrl-C does, it leaves a checkpoint.
        with noted(signal.SIGTERM, lambda: signal.raise_signal(signal.SIGINT)):
            for row in ablation.ablate(settings, variants, seeds, out=out) if variants else ():
                seed = "not trained" if row.seed == finished.UNTRAINED else f"seed {row.seed}"
                print(
                    f"{printable(row.variant)}, {seed}: Acc@1 {row.score['acc@1']:.1f} % "
                    f"({row.score['hits@1']}/{row.score['queries']})"
                    f"{', TEST SET chose the epoch' if row.score['protocol'].count('CHOSEN ON') else ''}",
                    flush=True,
                )
        print(finished.summary(out))
        return 0

    return taking(ablate_command, base)


def compare_command(
    out: Positional[Path], first: Positional[str], second: Positional[str], k: int = 1
) -> int:
    """Paired bootstrap between two variants of an ablation, or two runs as variant@seed.

    Args:
        out: Folder that `ablate --out` wrote.
        first: What to compare with.
        second: What is compared.
        k: Acc@k is compared.
    """
    print(f"Acc@{k} of {second!r} less that of {first!r}: {finished.compare(out, first, second, k)}")
    for protocol in dict.fromkeys(
        row.score["protocol"]
        for row in finished.read_rows(out)
        if {row.variant, f"{row.variant}@{row.seed}"} & {first, second}
    ):
        print(printable(protocol))
    return 0


def published_command(dataset: Positional[Table] = "all") -> int:
    """Print the published tables of Acc@K in percent: ARNet and other methods, and people.

    Args:
        dataset: Which data set.
    """
    import pandas as pd  # slow to import

    table = pd.DataFrame(published.results(None if dataset == "all" else dataset)).drop(columns="kit")
    table["queries"] = table["queries"].astype(object).replace(0, "-")
    names = ["data set", "method", "venue", "Acc@1", "Acc@5", "Acc@10", "queries"]
    print(table.to_string(index=False, header=names, na_rep="-", float_format="%.2f"))
    print(
        "ClothesV1, ChairV2, ShoeV2: the repository of the ARNet paper (AAAI 2025, arXiv 2406.11551).\n"
        'ShoeV1, ChairV1, HandbagV1: table 2 of "Photo Pre-Training, But for Sketch" (CVPR 2023); most\n'
        "methods there see the photos, not edge maps. None comes with intervals.\n"
        "The methods' authors measured them, on other backbones and protocols than this kit's."
    )
    return 0
