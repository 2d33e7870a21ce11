"""What a layer computes.

Shape legend, used in every name: B batch, T query length, S key length, D width, H query heads, K key/value heads,
A head width, F feed-forward width, V vocabulary, P positions, L layers.
"""
