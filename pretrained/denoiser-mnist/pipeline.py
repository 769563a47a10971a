for key in [key for key, value in globals().items() if isinstance(value, type)]:
    del globals()[key]
from .pipeline_denoiser import DenoiserPipeline  # noqa: E402, F401
