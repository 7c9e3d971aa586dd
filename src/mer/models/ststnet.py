"""STSTNet: a shallow triple-stream network on optical flow (Liong, Gan, See, Khor and Huang, FG 2019)."""

import torch
from torch import Tensor, nn

from mer.models import Network


class Stream(nn.Sequential):
    """One of the parallel streams: a convolution over the whole flow map, pooled by three.

    Args:
        kernels: Number of 3x3 kernels.
        dropout: Probability of dropping a feature.
    """

    def __init__(self, kernels: int, dropout: float):
        super().__init__(
            nn.Conv2d(3, kernels, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(kernels),
            nn.MaxPool2d(3, stride=3, padding=1),
            nn.Dropout(dropout),
        )


class STSTNet(Network):
    """Three shallow streams of 3, 5 and 8 kernels, joined and read by one linear layer: 1,683 parameters for 3 classes.

    Published: 28x28x3 input of horizontal flow, vertical flow and strain; per stream conv3x3, ReLU, batch norm,
    max-pool 3/3 and dropout; concatenation, average pool 2/2, a linear layer on 5x5x16 = 400 features; Adam at 5e-5,
    batches of 256, 500 epochs, last epoch. The paper counts 1,670 parameters.
    Our choice: other sizes; the dropout's probability, which the paper does not give.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the flow map in pixels; at least 4, so that both poolings leave a position.
        kernels: Number of 3x3 kernels per stream.
        dropout: Probability of dropping a feature of a stream.

    Raises:
        ValueError: If the flow map is too small for the two poolings, or there is no stream.
    """

    def __init__(self, num_classes: int, size: int = 28, kernels: tuple[int, ...] = (3, 5, 8), dropout: float = 0.5):
        super().__init__()
        grid = (size // 3 + (size % 3 > 0) if size > 0 else 0) // 2
        if grid < 1:
            raise ValueError(f"STSTNet pools by 3 and then by 2: size must be at least 4, not {size}")
        if not kernels or min(kernels) < 1:
            raise ValueError(f"STSTNet needs at least one kernel in every stream, not kernels={tuple(kernels)}")
        self.streams = nn.ModuleList(Stream(count, dropout) for count in kernels)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(sum(kernels) * grid * grid, num_classes)

    def forward(self, flow: Tensor) -> dict[str, Tensor]:
        """Classify flow maps.

        Args:
            flow: u, v and strain, scaled, shape (B, 3, S, S).

        Returns:
            ``logits`` of shape (B, K).
        """
        joined = torch.cat([stream(flow) for stream in self.streams], dim=1)
        return {"logits": self.head(self.pool(joined).flatten(1))}
