"""What a comparison rests on, as CSV: its clips, every prediction, the confusion of every fold. No faces."""

from collections.abc import Iterator
from itertools import product

import pandas as pd

from experiments.predictions import CLIP
from experiments.report.comparison import Comparison
from mer.evaluation import scoring


def files(comparison: Comparison) -> dict[str, str]:
    """Texts by the name of the file."""
    tables = {"clips": clips(comparison), "predictions": predictions(comparison), "folds": folds(comparison)}
    return {f"{comparison.key}-{name}.csv": table.to_csv(index=False) for name, table in tables.items()}


def clips(comparison: Comparison) -> pd.DataFrame:
    """The clips of all models, with their class."""
    return pd.concat([model.cell.clips[CLIP] for model in comparison.models]).drop_duplicates(ignore_index=True)


def predictions(comparison: Comparison) -> pd.DataFrame:
    """The clips with a column of predicted classes per model and seed, empty where a clip is not predicted."""
    columns = {
        f"{model.cell.model}-{model.cell.digest} seed {seed}": pool.table.set_index(CLIP)["prediction"]
        for model in comparison.models
        for seed, pool in model.pools.items()
    }
    return clips(comparison).set_index(CLIP).assign(**columns).reset_index()


def folds(comparison: Comparison) -> pd.DataFrame:
    """The confusion of every fold: a row per model, seed and fold, a count of clips per true and predicted class."""
    names = [f"{target} as {guess}" for target, guess in product(comparison.classes, repeat=2)]

    def rows() -> Iterator[tuple]:
        for model in comparison.models:
            for seed, pool in model.pools.items():
                start = 0  # the pool holds the folds one after the other
                for fold in pool.done:
                    end = start + len(model.cell.folds[fold])
                    counts = scoring.confusion(pool.table[start:end], comparison.classes)
                    yield model.cell.model, model.cell.digest, seed, fold, *counts.ravel()
                    start = end

    return pd.DataFrame(rows(), columns=["model", "digest", "seed", "fold", *names])
