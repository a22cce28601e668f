"""How people ask for what the common functions do.

A slot is the first name of a parameter that is always given.
"""

from __future__ import annotations

from demo.corpus.askings.grammar import Grammar

_POLITE = """
    5* | 2* please | can you | could you | can you please | would you | I want you to | I need you to | you
    should | I would like you to | now | go and | quickly
"""
_NOW = """
    6* | 2* today | now | right now | at the moment | this morning | tonight | this evening | today, please
"""
_END = "3* | 2* ? | please | , please | now | ? thanks"

WISHES = {
    name: Grammar({"start": start, "polite": _POLITE, "now": _NOW, "end": _END})
    for name, start in {
        "get_weather": """
            5* (what is|what's|how is|how's) the (weather|weather like|current weather) in {city} <now>? |
            3* what is the weather in {city}<end> | 2* weather in {city}<end> | weather {city}<end> | {city}
            weather<end> | (what is|what's) the (weather|forecast) for {city} <now>? | (how
            (warm|cold|hot|windy)|what temperature) is it in {city} <now>? | is it
            (raining|cold|sunny|warm|hot|snowing|windy|cloudy|freezing) in {city} <now>? | (will it|does it)
            (rain|snow) in {city} <now>? | do I need (an umbrella|a coat|sunglasses|boots|a scarf) in {city}
            <now>? | (what is|what's|tell me) the (temperature|current temperature) in {city} <now>? |
            temperature in {city}<end> | <polite> (check|get|find|look up|show me|tell me|give me|fetch) the
            (weather|current weather|weather report|forecast|temperature) (in|for|of|at) {city} <now>. | (I
            am|we are) (going|flying|travelling|driving) to {city} <now>. (what is|how is|what's) the
            weather there? | tell me (how|what) the weather (is|is like) in {city}. | what will the weather
            be (like|) in {city} <now>? | I (want|need|would like) (to know|) the weather (in|for) {city}. |
            do you know (the|what the) weather (is like|) in {city} <now>? | what about (the weather in|)
            {city} <now>? | (forecast|weather report) (for|in) {city}<end> | what should I (wear|pack) in
            {city} <now>? check the (weather|forecast). | how does the weather look in {city} <now>? | I live
            in {city}. (will it rain|is it cold|what is the weather like)? | is the weather (good|bad|nice)
            in {city} <now>?
        """,
        "get_time": """
            3* what time is it in {city} <now>? | what is the (time|current time|local time) in {city}? |
            <polite> (tell|give|show) me the (time|current time) in {city}. | how late is it in {city}
            <now>? | (time|current time) in {city}<end> | what time do they have in {city} <now>? | <polite>
            (check|look up|get) the time in {city}. | do you know (the time|what time it is) in {city}? | I
            (have to|want to) call {city}, what time is it there? | {city} time<end> | what does the clock
            say in {city}?
        """,
        "send_email": """
            <polite> (send|write) an email to {to} (that says|saying|with the text) "{body}". | <polite>
            (send|write) (an|a short|one) email to {to}: {body} | <polite> (write|mail) to {to}: {body} |
            <polite> (mail|email) {to} (this text|this|the text|the following): {body} | email {to}: {body}
            | email to {to}: {body} | <polite> send {to} an email that says "{body}". | <polite> let {to}
            know by email: {body} | send this to {to}: {body} | new email to {to}: {body}
        """,
        "send_message": """
            <polite> tell {to}: {text} | <polite> send {to} (the|a) message "{text}". | <polite> (send|write)
            (a|this) message to {to}: {text} | <polite> (write|text) to {to}: {text} | (text|message) {to}:
            {text} | <polite> let {to} know: {text} | message for {to}: {text} | <polite> send {to} a
            (text|message|note): {text} | <polite> (pass on|forward) to {to}: {text} | <polite> message {to}
            that "{text}".
        """,
        "set_timer": """
            <polite> (set|start|make|create) (a|the|my) timer (for|of|to) {minutes} (minutes|min). | timer
            for {minutes} minutes<end> | (timer|countdown), {minutes} minutes<end> | {minutes} (minutes
            timer|minute timer)<end> | <polite> wake me in {minutes} minutes. | <polite> (remind|tell|call)
            me in {minutes} minutes. | I need a timer (for|of) {minutes} minutes. | <polite> count down
            {minutes} minutes. | my (eggs|cake|pasta|tea) (needs|takes) {minutes} minutes, set a timer.
        """,
        "set_alarm": """
            <polite> (set|make|create) (an|the|my) alarm (for|at|to) {time}. | <polite> wake me (up|) at
            {time}. | alarm (at|for) {time}<end> | I (need|want|have) to (get|be) up at {time}, set an
            alarm. | I need an alarm (at|for) {time}. | <polite> ring at {time}. | {time} alarm<end>
        """,
        "search": """
            <polite> search (for|the web for|the internet for|online for|) {query}. | <polite> (look up|look
            for|google) {query}. | <polite> find (pages|something|information|results|articles) (about|on)
            {query}. | search: {query} | google: {query} | I am looking for {query}, search the web. |
            <polite> do a (web search|search) for {query}. | what does the web say about {query}? | <polite>
            (use the web|go online) to find {query}. | look {query} up online.
        """,
        "add": """
            <polite> add {a} and {b} (with|using|by) (the|your|this) (tool|function). | what is {a} (+|plus)
            {b}? (use|call) (the|your|this) (tool|function). | <polite> (use|call|take|try) (the|your|this)
            (tool|function) (to add|for|to sum|to add up) {a} and {b}. | <polite> (use|call) (the|your)
            (tool|function): {a} (+|plus) {b} | {a} + {b} (with|using) (the|your) (tool|function)<end> |
            (with|using) (the|your) (tool|function), (what is|how much is|add) {a} + {b}<end> | let (the|your)
            (tool|function) add {a} and {b}. | the sum of {a} and {b}, (use|with) (the|your)
            (tool|function)<end>
        """,
        "multiply": """
            3* what is {a} (*|times|x|multiplied by) {b}? | <polite> multiply {a} (by|and|with) {b}. | how
            much is {a} (*|times) {b}? | {a} (*|times|x) {b}<end> | (what is|) the product of {a} and {b}? |
            <polite> (calculate|compute|work out) {a} (*|times) {b}. | <polite> use the tool to multiply {a}
            (and|by) {b}.
        """,
        "calculate": """
            3* <polite> (calculate|compute|evaluate|work out|solve) {expression}. | what is {expression}?
            (use|call|take) (the|your) (tool|calculator|function). | <polite> (use|take|start) (the|your)
            calculator: {expression} | {expression}, (with|use) the calculator<end> | <polite> (calculate|
            compute|evaluate|work out) {expression} with the (tool|calculator). | calculator: {expression} |
            (put|type) {expression} into the calculator.
        """,
        "get_stock_price": """
            what is the (price|stock price|share price|value) of {symbol}? | how much is {symbol} (stock|)
            <now>? | (stock|share) price of {symbol}<end> | <polite> (get|check|find|tell me|look up) the
            (price|stock price) of {symbol}. | {symbol} (price|stock|stock price)<end> | (how is|how's)
            {symbol} (doing|trading) <now>? | where is {symbol} trading <now>? | what does one {symbol} share
            cost?
        """,
        "play_music": """
            <polite> play (something|music|a song|songs|a record) by {artist}. | <polite> play {artist}. |
            <polite> put on {artist}. | I (want|would like) to (hear|listen to) {artist}. | (music|a song) by
            {artist}, please. | let me hear {artist}. | <polite> play me (some|something by) {artist}. | put
            some {artist} on.
        """,
        "turn_on_light": """
            <polite> (turn|switch) the light in the {room} {state}. | <polite> (turn|switch) {state} the
            (light|lights|lamp) in the {room}. | (light|lights) in the {room} {state}<end> | {room} (light|
            lights) {state}<end> | <polite> (turn|switch) the {room} (light|lights) {state}. | (lights|light)
            {state} in the {room}<end> | I want the light in the {room} {state}.
        """,
        "book_table": """
            <polite> (book|reserve|get) (a table|us a table) for {people} (people|persons|) (on|for|this)
            {day}. | on {day}, (book|reserve) a table for {people} people. | I (need|want|would like) a table
            for {people} (people|) on {day}. | table for {people} on {day}<end> | we are {people} and want to
            eat on {day}, book a table. | {day}, a table for {people}<end> | <polite> make a reservation for
            {people} (people|) on {day}.
        """,
        "translate": """
            <polite> translate "{text}" (into|to) {language}. | <polite> translate (to|into) {language}:
            {text} | how do you say {text} in {language}? | what is "{text}" in {language}? | <polite> say
            "{text}" in {language}. | (in|into|to) {language}: {text} | "{text}" in {language}<end> | I need
            "{text}" in {language}.
        """,
        "create_user": """
            3* {name} is {age} years old. | {name} is {age}. | (extract|the person|user): {name} is {age}
            years old. | <polite> (create|add|make) a (user|person|new user|contact): {name}, {age} years
            old. | extract {name} is {age} years old | <polite> add {name}, (aged|age) {age}. | I am {name}
            and I am {age}. | <polite> (create|add) (the|a) user {name}, (age|aged) {age}. | my
            (brother|friend|colleague|neighbour|aunt) {name} is {age} years old. | {name}, {age} | {name}
            (turned|turns|has turned|just turned) {age}. | name {name}, age {age} | (a|the) {age} year old
            (called|named) {name}
        """,
        "get_order": """
            where is (my|the|) order {order_id}? | what is the status of order {order_id}? | <polite>
            (track|check|find|look up) (order|my order|the order) {order_id}. | has (order|) {order_id}
            (arrived|shipped|been sent|left)? | order {order_id}, where is it? | (status|state) of (order|)
            {order_id}<end> | when (does|will) (order|my order) {order_id} (come|arrive)? | I am waiting for
            (order|) {order_id}. | my order (is|number is) {order_id}, where is it? | any news about order
            {order_id}?
        """,
        "add_to_cart": """
            <polite> (buy|get|order|purchase) {quantity} {item}. | <polite> (add|put) {quantity} {item}
            (to|into|in) (the|my) (cart|basket). | I (need|want|would like|take|will take) {quantity}
            {item}. | (order|buy) {quantity} {item}, please. | {quantity} {item}, please<end> | {quantity}
            {item} (for|to|into) (the|my) cart<end>
        """,
        "get_distance": """
            how far is (it|) from {start} to {end}? | <polite> (find|show me|get|look up) (a train|a route|
            the way|a connection|the distance) from {start} to {end}. | how do I (get|travel|come) from
            {start} to {end}? | (route|way|train|distance) from {start} to {end}<end> | {start} to
            {end}<end> | what is the (distance|way|best way) from {start} to {end}? | I (want|need|have) to
            (go|get|travel) from {start} to {end}. | how long (is the way|does it take) from {start} to
            {end}? | take me from {start} to {end}.
        """,
        "get_population": """
            how many people live in {city}? | (what is|what's|tell me) the population of {city}? | how
            (big|large) is {city}? | population of {city}<end> | {city} population<end> | how many
            (inhabitants|people) does {city} have? | <polite> (look up|get|find) the population of {city}. |
            how many are living in {city}?
        """,
        "get_date": """
            3* <polite> (call|use|run|try|start) (the|your|that|this) (function|tool) (now|for me|once|).
            | (call|use|run) it (now|). | do (a|the|one) (tool call|function call|call)<end> | make
            (a|the) (tool| function) call. | (the|your) (tool|function), please. | I want you to
            (call|use) the (function|tool). | what does (the|your) (tool|function) say?
        """,
    }.items()
}
"""By the first name of the function."""

a_remark = Grammar(
    {
        "before": """
            (use|call|take|try) (the|your|a|this) (tool|function)(:|,) | with (the|your|a) (tool|function), |
            (tool|function): | (use|try) (a|one of the|your) (tools|functions):
        """,
        "after": """
            (use|call|try) (the|your|a|this) (tool|function)(| for this| for that| please|, please|
            now)(|.|!) | you have a (tool|function) for (this|that). | (with|using) (the|your)
            (tool|function)(|, please).
        """,
    }
)
"""That a function should be used: `before` or `after` the wish."""
