"""Transforms of cubes against their naive twin, padded and cut, by our kernels and by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pyp_cspr.engine.core import volumes
from pyp_cspr.tests.naive import volumes as naive

# Box and padded size. By our kernels, one that is no multiple of eight among them; then by scipy: too small, odd, 34 = 2 x 17.
SIZES = [(16, 16), (16, 20), (18, 22), (20, 30), (26, 26), (12, 16), (17, 17), (16, 34)]


def some_frequencies(padded: int) -> NDArray[np.int64]:
    return np.arange(-padded // 3, padded // 3 + 1) % padded


def spectrum_of(random: np.random.Generator, rows: int, width: int) -> NDArray[np.complex64]:
    """Of no real cube: what a transform of real data ignores must be ignored here too."""
    parts = random.normal(size=(2, rows, rows, width))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def back(spectrum: NDArray, box: int, padded: int, index: NDArray, step: int = 100, threads: int = 1) -> NDArray[np.float32]:
    cube = volumes.Inverse(box, padded, index, spectrum.shape[2], threads)
    for low in range(0, len(index), step):
        cube.add(spectrum[:, low : low + step], low, index)
    return cube.finish()


@pytest.mark.kernel
@pytest.mark.parametrize("box, padded", SIZES)
def test_transform_and_inverse_agree_with_their_naive_twins(box: int, padded: int, random: np.random.Generator) -> None:
    volume = random.normal(size=(box,) * 3).astype(np.float32)
    for index, width in ((np.arange(padded), padded // 2 + 1), (some_frequencies(padded), padded // 3 + 1)):
        expected = naive.forward(volume, padded, index, width)
        result = volumes.forward(volume, padded, index, width)
        assert result.dtype == np.complex64
        np.testing.assert_allclose(result, expected, atol=1e-6 * np.abs(expected).max())
        spectrum = spectrum_of(random, len(index), width)
        expected = naive.inverse(spectrum, box, padded, index)
        result = back(spectrum, box, padded, index)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("box, padded", [(64, 64), (40, 60), (64, 70)])
def test_a_cube_comes_back_whatever_the_threads_and_pieces(box: int, padded: int, random: np.random.Generator) -> None:
    volume = random.normal(size=(box,) * 3).astype(np.float32)
    index = np.arange(padded)
    spectrum = volumes.forward(volume, padded, index, padded // 2 + 1)
    np.testing.assert_array_equal(volumes.forward(volume, padded, index, padded // 2 + 1, threads=3), spectrum)
    result = back(spectrum, box, padded, index)
    np.testing.assert_allclose(result, volume, atol=2e-6)
    np.testing.assert_array_equal(back(spectrum, box, padded, index, step=7, threads=2), result)


def test_scipy_gives_the_same(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = random.normal(size=(24,) * 3).astype(np.float32)
    index = some_frequencies(36)
    spectrum = volumes.forward(volume, 36, index, 13)
    cube = back(spectrum, 24, 36, index, step=5)
    monkeypatch.setattr(volumes, "_passes", lambda box, padded: None)
    np.testing.assert_allclose(volumes.forward(volume, 36, index, 13), spectrum, atol=1e-6 * np.abs(spectrum).max())
    np.testing.assert_allclose(back(spectrum, 24, 36, index, step=5), cube, atol=1e-6 * np.abs(cube).max())
