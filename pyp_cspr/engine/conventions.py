"""The conventions of the engine: the one page that everybody reads.

Every numbered sentence has a test in ``tests/engine/test_conventions.py``.

Units
 1. Lengths, positions, shifts and defocus are in angstrom; angles are in degrees in files, tables and public
    arguments, and in radians inside formulas; spatial frequency k is in 1/angstrom unless it is an integer index.

Arrays
 2. A volume is indexed [z, y, x] and an image [y, x]; the centre (origin) of an axis of N pixels is index N // 2.
 3. The forward Fourier transform has the kernel exp(-2 pi i k.x) about that centre, so a particle displaced by u
    carries the phase exp(-2 pi i k.u).

Rotations
 4. Rz(a) = [[c,-s,0],[s,c,0],[0,0,1]], Ry(a) = [[c,0,s],[0,1,0],[-s,0,c]], Rx(a) = [[1,0,0],[0,c,-s],[0,s,c]]:
    right-handed, active.
 5. Euler angles (rot, tilt, psi) mean A = Rz(-psi) Ry(-tilt) Rz(-rot), RELION's and Xmipp's matrix. An atom at
    x_ref of the reference is seen at (A x_ref)_xy. FREALIGN's PHI, THETA, PSI are rot, tilt, psi, with the same
    numbers, and its matrix is E = A^T = Rz(phi) Ry(theta) Rz(psi).

The specimen and the particle
 6. The specimen frame has its origin at the tomogram's centre (index size / 2 in RELION's corner coordinates), and
    RELION's axes.
 7. Particle p has the centre x_p (specimen frame) and the rotation R_p: reference -> specimen. From RELION:
    R_p = A(rlnTomoSubtomogramRot, Tilt, Psi) A(rlnAngleRot, Tilt, Psi), and
    x_p = coordinate - A(rlnTomoSubtomogramRot, Tilt, Psi) (rlnOriginXAngst, YAngst, ZAngst).

The exposure (one tilt image)
 8. T_e = Rz(zrot) Ry(ytilt) Rx(xtilt) takes the specimen frame to the microscope frame. PYP's tilt angle a and
    axis angle b are ytilt = a and zrot = -b.
 9. The particle is seen at u = m_e (T_e x_p)_xy + b_e from the image's centre; +x along columns, +y along rows. The
    image's magnification m_e, mostly 1, spreads the particles about the image of the specimen's origin.
10. Its depth is (T_e x_p)_z and its defocus is that of the exposure + hand * depth, hand = rlnTomoHand.
11. The projection has the orientation M = T_e R_p and is the central slice Y(k) = C(k) V(m_e M^T (k, 0)) of the
    reference's transform V, with the phase of sentence 3. C is in the image's own frequencies, as it is measured there.

The contrast transfer function
12. C = +sin(chi), chi = pi lambda k^2 (df(a) - lambda^2 k^2 Cs / 2) + phase_shift + atan(ac / sqrt(1 - ac^2)), with
    underfocus positive, lambda = 12.2643247 / sqrt(E (1 + 0.978466e-6 E)) for E in volt.
13. df(a) = (df_u + df_v + (df_u - df_v) cos 2(a - astigmatism)) / 2, a from +x towards +y.
14. Particles are white in all that the engine computes with: raw micrographs (dark particles) are negated when read,
    extracted stacks (RELION's) are not.

IMOD
15. A line of .xf maps raw to aligned pixels about the image's centre: aligned = F raw + d. The projection of x in the
    aligned image is (Ry(tilt) Rx(xtilt) x)_xy, so zrot is minus the rotation of F and b_e = -F^-1 d.

PYP (FREALIGN parameter convention)
16. A particle stores P = (Ppsi, Ptheta, Pphi), the negated angles of E_p = R_p^T, and a shift s (angstrom) with
    x_p = stored position - s. A projection has E_pk = E_p M_k^T with M_k = Rz(-axis) Ry(tilt).
17. (SHX, SHY) = -(M_k s)_xy + T_k + F_pkf is the particle's centre relative to the box centre, in angstrom;
    rlnOriginXAngst = -SHX.
18. SVA (NORM, MATRIX = [R | t]): with J = diag(1,-1,1) and N = Rz(NORM2) Rx(NORM0) Rz(NORM1), R_p = N J R J and
    s = -N J t.
"""

WAVELENGTH_NUMERATOR = 12.2643247  # angstrom sqrt(volt), RELION's constant
WAVELENGTH_RELATIVISTIC = 0.978466e-6  # 1 / volt

WHITE_PARTICLES = 1.0  # extracted stacks
DARK_PARTICLES = -1.0  # raw micrographs and tilt series
