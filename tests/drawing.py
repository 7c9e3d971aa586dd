"""A network with dropout and drop-path."""

from timm.layers import DropPath
from torch import nn

from mer.models import Network


class Drawing(Network):
    """Has each kind of random mask that a stack supports; the dropout is called twice."""

    def __init__(self, shared: bool = False):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 3)
        self.plane, self.feature, self.path = nn.Dropout2d(0.5), nn.Dropout(0.5), DropPath(0.5)
        if shared:
            self.again = self.head

    def forward(self, flow):
        x = self.plane(self.convolution(flow))
        x = self.feature(self.feature(x)).mean((2, 3))
        return {"logits": self.head(self.path(x)), "kept": x}
