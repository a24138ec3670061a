"""Contrastive objectives for diffusion denoisers: one a file.

from contraux.clgen import attach

aux = attach(unet, objective="time_infonce")        # taps mid_block
optimizer.add_param_group({"params": aux.parameters()})
source = second_views(len(x), share=0.5)            # half of the images are there twice, at two noise levels
x, identity = x[source], index[source]
with aux:
    prediction = unet(x_t, t).sample
loss = F.mse_loss(prediction, noise) + 0.05 * aux.loss(timesteps=t, identity=identity)
"""

from ...core.losses.contrastive_flow import contrastive_flow_matching, contrastive_flow_terms, undo_flow_bias
from .cdl import NoiseClassifier, denoiser
from .dispersive import Dispersive
from .label_supcon import LabelSupCon
from .noise_levels import NoiseLevels, alphas_cumprod
from .ordinal_snr import OrdinalSNR
from .pairing import paired_batch, second_views
from .repa import Repa
from .teachers import PretrainedTeacher, TimmTeacher
from .time_infonce import TimeInfoNCE

__all__ = [
    "Dispersive",
    "LabelSupCon",
    "NoiseClassifier",
    "NoiseLevels",
    "OrdinalSNR",
    "PretrainedTeacher",
    "Repa",
    "TimeInfoNCE",
    "TimmTeacher",
    "alphas_cumprod",
    "contrastive_flow_matching",
    "contrastive_flow_terms",
    "denoiser",
    "paired_batch",
    "second_views",
    "undo_flow_bias",
]
