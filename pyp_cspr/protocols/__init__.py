"""Scipion protocols: form, steps and outputs around the engine."""

from .protocol_filter import ProtPypCsprFilter
from .protocol_postprocess import ProtPypCsprPostProcess
from .protocol_reconstruct import ProtPypCsprReconstruct
from .protocol_refine import ProtPypCsprRefine
from .protocol_sample import ProtPypCsprSample

__all__ = ["ProtPypCsprFilter", "ProtPypCsprPostProcess", "ProtPypCsprReconstruct", "ProtPypCsprRefine", "ProtPypCsprSample"]
