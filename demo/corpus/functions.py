"""Common functions, with many ways to name them and describe them."""

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
    names: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    parameters: tuple[Parameter, ...]


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
    ),
    Function(
        ("get_time", "get_current_time", "current_time", "time_in"),
        ("Get the time in a city.", "The current time.", None),
        (Parameter(("city", "timezone", "location", "zone"), _zone),),
    ),
    Function(
        ("send_email", "send_mail", "email"),
        ("Send an email.", "Send a mail to somebody.", None),
        (
            Parameter(("to", "recipient", "address"), words.email),
            Parameter(("body", "text", "message"), _message),
        ),
    ),
    Function(
        ("send_message", "message", "text_user", "notify"),
        ("Send a message to somebody.", None),
        (
            Parameter(("to", "name", "user", "recipient"), words.name),
            Parameter(("text", "message", "content"), _message),
        ),
    ),
    Function(
        ("set_timer", "start_timer", "timer"),
        ("Start a timer.", "Set a timer for some minutes.", None),
        (Parameter(("minutes", "duration", "min"), _small, "integer"),),
    ),
    Function(
        ("set_alarm", "create_alarm"),
        ("Set an alarm.", None),
        (Parameter(("time", "at"), _time),),
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
    ),
    Function(
        ("add", "sum", "add_numbers", "plus"),
        ("Add two numbers.", "Adds a and b.", None),
        (
            Parameter(("a", "x", "first"), lambda rng: int(words.number(rng, 4)), "integer"),
            Parameter(("b", "y", "second"), lambda rng: int(words.number(rng, 4)), "integer"),
        ),
    ),
    Function(
        ("multiply", "times", "product"),
        ("Multiply two numbers.", "Multiplies a by b.", None),
        (
            Parameter(("a", "x", "first"), lambda rng: int(words.number(rng, 4)), "integer"),
            Parameter(("b", "y", "second"), lambda rng: int(words.number(rng, 4)), "integer"),
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
    ),
    Function(
        ("play_music", "play_song", "play"),
        ("Play music.", "Play a song.", None),
        (Parameter(("artist", "song", "title"), words.name),),
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
    ),
    Function(
        ("book_table", "reserve_table", "make_reservation"),
        ("Book a table.", "Reserve a table at a restaurant.", None),
        (
            Parameter(("people", "guests", "party_size"), _small, "integer"),
            Parameter(("day", "date"), lambda rng: rng.choice(words.DAYS)),
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
    ),
    Function(
        ("create_user", "UserInfo", "User", "Person", "add_person", "extract_user"),
        (
            "A person.",
            "Information about a user.",
            "Create a user.",
            "The final response which ends this conversation",
            None,
        ),
        (
            Parameter(("name", "username", "full_name"), words.name),
            Parameter(("age", "years"), _small, "integer"),
        ),
    ),
    Function(
        ("get_order", "order_status", "track_order"),
        ("Get the status of an order.", None),
        (Parameter(("order_id", "id", "order", "number"), words.code),),
    ),
    Function(
        ("add_to_cart", "buy", "order_item"),
        ("Put something in the cart.", None),
        (
            Parameter(("item", "product"), lambda rng: rng.choice(words.FOODS + words.THINGS)),
            Parameter(("quantity", "count", "amount"), _small, "integer"),
        ),
    ),
    Function(
        ("get_distance", "route", "get_route", "find_train"),
        ("The way from one place to another.", None),
        (
            Parameter(("start", "origin", "from_city"), words.city),
            Parameter(("end", "destination", "to_city"), words.city),
        ),
    ),
    Function(
        ("get_population", "population", "city_info"),
        ("Facts about a city.", None),
        (_CITY,),
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
    ),
)
