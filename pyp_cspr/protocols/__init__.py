"""Scipion protocols: form, steps and outputs around the engine."""

from .protocol_export import ProtPypCsprExport
from .protocol_filter import ProtPypCsprFilter
from .protocol_import import ProtPypCsprImport
from .protocol_postprocess import ProtPypCsprPostProcess
from .protocol_reconstruct import ProtPypCsprReconstruct
from .protocol_refine import ProtPypCsprRefine
from .protocol_sample import ProtPypCsprSample

__all__ = ["ProtPypCsprExport", "ProtPypCsprFilter", "ProtPypCsprImport", "ProtPypCsprPostProcess", "ProtPypCsprReconstruct",
           "ProtPypCsprRefine", "ProtPypCsprSample"]
