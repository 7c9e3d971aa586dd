"""STSTNet: a shallow triple-stream network on optical flow (Liong, Gan, See, Khor and Huang, FG 2019)."""

from torch import Tensor, nn

from mer.models import Network


class STSTNet(Network):
    """Three shallow streams of 3, 5 and 8 kernels, joined and read by one linear layer: 1,683 parameters for 3 classes.

    Published: 28x28x3 input of horizontal flow, vertical flow and strain; per stream conv3x3, ReLU, batch norm,
    max-pool 3/3 and dropout; concatenation, average pool 2/2, a linear layer on 5x5x16 = 400 features; Adam at 5e-5,
    batches of 256, 500 epochs, last epoch. The paper counts 1,670 parameters.
    Our choice: other sizes; the dropout's probability, which the paper does not give.

    No layer of a stream mixes its kernels' maps, so the three streams are computed as one stream of 16 kernels: the
    same function. Maps have their channels last in memory, which is fastest on a CPU.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the flow map in pixels; at least 4, so that both poolings leave a position.
        kernels: Number of 3x3 kernels per stream.
        dropout: Probability of dropping a feature of a stream.
        flow_channels: Channels of the flow, 3 for each of its maps.

    Raises:
        ValueError: If the flow map is too small for the two poolings, or there is no stream.
    """

    revision = 2  # the streams share their draws of initial weights and of dropout

    def __init__(
        self,
        num_classes: int,
        size: int = 28,
        kernels: tuple[int, ...] = (3, 5, 8),
        dropout: float = 0.5,
        flow_channels: int = 3,
    ):
        super().__init__()
        grid = (size // 3 + (size % 3 > 0) if size > 0 else 0) // 2
        if grid < 1:
            raise ValueError(f"STSTNet pools by 3 and then by 2: size must be at least 4, not {size}")
        if not kernels or min(kernels) < 1:
            raise ValueError(f"STSTNet needs at least one kernel in every stream, not kernels={tuple(kernels)}")
        self.streams = nn.Sequential(
            nn.Conv2d(flow_channels, sum(kernels), 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(sum(kernels)),
            nn.MaxPool2d(3, stride=3, padding=1),
            nn.Dropout(dropout),
        )
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(sum(kernels) * grid * grid, num_classes)

    def forward(self, flow: Tensor) -> dict[str, Tensor]:
        """Classify flow maps.

        Args:
            flow: u, v and strain of each map, scaled, shape (B, flow_channels, S, S).

        Returns:
            ``logits`` of shape (B, K).
        """
        x = flow.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # vmap has no memory_format
        x = self.streams(x)  # (B, C, S, S) -> (B, 16, S / 3, S / 3)
        x = self.pool(x).flatten(1)  # (B, 16 grid^2)
        return {"logits": self.head(x)}  # (B, K)
