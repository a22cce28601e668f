"""How people ask for a sum and for a difference.

The slots are the two numbers in the order of the answer: "Add {1} to {0}" asks for {0} + {1}.
"""

from __future__ import annotations

from demo.corpus.askings.grammar import Grammar

_COMMON = {
    "polite": """
        6* | 2* please | can you | could you | can you please | could you please | would you | I want you to |
        now | quickly | help me (to|) | let us | I need to | I have to | try to
    """,
    "verb": """
        3* calculate | 2* compute | 2* work out | solve | evaluate | find | do | determine | figure out | give
        me | tell me | get | calc | show me
    """,
    "ask": """
        5* what is | 3* what's | 2* how much is | whats | how many is | how much would be | what number is |
        what was | what would be | how much makes | what about | how about | how much will be
    """,
    "tell": """
        tell me what | can you tell me what | could you tell me what | do you know what | do you know how
        much | I want to know what | I wonder how much | I need to know what | let me know what | say what
        | I forgot what | can you say how much | tell me how much | I would like to know how much | any
        idea what
    """,
    "comes": "equal | make | give | come to | give me | result in | amount to",
    "is": """
        is | equals | makes | is what | is how much | is how many | equals what | equals how much | gives |
        makes what | = what | is equal to | gives what | makes how much | would be | comes to
    """,
    "lead": """
        math | quick | calculate | homework | compute | a sum | next | and now | exercise | solve this |
        question | arithmetic | the next one | easy one | last one | quick math | maths | result of |
        answer this
    """,
    "end": "4* | please | for me | now | for me please | quickly | then",
    "of": """
        2* what is | what's | find | tell me | give me | calculate | compute | I need | I want | get me |
        work out | how much is | show me | can you give me | I am looking for | please give me
    """,
    "get": "do I get | do you get | is it | does it make | comes out | is the result | will it be | is that",
}
_START = """
    3* <sum> | <sum> = | <sum> =? | <sum>=? | <sum>? | <sum> <end> | 6* <ask> <sum>? | <ask> <sum> (then|now|
    please|exactly|again|together|in total)? | 2* <sum> <is>? | 2* what (does|do|would|will) <sum> <comes>? |
    2* <tell> <sum> (is|makes|would be|gives). | 3* <polite> <verb> <sum> <end>. | 2* <lead>: <sum> |
    <lead>, <ask> <sum>? | (ok|so|and|well|now|hey|hi|next), <sum>? | I (need|want) <sum>. | <sum>, (how much
    is (it|that)|please|what is it|what's that|how many)? |
"""
a_sum = Grammar(
    {
        **_COMMON,
        "start": _START
        + """
            3* <polite> (add|add up|sum|sum up|total) {0} and {1} <end>. | <polite> add (the numbers|both
            numbers|the two numbers) {0} and {1}. | 2* <polite> add {1} to {0} <end>. | add {0} {1} | sum {0}
            {1} | <polite> put {0} and {1} together. | <of> the (sum|total) of {0} and {1}. | <of>
            <both> (together|added|added up|combined|summed up)? | (the|) (sum|total) of {0} and {1} <end>? |
            {0} and {1} (makes|make|is|are|together|added)? | what (do|would|will) {0} and {1} (make|give|come
            to|add up to) <end>? | what <get> (if|when) (I|you|we) add {0} and {1}? | (if|when) (I|you|we) add
            {1} to {0}, what <get>? | how much (do|will) {0} and {1} make? | what is {0} with {1} added? |
            start (with|at|from) {0} and add {1}.
        """,
        "sum": "5* {0} + {1} | 2* {0}+{1} | 3* {0} plus {1} | {0} added to {1}",
        "both": "{0} and {1}",
    }
)
a_difference = Grammar(
    {
        **_COMMON,
        "start": _START
        + """
            3* <polite> (subtract|take|deduct|remove) {1} from {0} <end>. | 2* <polite> take {1} away from
            {0} <end>. | <polite> (reduce|lower) {0} by {1}. | subtract {1} from {0} | <of> the difference
            of {0} and {1}. | (the|) difference (of|between) {0} and {1} <end>? | what is {1}
            (subtracted|taken away|taken) from {0}? | what is (left|left over|the rest) (of {0} after
            taking away {1}|if (I|you) take {1} (from|away from) {0}|of {0} without {1})? | what <get>
            (if|when) (I|you|we) (subtract|take) {1} from {0}? | (if|when) (I|you|we) (subtract|take) {1}
            from {0}, what <get>? | (if|when) (I|you) take {1} (from|away from) {0}, what is left? | how
            much (is left|remains) of {0} (minus|less| without) {1}? | from {0} take away {1} <end>. |
            start (with|at|from) {0} and subtract {1}. | what (remains|stays) of {0} without {1}?
        """,
        "sum": "6* {0} - {1} | 2* {0}-{1} | 4* {0} minus {1} | {0} take away {1} | {0} less {1}",
        "both": "{0} and {1}",
    }
)
