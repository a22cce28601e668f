"""Common functions, with many ways to name them, describe them and ask for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.corpus import words

Value = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """names  what the schema may call it
    make    a value the user may mention
    """

    names: tuple[str, ...]
    make: Callable[[Random], Value]
    type: str = "string"
    enum: tuple[str, ...] = ()
    description: str | None = None
    always: bool = True
    """Whether every phrase mentions it; otherwise `mention` is added if the parameter is given."""
    mention: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    """phrases have a slot for each parameter that is always given, by its first name."""

    names: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    parameters: tuple[Parameter, ...]
    phrases: tuple[str, ...]


def _small(rng: Random) -> int:
    return rng.randint(1, 60)


def _message(rng: Random) -> str:
    return rng.choice(
        [
            words.sentence(rng),
            f"see you {rng.choice(words.DAYS)}",
            f"{words.word(rng)} {words.word(rng)}",
            "hello",
        ]
    )


def _time(rng: Random) -> str:
    return f"{rng.randint(0, 23)}:{rng.choice(['00', '15', '30', '45'])}"


def _zone(rng: Random) -> str:
    return rng.choice(words.CITIES)


_UNITS = ("celsius", "fahrenheit")
_CITY = Parameter(
    ("city", "location", "place", "town", "city_name"), words.city, description="The city, e.g. Paris"
)
_UNIT = Parameter(
    ("unit", "units", "format"), lambda rng: rng.choice(_UNITS), enum=_UNITS, always=False, mention=" Use {}."
)
FUNCTIONS = (
    Function(
        ("get_weather", "get_current_weather", "weather", "getWeather", "fetch_weather", "get_forecast"),
        (
            "Get the weather in a city.",
            "Get the current weather in a given location",
            "Get weather.",
            "The weather.",
            None,
        ),
        (_CITY, _UNIT),
        (
            "What is the weather in {city}?",
            "What's the weather in {city}?",
            "How is the weather in {city}?",
            "What is the weather like in {city}?",
            "What's the weather like in {city} today?",
            "Weather in {city}?",
            "Is it raining in {city}?",
            "How warm is it in {city}?",
            "Tell me the weather in {city}.",
            "Do I need an umbrella in {city}?",
            "Is it cold in {city}?",
            "What is the temperature in {city}?",
            "What's the weather in {city} right now?",
            "Check the weather in {city}.",
            "weather {city}",
            "What is the weather in {city} today?",
            "What's the current weather in {city}?",
            "Is it sunny in {city}?",
            "Will it rain in {city}?",
            "What about the weather in {city}?",
            "How hot is it in {city}?",
            "Can you check the weather in {city}?",
            "Please get the weather for {city}.",
            "Get the weather for {city}.",
            "weather in {city}",
            "I am going to {city}. What is the weather there?",
            "Tell me how the weather is in {city}.",
            "What will the weather be in {city}?",
            "How's the weather in {city} today?",
            "temperature in {city}?",
            "I want to know the weather in {city}.",
            "Do you know the weather in {city}?",
        ),
    ),
    Function(
        ("get_time", "get_current_time", "current_time", "time_in"),
        ("Get the time in a city.", "The current time.", None),
        (Parameter(("city", "timezone", "location", "zone"), _zone),),
        (
            "What time is it in {city}?",
            "What is the time in {city}?",
            "Tell me the time in {city}.",
            "How late is it in {city}?",
            "Time in {city}?",
        ),
    ),
    Function(
        ("send_email", "send_mail", "email"),
        ("Send an email.", "Send a mail to somebody.", None),
        (
            Parameter(("to", "recipient", "address"), words.email),
            Parameter(("body", "text", "message"), _message),
        ),
        (
            'Send an email to {to} that says "{body}".',
            "Send an email to {to}: {body}",
            "Write to {to}: {body}",
            "Mail {to} this text: {body}",
        ),
    ),
    Function(
        ("send_message", "message", "text_user", "notify"),
        ("Send a message to somebody.", None),
        (
            Parameter(("to", "name", "user", "recipient"), words.name),
            Parameter(("text", "message", "content"), _message),
        ),
        (
            "Tell {to}: {text}",
            'Send {to} the message "{text}".',
            "Send a message to {to}: {text}",
            "Write to {to}: {text}",
        ),
    ),
    Function(
        ("set_timer", "start_timer", "timer"),
        ("Start a timer.", "Set a timer for some minutes.", None),
        (Parameter(("minutes", "duration", "min"), _small, "integer"),),
        (
            "Set a timer for {minutes} minutes.",
            "Start a timer of {minutes} minutes.",
            "Timer for {minutes} minutes.",
            "Wake me in {minutes} minutes.",
        ),
    ),
    Function(
        ("set_alarm", "create_alarm"),
        ("Set an alarm.", None),
        (Parameter(("time", "at"), _time),),
        ("Set an alarm for {time}.", "Wake me at {time}.", "Set the alarm to {time}.", "Alarm at {time}."),
    ),
    Function(
        ("search", "web_search", "search_web", "google", "lookup", "find"),
        ("Search the web.", "Search for something.", None),
        (
            Parameter(
                ("query", "q", "text", "keywords"),
                lambda rng: f"{words.word(rng)} {words.word(rng)}" if rng.random() < 0.6 else words.word(rng),
            ),
            Parameter(
                ("limit", "max_results", "count"),
                _small,
                "integer",
                always=False,
                mention=" Give me {} results.",
            ),
        ),
        (
            "Search for {query}.",
            "Search the web for {query}.",
            "Look up {query}.",
            "Find pages about {query}.",
            "Google {query}.",
        ),
    ),
    Function(
        ("add", "sum", "add_numbers", "plus"),
        ("Add two numbers.", "Adds a and b.", None),
        (
            Parameter(("a", "x", "first"), lambda rng: int(words.number(rng, 4)), "integer"),
            Parameter(("b", "y", "second"), lambda rng: int(words.number(rng, 4)), "integer"),
        ),
        (
            "Add {a} and {b} with the tool.",
            "What is {a} + {b}? Use the tool.",
            "Use the tool to add {a} and {b}.",
            "Call the tool for {a} and {b}.",
        ),
    ),
    Function(
        ("multiply", "times", "product"),
        ("Multiply two numbers.", "Multiplies a by b.", None),
        (
            Parameter(("a", "x", "first"), lambda rng: int(words.number(rng, 4)), "integer"),
            Parameter(("b", "y", "second"), lambda rng: int(words.number(rng, 4)), "integer"),
        ),
        (
            "What is {a} * {b}?",
            "What is {a} times {b}?",
            "Multiply {a} by {b}.",
            "Multiply {a} and {b}.",
            "How much is {a} times {b}?",
        ),
    ),
    Function(
        ("calculate", "calculator", "compute", "eval"),
        ("Evaluate an expression.", "A calculator.", None),
        (
            Parameter(
                ("expression", "expr", "formula"),
                lambda rng: f"{words.number(rng, 3)} {rng.choice('+-*/')} {words.number(rng, 3)}",
            ),
        ),
        (
            "Calculate {expression}.",
            "What is {expression}? Use the tool.",
            "Compute {expression} with the tool.",
            "Use the calculator: {expression}",
        ),
    ),
    Function(
        ("get_stock_price", "stock_price", "get_price"),
        ("Get the price of a stock.", None),
        (
            Parameter(
                ("symbol", "ticker"),
                lambda rng: "".join(
                    rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 4))
                ),
            ),
        ),
        (
            "What is the price of {symbol}?",
            "How much is {symbol} stock?",
            "Stock price of {symbol}?",
            "Get the price of {symbol}.",
        ),
    ),
    Function(
        ("play_music", "play_song", "play"),
        ("Play music.", "Play a song.", None),
        (Parameter(("artist", "song", "title"), words.name),),
        ("Play something by {artist}.", "Play {artist}.", "Put on {artist}.", "I want to hear {artist}."),
    ),
    Function(
        ("turn_on_light", "set_light", "light"),
        ("Switch the light.", None),
        (
            Parameter(
                ("room", "place"),
                lambda rng: rng.choice(["kitchen", "bedroom", "hall", "garden", "office", words.word(rng)]),
            ),
            Parameter(("state", "mode"), lambda rng: rng.choice(["on", "off"]), enum=("on", "off")),
        ),
        (
            "Turn the light in the {room} {state}.",
            "Switch {state} the light in the {room}.",
            "Light in the {room} {state}.",
        ),
    ),
    Function(
        ("book_table", "reserve_table", "make_reservation"),
        ("Book a table.", "Reserve a table at a restaurant.", None),
        (
            Parameter(("people", "guests", "party_size"), _small, "integer"),
            Parameter(("day", "date"), lambda rng: rng.choice(words.DAYS)),
        ),
        (
            "Book a table for {people} on {day}.",
            "Reserve a table for {people} on {day}.",
            "On {day}, book a table for {people} people.",
            "I need a table for {people} people on {day}.",
        ),
    ),
    Function(
        ("translate", "translate_text"),
        ("Translate a text.", None),
        (
            Parameter(
                ("text", "input"), lambda rng: words.sentence(rng) if rng.random() < 0.5 else words.word(rng)
            ),
            Parameter(
                ("language", "target", "to"),
                lambda rng: rng.choice(["French", "German", "Spanish", "Italian", "Dutch"]),
            ),
        ),
        (
            'Translate "{text}" into {language}.',
            "Translate to {language}: {text}",
            "How do you say {text} in {language}?",
        ),
    ),
    Function(
        ("create_user", "UserInfo", "User", "Person", "add_person", "extract_user"),
        ("A person.", "Information about a user.", "Create a user.", None),
        (
            Parameter(("name", "username", "first_name"), words.name),
            Parameter(("age", "years"), _small, "integer"),
        ),
        (
            "{name} is {age} years old.",
            "Extract: {name} is {age} years old.",
            "Create a user: {name}, {age} years old.",
            "Extract {name} is {age} years old",
            "Add {name}, aged {age}.",
            "I am {name} and I am {age}.",
        ),
    ),
    Function(
        ("get_order", "order_status", "track_order"),
        ("Get the status of an order.", None),
        (Parameter(("order_id", "id", "order", "number"), words.code),),
        (
            "Where is my order {order_id}?",
            "What is the status of order {order_id}?",
            "Track order {order_id}.",
            "Has {order_id} arrived?",
        ),
    ),
    Function(
        ("add_to_cart", "buy", "order_item"),
        ("Put something in the cart.", None),
        (
            Parameter(("item", "product"), lambda rng: rng.choice(words.FOODS + words.THINGS)),
            Parameter(("quantity", "count", "amount"), _small, "integer"),
        ),
        (
            "Buy {quantity} {item}.",
            "Add {quantity} {item} to the cart.",
            "I need {quantity} {item}.",
            "Order {quantity} {item}, please.",
        ),
    ),
    Function(
        ("get_distance", "route", "get_route", "find_train"),
        ("The way from one place to another.", None),
        (
            Parameter(("start", "origin", "from_city"), words.city),
            Parameter(("end", "destination", "to_city"), words.city),
        ),
        (
            "How far is it from {start} to {end}?",
            "Find a train from {start} to {end}.",
            "How do I get from {start} to {end}?",
            "Route from {start} to {end}.",
        ),
    ),
    Function(
        ("get_population", "population", "city_info"),
        ("Facts about a city.", None),
        (_CITY,),
        ("How many people live in {city}?", "What is the population of {city}?", "How big is {city}?"),
    ),
    Function(
        (
            "get_date",
            "today",
            "get_location",
            "get_user",
            "list_files",
            "get_news",
            "roll_dice",
            "random_number",
        ),
        (None, "No arguments."),
        (),
        (
            "Call the function.",
            "Please call the function.",
            "Use the tool.",
            "Use the function now.",
            "Call the tool.",
        ),
    ),
)
