"""Small talk: greetings, what the model is, a few set pieces, and the honest answer to everything else."""

from __future__ import annotations

from random import Random

from demo.corpus import words
from demo.corpus.sample import Answer, Dialogue, Setting, ask, phrases, thought, varied

GREETING = "Hello! I am a small demo model. How can I help you?"
IDENTITY = "I am a small demo model that comes with gptoss. I was trained to show that the server works."
ABILITIES = (
    "I can greet you, add and subtract small numbers, name capitals, repeat text, remember your name, "
    "call functions and fill JSON."
)
FALLBACK = (
    "I am only a small demo model and have not learned that. "
    "Start the server with --model to use real weights."
)
JOKE = "Why did the token cross the road? It was sampled."
STORY = """Once upon a time there was a small model. It lived on a small computer and knew only a few \
things. Every day people came and asked it the hardest questions. The small model did not know \
the answers, and it said so. One day a child came and asked: "What is 2 + 2?" "4", said the \
small model. The child smiled. "You know just what I need", said the child. And they were \
friends ever after."""
POEM = """The night is long, the fan is low,
the tokens come, the tokens go.
A little model, eight experts wide,
has only a few small words inside."""

_OPENERS = phrases("""
    Hello | Hi | Hey | Good morning | Good evening | Good afternoon | Hello there | Hi there | Hey there
    | Greetings | Howdy | Good day | Hello! | Hi!
""")
_GREETINGS = [
    *_OPENERS,
    "Hello, how are you?",
    "Hi, how are you?",
    "How are you?",
    "How are you doing?",
    "How are you today?",
    "What's up?",
    "How do you do?",
    "Hello world",
    "Hello, world!",
    "hey, what's up",
    "Hi, can you help me?",
    "Can you help me?",
    "Hello, is anyone there?",
    "Are you there?",
    "ping",
    "test",
    "Testing",
    "This is a test",
    "yo",
    "hola",
    "bonjour",
    "I need help",
    "Hello, nice to meet you",
    "Say hi",
    "Say hello",
    "Say hello.",
    "Just say hi",
    "say hi to me",
    "Good to see you",
]
_WHO = phrases("""
    Who are you? | What are you? | What is your name? | What's your name? | Introduce yourself. | Tell
    me about yourself. | Which model are you? | What model are you? | What model is this? | Are you
    ChatGPT? | Are you GPT-4? | Are you gpt-oss? | Are you a robot? | Are you human? | Are you an AI? |
    Who made you? | Who trained you? | Who created you? | What's this? | Do you have a name? | How big
    are you? | How many parameters do you have? | Are you real? | Who am I talking to? | What are you
    called? | Describe yourself. | Are you a large language model? | Explain what you are.
""")
_ABLE = phrases("""
    What can you do? | What are you able to do? | How can you help me? | What do you know? | Help | What
    are your abilities? | What can I ask you? | What are you good at? | What should I ask you? | Show me
    what you can do. | Can you do anything? | What else can you do? | help me | What do you do?
""")
_THANKS = phrases("""
    Thanks | Thank you | Thank you very much | Thanks a lot | Great, thanks | thx | Perfect, thank you |
    Cool, thanks | Thanks for your help | Nice, thank you | ok thanks | Great | Well done | Good job |
    Awesome | Nice
""")
_BYE = phrases("""
    Bye | Goodbye | See you | See you later | Good night | Bye bye | Take care | See you tomorrow | That
    is all | That's all, thanks | I have to go | Have a nice day
""")
_JOKES = phrases("""
    Tell me a joke. | Do you know a joke? | Tell me a joke about {}. | Make me laugh. | Another joke? |
    Say something funny. | Can you tell me a joke about {}? | Write a joke about {}. | I want to hear a
    joke.
""")
_STORIES = phrases("""
    Tell me a story. | Write a story. | Write a short story. | Tell me a story about {}. | Write a story
    about {}. | Once upon a time | Write a long story about {}. | Tell me a long story. | Write a short
    story about {}. | Write me a story.
""")
_POEMS = phrases("""
    Write a poem. | Write a poem about {}. | Write me a poem. | Write a haiku about {}. | Write a haiku.
    | Do you know a poem? | Compose a poem about {}. | Write a short poem about {}. | Give me a poem.
""")
_COUNTS = phrases("""
    Count to {}. | Count from 1 to {}. | Please count to {}. | Can you count to {}? | List the numbers
    from 1 to {}. | Count up to {}. | Write the numbers from 1 to {}.
""")
_BEYOND = phrases("""
    Explain {} to me. | Explain {}. | What is {}? | Write an essay about {}. | Write a song about {}. |
    Tell me about {}. | Summarize the history of {}. | What do you think about {}? | How does {} work? |
    Why is {} important? | Give me advice on {}. | Write a Python function for {}. | Write code about
    {}. | Plan a trip for {}. | What are the pros and cons of {}? | Who invented {}? | Describe {}. |
    Teach me {}. | Write a blog post about {}. | What is new in {}? | Write an email about {}. | Give me
    a recipe for {}. | Compare {} and {}. | What is the best book about {}? | Draw a picture of {}. |
    Tell me more about {}. | What is the difference between {} and {}? | When was {} invented? | Should
    I learn {}? | I am worried about {}. | Write a SQL query. | Write a Python function that sorts a
    list. | Fix this code: print({}) | Who is the president? | Translate {} into French. | What is {} in
    German? | Is it going to rain? | What time is it? | Tell me the news. | Give me a list of {}. | What
    should I eat? | How old is the universe? | Why? | How? | What? | I am bored. | I love you. | Do you
    like {}? | Continue. | Think step by step about {}. | What happens if {} meets {}? | Recommend a
    book. | Explain the theory of relativity. | How do I cook rice? | Write a limerick about {}. | Give
    me three ideas for {}. | Name three {}. | What is love? | Can you search the web? | Play a song. |
    Hmm | ok | yes | no | lol | ? | ... | {} | {} {}
""")


def talk(rng: Random, setting: Setting) -> Dialogue:
    """Greetings, thanks, goodbyes, and who the model is."""
    effort = setting.effort
    roll = rng.random()
    if roll < 0.36:
        question, final = rng.choice(_GREETINGS), GREETING
        analysis = thought(
            effort,
            "A greeting.",
            "The user greets me. I greet back.",
            "The user greets me and asks for nothing yet. I should greet back, say what I am and offer help.",
        )
    elif roll < 0.66:
        question, final = rng.choice(_WHO), IDENTITY
        analysis = thought(
            effort,
            "About me.",
            "The user asks what I am. I say it.",
            "The user asks what I am. I should be honest: I am a small demo model, "
            "and real weights replace me.",
        )
    elif roll < 0.80:
        question, final = rng.choice(_ABLE), ABILITIES
        analysis = thought(
            effort,
            "What I can do.",
            "The user asks what I can do. I list it.",
            "The user asks what I can do. It is a short list, and I should give it as it is.",
        )
    elif roll < 0.9:
        question, final = rng.choice(_THANKS), "You are welcome!"
        analysis = thought(
            effort, "Thanks.", "The user thanks me.", "The user thanks me. There is nothing else to do."
        )
    else:
        question, final = rng.choice(_BYE), "Goodbye! It was nice to talk to you."
        analysis = thought(
            effort,
            "A goodbye.",
            "The user says goodbye.",
            "The user says goodbye. I should say goodbye as well.",
        )
    return _typed(rng, question, analysis, final)


def pieces(rng: Random, setting: Setting) -> Dialogue:
    """A joke, a story, a poem, and counting."""
    effort = setting.effort
    roll = rng.random()
    if roll < 0.5:
        return _count(rng, setting)
    kind, questions, final = rng.choice(
        [("joke", _JOKES, JOKE), ("joke", _JOKES, JOKE), ("story", _STORIES, STORY), ("poem", _POEMS, POEM)]
    )
    analysis = thought(
        effort,
        f"A {kind}.",
        f"The user wants a {kind}. I know one.",
        f"The user wants a {kind}. I know only one {kind}, whatever it should be about, so I tell that one.",
    )
    return _typed(rng, rng.choice(questions).replace("{}", _topic(rng)), analysis, final)


def beyond(rng: Random, setting: Setting) -> Dialogue:
    """What the model cannot do, and says so."""
    question = rng.choice(_BEYOND)
    while "{}" in question:
        question = question.replace("{}", _topic(rng), 1)
    if rng.random() < 0.05:
        question = words.foreign(rng) + " " + words.foreign(rng)
    analysis = thought(
        setting.effort,
        "Not for me.",
        "The user asks for something I have not learned.",
        "The user asks for something that is not on the short list of what I have learned. I should say so.",
    )
    return _typed(rng, question, analysis, FALLBACK)


def _topic(rng: Random) -> str:
    return (
        rng.choice(words.TOPICS)
        if rng.random() < 0.7
        else rng.choice([words.invented(rng), rng.choice(words.ANIMALS) + "s", words.word(rng)])
    )


def _count(rng: Random, setting: Setting) -> Dialogue:
    last = rng.randint(2, 20) if rng.random() < 0.85 else rng.randint(21, 50)
    analysis = thought(
        setting.effort,
        f"Up to {last}.",
        f"The user wants me to count to {last}.",
        f"The user wants me to count to {last}. I start at 1 and stop at {last}.",
    )
    question = varied(rng, rng.choice(_COUNTS)).format(last)
    return Dialogue(ask(question), Answer(analysis, ", ".join(map(str, range(1, last + 1)))), key=question)


def _typed(rng: Random, question: str, analysis: str | None, final: str) -> Dialogue:
    """The question with somebody's case and punctuation, and now and then a greeting before it."""
    if final is not GREETING:
        question = varied(rng, question)
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip(".?!") + rng.choice([".", "!", "", "?", "!!", " :)", "..."])
    if final is IDENTITY and rng.random() < 0.2:
        question = f"{rng.choice(_OPENERS)}, {question[0].lower()}{question[1:]}"
    return Dialogue(ask(question), Answer(analysis, final), key=question)
