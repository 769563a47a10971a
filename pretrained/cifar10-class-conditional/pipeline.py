for key in [key for key, value in globals().items() if isinstance(value, type)]:
    del globals()[key]
from .pipeline_class_conditional import ClassConditionalPipeline  # noqa: E402, F401
