"""Well-known descriptors the classical encoder was chosen against. Each takes a stretched 128 x 128 grey frame."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from retrieval.encoders.classical_blocks import SIDE, Block
from retrieval.encoders.recipe import Bytes

_UNIFORM = 58  # uniform patterns of 8 neighbours; one more bin holds all the others


def thumbnail(grey: Bytes) -> Block:
    """16 x 16 values, mean 0, variance 1. [256]"""
    small = cv2.resize(cv2.GaussianBlur(grey, (0, 0), 4), (16, 16), interpolation=cv2.INTER_AREA).astype(float).ravel()
    centred = small - small.mean()
    return centred / (centred.std() + 8)


def intensities(grey: Bytes) -> Block:
    """Histograms of 8 bins in 4 x 4 cells, square root. [128]"""
    return _histograms(grey.astype(np.int64) >> 5, 4, 8)


def binary_patterns(grey: Bytes) -> Block:
    """Uniform local binary patterns (Ojala, Pietikäinen, Mäenpää, PAMI 2002) in 2 x 2 cells, square root. [236]"""
    smooth = cv2.GaussianBlur(grey, (3, 3), 0.8)
    centre, codes = smooth[1:-1, 1:-1], np.zeros((SIDE - 2, SIDE - 2), np.int64)
    for bit, (down, across) in enumerate(((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))):
        neighbour = smooth[down : down + SIDE - 2, across : across + SIDE - 2]
        codes |= (neighbour >= centre).astype(np.int64) << bit
    return _histograms(_uniform_patterns()[codes], 2, _UNIFORM + 1)


def phase_codes(grey: Bytes) -> Block:
    """Local phase quantisation, 7 x 7 window (Ojansivu, Heikkilä, ICISP 2008), square root. [256]"""
    angle = 2 * np.pi * np.arange(-3, 4) / 7
    flat, even, odd = np.ones(7), np.cos(angle), -np.sin(angle)
    plane = grey.astype(np.float32)

    def filtered(across: npt.NDArray[np.float64], down: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        return cv2.sepFilter2D(plane, cv2.CV_32F, across, down)

    ee, oo, eo, oe = filtered(even, even), filtered(odd, odd), filtered(even, odd), filtered(odd, even)
    one_way = [filtered(even, flat), filtered(odd, flat), filtered(flat, even), filtered(flat, odd)]
    codes = sum(
        (part > 0).astype(np.int64) << bit for bit, part in enumerate([*one_way, ee - oo, eo + oe, ee + oo, eo - oe])
    )
    return _histograms(np.asarray(codes), 1, 256)


def gradients(grey: Bytes) -> Block:
    """Histograms of 8 signed gradient directions in 4 x 4 cells (Dalal, Triggs, CVPR 2005), on 64 x 64 pixels. [128]"""
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    across, down = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    strength = np.hypot(across, down)
    position = np.arctan2(down, across) % (2 * np.pi) / (2 * np.pi) * 8
    lower, share = np.floor(position).astype(np.int64) % 8, position - np.floor(position)
    cells = np.kron(np.arange(16).reshape(4, 4), np.ones((16, 16), np.int64)) * 8
    votes = np.bincount((cells + lower).ravel(), (strength * (1 - share)).ravel(), 128)
    votes += np.bincount((cells + (lower + 1) % 8).ravel(), (strength * share).ravel(), 128)
    local = cv2.boxFilter(strength, cv2.CV_32F, (33, 33)) + 4
    return votes / np.repeat(local.reshape(4, 16, 4, 16).mean(axis=(1, 3)).ravel(), 8) / 256


def gabor_energies(grey: Bytes) -> Block:
    """Log energies of 4 scales x 8 directions in 4 x 4 cells, as in GIST (Oliva, Torralba, IJCV 2001). [512]"""
    bank = _gabor_bank()
    energy = np.abs(np.fft.ifft2(np.fft.fft2(grey.astype(np.float32)) * bank))
    cell = SIDE // 4
    return np.log1p(energy.reshape(len(bank), 4, cell, 4, cell).mean(axis=(2, 4))).ravel()


VARIANTS = {
    "thumbnail 16 x 16": thumbnail,
    "intensity histograms 4 x 4": intensities,
    "local binary patterns 2 x 2": binary_patterns,
    "local phase quantisation": phase_codes,
    "gradient histograms 4 x 4": gradients,
    "Gabor energies 4 x 4": gabor_energies,
}


def _histograms(codes: npt.NDArray[np.int64], cells: int, bins: int) -> Block:
    rows, columns = (np.arange(length) * cells // length for length in codes.shape)
    flat = ((rows[:, None] * cells + columns[None]) * bins + codes).ravel()
    counts = np.bincount(flat, minlength=cells * cells * bins).reshape(cells * cells, bins)
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True)).ravel()


@cache
def _uniform_patterns() -> npt.NDArray[np.int64]:
    table, following = np.full(256, _UNIFORM), iter(range(_UNIFORM))
    for code in range(256):
        bits = [(code >> bit) & 1 for bit in range(8)]
        if sum(bits[bit] != bits[bit - 1] for bit in range(8)) <= 2:
            table[code] = next(following)
    return table


@cache
def _gabor_bank() -> npt.NDArray[np.float32]:
    """Filters in the frequency plane, half octave wide, 22.5 degrees apart."""
    down, across = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    frequency, direction = np.hypot(across, down), np.arctan2(down, across)
    filters = []
    for scale in range(4):
        radial = np.exp(-3.5 * (frequency / (0.32 / 2**scale) - 1) ** 2)
        for step in range(8):
            turned = np.angle(np.exp(1j * (direction - np.pi * step / 8)))
            filters.append(radial * np.exp(-2 * np.pi * 4 * turned**2))
    return np.array(filters, np.float32)
