"""The list of coefficients that matter."""

import numpy as np
import pytest

from pyp_cspr.engine.core.band import make_band


def test_size_of_the_band_at_box_128():
    assert len(make_band(128, 63)) == 6226


@pytest.mark.parametrize(("box", "radius"), [(16, 7), (18, 8), (32, 10.5), (64, 31)])
def test_every_coefficient_or_its_friedel_mate_occurs_once(box, radius):
    band = make_band(box, radius)
    n = int(np.floor(radius))
    wanted = {(kx, ky) for kx in range(-n, n + 1) for ky in range(-n, n + 1) if 0 < np.hypot(kx, ky) <= radius}
    found = list(zip(band.kx.tolist(), band.ky.tolist()))
    mates = [(-kx, -ky) for kx, ky in found]
    assert len(set(found)) == len(found)
    assert not set(found) & set(mates)
    assert set(found) | set(mates) == wanted


def test_half_plane_has_positive_kx_first():
    band = make_band(32, 15)
    assert ((band.kx > 0) | ((band.kx == 0) & (band.ky > 0))).all()


def test_shells_are_rounded_radii_in_order():
    band = make_band(48, 20.4)
    length = np.hypot(band.kx, band.ky)
    np.testing.assert_array_equal(band.shell, np.rint(length))
    assert (np.diff(band.shell) >= 0).all()
    assert length.max() <= 20.4


def test_a_smaller_radius_is_a_prefix():
    band = make_band(64, 31)
    for radius in (1, 5, 12, 30, 31, 100):
        count = band.prefix(radius)
        assert (band.shell[:count] <= radius).all()
        assert (band.shell[count:] > radius).all()
    assert band.prefix(0) == 0


@pytest.mark.parametrize("box", [16, 18])  # box / 2 even and odd
def test_offset_and_sign_read_a_centred_transform(random, box):
    band = make_band(box, box // 2 - 1)
    image = random.normal(size=(box, box))
    found = np.fft.rfft2(image).ravel()[band.offset] * band.sign
    y, x = np.mgrid[:box, :box] - box // 2
    for i in random.choice(len(band), 12, replace=False):
        expected = (image * np.exp(-2j * np.pi * (band.kx[i] * x + band.ky[i] * y) / box)).sum()
        assert found[i] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("box", "radius", "message"), [(15, 5, "even"), (2, 1, "at least 4"), (16, 8, "fit"), (16, 0.5, "fit")]
)
def test_impossible_bands_are_refused(box, radius, message):
    with pytest.raises(ValueError, match=message):
        make_band(box, radius)
