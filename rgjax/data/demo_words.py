"""Words of the synthetic shop: what it sells, and how its reasons are put, in English and Chinese.

Every phrase of one control value holds a word of that value's lexicon and none of another's, so that whether a text follows its
control codes can be counted.
"""

from __future__ import annotations

# category -> (English name, Chinese name, nouns, materials), each word as (English, Chinese)
CATEGORIES = {
    "kitchen": ("kitchen", "厨房用品", [("Kettle", "电热水壶"), ("Pan", "平底锅"), ("Grinder", "磨豆机"), ("Steamer", "蒸锅")],
                [("steel", "不锈钢"), ("cast iron", "铸铁"), ("ceramic", "陶瓷")]),
    "outdoor": ("outdoor", "户外装备", [("Tent", "帐篷"), ("Backpack", "登山包"), ("Lantern", "露营灯"), ("Stove", "野营炉")],
                [("nylon", "尼龙"), ("aluminium", "铝合金"), ("canvas", "帆布")]),
    "music": ("music", "音乐器材", [("Headphones", "耳机"), ("Speaker", "音箱"), ("Ukulele", "尤克里里"), ("Keyboard", "电子琴")],
              [("walnut", "胡桃木"), ("bamboo", "竹材"), ("titanium", "钛合金")]),
    "reading": ("reading", "阅读用品", [("Bookstand", "阅读架"), ("Notebook", "笔记本"), ("Booklight", "夹书灯"), ("Pen", "钢笔")],
                [("leather", "头层皮"), ("oak", "橡木"), ("brass", "黄铜")]),
    "fitness": ("fitness", "健身器材", [("Mat", "瑜伽垫"), ("Rope", "跳绳"), ("Dumbbell", "哑铃"), ("Bottle", "运动水杯")],
                [("rubber", "天然橡胶"), ("cork", "软木"), ("silicone", "硅胶")]),
    "clothing": ("clothing", "服饰", [("Jacket", "夹克"), ("Scarf", "围巾"), ("Shirt", "衬衫"), ("Trousers", "长裤")],
                 [("cotton", "纯棉"), ("wool", "羊毛"), ("linen", "亚麻")]),
    "garden": ("garden", "园艺用品", [("Planter", "花盆"), ("Shears", "修枝剪"), ("Sprayer", "喷壶"), ("Bench", "长凳")],
               [("teak", "柚木"), ("clay", "陶土"), ("zinc", "镀锌铁")]),
    "travel": ("travel", "旅行用品", [("Suitcase", "行李箱"), ("Pillow", "颈枕"), ("Wallet", "护照夹"), ("Umbrella", "折叠伞")],
               [("polycarbonate", "聚碳酸酯"), ("down", "羽绒"), ("carbon", "碳纤维")]),
}  # fmt: skip
BRANDS = [("Norra", "诺拉"), ("Tavik", "塔维"), ("Solenne", "索伦"), ("Mirovo", "米罗"), ("Kestral", "凯斯"), ("Odessi", "奥黛"),
          ("Halden", "哈登"), ("Zephra", "泽芙"), ("Brello", "布雷"), ("Quinta", "昆塔")]  # fmt: skip
LOOKS = [("Compact", "小巧"), ("Classic", "经典"), ("Slim", "纤薄"), ("Retro", "复古"), ("Bold", "撞色"), ("Plain", "素雅")]
BANDS = {"low": (19, 99), "middle": (100, 299), "high": (300, 899)}

CONTROLS = {
    "language": ["en", "zh"],
    "style": ["concise", "detailed"],
    "emotion": ["warm", "neutral"],
    "topic": ["price", "quality", "design"],
}

# A text follows `emotion` and `topic` when it holds a word of its value and none of the others; `style` is told by sentences.
LEXICONS = {
    "emotion": {
        "warm": {"en": ["love", "delight", "treat", "happy"], "zh": ["心动", "喜欢", "惊喜", "温暖"]},
        "neutral": {"en": ["suggested", "matches", "fits", "relevant"], "zh": ["推荐", "符合", "匹配", "适合"]},
    },
    "topic": {
        "price": {"en": ["price", "costs", "budget", "yuan"], "zh": ["价格", "只要", "预算", "元"]},
        "quality": {"en": ["durable", "sturdy", "lasts", "well made"], "zh": ["耐用", "结实", "做工", "品质"]},
        "design": {"en": ["look", "shape", "design", "style"], "zh": ["外观", "造型", "设计", "线条"]},
    },
}
SENTENCES = {"concise": [1, 1], "detailed": [2, 3]}

OPENINGS = {
    "en": {
        "warm": ["You will love {title}", "What a treat: {title}", "{title} will delight you", "{title} is sure to make you happy",
                 "Here is one to love, {title}"],
        "neutral": ["{title} is suggested", "{title} matches your record", "{title} fits your profile", "{title} is relevant to you",
                    "Suggested item: {title}"],
    },
    "zh": {
        "warm": ["{title}一定会让您心动", "您会喜欢{title}", "{title}是一份惊喜", "温暖的选择：{title}", "给您一个惊喜，{title}"],
        "neutral": ["为您推荐{title}", "{title}符合您的记录", "{title}与您的需求匹配", "{title}适合您", "本次推荐的是{title}"],
    },
}  # fmt: skip
LINKS = {
    "en": [" after your {past}", " since you chose {past}", ", a good companion to {past}", " because you bought {past}",
           ", next to the {past} you own"],
    "zh": ["，正好搭配您买过的{past}", "，因为您选过{past}", "，与您的{past}很搭", "，可以和{past}一起用", "，延续您购买{past}的思路"],
}  # fmt: skip
NO_LINK = {
    "en": [", something new in {category}", ", a first step into {category}"],
    "zh": ["，{category}里的新尝试", "，带您认识{category}"],
}
TOPICS = {
    "en": {
        "price": [", and it costs only {price} yuan", ", at a price of {price} yuan", ", within a budget of {price} yuan"],
        "quality": [", and its {material} is durable", ", sturdy in {material}", ", with {material} that lasts", ", well made in {material}"],
        "design": [", with its {look} look", ", in a {look} shape", ", of {look} design", ", in {look} style"],
    },
    "zh": {
        "price": ["，只要{price}元", "，价格为{price}元", "，{price}元的预算就够"],
        "quality": ["，{material}材质耐用", "，{material}结实可靠", "，{material}做工扎实", "，{material}品质出众"],
        "design": ["，{look}的外观", "，造型{look}", "，{look}设计", "，线条{look}"],
    },
}  # fmt: skip
DETAILS = {
    "en": [" {brand} made this {noun} for people who care about {category}.", " Your history shows {count} {category} purchases.",
           " It is a {noun} by {brand}, a name in {category}.", " Among {category} goods it suits the {band} shelf."],
    "zh": ["{brand}的这款{noun}专为关注{category}的人打造。", "您的历史中有{count}次{category}购买。", "这是{brand}的{noun}，在{category}中有口皆碑。",
           "在{category}里它属于{band}档次。"],
}  # fmt: skip
BAND_NAMES = {"low": ("low", "入门"), "middle": ("middle", "中端"), "high": ("high", "高端")}
