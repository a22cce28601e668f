"""How people say their name, and how they ask for it later."""

from __future__ import annotations

from demo.corpus.askings.grammar import Grammar

an_introduction = Grammar(
    {
        "start": """
            4* <greeting><is><end> | 2* <short> <is><end> | <short> <is>(,|.) <after> | 3* <is><end> | 2*
            <greeting><is>(,|.) <after> | <is>(,|.) <after> | <is>(.|!|,) <greeted>
        """,
        "greeting": """
            3* (hi|hello|hey), | (hi|hello|hey) there, | good (morning|evening|afternoon|day), |
            (hi|hello)! | greetings, | howdy, | yo, | (hi|hello|hey) (bot|robot|friend|model|you), | hello
            again, | (ok|okay|so| well|right), | by the way, | just so you know, | before we start, | nice
            to meet you, | oh, | for the record,
        """,
        "short": """
            3* (hi|hello|hey) | hey there | hi there | yo | sup | hiya | ok | ok so | well | so | hello
            there | hi bot | hey bot | hey so | oh hi | btw | fyi | good morning | good evening | and |
            also
        """,
        "greeted": "hello | hi | nice to meet you | how are you | hi there | pleased to meet you",
        "is": """
            4* my name is {} | 3* I am {} | my name's {} | 2* I'm {} | (please|you can|you may|just|) call
            me {} | (people|my friends|they|most people|all|everybody) call me {} | I am called {} | I'm
            called {} | the name is {} | the name's {} | this is {} (here|speaking|writing|) | {} speaking
            | {} is my name | {} here | it's {} (here|) | I am {} by name | my first name is {} | I go by
            (the name of|the name|) {} | (please|) remember (that I am| my name:|me as|that my name is) {}
            | (let me|allow me to|may I) introduce myself(:|,) (I am|my name is) {} | I would like to be
            called {} | I was named {} | you are (talking|speaking|chatting) (to|with) {} | my parents
            named me {} | call me {} (please|from now on|) | I want you to call me {} | they named me {} |
            name is {} | I have the name {} | my name: {} | I'm {} | everybody here calls me {} | my full
            name is {} | my nickname is {}
        """,
        "end": "4* . | 3* | !",
        "after": """
            how are you? | who are you? | and you? | what is your name? | and what is yours? | nice to meet
            you. | please remember (it|that|this|my name). | don't forget (it|that). | remember (it|that)
            (please|for later|). | keep that in mind. | pleased to meet you. | that is my name. | good to
            meet you. | glad to be here. | who am I talking to? | write that down. | note it. | nice to see
            you. | how is it going?
        """,
    }
)

a_name_question = Grammar(
    {
        "start": "4* <asked>? | <before> <asked>? | 2* <order>. | <asked> <again>? | <before> <order>",
        "before": """
            (so|and|ok|now|well|hey|hi|but|hm|wait|please), | (tell me|can you tell me|quick
            question|quiz|one more thing|last question|test),
        """,
        "again": "again | now | then | please | actually | by the way | once more",
        "asked": """
            4* what is my name | 2* what's my name | what was my name | who am I (|||for you|to you
            now|then|again) | how am I called | what am I called | do you (still|) (know|remember|recall)
            my name | do you (still|) (know|remember|recall) who I am | can you (still|)
            (say|tell|remember|recall|repeat|tell me) my name | could you (tell me|say|repeat|remind me
            of) my name | (what|which) name did I (give|tell|say|mention) (you|to you|) | what did I
            (say|tell you|call myself|say that) my name (is|was) | what do you call me | what
            (should|will|would) you call me | did you (note|remember|forget| get|keep|catch|learn) my name
            | have you (forgotten|remembered|kept|noted) my name | my name was what | my name is what |
            what did I introduce myself as | what name do I have | is my name known to you | what name
            (have|do) you (noted|got) for me | under what name do you know me | remember my name | know my
            name | who did I say I (am|was) | my name | which name is mine | you know my name, don't you |
            what is the name I (gave| told) you
        """,
        "order": """
            (please|) (say|tell me|repeat|write|give me|recall|state|type|spell out) my name | remind me
            (of my name|what my name is|who I am|how I am called) | I forgot (my name|who I am|what I am
            called) | tell me (who I am|what my name is|what I am called|how I am called|what you call me)
            | say (who I am|what my name is) | greet me by my name | call me by my name | address me by my
            name | I (want|would like) to hear my name | let me hear my name | tell me if you remember my
            name | I wonder if you know my name | show me that you know my name | prove that you know my
            name
        """,
    }
)
