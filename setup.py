"""Installs the package ``pyp_cspr``; the settings of development tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).resolve().parent
version = re.search(r'^__version__ = "([^"]+)"', (here / "pyp_cspr" / "__init__.py").read_text(encoding="utf-8"), re.M).group(1)

test = ["pytest>=7.4", "pytest-timeout>=2.2", "pytest-xdist>=3.3", "pytest-cov>=4.1", "hypothesis>=6.90", "wheel"]
mpi = ["mpi4py>=4.1"]  # wheels; they work with the MPI library of the machine
peers = ["scipion-em-reliontomo>=4.0.5"]  # whose converter takes our outputs
lint = ["ruff>=0.6", "mypy>=1.11", "import-linter>=2.0", "vermin>=1.6"]

setup(
    name="scipion-em-pyp-cspr",
    version=version,
    description="Constrained single-particle refinement of cryo-electron tomography, as a plugin of Scipion and as a command",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    keywords="cryo-em cryo-et tomography subtomogram averaging scipion",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    packages=find_packages(include=["pyp_cspr", "pyp_cspr.*"]),
    include_package_data=True,  # what MANIFEST.in names
    python_requires=">=3.8,<3.13",
    install_requires=[
        "scipion-pyworkflow>=3.11.7",  # older ones lose the job number of a queued step
        "scipion-em>=3.11.0",
        "scipion-em-tomo>=3.12.0",
        "numpy>=1.24",
        "scipy>=1.10",
        "mrcfile>=1.4",
        "numba>=0.58",
        "llvmlite",  # of numba: it loads the machine code
        "emtable>=0.0.14",
        "tqdm",
        "threadpoolctl>=3.1",
        "gemmi>=0.6.5",  # atomic model to map, for the sample data
        "matplotlib>=3.7",
        "tifffile",
        "submitit>=1.5.1; python_version >= '3.10'",  # job arrays of a cluster
        "submitit>=1.5.1,<1.5.3; python_version < '3.10'",  # later ones fail on Python 3.8
        "tomli>=2.0; python_version < '3.11'",
        "tomli_w>=1.0",
    ],
    extras_require={"mpi": mpi, "test": test, "lint": lint, "dev": test + lint + mpi + peers},
    entry_points={
        "pyworkflow.plugin": ["pyp_cspr = pyp_cspr"],
        "console_scripts": ["cspr = pyp_cspr.engine.cli:command", "csp = pyp_cspr.engine.cli.csp:command"],
    },
)
