"""Arrays in, arrays out: geometry, Fourier transforms, CTF, projection and insertion. No files, no logging."""
