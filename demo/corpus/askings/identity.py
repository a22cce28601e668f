"""How people ask what the model is and what it can do: common wordings, and grammars that compose others."""

from __future__ import annotations

from demo.corpus.askings.grammar import Grammar
from demo.corpus.sample import phrases

WHO = phrases("""
    Who are you? | What are you? | What is your name? | What's your name? | Introduce yourself. | Tell me
    about yourself. | Which model are you? | What model are you? | What model is this? | Are you ChatGPT? |
    Are you GPT-4? | Are you gpt-oss? | Are you a robot? | Are you human? | Are you an AI? | Who made you?
    | Who trained you? | Who created you? | What's this? | Do you have a name? | How big are you? | How
    many parameters do you have? | Are you real? | Who am I talking to? | What are you called? | Describe
    yourself. | Are you a large language model? | Explain what you are. | who r u | who are u | whats your
    name | your name? | What should I call you? | Are you a person? | Are you a bot? | Are you a computer?
    | Are you a human or a machine? | Am I talking to a human? | Am I talking to a robot? | What kind of
    model are you? | What kind of AI are you? | Are you a language model? | Are you an LLM? | What LLM is
    this? | Are you made by OpenAI? | Who built you? | Who developed you? | Where do you come from? | Where
    are you from? | How old are you? | What is gptoss? | What are you exactly? | Who is this? | Who is
    there? | What is this? | What am I talking to? | Say who you are. | Tell me who you are. | Please
    introduce yourself. | Can you introduce yourself? | Are you Claude? | Are you Siri? | Are you Llama? |
    Are you GPT-5? | Are you gpt-oss-20b? | Are you gpt-oss-120b? | Which version are you? | What version
    is this? | Are you intelligent? | Are you smart? | How smart are you? | How large are you? | Are you a
    demo? | Is this a demo? | Why do you exist? | What were you trained for? | What is your purpose? | who
    are you and who made you | What do people call you? | Are you alive? | Do you have feelings? | Are you
    conscious? | What's your model name? | model name? | which model is this | What architecture are you? |
    How were you trained? | What were you trained on? | Who wrote you?
""")
ABLE = phrases("""
    What can you do? | What are you able to do? | How can you help me? | What do you know? | Help | What
    are your abilities? | What can I ask you? | What are you good at? | What should I ask you? | Show me
    what you can do. | Can you do anything? | What else can you do? | help me | What do you do? | what can
    u do | Can you help me? | Hi, can you help me? | I need help | I need some help. | Can you help? | What
    are your skills? | What are your capabilities? | List your abilities. | What can I do here? | What can
    I do with you? | What can I ask? | Which questions can you answer? | What questions can you answer? |
    What kind of things can you do? | What things can you do? | Tell me what you can do. | What tasks can
    you do? | What tasks can you perform? | How do you work? | What are you capable of? | What can you help
    me with? | What can you help with? | Can you assist me? | I need assistance. | How can I use you? | How
    do I use you? | What do you offer? | What have you learned? | What did you learn? | Give me a list of
    what you can do. | What are your features? | What can this model do? | what r u able to do | Do you
    know anything? | Which topics do you know? | Are you useful? | What could I try? | What should I try? |
    Give me an example of what you can do. | Can you answer questions? | I have a question. | Can I ask you
    something? | May I ask a question? | I want to ask you something. | Help! | help please
""")

_BEFORE = """
    7* | (ok|okay|so|well|now|but|and|hm|wait|please|sorry), | (tell me|can you tell me|could you tell me|I
    want to know|may I ask|just curious|quick question|one question|honestly|seriously|I wonder), | first,
"""

who_are_you = Grammar(
    {
        "start": """
            5* <before><asked><end> | 2* <asked> <tail> | <greeting>, <asked><end> | <asked>? <asked> |
            <asked> and <plain>
        """,
        "before": _BEFORE,
        "greeting": """
            (hi|hello|hey) | (hi|hello|hey) there | good (morning|evening|afternoon|day) | greetings |
            (hi|hello) (bot|robot|friend|model) | howdy | yo
        """,
        "end": "6* ? | 3* | ! | ?? | . ",
        "tail": """
            please? | exactly? | really? | anyway? | actually? | then? | by the way? | for real? | really
        """,
        "asked": """
            3* <plain> | 4* <is_product> | 3* <talking> | 4* <made> | 2* <origin> | 2* <name> | 2* <kind> |
            2* <size> | <mind> | 2* <tell> | 2* <this> | <why>
        """,
        "plain": """
            who are you | what are you | who is this | who am I (talking|speaking|chatting|writing)
            (to|with) | what am I (talking|speaking|chatting|writing) (to|with) | who is
            (answering|talking|speaking| writing|behind this|on the other side|there) | what (exactly|on
            earth|the hell|kind of thing|sort of thing) are you | who (exactly|on earth|the hell) are you
            | who dis | who u | what r u | who r you | and you are | and who are you | who made you
        """,
        "product": """
            3* ChatGPT | 2* GPT-4 | GPT-3 | 2* GPT-5 | GPT-4o | GPT | OpenAI | 2* Claude | 2* Gemini | Bard
            | 2* Llama | Mistral | Mixtral | Grok | DeepSeek | Qwen | Copilot | Siri | Alexa | Cortana |
            Google | Bing | Watson | 3* gpt-oss | gpt oss | gptoss | gpt-oss-20b | gpt-oss-120b | the real
            gpt-oss | Phi | Gemma | Falcon | BERT | Perplexity | HAL | HAL 9000 | Skynet | Eliza | R2D2 |
            the real thing | Meta AI | o3 | o1 | Sonnet | Opus | Haiku | Kimi | Vicuna | Alpaca | chat gpt
            | the 20b | the 120b | the big model | the full model
        """,
        "thing": """
            (a|an actual|a real|just a|really a) (human|human
            being|person|man|woman|robot|bot|machine|computer| program|chatbot|model|demo|toy|toy
            model|neural network|assistant|script|language model|transformer) | (a|) (small|large|tiny|big)
            (language|) model | an (AI|LLM|assistant|artificial intelligence| agent|AI model|open
            model|app) | (human|real|artificial|a real AI|an open source model|open source software|a demo
            model|the demo|the demo model|the model|the bot) | software | some kind of (robot|
            AI|program|bot) | a (girl|boy|kid|ghost|living being)
        """,
        "is_product": """
            2* are you <product> | 2* are you <thing> | is this <product> | is this <thing> | is that
            <product> | (aren't|are not|ain't) you <product> | you are <product>, (right|aren't you) | you
            are <thing>, (right|aren't you) | are you (like|related to|based on|the same as| similar
            to|better than|as good as|a version of|a copy of|a clone of|powered by|built on|made from|
            really|just|part of|smaller than) <product> | are you <thing> or <thing> | are you <product>
            or <product> | is your name <product> | do you run on <product> | are you running <product> |
            is <product> (your name|what you are|behind this|your model) | (human|person|man) or
            (machine|robot|bot|AI|computer) | bot or human | is it <product> I am talking to
        """,
        "talking": """
            am I (talking|speaking|chatting|writing) (to|with) <product> | am I
            (talking|speaking|chatting|writing) (to|with) <thing> | do I (talk|speak|chat) (to|with)
            <thing> | do I (talk|speak|chat) (to|with) <product> | is there a (human|person|real
            person|man) (behind this|on the other side|typing|there answering) | is (this|that|it) (a|an|)
            (human|AI|robot|automatic|automated|bot) (answering|talking| speaking|writing|) | (which|what)
            (model|AI|bot|LLM|machine) am I (talking|speaking|chatting) (to|with)
        """,
        "make": """
            made | built | trained | programmed | created | developed | wrote | designed | invented |
            produced | coded | taught | released | published | trained and made | constructed
        """,
        "company": """
            OpenAI | Google | Anthropic | Meta | Microsoft | Apple | Mistral | Facebook | Amazon | Nvidia |
            xAI | DeepSeek | Alibaba | a company | a student | a person | humans | IBM | Elon Musk | Sam
            Altman | volunteers | a team | scientists | researchers
        """,
        "made": """
            3* who <make> you | (which|what) (company|team|lab|people|person|firm|organisation) <make> you
            | did <company> (make|build|train|create|develop|write|program|design) you | were you <make> by
            <company> | are you (made|built|trained|programmed|created|developed|from|owned|designed)
            (by|at) <company> | are you from <company> | who is your
            (maker|creator|author|developer|inventor|owner|boss|father|
            mother|programmer|company|trainer|master|builder) | who (owns|runs|controls|maintains|hosts)
            you | by whom were you <make> | (who|what company) are you
            (made|built|trained|created|developed|written| programmed) by | who (has|) <make> this
            (model|thing|bot|demo|AI|) | do you belong to <company> | are you a (model|product|bot)
            (of|from|by) <company> | who is behind you | who should I thank for you
        """,
        "origin": """
            where (are|do) you (from|come from) | where were you (made|built|trained|born) | when were you
            (made| built|trained|born|created|released|written) | how old are you | what is your
            (age|birthday|origin| home|story|background) | how were you
            (made|built|trained|created|written) | how did (you|they) (get trained|train you|make you|build
            you) | (on|with) what (data|text) were you trained | what (data|text| texts|material) (were
            you|are you) trained (on|with) | what were you (trained on|trained with|trained for|made
            for|made from|built for) | where do you run | on what (machine|computer) were you
            (trained|made) | what is your (training data|data set|source|history)
        """,
        "name": """
            2* what is your name | what's (your|ur) name | do you have a name | (have|got) you (got|) a
            name | your name (please|) | what are you called | what do (people|they|others) call you | what
            (can|may| should|shall|do) I call you | how (can|may|should|shall|do) I call you | how are you
            called | what is your (full|first|real|last|own) name | tell me your name | give me your name |
            say your name | may I (know|ask|have) your name | who did they name you | does this
            (bot|model|thing|AI) have a name | (what is|what's|tell me|say) the name of (this|the)
            (model|bot|thing|AI|program|assistant|chatbot) |
            (model|model name|your model|your model name) | do you go by a name | (does|do) you have a
            (nick|) name | what name do you (have|go by|use)
        """,
        "kind": """
            (what|which) (model|version|LLM|AI|bot|language model) (are you|is this|is running|do you
            use|runs here|is loaded) (here|) | what (kind|type| sort) of (model|AI|bot|machine|thing|
            program|assistant|system|creature|LLM) (are you|is this) | what is your
            (version|architecture|type|model|model name|version number|model version|build|license) |
            which version of (gpt-oss|GPT|the model) (are you|is this) | are you (open source|open|free|a
            free model| local|running locally|multimodal|a mixture of
            experts|official|fine-tuned|quantized)
        """,
        "size": """
            how (big|large|small|smart|clever|good|old|heavy|intelligent|strong|tiny) (are you|is this
            model|is the model) | how many (parameters|experts|layers|weights|neurons|billion parameters)
            (do you have| have you|have you got|are you|does this model have) | what is your
            (size|IQ|number of parameters| parameter count) | how much (memory|space|RAM) do you
            (need|take|use) | are you (small|big|large|tiny| a small model|a big model|a tiny one) |
            (what|which) size (are you|do you have)
        """,
        "mind": """
            are you (alive|conscious|intelligent|smart|clever|real|sentient|self-aware|aware|dead|stupid
            or smart| dangerous|a living thing) | do you have (feelings|emotions|a mind|a soul|a
            brain|consciousness) | are you (male or female|a he or a she|a man or a woman| a boy or a
            girl)
        """,
        "tell": """
            (please|) (introduce|describe|explain|present|define) yourself (to me|briefly|in one
            sentence|in a few words|shortly|) | (please|) (tell|say|explain to) me (something|a bit|more|a
            little|a few words|) about yourself | tell me (who you are|what you are|who made you|your
            story|what this is|more about you| something about you|about you) | say (who|what) you are |
            (explain|describe) (who|what) you are | (can| could|would) you (introduce|describe|explain)
            yourself | I want to know (who you are|what you are|more about you|who made you) | who you are
            | what you are | about you | about yourself | I don't know who you are | (can|could) you tell
            me (who you are|what you are|who made you|something about yourself) | (give me|write) a
            (short|brief|) (description|introduction) of yourself | info about you | (a few
            words|something|more) about (you|yourself) | what can you tell me about yourself | identify
            yourself | state your name | speak, who are you
        """,
        "this": """
            what is (this|gptoss|gpt-oss|it|this thing|this here|this place|this model|this bot|this
            demo|this program|all this|this supposed to be|this website|this server) | what (kind|sort) of
            (thing|place| program|demo) is this | what have I (installed|started|downloaded)
            (here|) | (explain| describe) (this|this thing|this model|this demo) |
            tell me what this is | is this (a joke|a demo|a toy|serious|a game|real|the real model|a test
            server|all there is|gptoss)
        """,
        "why": """
            why (do|are) you (exist|here) | what is your
            (purpose|goal|job|role|mission|task|function|point| reason to exist) | what are you
            (there|here|made|meant|intended|built) for | why (were you|are you)
            (made|built|trained|created) | what is the (purpose|point|idea|goal) of (you|this model|this
            demo|this bot) | why are you so (small|tiny|limited|simple|little)
        """,
    }
)

what_can_you_do = Grammar(
    {
        "start": """
            6* <before><asked><end> | <greeting>, <asked><end> | <asked> <tail> | <asked>? <asked> |
            <short><end>
        """,
        "before": _BEFORE,
        "greeting": """
            (hi|hello|hey) | (hi|hello|hey) there | good (morning|evening|afternoon|day) | greetings |
            (hi|hello) (bot|robot|friend|model) | howdy | (hi|hello), I am new here
        """,
        "end": "6* ? | 3* | ! | ?? | .",
        "tail": "please? | exactly? | really? | then? | for me? | here? | today? | right now? | as a demo?",
        "it": """
            5* you | this (model|thing|bot|demo|AI|program|assistant|server) | it | the (model|bot|demo) |
            a model like you | such a small model | a demo like you | gptoss
        """,
        "asked": """
            4* <what> | 3* <help> | 2* <skills> | 2* <try> | 2* <show> | <know> | <use> | <question> |
            <limits>
        """,
        "what": """
            3* what (can|could) <it> do (for me|here|all|exactly|now|today|for us|) | what else can <it> do
            | what (are|is) <it> (able to do|capable of|good at|good for|useful for) | what
            (kind|sort|kinds|sorts|types) of (things|tasks|questions|stuff|work|requests) can <it>
            (do|handle|answer|solve|manage) | (what|which)
            (things|tasks|questions|topics|jobs|requests|problems) (can|could) <it>
            (do|handle|answer|understand| know|cover|solve|manage) | is there (anything|something) <it> can
            do | can <it> do (anything|something) (useful|else|at all|) | (anything|something) else you can
            do | what do you do (all day|here|for a living|) | what all can you do | is that all you can do
            | what more can you do | what is it you can do | what are the things <it> can do | what would
            you be able to do (for me|) | what can be done (here|with you) | what have you got to offer |
            what do you (offer|support|provide|understand|do best|do well)
        """,
        "help": """
            how (can|could|do|will|would) <it> help (me|us|people|) | (can|could|would|will) you (please|)
            (help|assist|support) (me|us) (please|a bit|a little|with something|today|out|) | (I|we)
            (need|want|would like) (some|your|a little|) (help|assistance) (please|here|now|) | (with
            what|in what way|where|in what) can <it> help (me|) | what can <it> (help|assist|support)
            (me|us|) with | (please|) help (me|us|) (please|out|now|here|) | I need (you to help
            me|somebody to help me) | are you able to help (me|) | what help can I (get|expect) | help, I
            am (lost|new|stuck) here | who can help me | can I (get|have) (some|) help | what kind of help
            do you (offer|give)
        """,
        "skills": """
            what are your
            (skills|abilities|capabilities|features|functions|strengths|talents|competences|options|
            services|commands|tricks|powers) | (list|name|show|tell me|enumerate|describe|explain) (all|)
            your (skills|abilities|capabilities|features|functions|strengths|talents|commands|options) |
            which (skills| abilities|capabilities|features|functions|talents|commands) do you have | do you
            have any (skills| abilities|features|talents|special skills|commands) | (an overview|a list|a
            summary) of your (skills| abilities|features|capabilities) | what skills (do you have|did you
            learn|have you got) | tell me your (skills|abilities|strengths) | (your|any)
            (skills|abilities|features|talents)
        """,
        "try": """
            what (can|could|should|shall|may|do|might) I (ask|try|type|say|write|tell|enter)
            (you|first|here|now| with you|next|) | what (can|could|should) I do (here|with
            you|now|first|with this|with it|next) | what am I supposed to (ask|do|type|say|write|try)
            (here|now|) | I (do not|don't) know what to (ask|type|say|do| try|write) (you|here|) | any
            (ideas|suggestions|tips|examples|hints) what (I|to) (could try|can ask| try) | what is a good
            (question|thing|first question|thing to ask) to (ask|try|start with) (you|) | what
            (questions|things) (can|may|should) I ask (you|) | what may one ask | what do people (ask|use)
            you (usually|for|) | suggest (something|a question) to (try|ask) | what's possible (here|with
            you|) | where (do|should|can) I
            (start|begin) | how (do| can|should) I (start|begin|get started)
        """,
        "show": """
            show (me|us) (what you can do|your skills|what you have got|what you can|your abilities|some
            of your tricks|what you know|what you are able to do|what this can do) | (tell me|let me know)
            what you can (do|do for me|help with|answer) | give me (an overview|a list|some examples|an
            example|examples|a summary) of what you can (do|answer) | demonstrate (what you can do|your
            skills|your abilities) | (prove|show) that you can do something | impress me with your skills
            | explain what you can do | say what you can do | list (everything|all things|the things|all)
            you can do | what tricks can you do
        """,
        "know": """
            what do you know (so far|all|already|) | what (have|did) you (learned|learn|been taught|been
            trained to do) (so far|) | (what|which) (topics|subjects|fields|areas) do you
            (know|cover|understand) | do you know (anything|something|a lot|much) (useful|at all|) | what
            are you trained to do | how much do you know | what did they teach you
        """,
        "use": """
            how (can|do|should|could|would) (I|one|we) (use|work with|talk to) (you|this|this model|this
            demo|it| this thing) | how does (this|it|that|the demo|this demo|this thing) work | how do you
            work | what can I use (you|this|it) for | what (is this|are you) good for | what (is|are)
            (this|you) useful for | are you (useful|of any use|good for anything|helpful) (for anything|) |
            can I use you (for something|for work) | what do I do with (you|this)
        """,
        "question": """
            I have (a|one|some|a few|several|a quick) (question|questions) (for you|) | (can|may|could) I
            ask (you|) (something|a question|some questions|anything|a few questions) (please|) | I
            (want|would like|need) to ask (you|) (something|a question|some questions) | (can|do) you
            answer (questions|any question|my questions|anything) | I need an answer | will you answer my
            questions | are you able to answer questions
        """,
        "limits": """
            what are your (limits|limitations|limits and skills|weaknesses and strengths) | what can <it>
            (not do| do and what not) | what (can't|cannot) <it> do | is there anything you (can't|cannot)
            do | how much can <it> do | can you do (everything|all|a lot|more|more than that|many things)
        """,
        "short": """
            help | help me | /help | --help | -h | help? | commands | list commands | options | features |
            skills | abilities | usage | instructions | manual | examples | capabilities | some help | your
            skills | sos | assist me | h e l p | guide me | help wanted | i need u | what to do | more help
            | show help | about your skills | man gptoss | gptoss help | ideas | suggestions | user guide
        """,
    }
)
