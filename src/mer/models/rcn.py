"""RCN-A: a recurrent convolutional network with an attention unit (Xia, Peng, Khor, Feng and Zhao, IEEE TIP 2020)."""

from torch import Tensor, nn

from mer.models import Network
from mer.models.attention_map import average_maps


class RecurrentConvolution(nn.Module):
    """A convolution that reads its input and its own last output, several times over (Liang and Hu, CVPR 2015).

    Its weights are the same at every pass, so that passes deepen the network and add next to no parameters. Each pass
    has its own batch norm, since the range of the values grows with the passes.

    Args:
        width: Channels C.
        passes: Times that it reads its last output.
    """

    def __init__(self, width: int, passes: int):
        super().__init__()
        self.forwards = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.recurrent = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(passes + 1))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.forwards(x)  # (B, C, H, W), the same at every pass
        first, *others = self.norms
        state = first(seen).relu()
        for norm in others:
            state = norm(seen + self.recurrent(state)).relu()
        return state  # (B, C, H, W)


class AttentionUnit(nn.Module):
    """Weighs positions by the mean of their channels, the strongest with 1; it learns nothing of its own."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the positions of features from 0 up; returns them (B, C, H, W) and the weights (B, H, W) in [0, 1]."""
        strength = x.mean(1)  # (B, H, W)
        weights = strength / strength.amax((1, 2), keepdim=True).clamp(min=1e-6)
        return x * weights[:, None], weights


class RCN(Network):
    """A convolution, a recurrent convolution, a parameter-free attention unit, an average and a linear layer.

    Published: a model and an input smaller than usual lose less between databases; a recurrent convolutional network on
    optical flow of low resolution; three modules without parameters (wide expansion, shortcut connection, attention
    unit), of which RCN-A has the attention unit.
    Our choice, since no more of the paper could be read: 28x28 px of horizontal flow, vertical flow and strain; one
    recurrent layer with as many channels as the convolution before it; kernels, width, passes, norms and dropout; what
    the attention unit computes; the average over all positions before the linear layer.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the flow map in pixels; at least 2, so that pooling leaves a position.
        width: Channels C of all layers.
        passes: Times that the recurrent convolution reads its last output; 0 makes it an ordinary one.
        dropout: Probability of dropping a channel before the linear layer.
        flow_channels: Channels of the flow, 3 for each of its maps.

    Raises:
        ValueError: If the flow map is too small for the pooling, or a layer is empty.
    """

    shows_attention = True

    def __init__(
        self,
        num_classes: int,
        size: int = 28,
        width: int = 16,
        passes: int = 3,
        dropout: float = 0.2,
        flow_channels: int = 3,
    ):
        super().__init__()
        if size < 2:
            raise ValueError(f"RCN pools by 2: size must be at least 2, not {size}")
        if width < 1 or passes < 0:
            raise ValueError(f"RCN needs a channel and no negative count of passes, not {width=}, {passes=}")
        self.stem = nn.Sequential(
            nn.Conv2d(flow_channels, width, 5, padding=2, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.recurrent = RecurrentConvolution(width, passes)
        self.unit = AttentionUnit()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, flow: Tensor, attention: bool = False) -> dict[str, Tensor]:
        """Classify flow maps.

        Args:
            flow: u, v and strain of each map, scaled, shape (B, flow_channels, S, S).
            attention: Also return the attention map.

        Returns:
            ``logits`` of shape (B, K); with ``attention`` also ``attention``, shape (B, S, S) in [0, 1]: the weights of
            the attention unit.
        """
        x = self.recurrent(self.stem(flow))  # (B, flow_channels, S, S) -> (B, C, S / 2, S / 2)
        x, weights = self.unit(x)  # (B, C, S / 2, S / 2), (B, S / 2, S / 2)
        outputs = {"logits": self.head(self.dropout(x.mean((2, 3))))}  # (B, K)
        if attention:
            outputs["attention"] = average_maps([weights], flow.shape[-1])
        return outputs
