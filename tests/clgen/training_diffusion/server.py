"""The launcher's server with the diffusion job imported, which takes longer than most tests of it."""

import sys

import diffusers
import launcher

launcher.JOB = "contraux.clgen.training_diffusion.job"
_ = (
    diffusers.UNet2DModel, diffusers.DiTTransformer2DModel, diffusers.DDIMPipeline, diffusers.DDPMPipeline,
    diffusers.DiTPipeline, diffusers.DDIMScheduler, diffusers.DPMSolverMultistepScheduler,
    diffusers.training_utils.EMAModel,
)  # fmt: skip

if __name__ == "__main__":
    launcher.serve()
    sys.exit(0)
