"""Labels and partial clouds as a PyTorch Dataset, and a small network for shape completion that learns from them.

    python examples/07_train_on_labels.py [RUN …]

Give folders of finished runs, as `python -m neuralrecon.train` leaves them. Without any it simulates a can, a vase and
a wedge and labels their true meshes. An item is what one depth camera saw, and points of which it is to be told whether
they are inside. Every eighth view is kept from training. Prints the share of right answers there before and after, in
about 20 s. The network is there to be replaced; the Dataset is what the example is about.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

import neuralrecon as nr
from neuralrecon.evaluate import read_mesh
from neuralrecon.label import LabelConfig, OccupancyLabels
from neuralrecon.simulate import SimulateConfig, simulate

OUT = Path("outputs/examples/07")
N_CLOUD, N_QUERIES, EPOCHS = 256, 512, 30
HALF_SIZE_M = 0.15  # all clouds are divided by this: a network learns in units about one, and sizes stay comparable


class CompletionViews(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """One item per partial cloud: (cloud, queries, inside), centred on the cloud, in units of `HALF_SIZE_M`.

    cloud: [N_CLOUD, 3], drawn from the cleaned points; queries: [N_QUERIES, 3], drawn from the labelled points;
    inside: [N_QUERIES], 0 or 1. Everything is in the table's frame (z up), turned as the capture is.

    Args:
        folders: of labels, as a run's `labels/`: with `labels.npz` and `partial/`.
        only_observed: leave out points that no camera could tell (`observed`), such as those on a filled underside.
    """

    def __init__(self, folders: Sequence[Path], *, only_observed: bool = False, least: int = 50) -> None:
        self.labels: list[tuple[np.ndarray, np.ndarray]] = []
        self.views: list[tuple[np.ndarray, int]] = []  # the cloud, and whose labels go with it
        for folder in folders:
            labels = OccupancyLabels.load(folder / "labels.npz")
            inside = np.asarray(labels.occupancy)
            keep = labels.observed | inside if only_observed and labels.observed is not None else np.ones_like(inside)
            for file in sorted((folder / "partial").glob("*.npz")):
                with np.load(file) as arrays:
                    if len(cloud := arrays["cleaned"]) >= least:
                        self.views.append((cloud, len(self.labels)))
            self.labels.append((labels.points_in_world[keep], inside[keep]))

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        cloud, which = self.views[index]
        points, inside = self.labels[which]
        centre = cloud.mean(axis=0)
        seen, asked = torch.randint(len(cloud), (N_CLOUD,)), torch.randint(len(points), (N_QUERIES,))
        return (
            torch.from_numpy((cloud - centre) / HALF_SIZE_M)[seen],
            torch.from_numpy((points - centre) / HALF_SIZE_M)[asked],
            torch.from_numpy(inside).float()[asked],
        )


class Completion(nn.Module):
    """A cloud to a code by a network on each point and a maximum over them; code and query to a logit."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width))
        self.decode = nn.Sequential(
            *(nn.Linear(3 + width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        )

    def forward(self, cloud: Tensor, queries: Tensor) -> Tensor:
        code = self.encode(cloud).amax(dim=1, keepdim=True).expand(-1, queries.shape[1], -1)
        return self.decode(torch.cat([queries, code], dim=2))[..., 0]


def made() -> list[Path]:
    """Labels of three simulated captures' true meshes."""
    folders = []
    for shape in ("can", "vase", "wedge"):
        recording = SimulateConfig(mesh=shape, n_stops=12, n_width=96, np_width=80, depth_width=120, supersample=1)
        root = simulate(recording, OUT / "captures" / shape)
        truth = read_mesh(root / "gt" / "gt_mesh.ply")
        config = LabelConfig(n_points=10_000, layouts=[], observed_views=20)
        nr.write_labels(truth, OUT / "labels" / shape, config, name=shape, capture=nr.read_capture(root))
        folders.append(OUT / "labels" / shape)
    return folders


@torch.no_grad()
def right(model: Completion, views: DataLoader) -> float:
    """Share of queries whose side is told right."""
    answers = [((model(cloud, queries) > 0) == inside.bool()).float().mean() for cloud, queries, inside in views]
    return float(torch.stack(answers).mean())


def main(runs: Sequence[str]) -> None:
    """Train on seven views of eight, ask on the others."""
    torch.manual_seed(0)
    views = CompletionViews([Path(run) / "labels" for run in runs] if runs else made())
    seen = [i for i in range(len(views)) if i % 8]
    kept = [i for i in range(len(views)) if i % 8 == 0]
    training = DataLoader(Subset(views, seen), batch_size=16, shuffle=True)
    others = DataLoader(Subset(views, kept), batch_size=16)
    inside = torch.cat([labels for *_, labels in others]).mean()
    print(f"{len(seen)} views to train on, {len(kept)} kept; {inside:.1%} of the queries are inside")

    model = Completion()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    print(f"right before training: {right(model, others):.1%}")
    for _ in range(EPOCHS):
        for cloud, queries, labels in training:
            loss = nn.functional.binary_cross_entropy_with_logits(model(cloud, queries), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    print(f"right after {EPOCHS} epochs: {right(model, others):.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
