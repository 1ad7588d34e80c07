"""Custom losses: from a Python function of one row to a loss with compiled loops."""

from __future__ import annotations

from fastloss_kernels.define.custom import DEFINED as DEFINED
from fastloss_kernels.define.custom import define as define
