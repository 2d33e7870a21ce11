"""profiling.decode at a tiny size: the same tokens as generate, and what it counts."""

import pytest
from environment import SMALL

pytestmark = pytest.mark.parity
TINY = (*SMALL, "--vocab_size=200", "--rows=4", "--prompt_length=12", "--new_tokens=10")


@pytest.fixture(autouse=True)
def peer():
    for name in ("torch", "transformers"):
        pytest.importorskip(name)


@pytest.mark.parametrize(
    "more",
    [(), ("--ragged", "--inputs=10"), ("--beams=3", "--nostatic_peer"), ("--top_p=0.9", "--nostatic_peer")],
    ids=["one_batch", "ragged", "beams", "drawn"],
)
def test_both_sides_write_the_same(more, benchmark, sound):
    told, _ = benchmark("decode", *TINY, *more)
    sound(told, "ours", told["peer"]["side"])
    assert all(share == {"tokens": 1.0, "texts": 1.0} for share in told["identical"].values())
    if "--ragged" in more:
        assert told["ends"] > 1 and 10 <= told["new_tokens"] <= 10 * 10 / 2 and told["inputs"] == 10
    else:
        assert told["inputs"] == 4 and told["new_tokens"] <= 4 * 10
    assert told["ours"]["tokens_per_second"] == pytest.approx(told["new_tokens"] / told["ours"]["seconds"])


def test_what_is_identical_and_where_texts_end():
    from profiling import decode

    assert decode.cut([5, 6, 7, 6], (6, 9)) == [5, -1] and decode.cut([5, 7], (6,)) == [5, 7]
    assert decode.identical([[1, 2, 3], [4]], [[1, 9, 3], [4, 5]]) == {"tokens": 3 / 5, "texts": 0.0}
    texts = [[3, 4, 5, 3], [3, 6, 3, 3], [3, 3, 3, 3]]
    ends = decode.chosen_ends(texts, 4)
    assert set(ends) == {1, 3, 4, 5, 6}  # rare ones first, until the mean is 2 at most
    assert decode.chosen_ends(texts, 8) == (1,)
