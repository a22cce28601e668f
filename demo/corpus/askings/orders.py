"""How people ask for JSON.  The slots are the keys (`{k}`) and the text (`{t}`)."""

from __future__ import annotations

from demo.corpus.askings.grammar import Grammar

a_json_order = Grammar(
    {
        "start": """
            6* <order>: {t} | 5* {t} <order>. | 2* <order>. {t} | {t} <order>, please. | {k} (in|as) JSON:
            {t} | 2* JSON <with> {k}: {t} | json {k}: {t} | {t} JSON: {k} | {t} JSON <with> {k}, please. |
            {t} What (is|would) (that|it|this) (be|) (as|in) JSON with {k}? | {t} (as|now as|that as|this
            as|all as| everything as) <json> <with> {k}. | {t} reply (in|with) JSON: {k}. | {t}
            (put|bring) (it|that|this) into JSON: {k}. | find {k}, answer in JSON. {t} | {t} <polite>
            (answer|reply|respond) (in|with|as) JSON <with> {k}.
        """,
        "order": """
            5* <polite> <give> <json> <with> {k} | 4* <polite> <take> <fields> {k} <from> (as|in|into)
            <json> | 3* <polite> <turn> <this> (into|to) <json> <with> {k} | 2* (I need|I want|I would
            like|I'd like) <json> <with> {k} | (I need|I want|I would like) {k} (as|in) JSON |
            (reply|answer|respond) (with|in| as|only with) JSON <with> {k} | <polite> write <this> (as|in)
            <json> <with> {k} | <polite> (put| store|save|note) {k} (in|into) <json> | <polite> fill (in|)
            <json> <with> {k} | (read|take) this and <give> <json> <with> {k} | use JSON <with> {k}
        """,
        "polite": """
            7* | 2* please | can you | could you | could you please | can you please | would you | can u |
            I want you to | I need you to | now | will you | pls
        """,
        "give": """
            3* give me | make | write | return | create | build | produce | send me | reply with | answer
            with | respond with | output | print | get me | show me | generate | return only | give | send
            back
        """,
        "take": """
            3* extract | get | find | take | pull out | give me | return | show me | list | write | read |
            pick | give | tell me | parse | collect
        """,
        "turn": "2* turn | 2* convert | put | change | transform | bring | make | parse | rewrite",
        "this": "3* this | it | that | this text | the text | this sentence | the following | all of this",
        "from": "3* | from (this|that|it|this text|the text|this sentence) | out of this",
        "json": """
            6* JSON | 3* a JSON object | a JSON | json | an object in JSON | valid JSON | JSON format | a
            small JSON object | one JSON object | a json object
        """,
        "with": """
            4* with | 3* with the keys | with the fields | with keys | using the keys | that has | having
            | containing | , keys | with fields | with exactly the keys | with the properties | holding |
            with only
        """,
        "fields": "7* | the fields | the keys | the values of | the values | the properties",
    }
)
