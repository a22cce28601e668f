"""How people ask for a capital, for the country of a capital, and for an opposite."""

from __future__ import annotations

from demo.corpus.askings.grammar import Grammar

_COMMON = {
    "before": """
        8* | (ok|so|well|now|hey|hi|and|but|hm|please|hello|right), | (quick question|one question|next
        question|a question|quiz|quiz question|tell me|I forgot|homework|geography|remind me|help me|last
        one|just curious|one more|test question|trivia)(:|,)
    """,
    "after": """
        8* | (I forgot|I forgot it|I can't remember|I don't know|no idea|I need it for school|it is for a
        quiz|just curious|thanks|please|quick|do you know|help me|I always forget|my son asks|asking for a
        friend|I should know this|it slipped my mind|can you tell me|you know that, right)
    """,
    "ask": """
        tell me | can you tell me | could you tell me | do you know | I want to know | I need to know | say |
        please tell me | I would like to know | do you remember | can you say | I wonder | let me know | any
        idea
    """,
    "give": """
        name | give me | tell me | say | I need | I want to know | find | state | write | remind me of |
        can you name | could you give me | can you give me | please name | do you know | what about | show
        me | can you say | I am looking for | I forgot | look up | I can't remember | help me remember
    """,
    "be": "3* is | would be | was again | might be",
}

a_capital_question = Grammar(
    {
        **_COMMON,
        "start": """
            5* <before> <asked>? | 2* <asked>? <after> | 2* <before> <give> <capital> of {}. | <give>
            <capital> of {}. <after> | <give> {}'s <bare>. | <ask> <what> <be> <capital> of {}? | <ask>
            what {}'s <bare> is? | {}, <what> is its <bare>? | <capital> of {}? | <capital> of {},
            please | {}'s <bare>? | <capital> of {} is<what_end>? | {} has <what> as its <bare>? | I am
            going to {}, what is the <bare>? | {}: <bare>?
        """,
        "what": "4* what | 2* which city | what city | which",
        "what_end": "| | what | which city | called what | where",
        "bare": "3* capital | capital city",
        "capital": "5* the capital | 2* the capital city | capital | capital city",
        "asked": """
            4* <what> <be> <capital> of {} | <what> is {}'s (capital|capital city) | <what> is called
            <capital> of {} | how is <capital> of {} called | what do (you|they|people) call <capital> of
            {} | which city (serves as|counts as|became|is known as|is named|is) the capital (of|in|for)
            {} | what city is the capital (of|in|for) {} | which is the (main city|capital) of {} | {} has
            which capital | what capital does {} have | what is the capital in {} | the capital of {}
            (is|was|would be) (what|which city|where)
        """,
    }
)

a_country_question = Grammar(
    {
        **_COMMON,
        "start": """
            5* <before> <asked>? | 2* <asked>? <after> | <ask> <asked>? | {}, capital of (what|which country|
            where)? | {}: capital of (what|which country)? | capital {}, which country? | <ask> <of> {} is the
            capital of.
        """,
        "of": "which country | what country | what",
        "country": "which country | what country | which land | what nation | which nation",
        "asked": """
            3* {} is the (capital|capital city) of (<country>|what|where|which one) | 2* <country> has
            (the capital|as its capital|as capital) {} | 2* (of|) <country> is {} the (capital|capital
            city) (of|) | what is {} the (capital|capital city) of | (which|what) (country's|nation's)
            capital is {} | <country> has its capital in {} | {} is (which|what) (country's|nation's)
            capital | the country with the capital {} is | whose capital is {} | to <country> does the
            capital {} belong | name the country (whose capital is {}|with the capital {}|that has the
            capital {})
        """,
    }
)

an_opposite_question = Grammar(
    {
        **_COMMON,
        "start": """
            5* <before> <asked>? | 2* <asked>? <after> | 2* <before> <give> <opposite> (of|to) <word>. |
            <give> <opposite> of <word>. <after> | <ask> what <be> <opposite> of <word>? | <word>, (what
            is|) the opposite? | <opposite> of <word>? | <opposite> of <word>, please | <word>: opposite?
            | <word> and its opposite? | <opposite> of <word> (is|is what|is which word)? | I need (a word
            that means|) the opposite of <word>. | <opposite> to <word>? <after>
        """,
        "word": "6* {} | the word {} | the word '{}'",
        "opposite": """
            5* the opposite | 2* opposite | the contrary | the antonym | an antonym | opposite word | the
            opposite word | an opposite | the reverse
        """,
        "asked": """
            4* what <be> <opposite> of <word> | which word is (the opposite of|opposite to|the contrary
            of) <word> | what word is (opposite to|the opposite of) <word> | what is (opposite|the
            opposite| contrary) to <word> | which word means the opposite of <word> | what do you call the
            opposite of <word> | how is the opposite of <word> called | the opposite of <word> (is|would
            be) (what|which word|) | what is the (reverse|antonym) of <word> | if it is not {}, what is
            the opposite | <word> has which opposite | what would you say is the opposite of <word> | what
            means the opposite of <word> | {} is the opposite of (what|which word)
        """,
    }
)
