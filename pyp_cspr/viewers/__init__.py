"""Scipion viewers: a window for each protocol, whose rows open figures of the run as it stands."""

from .viewer_convert import PypCsprExportViewer, PypCsprImportViewer
from .viewer_data import PypCsprFilterViewer, PypCsprSampleViewer
from .viewer_postprocess import PypCsprPostProcessViewer
from .viewer_reconstruct import PypCsprReconstructViewer
from .viewer_refine import PypCsprRefineViewer

__all__ = ["PypCsprExportViewer", "PypCsprFilterViewer", "PypCsprImportViewer", "PypCsprPostProcessViewer",
           "PypCsprReconstructViewer", "PypCsprRefineViewer", "PypCsprSampleViewer"]
