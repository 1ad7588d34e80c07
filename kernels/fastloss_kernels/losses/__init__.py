"""Every loss, one file each; `LOSSES` lists what is imported here: tests, devices, command line and docs read it."""

from __future__ import annotations

from fastloss_kernels.losses.binary_crossentropy import BinaryCrossentropy as BinaryCrossentropy
from fastloss_kernels.losses.brier_score import BrierScore as BrierScore
from fastloss_kernels.losses.form import BinaryLoss as BinaryLoss
from fastloss_kernels.losses.form import Loss as Loss
from fastloss_kernels.losses.hinge import Hinge as Hinge
from fastloss_kernels.losses.mean_absolute_error import MeanAbsoluteError as MeanAbsoluteError
from fastloss_kernels.losses.mean_squared_error import MeanSquaredError as MeanSquaredError

LOSSES: tuple[type[Loss], ...] = tuple(
    loss
    for loss in list(globals().values())
    if isinstance(loss, type) and issubclass(loss, Loss) and "name" in vars(loss)
)
