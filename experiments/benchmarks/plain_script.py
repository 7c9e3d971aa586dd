"""One fold at a time on a CPU: STSTNet beside a plain script, and the time of each part of a fold."""

from collections import defaultdict
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from experiments.benchmarks.data import TRAINED, experiment
from experiments.benchmarks.fold_speed import per_epoch

# The last part is the whole fold less the other parts: a difference of two timings, which may be below 0.
PARTS = ("batch", "input scaling", "forward", "backward", "optimiser", "tests", "Lightning and what it logs")
ROUNDS = 5  # everything is timed so often, in turn; the shortest time counts


class ThreeStreams(nn.Module):
    """STSTNet as published, its three streams one after the other; 28x28 px, 3 classes."""

    def __init__(self):
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, kernels, 3, padding=1),
                nn.ReLU(),
                nn.BatchNorm2d(kernels),
                nn.MaxPool2d(3, stride=3, padding=1),
                nn.Dropout(0.5),
            )
            for kernels in (3, 5, 8)
        )
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(400, 3)

    def forward(self, flow: Tensor) -> Tensor:
        """Logits (B, 3) of scaled flow maps (B, 3, 28, 28)."""
        return self.head(self.pool(torch.cat([stream(flow) for stream in self.streams], dim=1)).flatten(1))


def plain(clips: int, passes: int) -> float:
    """Seconds per epoch of a plain script in batches of ``clips``: a loader, a loop, Adam; no test."""
    torch.manual_seed(0)
    network, flow, target = ThreeStreams(), torch.randn(TRAINED, 3, 28, 28), torch.arange(TRAINED) % 3
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-5)
    loader = DataLoader(TensorDataset(flow, target), clips, shuffle=True)
    start = perf_counter()
    for _ in range(passes):
        for x, y in loader:
            optimizer.zero_grad()
            cross_entropy(network(x), y).backward()
            optimizer.step()
    return (perf_counter() - start) / passes


def bare(model: str, clips: int, passes: int) -> dict[str, float]:
    """Seconds per epoch of each part of a recipe in a plain loop: same batches, steps and tests, no Lightning."""
    recipe = experiment(model, "cpu", f"--data.batch_size={clips}")
    torch.manual_seed(0)
    task, data, spent = recipe.instantiate().model, recipe.data, defaultdict(float)
    data.setup()
    data.hold_out(next(iter(data.folds)), 0)
    batches, optimizer = data.train_dataloader(), torch.optim.AdamW(task.param_groups(), lr=task.lr)
    averages = task.configure_callbacks()  # the moving average of the weights, if the recipe has it
    last = perf_counter()

    def ended(part: str) -> None:
        nonlocal last
        now = perf_counter()
        spent[part] += now - last
        last = now

    for _ in range(passes):
        for batch in batches:
            ended("batch")
            inputs = task.network_inputs(batch)
            ended("input scaling")
            loss = sum(task.loss(task.network(**inputs), batch).values())
            ended("forward")
            loss.backward()
            ended("backward")
            optimizer.step()
            optimizer.zero_grad()
            for average in averages:
                average.on_train_batch_end(None, task, None, batch, 0)
            ended("optimiser")
        with torch.no_grad():
            (test,) = data.test_dataloader()
            task.eval()
            task.predict_step(test)
            task.train()
        ended("tests")
    steps = passes * len(batches)
    return {part: spent[part] / steps * TRAINED / clips for part in PARTS[:-1]}


def compare(model: str, clips: int, passes: int) -> tuple[dict[str, float], float]:
    """Seconds per epoch of each part of a fold as ``mer`` trains it, and of a plain script, timed in turn."""
    ours, loops, scripts = [], [], []
    for _ in range(ROUNDS):
        ours.append(per_epoch(model, "cpu", 1, False, passes, f"--data.batch_size={clips}")["seconds"])
        loops.append(bare(model, clips, passes))
        scripts.append(plain(clips, passes))
    loop = min(loops, key=lambda spent: sum(spent.values()))
    return {**loop, PARTS[-1]: min(ours) - sum(loop.values())}, min(scripts)


def table(passes: int) -> list[str]:
    """Lines of the page: a column per recipe and batch, a row per part; under it STSTNet beside the plain script."""
    cases = {("ststnet", clips): 4 * passes for clips in (32, 64, 256)} | {("ahmsa_net", 32): passes}
    columns = {case: compare(*case, passes) for case, passes in cases.items()}
    wholes = {case: sum(spent.values()) for case, (spent, _) in columns.items()}
    names = (f"{model}, batches of {clips}" for model, clips in columns)
    lines = [f"| ms per epoch of one fold, on one core | {' | '.join(names)} |", "| --- |" + " ---: |" * len(columns)]
    for part in PARTS:
        cells = (f"{1e3 * spent[part]:.1f} ({spent[part] / wholes[case]:.0%})" for case, (spent, _) in columns.items())
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines += [f"| whole | {' | '.join(f'{1e3 * whole:.0f}' for whole in wholes.values())} |", ""]
    for (model, clips), (_, script) in columns.items():
        if model == "ststnet":
            whole = wholes[model, clips]
            lines.append(
                f"- STSTNet, batches of {clips}: {whole / script:.2f} times the seconds of a plain eager script of "
                f"three streams ({1e3 * whole:.0f} against {1e3 * script:.0f} ms an epoch)."
            )
    return lines
