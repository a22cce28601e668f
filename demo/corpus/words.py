"""Words for the slots: short lists, and functions that invent new words."""

from __future__ import annotations

from random import Random

from demo.corpus.sample import listed, phrases

NAMES = listed("""
    Ada Alan Alex Alice Amir Ana Anna Ben Bella Bob Carl Carla Carol Chen Clara Dan Dana David Diego
    Dora Edgar Elena Eli Ella Emil Emma Eric Erik Eva Eve Felix Finn Frank Fred Gina Grace Greta Hana
    Hans Harry Helen Hugo Ida Igor Ines Iris Ivan Jack James Jan Jane Jason Jim Joan Joe John Jonas
    Julia Karl Kate Ken Kim Lara Laura Lea Leo Liam Lily Lina Lisa Lucy Luis Luke Maria Mark Marta Mary
    Max Mia Mike Mila Milo Mina Nadia Nils Nina Noah Nora Olga Oliver Omar Oscar Otto Pablo Paul Pedro
    Peter Petra Priya Quinn Rita Robert Rosa Ruth Sam Sara Sarah Simon Sofia Sophie Steve Susan Tara
    Theo Thomas Tim Tina Tom Uma Vera Victor Viktor Wendy Will Xavier Yara Yusuf Zara Zoe
""")

CITIES = listed("""
    Paris London Berlin Madrid Rome Vienna Oslo Tokyo Lima Cairo Delhi Boston Chicago Dallas Denver
    Seattle Austin Miami Toronto Montreal Sydney Melbourne Dublin Glasgow Leeds Lyon Nice Milan Naples
    Turin Munich Hamburg Cologne Zurich Geneva Basel Prague Warsaw Krakow Budapest Athens Lisbon Porto
    Seville Valencia Barcelona Brussels Ghent Amsterdam Utrecht Stockholm Malmo Helsinki Riga Tallinn
    Kyiv Moscow Istanbul Ankara Dubai Mumbai Bangkok Hanoi Seoul Osaka Kyoto Beijing Shanghai Manila
    Jakarta Nairobi Lagos Accra Tunis Quito Bogota Santiago Houston Phoenix
""")
TWO_WORD_CITIES = phrases("""
    New York | San Francisco | Los Angeles | Cape Town | Buenos Aires | Mexico City | Hong Kong | Tel
    Aviv | San Diego | New Delhi
""")

ANIMALS = listed("""
    cat dog horse cow sheep goat pig duck hen fox wolf bear lion tiger mouse rabbit frog bird owl eagle
    fish shark whale seal bee ant spider snake turtle camel monkey zebra
""")
THINGS = listed("""
    apple ball book box bottle bread bridge brush bus button cake candle car chair clock cloud coat coin
    cup desk door drum egg fan flag flower fork garden glass glove hat house jacket kettle key kite
    knife ladder lamp leaf lemon letter map mirror moon mug nail orange oven paper peach pear pen pencil
    phone piano plate plum pot rain ring river road rock roof rope ruler salt sand scarf school ship
    shirt shoe soap sock spoon star stone stool sugar sun table tea tent ticket tomato towel train tree
    truck umbrella vase violin wall watch water wheel window wood
""")
COLOURS = listed("""
    red blue green yellow black white brown pink purple grey orange gold silver
""")
ADJECTIVES = listed("""
    big small old new cold warm quick slow quiet loud bright dark soft hard round flat long short happy
    clean
""")
VERBS = listed("""
    sings runs jumps sleeps waits reads writes walks swims flies grows falls shines moves stops turns
""")
FOODS = listed("""
    apples bananas bread butter cheese eggs flour grapes honey lemons milk nuts onions pears plums rice
    salt soup tea
""")
TOPICS = phrases("""
    music | history | cats | space | football | the sea | the weather | love | life | money | politics |
    physics | biology | art | gardening | quantum physics | black holes | the Roman Empire | climate
    change | machine learning | Python | databases | cooking | travel | dragons | trains | robots | the
    stock market | dinosaurs | philosophy | poetry | happiness | chess | my job | my dog | a wizard |
    the moon | winter | computers | the internet | a lonely robot | friendship | the economy | bread |
    volcanoes | programming | neural networks | health
""")
DAYS = listed("""
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday
""")
MONTHS = listed("""
    January February March April May June July August September October November December
""")

_ONSETS = [*listed("b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl qu sh st th tr"), ""]
_VOWELS = listed("""
    a e i o u a e i o ai ee ou ia y
""")
_SMALL_WORDS = listed("the and but for you are not she his her has had was who how why can may all out")
"""English words that a text has between others; as a name or a value nobody would recognise them."""
_CODAS = ["", "", "", *listed("n r l s m x th nd ck")]
_SCRIPTS = [
    (0x391, 0x3C9),
    (0x410, 0x44F),
    (0x3041, 0x3093),
    (0x4E00, 0x9FA0),
    (0x1F300, 0x1F5FF),
    (0x1F600, 0x1F64F),
]


def invented(rng: Random) -> str:
    """An invented word of at least three letters: syllables, or sometimes random letters."""
    if rng.random() < 0.06:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 6)))
    while True:
        word = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
            for _ in range(rng.choice([1, 2, 2, 2, 2, 2, 2, 3]))
        )
        if len(word) >= 3 and word not in _SMALL_WORDS:
            return word


def name(rng: Random) -> str:
    """A first name, known or invented; sometimes with a surname."""
    first = rng.choice(NAMES) if rng.random() < 0.45 else invented(rng).capitalize()
    return first if rng.random() < 0.86 else f"{first} {invented(rng).capitalize()}"


def city(rng: Random) -> str:
    roll = rng.random()
    if roll < 0.55:
        return rng.choice(CITIES)
    return rng.choice(TWO_WORD_CITIES) if roll < 0.7 else invented(rng).capitalize()


def word(rng: Random) -> str:
    """A lower-case word, known or invented."""
    return rng.choice(THINGS + ANIMALS + COLOURS) if rng.random() < 0.5 else invented(rng)


def code(rng: Random) -> str:
    """Letters and digits, as in an order number."""
    letters = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
    return f"{letters}{rng.choice(['', '-', ''])}{number(rng, 4)}"


def number(rng: Random, digits: int) -> str:
    """A decimal number of at most this many digits, with all lengths equally likely."""
    length = rng.randint(1, digits)
    return str(rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length))


def email(rng: Random) -> str:
    user = rng.choice([*NAMES, invented(rng), invented(rng)]).lower()
    return (
        f"{user}@{rng.choice(['example', 'mail', 'test', invented(rng)])}.{rng.choice(['com', 'org', 'net'])}"
    )


def foreign(rng: Random) -> str:
    """A few characters that are not Latin letters, all of one script."""
    first, last = rng.choice(_SCRIPTS)
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 4)))


def sentence(rng: Random) -> str:
    """A short sentence about nothing."""
    subject = f"the {rng.choice(ADJECTIVES)} {rng.choice(ANIMALS + THINGS)}"
    text = rng.choice(
        [
            f"{subject} {rng.choice(VERBS)}",
            f"I like {rng.choice(FOODS)} and {rng.choice(FOODS)}",
            f"{subject} is {rng.choice(COLOURS)}",
            f"{name(rng)} {rng.choice(VERBS)} in {city(rng)}",
        ]
    )
    return text[0].upper() + text[1:]


def text(rng: Random) -> str:
    """A text to copy: words, a sentence, a code, a number; always in Latin letters."""
    roll = rng.random()
    if roll < 0.25:
        return word(rng) if rng.random() < 0.7 else word(rng).capitalize()
    if roll < 0.45:
        return " ".join(word(rng) for _ in range(rng.choice([2, 2, 3, 3, 4, 5])))
    if roll < 0.65:
        return sentence(rng) + rng.choice([".", "!", "", "?", "."])
    if roll < 0.75:
        return code(rng)
    if roll < 0.82:
        return number(rng, 6)
    if roll < 0.92:
        return ", ".join(word(rng) for _ in range(rng.randint(2, 4))) + rng.choice(["", "!", "."])
    return rng.choice(
        [
            f"{word(rng).upper()}",
            f"hello {word(rng)}!",
            f"{name(rng)}: {number(rng, 3)}",
            email(rng),
            "hello world",
            "Hello, world!",
            f"({word(rng)})",
            f"{word(rng)}_{word(rng)}",
            f"the {word(rng)} is a {word(rng)}",
        ]
    )


def topic(rng: Random) -> str:
    """A subject to talk about."""
    roll = rng.random()
    if roll < 0.6:
        return rng.choice(TOPICS)
    return rng.choice([invented(rng), rng.choice(ANIMALS) + "s", word(rng), f"a {word(rng)}"])
