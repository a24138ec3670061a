"""Contrastive auxiliaries for GAN discriminators and diffusion denoisers: one tap, any module.

from contraux.clgen import attach

aux = attach(disc, at="body", objective="real_fake_supcon", example=images)
opt.add_param_group({"params": aux.parameters()})
with aux:
    real, fake = disc(x_real), disc(x_fake)
loss = adversarial(real, fake) + aux.loss()
"""

from .attach import attach
from .auxiliary import Auxiliary
from .method import GenerativeMethod
from .presets import generative_preset, generative_presets

__all__ = ["Auxiliary", "GenerativeMethod", "attach", "generative_preset", "generative_presets"]
