from rgjax.metrics import language


def test_detects_the_language_of_a_corpus():
    assert language.detect(["A reason with 《电影》 in it, but written in English"]) == "en"
    assert language.detect(["这款BRAND针织两件套连衣裙，LOGO设计"]) == "zh"
    assert language.detect(["", "123 !"]) == "en"


def test_tokens():
    assert language.words("Don't stop, Me!") == ["don", "'", "t", "stop", ",", "me", "!"]
    assert language.rouge_words("Don't stop_Me 2!") == ["don", "t", "stop", "me", "2"]
    assert language.characters(" 白 T\n恤　。") == list("白T恤。")
    assert language.jieba_words("连衣裙 面料 ") == ["连衣裙", "面料"]


def test_share_of_ideographs_counts_letters_alone():
    assert language.cjk_share(["裙a", "1 ，"]) == 0.5
    assert language.is_cjk("裙") and not language.is_cjk("a") and not language.is_cjk("，")
