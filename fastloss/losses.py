"""Every loss, as an object: ``BinaryCrossentropy(label_smoothing=0.1)(label, logit=x)``."""

from fastloss_kernels.losses import *  # noqa: F403
