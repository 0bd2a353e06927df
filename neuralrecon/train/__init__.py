"""Fitting the model to a scene: one visible loop."""

from .checkpoint import load_fit as load_fit
from .checkpoint import save_fit as save_fit
from .fit import fit as fit
from .fit_types import Device as Device
from .fit_types import Fit as Fit
from .fit_types import FitConfig as FitConfig
from .fit_types import device_of as device_of
