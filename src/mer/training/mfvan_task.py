"""How MFVAN is trained: stage 1, which reconstructs faces, and the joint loss."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from kornia.losses import ssim_loss
from torch import Tensor

from mer.models import Batch
from mer.models.mfvan import MFVAN
from mer.training.first_stage import FirstStage
from mer.training.task import Task
from mer.transforms import normalise_pictures

WINDOW = 7
"""Side in pixels of SSIM's Gaussian window (deviation 1.5): about an eye or a corner of the mouth."""


class Reconstruction(FirstStage):
    """Stage 1: encoder and decoder learn to reconstruct onset and apex frames, with an L1 and an SSIM loss.

    Args:
        network: The network whose encoder and decoder are trained.
        steps: Steps.
        lr: Peak learning rate of AdamW, in one cycle.
    """

    def __init__(self, network: MFVAN, steps: int, lr: float):
        super().__init__(steps, lr=lr)
        self.encoder, self.decoder, self.lr = network.encoder, network.decoder, lr

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Loss between reconstructed frames and frames: ``absolute``, L1, and ``structure``, SSIM."""
        frames = torch.cat([batch["onset"], batch["apex"]])  # (2 B, 3, S, S)
        outputs = self.decoder(self.encoder(normalise_pictures(frames))).float()
        targets = frames / 255
        with torch.autocast(outputs.device.type, enabled=False):  # variances of close values need float32
            return {"absolute": F.l1_loss(outputs, targets), "structure": ssim_loss(outputs, targets, WINDOW)}

    def configure_optimizers(self) -> dict:
        """AdamW whose learning rate rises for a tenth of the steps and then falls to about 0."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=self.steps, pct_start=0.1, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class MFVANTask(Task):
    """Trains MFVAN with its joint loss, after stage 1.

    Its terms: ``classes``, cross-entropy of the fused feature; ``scales``, the sum of the scales' cross-entropies;
    ``mask``, the sum over scales of (mean M - rho)^2 + mean M (1 - M). With identity maps I, encoder E and decoder D
    also: ``identity``, the mean square of I - E(onset), only if I is predicted, without a gradient to E(onset);
    ``generation``, the mean of abs(D(I) - onset); ``reconstruction``, the mean of abs(D(E(apex)) - apex), pictures in
    [0, 1]; ``orthogonality``, cos^2 between the means over positions of motion and identity. All formulas and weights
    are our choice, the paper being silent.

    Args:
        network: An MFVAN.
        lambda_mask: Weight of ``mask``.
        lambda_identity: Weight of ``identity``, ``generation``, ``reconstruction`` and ``orthogonality``.
        mask_share: Target rho of the mean mask, the part of the positions that is kept.
        first_stage_steps: Steps of stage 1; 0 for none.
        first_stage_lr: Peak learning rate of stage 1.
        **kwargs: See ``Task``.
    """

    loss_inputs: ClassVar[tuple[str, ...]] = ("onset",)
    network: MFVAN

    def __init__(
        self,
        network: MFVAN,
        lambda_mask: float = 0.1,
        lambda_identity: float = 1.0,
        mask_share: float = 0.3,
        first_stage_steps: int = 300,
        first_stage_lr: float = 2e-3,
        **kwargs: Any,
    ):
        super().__init__(network, **kwargs)
        if self.action_units:
            raise ValueError("MFVAN's joint loss has no action units: leave --model.action_units away")
        if min(lambda_mask, lambda_identity, first_stage_steps) < 0 or first_stage_lr <= 0 or not 0 < mask_share < 1:
            raise ValueError(
                f"lambda_mask {lambda_mask}, lambda_identity {lambda_identity} and first_stage_steps "
                f"{first_stage_steps} must be 0 or more, first_stage_lr {first_stage_lr} above 0, mask_share "
                f"{mask_share} between 0 and 1"
            )
        self.lambda_mask, self.lambda_identity, self.mask_share = lambda_mask, lambda_identity, mask_share
        self.first_stage_steps, self.first_stage_lr = first_stage_steps, first_stage_lr

    def first_stage(self) -> Reconstruction | None:
        """Stage 1, if it has steps."""
        if not self.first_stage_steps:
            return None
        return Reconstruction(self.network, self.first_stage_steps, self.first_stage_lr)

    def loss(self, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """Terms of the joint loss by name, weighted."""
        terms = super().loss(outputs, batch)
        targets, weights = batch["target"], self.class_weights
        scales = [self.cross_entropy(logits, targets, weights) for logits in outputs["scale_logits"]]
        terms["scales"] = torch.stack(scales).sum()
        if self.network.mask:
            masks = [(mask.mean() - self.mask_share) ** 2 + (mask * (1 - mask)).mean() for mask in outputs["masks"]]
            terms["mask"] = self.lambda_mask * torch.stack(masks).sum()
        if self.network.identity != "none":
            identity = self._identity_terms(outputs, batch)
            terms.update({name: self.lambda_identity * term for name, term in identity.items()})
        return terms

    def _identity_terms(self, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """Terms that make the identity maps those of the neutral face, and the motion maps independent of them."""
        maps, identity, motion = outputs["maps"], outputs["identity"], outputs["motion"]
        terms = {}
        if self.network.identity == "apex":
            with torch.no_grad():  # the onset frame's maps are the target
                neutral = self.network.encoder(normalise_pictures(batch["onset"]))
            squares = [F.mse_loss(i.float(), target.float()) for i, target in zip(identity, neutral, strict=True)]
            terms["identity"] = torch.stack(squares).mean()
        decoder = self.network.decoder
        terms["generation"] = F.l1_loss(decoder(identity).float(), batch["onset"] / 255)
        terms["reconstruction"] = F.l1_loss(decoder(maps).float(), batch["apex"] / 255)
        means = [(m.float().mean((2, 3)), i.float().mean((2, 3))) for m, i in zip(motion, identity, strict=True)]
        angles = [F.cosine_similarity(*pair).square().mean() for pair in means]
        return {**terms, "orthogonality": torch.stack(angles).mean()}
