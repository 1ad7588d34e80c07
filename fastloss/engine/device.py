"""Devices: the loops that kernels are compiled into, as twins with the same names and arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Device:
    """Where kernels run.

    Attributes
    ----------
    name : str
        The word of the option ``device``.
    package : str
        The package of loops; each is imported when it is first used.
    """

    name: str
    package: str

    @cached_property
    def pointwise(self) -> Any:
        """Loops of pointwise formulas over rows."""
        return import_module(f"{self.package}.pointwise")

    @cached_property
    def lists(self) -> Any:
        """Loops of listwise formulas over ragged lists."""
        return import_module(f"{self.package}.lists")

    @cached_property
    def ranking(self) -> Any:
        """Loops that sort the candidates of lists."""
        return import_module(f"{self.package}.ranking")

    @cached_property
    def list_auc(self) -> Any:
        """Loop of the AUCs of sorted lists."""
        return import_module(f"{self.package}.list_auc")

    @cached_property
    def sums(self) -> Any:
        """Loops that sum what they compute, and checks of numbers."""
        return import_module(f"{self.package}.sums")

    @cached_property
    def histogram(self) -> Any:
        """Loops over histograms of scores."""
        return import_module(f"{self.package}.histogram")

    @cached_property
    def linear(self) -> Any:
        """Loops over a linear predictor."""
        return import_module(f"{self.package}.linear")

    @cached_property
    def products(self) -> Any:
        """Loops that sum products of features."""
        return import_module(f"{self.package}.products")

    @cached_property
    def normalize(self) -> Any:
        """Loops that divide lists by their sums."""
        return import_module(f"{self.package}.normalize")

    def value(self, formula: Callable[..., Any], *, lists: bool) -> Callable[..., None]:
        """Return the loop ``value(*inputs, parameters, *scratch, value_out)`` of a formula."""
        loop: Callable[..., None] = (self.lists.make_list_value if lists else self.pointwise.make_value)(formula)
        return loop

    def value_gradient_hessian(self, formula: Callable[..., Any], *, lists: bool) -> Callable[..., None]:
        """Return the loop ``loop(*inputs, parameters, *scratch, value_out, gradient_out, hessian_out)``."""
        if lists:
            of_lists: Callable[..., None] = self.lists.make_list_value_gradient_hessian(formula)
            return of_lists
        loop: Callable[..., None] = self.pointwise.make_value_gradient_hessian(formula)
        return loop

    def flag(self, test: Callable[..., bool], *, lists: bool) -> Callable[..., None]:
        """Return the loop ``flag(*inputs, parameters, flag_out)`` of a test."""
        loop: Callable[..., None] = (self.lists.make_list_flag if lists else self.pointwise.make_flag)(test)
        return loop


DEVICES: Mapping[str, Device] = {
    "cpu": Device("cpu", "fastloss_kernels.cpu"),
}
