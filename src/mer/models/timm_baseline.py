"""Any timm classifier on the flow map, to compare the published networks with (Wightman, timm, 2019)."""

import timm
from torch import Tensor

from mer import near
from mer.models import Network


class TimmBaseline(Network):
    """A timm classifier with new weights that reads u, v and strain in place of red, green and blue.

    Our choice: everything; no pre-trained weights, since the other networks have none.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the flow map in pixels; a network with a fixed grid of patches is built for it.
        name: Name of the network in timm.
        drop_rate: Probability of dropping a feature before the classifier.
        flow_channels: Channels of the flow, 3 for each of its maps.

    Raises:
        ValueError: If timm knows no such network, or cannot build it for this size.
    """

    def __init__(
        self,
        num_classes: int,
        size: int = 28,
        name: str = "resnet18",
        drop_rate: float = 0.0,
        flow_channels: int = 3,
    ):
        super().__init__()
        if not timm.is_model(name):
            hint = near(name, timm.list_models()) or "; timm.list_models() lists them"
            raise ValueError(f"timm has no network named {name!r}{hint}")
        options = {"in_chans": flow_channels, "num_classes": num_classes, "drop_rate": drop_rate, "pretrained": False}
        try:
            self.network = timm.create_model(name, **options, img_size=size)
        except TypeError:  # a convolutional network takes any size and has no such argument
            self.network = timm.create_model(name, **options)
        except (AssertionError, RuntimeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"timm cannot build {name!r} for flow maps of {size}x{size}: {error}") from error

    def forward(self, flow: Tensor) -> dict[str, Tensor]:
        """Classify flow maps.

        Args:
            flow: u, v and strain of each map, scaled, shape (B, flow_channels, S, S).

        Returns:
            ``logits`` of shape (B, K).
        """
        return {"logits": self.network(flow)}  # (B, C, S, S) -> (B, K)
