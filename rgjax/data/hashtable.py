"""A compact map from 64-bit hashes to a few bits: what has been seen, and in which split."""

from __future__ import annotations

from array import array

_GOLDEN, _MASK64 = 0x9E3779B97F4A7C15, (1 << 64) - 1


class HashTable:
    """Open addressing over plain arrays: 9 bytes a place, at most 0.6 full, so 15 to 30 bytes a key; a Python dict takes over 100.

    Two different texts share a 64-bit hash with probability n^2 / 2^65: once in 37 million tables of a million keys.
    """

    def __init__(self):
        self._resize(1 << 12)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def add(self, key: int, bits: int = 1) -> int:
        """Sets `bits` (1 to 255) for `key`, a 64-bit hash; returns the bits it had before, 0 when it is new."""
        keys, values, mask = self._keys, self._values, self._mask
        place = (key * _GOLDEN & _MASK64) >> self._shift
        while values[place]:
            if keys[place] == key:
                old = values[place]
                values[place] = old | bits
                return old
            place = (place + 1) & mask
        keys[place], values[place] = key, bits
        self._used += 1
        if self._used * 5 > (mask + 1) * 3:
            self._grow()
        return 0

    def _resize(self, places: int) -> None:
        self._keys, self._values = array("Q", bytes(8 * places)), bytearray(places)
        self._mask, self._shift = places - 1, 65 - places.bit_length()

    def _grow(self) -> None:
        old = zip(self._keys, self._values, strict=True)
        self._resize(2 * (self._mask + 1))
        keys, values, mask = self._keys, self._values, self._mask
        for key, bits in old:
            if bits:
                place = (key * _GOLDEN & _MASK64) >> self._shift
                while values[place]:
                    place = (place + 1) & mask
                keys[place], values[place] = key, bits
