"""Fitting the model to a scene: one visible loop."""

from .fit import Fit as Fit
from .fit import FitConfig as FitConfig
from .fit import fit as fit
