"""What `contraux diffusion` uses of diffusers, which imports each part only when it is asked for."""

import diffusers

PARTS = (
    diffusers.UNet2DModel, diffusers.DiTTransformer2DModel, diffusers.DDIMPipeline, diffusers.DDPMPipeline,
    diffusers.DiTPipeline, diffusers.DDIMScheduler, diffusers.DPMSolverMultistepScheduler,
    diffusers.training_utils.EMAModel,
)  # fmt: skip
