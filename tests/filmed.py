"""Flow maps with pictures of noise, for networks that read pictures."""

import torch

from data_modules.flow_maps import FlowMaps


class Filmed(FlowMaps):
    """Flow maps whose clips also have an onset and an apex frame, two frames of a video, and depth: all noise."""

    available_inputs = ("flow", "onset", "apex", "frames", "depth")

    def load(self, clips):
        draws, shape = torch.Generator().manual_seed(0), (3, self.input_size, self.input_size)
        frames = torch.randint(256, (len(clips), 2, *shape), dtype=torch.uint8, generator=draws)
        depth = torch.randn((len(clips), *shape), generator=draws)
        return {**super().load(clips), "frames": frames, "onset": frames[:, 0], "apex": frames[:, 1], "depth": depth}
