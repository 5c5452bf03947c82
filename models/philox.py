"""Philox4x32-10 with numpy: the numbers of base/philox.h, and the tensors that the references are made of."""
import zlib

import numpy as np


def philox(counter, key):
    """Four words for each 128-bit counter (four uint32 arrays of one shape) under a 64-bit key."""
    mask = np.uint64(0xFFFFFFFF)
    c = [np.asarray(word, np.uint32) for word in counter]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c[0].astype(np.uint64)
        p1 = np.uint64(0xCD9E8D57) * c[2].astype(np.uint64)
        c = [
            (p1 >> np.uint64(32)).astype(np.uint32) ^ c[1] ^ np.uint32(k0),
            (p1 & mask).astype(np.uint32),
            (p0 >> np.uint64(32)).astype(np.uint32) ^ c[3] ^ np.uint32(k1),
            (p0 & mask).astype(np.uint32),
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def uniform(seed, size):
    """Elements 0..size-1 of `uniform` at step 0, site 0: multiples of 2^-24 in [0, 1), f32[size]."""
    index = np.arange(size, dtype=np.uint64)
    low, high = (index & np.uint64(0xFFFFFFFF)).astype(np.uint32), (index >> np.uint64(32)).astype(np.uint32)
    zero = np.zeros_like(low)
    return (philox((low, high, zero, zero), seed)[0] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def tensor(name, shape, low, high):
    """The f32 tensor called `name`: low + (high - low) * uniform, each operation rounded to f32."""
    low, high = np.float32(low), np.float32(high)
    return (low + (high - low) * uniform(zlib.crc32(name.encode()), int(np.prod(shape)))).reshape(shape)


def check():
    """The generator's published vectors: counter and key all zeros, all ones."""
    def words(counter, key):
        return [int(word) for word in philox(counter, key)]

    ones = 0xFFFFFFFF
    assert words((0, 0, 0, 0), 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words((ones, ones, ones, ones), ones << 32 | ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
