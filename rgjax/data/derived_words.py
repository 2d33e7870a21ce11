"""The built-in word lists of --derive_words=builtin, English and Chinese: a start to look at and to replace by a shop's own.

Written by hand for shop copy; what they are worth is measured wherever data bring codes of these names (`derived_controls` in dataset.json).
"""

from __future__ import annotations

LISTS = {
    "emotion": {
        "warm": ["love", "loved", "delight", "delightful", "treat", "happy", "heartwarming", "joy", "cozy", "cosy", "warm", "charming",
                 "心动", "喜欢", "惊喜", "温暖", "温馨", "幸福", "爱不释手", "暖心", "呵护"],
        "excited": ["thrilling", "exciting", "excited", "epic", "amazing", "stunning", "must-see", "must-have", "gripping", "action-packed",
                    "激动", "震撼", "刺激", "惊艳", "炫酷", "潮流", "必备", "热血"],
        "neutral": ["suggested", "matches", "fits", "relevant", "aligns", "based on", "according to", "given your",
                    "推荐", "符合", "匹配", "适合", "根据", "采用"],
    },
    "topic": {
        "price": ["price", "priced", "cheap", "affordable", "budget", "value for money", "costs", "discount", "deal", "yuan",
                  "价格", "实惠", "性价比", "划算", "便宜", "预算", "优惠", "只要", "平价"],
        "quality": ["quality", "durable", "sturdy", "lasts", "well made", "reliable", "solid", "craftsmanship",
                    "品质", "耐用", "结实", "做工", "质量", "牢固", "材质", "面料", "工艺"],
        "design": ["design", "look", "looks", "style", "stylish", "elegant", "shape", "colour", "color", "beautiful",
                   "外观", "造型", "设计", "线条", "时尚", "颜色", "图案", "款式", "气质"],
        "comfort": ["comfortable", "comfort", "soft", "lightweight", "easy to use", "convenient", "handy",
                    "舒适", "柔软", "亲肤", "透气", "轻便", "方便", "便捷", "舒服"],
    },
}  # fmt: skip
