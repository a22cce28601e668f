"""Small talk: greetings, what the model is, counting, and a joke, a story and a poem."""

from __future__ import annotations

from random import Random

from demo.corpus import words
from demo.corpus.sample import Answer, Dialogue, Setting, ask, phrases, thought, varied

GREETING = "Hello! I am a small demo model. How can I help you?"
IDENTITY = "I am a small demo model that comes with gptoss. I was trained to show that the server works."
ABILITIES = (
    "I can greet you, add and subtract whole numbers up to 100, name capitals, days, months and opposites, "
    "count, repeat text, remember your name, call functions and fill JSON."
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
    | Greetings | Howdy | Good day | Hello! | Hi! | hiya | Heya | Morning
""")
_GREETINGS = [
    *_OPENERS,
    *phrases("""
    Hello, how are you? | Hi, how are you? | How are you? | How are you doing? | How are you today? |
    What's up? | How do you do? | Hello world | Hello, world! | hey, what's up | Hello, is anyone there? |
    Are you there? | ping | test | Testing | This is a test | yo | hola | bonjour | Hello, nice to meet
    you | Good to see you | hello hello | hey hey | hi :) | hi!! | hello again | Hi again | Hello my
    friend | hey you | hi bot | hello bot | hello robot | Hello AI | hey assistant | Hello assistant | sup
    | wassup | How is it going? | How's it going? | How are things? | How is your day? | How have you
    been? | Is anybody here? | Anyone here? | Hello, can you hear me? | Can you hear me? | you there? |
    are you online? | Are you awake? | Are you working? | Is this working? | does this work? | Just
    testing | test test | 1 2 test | testing testing | Just saying hello | I just wanted to say hi | Nice
    to meet you | Pleased to meet you | Good to meet you | Welcome | hallo | ciao | servus | Hi, how are
    you doing today? | hello how r u | how r u | how are u | helo | hullo | hellooo | hiii | heyyy | Hey,
    how are you? | Good morning! How are you? | Good evening, how are you? | hi there, how is it going? |
    greetings, machine | Dear model, hello | Long time no see | Let's chat | Let's talk | Can we talk? | I
    want to talk
    """),
]
_WHO = phrases("""
    Who are you? | What are you? | What is your name? | What's your name? | Introduce yourself. | Tell me
    about yourself. | Which model are you? | What model are you? | What model is this? | Are you ChatGPT?
    | Are you GPT-4? | Are you gpt-oss? | Are you a robot? | Are you human? | Are you an AI? | Who made
    you? | Who trained you? | Who created you? | What's this? | Do you have a name? | How big are you? |
    How many parameters do you have? | Are you real? | Who am I talking to? | What are you called? |
    Describe yourself. | Are you a large language model? | Explain what you are. | who r u | who are u |
    whats your name | your name? | What should I call you? | Are you a person? | Are you a bot? | Are you
    a computer? | Are you a human or a machine? | Am I talking to a human? | Am I talking to a robot? |
    What kind of model are you? | What kind of AI are you? | Are you a language model? | Are you an LLM? |
    What LLM is this? | Are you made by OpenAI? | Who built you? | Who developed you? | Where do you come
    from? | Where are you from? | How old are you? | What is gptoss? | What are you exactly? | Who is
    this? | Who is there? | What is this? | What am I talking to? | Say who you are. | Tell me who you
    are. | Please introduce yourself. | Can you introduce yourself? | Are you Claude? | Are you Siri? |
    Are you Llama? | Are you GPT-5? | Are you gpt-oss-20b? | Are you gpt-oss-120b? | Which version are
    you? | What version is this? | Are you intelligent? | Are you smart? | How smart are you? | How large
    are you? | Are you a demo? | Is this a demo? | Why do you exist? | What were you trained for? | What
    is your purpose? | who are you and who made you | What do people call you? | Are you alive? | Do you
    have feelings? | Are you conscious? | What's your model name? | model name? | which model is this |
    What architecture are you? | How were you trained? | What were you trained on? | Who wrote you?
""")
_ABLE = phrases("""
    What can you do? | What are you able to do? | How can you help me? | What do you know? | Help | What
    are your abilities? | What can I ask you? | What are you good at? | What should I ask you? | Show me
    what you can do. | Can you do anything? | What else can you do? | help me | What do you do? | what can
    u do | Can you help me? | Hi, can you help me? | I need help | I need some help. | Can you help? |
    What are your skills? | What are your capabilities? | List your abilities. | What can I do here? |
    What can I do with you? | What can I ask? | Which questions can you answer? | What questions can you
    answer? | What kind of things can you do? | What things can you do? | Tell me what you can do. | What
    tasks can you do? | What tasks can you perform? | How do you work? | What are you capable of? | What
    can you help me with? | What can you help with? | Can you assist me? | I need assistance. | How can I
    use you? | How do I use you? | What do you offer? | What have you learned? | What did you learn? |
    Give me a list of what you can do. | What are your features? | What can this model do? | what r u able
    to do | Do you know anything? | Which topics do you know? | Are you useful? | What could I try? | What
    should I try? | Give me an example of what you can do. | Can you answer questions? | I have a
    question. | Can I ask you something? | May I ask a question? | I want to ask you something. | Help! |
    help please
""")
_THANKS = phrases("""
    Thanks | Thank you | Thank you very much | Thanks a lot | Great, thanks | thx | Perfect, thank you |
    Cool, thanks | Thanks for your help | Nice, thank you | ok thanks | Great | Well done | Good job |
    Awesome | Nice | thank u | ty | many thanks | Thank you so much | Thanks so much | Thanks, that helps
    | That was helpful | Perfect | Very good | Good | Wonderful | Excellent | Amazing | Good answer | That
    is right | That's right | Correct | That's correct | Right | cool | nice one | Good work | Well done,
    thank you | Thanks, you are great | You are great | You are the best | great job | much appreciated |
    I appreciate it | Thanks again | Okay, thank you | Yes, thanks | Brilliant | Super | Fantastic | good
    bot | That was great | Impressive | thanks man | thanks buddy
""")
_BYE = phrases("""
    Bye | Goodbye | See you | See you later | Good night | Bye bye | Take care | See you tomorrow | That
    is all | That's all, thanks | I have to go | Have a nice day | cya | see ya | good bye | bye for now |
    Have a good day | Have a great day | Until next time | I am leaving | I'm off | I must go now | gotta
    go | Talk to you later | Later | ttyl | See you soon | Farewell | That's it | That was all | That will
    be all | I am done | I'm done | We are done | Enough for today | Good night, sleep well | nighty night
    | bye then | ok bye | Thanks, bye | Thank you and goodbye | quit | exit | I need to go now | Have a
    nice evening | Have a good weekend | I will be back
""")
_JOKES = phrases("""
    Tell me a joke. | Do you know a joke? | Tell me a joke about {}. | Make me laugh. | Another joke? |
    Say something funny. | Can you tell me a joke about {}? | Write a joke about {}. | I want to hear a
    joke. | joke? | a joke please | joke | Give me a joke. | Got any jokes? | Do you know any jokes? |
    Tell a joke. | tell me another joke | One more joke. | Know any good jokes? | I need a joke. | Can you
    tell me a joke? | Could you tell me a joke? | Tell me something funny. | Be funny. | Do you have a
    joke about {}? | a joke about {} | Tell me a good joke. | Tell me a funny joke. | Joke about {}. | Let
    me hear a joke. | Tell us a joke. | Would you tell me a joke?
""")
_STORIES = phrases("""
    Tell me a story. | Write a story. | Write a short story. | Tell me a story about {}. | Write a story
    about {}. | Once upon a time | Write a long story about {}. | Tell me a long story. | Write a short
    story about {}. | Write me a story. | story? | a story please | Can you tell me a story? | Do you know
    a story? | I want to hear a story. | Give me a story. | Tell me a short story. | Tell me a bedtime
    story. | Write a fairy tale. | Tell me a fairy tale. | Tell us a story. | Could you write a story? |
    Make up a story. | Invent a story about {}. | story about {} | Tell me another story. | Write a tale
    about {}. | A short story, please. | Let me hear a story. | Write me a short story about {}.
""")
_POEMS = phrases("""
    Write a poem. | Write a poem about {}. | Write me a poem. | Write a haiku about {}. | Write a haiku. |
    Do you know a poem? | Compose a poem about {}. | Write a short poem about {}. | Give me a poem. |
    poem? | a poem please | Tell me a poem. | Can you write a poem? | Recite a poem. | I want a poem about
    {}. | poem about {} | Can you write me a poem about {}? | Make a poem. | Write some poetry. | A short
    poem, please. | Could you write a poem about {}? | Say a poem. | Do you know any poems? | Let me hear
    a poem. | Write a rhyme. | Write me a short poem.
""")
_COUNTS = phrases("""
    Count to {1}. | Count from 1 to {1}. | Please count to {1}. | Can you count to {1}? | List the numbers
    from 1 to {1}. | Count up to {1}. | Write the numbers from 1 to {1}. | count 1 to {1} | Count from one
    to {1}. | Numbers from 1 to {1}? | List the numbers 1 to {1}. | Say the numbers from 1 to {1}. | Give
    me the numbers from 1 to {1}. | Can you count up to {1}? | Could you count from 1 to {1}? | count till
    {1} | Count until {1}. | Start at 1 and count to {1}. | Count with me to {1}. | Print the numbers 1 to
    {1}. | Tell me the numbers from 1 to {1}. | I want you to count to {1}. | 1 to {1} | numbers 1-{1} |
    Show me how you count to {1}. | Let's count to {1}. | Name the numbers from 1 to {1}.
""")
_COUNTS_FROM = phrases("""
    Count from {0} to {1}. | Can you count from {0} to {1}? | List the numbers from {0} to {1}. | Numbers
    from {0} to {1}. | Write the numbers from {0} to {1}. | count {0} to {1} | Start at {0} and count to
    {1}. | Say the numbers from {0} to {1}. | Could you count from {0} to {1}? | Give me the numbers from
    {0} to {1}.
""")
_COUNTS_DOWN = phrases("""
    Count down from {1}. | Count down from {1} to 1. | Count backwards from {1}. | Count from {1} to 1. |
    Countdown from {1}. | Can you count down from {1}? | Count backwards from {1} to 1. | Start at {1} and
    count down. | count down from {1} to one | Do a countdown from {1}. | Could you count backwards from
    {1}?
""")
HIGHEST = 30
"""The largest number that the model counts to."""


def talk(rng: Random, setting: Setting) -> Dialogue:
    """Greetings, thanks, goodbyes, and who the model is."""
    effort = setting.effort
    roll = rng.random()
    if roll < 0.34:
        question, final = rng.choice(_GREETINGS), GREETING
        analysis = thought(
            effort,
            "A greeting.",
            "The user greets me. I greet back.",
            "The user greets me and asks for nothing yet. I should greet back, say what I am and offer help.",
        )
    elif roll < 0.62:
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
    if rng.random() < 0.55:
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
    return _typed(rng, rng.choice(questions).replace("{}", words.topic(rng)), analysis, final)


def _count(rng: Random, setting: Setting) -> Dialogue:
    first, last = (
        1,
        rng.randint(2, HIGHEST) if rng.random() < 0.7 else rng.choice([3, 5, 10, 10, 15, 20, 20, 30]),
    )
    roll = rng.random()
    if roll < 0.2:
        templates, first, last = _COUNTS_DOWN, min(last, 20), 1
    elif roll < 0.4 and last > 3:
        templates, first = _COUNTS_FROM, rng.randint(0, last - 1)
    else:
        templates = _COUNTS
    step = 1 if first <= last else -1
    low, high = sorted((first, last))
    analysis = thought(
        setting.effort,
        f"{first} to {last}.",
        f"The user wants me to count from {first} to {last}.",
        f"The user wants me to count from {first} to {last}. I start at {first} and stop at {last}.",
    )
    question = varied(rng, rng.choice(templates)).format(low, high)
    counted = ", ".join(map(str, range(first, last + step, step)))
    return Dialogue(ask(question), Answer(analysis, counted), key=question)


def _typed(rng: Random, question: str, analysis: str | None, final: str) -> Dialogue:
    """A dialogue with the question, with varied case and punctuation, and sometimes after a greeting."""
    if final is not GREETING:
        question = varied(rng, question)
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip(".?!") + rng.choice([".", "!", "", "?", "!!", " :)", "..."])
    if final in (IDENTITY, ABILITIES) and rng.random() < 0.2:
        question = f"{rng.choice(_OPENERS).rstrip('!')}, {question[0].lower()}{question[1:]}"
    return Dialogue(ask(question), Answer(analysis, final), key=question)
