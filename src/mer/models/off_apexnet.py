"""OFF-ApexNet: two streams on optical flow (Gan, Liong, Yau, Huang and Tan, Signal Process. Image Commun., 2019)."""

from torch import Tensor, nn

from mer.models import Network


class OFFApexNet(Network):
    """Convolutions on horizontal and on vertical flow apart, joined by two fully connected layers.

    Published: horizontal and vertical flow from onset to apex, 28x28 each; per stream two convolutions 5x5 of 6 and 16
    kernels, each with ReLU and max-pool 2/2; both streams joined; two fully connected layers of 1,024; one linear layer
    for the classes. The authors of Off-TANet (PRICAI 2021) count 2.66 M parameters for 3 classes.
    Our choice: zeros around the maps, which keep their size, so that there are 2,664,475 parameters, as counted; ReLU
    between the fully connected layers; dropout, of which nothing could be read; other sizes.

    It does not read the strain. The two streams are computed as one convolution of two groups: the same function. It
    has no attention, so it does not show where it looks.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the flow map in pixels; at least 4, so that both poolings leave a position.
        kernels: Number of 5x5 kernels of a stream in its first and in its second convolution.
        hidden: Width of the fully connected layers.
        dropout: Probability of dropping a value of a fully connected layer.
        flow_channels: Channels of the flow, 3 for each of its maps.

    Raises:
        ValueError: If the flow map is too small for the two poolings, or a layer is empty.
    """

    def __init__(
        self,
        num_classes: int,
        size: int = 28,
        kernels: tuple[int, int] = (6, 16),
        hidden: int = 1024,
        dropout: float = 0.0,
        flow_channels: int = 3,
    ):
        super().__init__()
        grid = size // 4
        if grid < 1:
            raise ValueError(f"OFF-ApexNet pools by 2 twice: size must be at least 4, not {size}")
        if len(kernels) != 2 or min(*kernels, hidden) < 1:
            raise ValueError(
                f"OFF-ApexNet has two convolutions and wide layers, not kernels={tuple(kernels)}, hidden={hidden}"
            )
        streams = flow_channels // 3 * 2  # horizontal and vertical flow
        first, second = (streams * count for count in kernels)
        self.streams = nn.Sequential(
            nn.Conv2d(streams, first, 5, padding=2, groups=streams),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2, groups=streams),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.joined = nn.Sequential(
            nn.Linear(second * grid * grid, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, flow: Tensor) -> dict[str, Tensor]:
        """Classify flow maps.

        Args:
            flow: u, v and strain of each map, scaled, shape (B, flow_channels, S, S); the strain is not read.

        Returns:
            ``logits`` of shape (B, K).
        """
        motion = flow.unflatten(1, (-1, 3))[:, :, :2].flatten(1, 2)
        x = self.streams(motion)  # (B, 2, S, S) -> (B, 32, S / 4, S / 4)
        x = self.joined(x.flatten(1))  # (B, 1024)
        return {"logits": self.head(x)}  # (B, K)
