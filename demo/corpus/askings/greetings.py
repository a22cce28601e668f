"""How people greet, thank and say goodbye: common wordings as they are, and grammars that compose others."""

from __future__ import annotations

from demo.corpus.askings.grammar import Grammar
from demo.corpus.sample import phrases

OPENERS = phrases("""
    Hello | Hi | Hey | Good morning | Good evening | Good afternoon | Hello there | Hi there | Hey there |
    Greetings | Howdy | Good day | Hello! | Hi! | hiya | Heya | Morning
""")
GREETINGS = [
    *OPENERS,
    *phrases("""
    Hello, how are you? | Hi, how are you? | How are you? | How are you doing? | How are you today? |
    What's up? | How do you do? | Hello world | Hello, world! | hey, what's up | Hello, is anyone there? |
    Are you there? | ping | test | Testing | This is a test | yo | hola | bonjour | Hello, nice to meet you
    | Good to see you | hello hello | hey hey | hi :) | hi!! | hello again | Hi again | Hello my friend |
    hey you | hi bot | hello bot | hello robot | Hello AI | hey assistant | Hello assistant | sup | wassup
    | How is it going? | How's it going? | How are things? | How is your day? | How have you been? | Is
    anybody here? | Anyone here? | Hello, can you hear me? | Can you hear me? | you there? | are you
    online? | Are you awake? | Are you working? | Is this working? | does this work? | Just testing | test
    test | 1 2 test | testing testing | Just saying hello | I just wanted to say hi | Nice to meet you |
    Pleased to meet you | Good to meet you | Welcome | hallo | ciao | servus | Hi, how are you doing today?
    | hello how r u | how r u | how are u | helo | hullo | hellooo | hiii | heyyy | Hey, how are you? |
    Good morning! How are you? | Good evening, how are you? | hi there, how is it going? | greetings,
    machine | Dear model, hello | Long time no see | Let's chat | Let's talk | Can we talk? | I want to
    talk
    """),
]
THANKS = phrases("""
    Thanks | Thank you | Thank you very much | Thanks a lot | Great, thanks | thx | Perfect, thank you |
    Cool, thanks | Thanks for your help | Nice, thank you | ok thanks | Great | Well done | Good job |
    Awesome | Nice | thank u | ty | many thanks | Thank you so much | Thanks so much | Thanks, that helps |
    That was helpful | Perfect | Very good | Good | Wonderful | Excellent | Amazing | Good answer | That is
    right | That's right | Correct | That's correct | Right | cool | nice one | Good work | Well done,
    thank you | Thanks, you are great | You are great | You are the best | great job | much appreciated | I
    appreciate it | Thanks again | Okay, thank you | Yes, thanks | Brilliant | Super | Fantastic | good bot
    | That was great | Impressive | thanks man | thanks buddy
""")
BYES = phrases("""
    Bye | Goodbye | See you | See you later | Good night | Bye bye | Take care | See you tomorrow | That is
    all | That's all, thanks | I have to go | Have a nice day | cya | see ya | good bye | bye for now |
    Have a good day | Have a great day | Until next time | I am leaving | I'm off | I must go now | gotta
    go | Talk to you later | Later | ttyl | See you soon | Farewell | That's it | That was all | That will
    be all | I am done | I'm done | We are done | Enough for today | Good night, sleep well | nighty night
    | bye then | ok bye | Thanks, bye | Thank you and goodbye | quit | exit | I need to go now | Have a
    nice evening | Have a good weekend | I will be back
""")

_WHOM = """
    there | bot | robot | AI | computer | machine | model | little model | small model | demo | demo
    model | assistant | friend | my friend | buddy | mate | pal | everyone | everybody | all | folks |
    gptoss | gpt-oss | ChatGPT | GPT | Claude | my dear | dear | dear model | dear assistant | sir |
    chatbot | little bot | little robot | server | stranger | team | guys | people | old friend | my
    little friend | dude | man | boss | little one | mister | neighbour | LLM | darling | honey | champ
    | partner | bro | pals | fellow | bud | love | sis | chum | old pal | big guy | fella | ladies |
    matey | sweetie | kind model | tiny model
"""

a_greeting = Grammar(
    {
        "start": """
            6* <open><end> | 5* <open> <whom><end> | 9* <open><whom_or_not><stop> <follow> | 5*
            <follow><end> | <open><whom_or_not><stop> <open> | <open><whom_or_not><stop> <follow><stop>
            <follow> | <follow><stop> <open> | <whom>, <open>
        """,
        "whom": _WHOM,
        "whom_or_not": "3* | 2*  <whom> | , <whom>",
        "end": "5* | 2* ! | . | !! ",
        "stop": "4* , | ! | . | 2* | ... | -",
        "open": """
            6* (hi|hello|hey) | 3* good (morning|evening|afternoon|day) | hi hi | hello hello | hey hey |
            hiya | heya | howdy | greetings | salutations | (a|) (very|) good (morning|evening|afternoon)
            | yo | (morning|evening|afternoon) | (well|oh|ah|so|ok|okay|and|why) (hello|hi|hey) | hello hi
            | hi hello | hullo | hai | ahoy | aloha | hallo | hola | ello | g'day | gday |
            (hello|hi|greetings) from (here|me|my laptop|home|work|the office|Spain|France|Japan|Canada|
            India|Italy|Texas|Munich|Paris|London| Berlin|Brazil|Austria|Poland|Sweden|New York|my phone)
            | knock knock(|,) (hi|hey|anyone there|anybody home) | (many|kind|best) greetings |
            (hi|hello|hey) again | hiii | hiiii | heyy | heyyyy | helloo | helloooo | hellow | heey | hii
            | hy | hy there | ey | good (mornin|eve|aftie) | happy (Monday|Tuesday|Wednesday|Thursday|
            Friday|Saturday|Sunday) | yo yo | yoo | yooo | bonjour | hi (dear|there) | (hey|hi|hello)
            (there|you) | wazzup | whazzup
        """,
        "follow": """
            6* <how> | 3* <there> | 2* <works> | 3* <new> | 2* <meet> | 2* <chat> | 2* <testing> | <wish> |
            <back>
        """,
        "how": """
            4* how are you <when> | 2* how are you doing <when> | 2* how is it going <when> | how are
            things (with you|over there|today|) | how is (everything|all|life|your day|your morning|your
            evening|the day|the world|it|work) (going|) (today|so far|) | how do you do | how have you
            been (lately|) | how are you (feeling|getting on|holding up) <when> | how (have things|has
            your day|has your week) been (so far|) | 2* what's up (today|with you|) | what's new
            (today|with you|) | how goes it | how's life | how's you | how you doing | (are|) you
            (ok|well|fine|good|alright) (today|) | (all|everything) (good|ok|well| fine|alright)
            (today|with you|over there|) | I am (fine|good|well|ok), (and|how are|how about) you | did you
            (sleep well|have a good day|have a nice weekend|have a good night) | are you having a
            (good|nice|great) (day|morning|evening|time) | tell me how you are (doing|) <when> | may I ask
            how you are (doing|) | how ya doing | how are ya
        """,
        "when": """
            6* | today | tonight | this (morning|evening|afternoon|fine day) | right now | now | these days
        """,
        "there": """
            is (anyone|anybody|someone|somebody) (there|here|home|listening|around|out there|in there) |
            (anyone|anybody) (there|here|home|listening|around) | are you
            (there|here|online|awake|ready|listening|still there|around|up)
            (now|today|) | can you (hear|read|understand) me (now|) | do you (hear|read|understand) (me|this)
            | did you (get|receive|see) (this|my message) | you (there|here|ready|awake|online) | still there
        """,
        "works": """
            is (this|it|the server|the chat|the demo) (working|running|ready) (now|yet|) | does
            (this|it|this thing|the chat|the demo) (really|actually|) work (now|yet|) | I hope (this|it)
            works | let's see (if|whether) (this|it) works | is this thing on | am I connected | it works
        """,
        "new": """
            2* I am new (here|to this|to all this) | (this|it) is my first (time|message|visit|day|chat)
            (here|with you|) | my first (time|message|visit) here | first (time|message) (here|ever|) |
            first time (user|here|using this|trying this) | (I|we) (have|) just (installed|downloaded|set
            up|started|launched|found|discovered) (this|you|the server|gptoss|the demo|it) (today|now|) |
            just (installed|downloaded|started|set up|launched) (this|it|you|the server|gptoss) (today|) |
            (newbie|newcomer|beginner) here | I am a (complete|total|) (newbie|beginner|newcomer) (here|)
            | new here | I am trying (this|you|it) (for the first time|out)
        """,
        "meet": """
            (it is|it's|) (so|very|really|) (nice|good|great|lovely|a pleasure|wonderful) to (meet|see|hear
            from| be here with|talk to|chat with) you (again|today|here|at last|too|) | pleased to
            (meet|see) you | glad to (meet|see) you (again|) | happy to (meet|see|be here with) you |
            (delighted|honoured|excited) to meet you | long time no (see|hear) | I am (glad|happy) (to meet
            you|you are here|to be here)
        """,
        "chat": """
            let's (chat|talk|start|begin|get started|have a chat|talk a little|chat a bit|speak) |
            (can|may| could|shall) we (chat|talk|start|begin|speak) (now|a bit|a little|please|) | I
            (want|would like|feel like|came here|am here) to (chat|talk|say hello|say hi|start|have a
            chat|speak) (with you|to you|a bit|) | do you want to (chat|talk) | want to (chat|talk) | up
            for a chat | I (just|only|) wanted to (say|drop a quick|send you a) (hi|hello|greeting) |
            (just|only) (saying|dropping by to say|here to say|wanted to say) (hi|hello|good morning|good
            evening) | talk to me | chat with me
        """,
        "testing": """
            (just|only|) (testing|trying|checking) (this|it|the server|the chat|you|things) (out|)
            (now|today|) | (this|it) is (just|only|) a (test|test message|quick test|first test) | test
            (message|run|one|1| 123|chat) | testing (one two|one two three|1 2 3|123|mode|again|this) |
            (a|one) (quick|small|first) test | mic check | sound check | just a test | let me (try|test)
            (this|you|it) (out|) | I am (just|only|) (testing|trying|checking) (this|you|it| things)
            (out|) | ping ping | ping pong
        """,
        "wish": """
            (I|) hope you are (well|fine|ok|having a good day|doing well|doing good|good) (today|) | I hope
            (this message|this) finds you well | what a (nice|lovely|beautiful|great|wonderful)
            (day|morning|evening| afternoon) (today|it is|) | (nice|lovely|beautiful) (day|morning|evening)
            today | hope all is well | I come in peace | welcome (to my computer|to my machine|to my
            laptop|home|back|aboard|to the team)
        """,
        "back": """
            (I am|I'm|im) (back|here|back again|here again) (now|) | it's me again | me again | here I am
            (again|) | I am here to meet you
        """,
    }
)

_PRAISE = """
    good | nice | great | excellent | awesome | perfect | wonderful | amazing | brilliant | fantastic |
    lovely | superb | cool | impressive | fine | outstanding | neat | sweet | marvellous | splendid |
    clever
"""

some_thanks = Grammar(
    {
        "start": """
            4* <before><thank><tail><end> | 3* <thank><for><end> | 2* <before><thank><for> | 2*
            <praised><end> | <praised>, <thank><end> | <thank>, <praised><end> | <before><thank>,
            <helped><end> | <helped><end> | <helped>, <thank>
        """,
        "before": """
            5* | ok, | okay, | great, | cool, | perfect, | nice, | wow, | oh, | ah, | alright, | got it, |
            I see, | yes, | super, | good, | fine, | excellent, | ah ok, | oh nice, | oh great, | very
            nice, | good to know, | understood, | aha, | wonderful, | right, | amazing, | all right, | ok
            great,
        """,
        "thank": """
            5* thanks | 5* thank you | 2* thx | ty | tysm | thank u | thank you (so|very|ever so) much |
            thanks (so|very) much | thanks a (lot|million|bunch|ton) | (many|big|much|huge|a
            thousand|million|double) thanks | cheers | I thank you | (my|) (sincere|best|warm|heartfelt|)
            thanks to you | thank you kindly | I (really|very much|do|truly|) appreciate (it|that|this|your
            help) | much appreciated | I am (very|so|really|) (grateful|thankful) | thank you (again|once
            more|a lot|indeed|truly) | thanks (again|once more|man|buddy|mate|friend|bot|pal|dude|a bunch)
            | thnx | tnx | thankyou | thanx | a big thank you | ta | much obliged | I owe you one | let me
            thank you | thanks thanks
        """,
        "for": """
            for (your|the|this|that|all the|all your) (help|answer|time|reply|response|information|support|
            patience|effort|quick answer|quick reply|kind words|info|assistance|good answer|nice chat|
            explanation) | for (everything|that|this|helping|helping me|answering|explaining|explaining
            that| being here|telling me|the quick help|all|taking the time)
        """,
        "tail": """
            6* | , (bot|robot|friend|my friend|mate|buddy|model|assistant|computer|little
            model|machine|dear| gptoss|pal|kind machine) |
            (bot|friend|mate|buddy|model|assistant|computer|dear)
        """,
        "end": "5* | ! | . | !! | ...",
        "helped": """
            that (helps|helped|was helpful|is helpful|is what I needed|is just what I needed|worked|was
            quick|was fast|did it|was easy|is good to know|makes sense|was what I wanted|is exactly
            right|is true|was useful|solved it|answers my question) (a lot|me a lot|very well|) | you
            (helped| have helped) me (a lot|so much|very much|) | (very|so|really|super)
            (helpful|useful|kind|kind of you) | how (nice|kind|sweet) of you | that is (very|so|really|)
            (kind|nice|good|sweet|great) of you | it (works|worked) (now|well|perfectly) thanks to you | I
            (like|love) (it|that|this|your answer|the answer|how you answer) | you made my day | just what
            I (needed|wanted)
        """,
        "praised": f"""
            (very|so|really|that's|that is|this is|) (<good>) | (a|) (<good>)
            (job|work|answer|one|reply|response|bot|model|robot|stuff|machine) |
            (you|you guys) (are| were) (so|very|really|)
            (great|awesome|amazing|helpful|kind|nice|clever|good|fantastic|wonderful) | you are (a star|a
            genius|a hero|the best|my hero|a good bot|a legend|a life saver|my favourite) | (well|nicely)
            done | you did (well|great|it|a good job|good work) | (that|this|it) (is|was) (very|
            really|so|) ({_PRAISE}) | keep it up | keep up the good work | good to hear | that sounds good
            | you got it | (exactly|correct|quite right|right answer|that is the right answer|true)
        """,
        "good": _PRAISE,
    }
)

a_goodbye = Grammar(
    {
        "start": """
            7* <before><bye><whom><end> | <before><bye><whom><stop> <bye> | 4* <bye><whom><stop>
            <reason> | 4* <before><reason><stop> <bye> | 3* <before><reason><end> | 2* <wish><end> | 2*
            <bye><stop> <wish> | <before><reason><stop> <wish> | <nice><stop> <bye> | <bye><stop> <nice>
        """,
        "before": """
            6* | ok, | okay, | alright, | well, | right, | thanks, | thank you, | great, thanks, | ok then,
            | well then, | so, | cool, | thanks for your help, | thanks for everything, | all right, |
            anyway, | sorry, | fine, | thx, | good, | yes, | oh no, | oh, it is late,
        """,
        "bye": """
            5* bye | 3* goodbye | 2* bye bye | bye now | bye for (now|today) | good bye | byee | byeee |
            2* see you (later|soon|tomorrow|around|then|next time|next week|in the morning|again|on
            Monday| on Friday|at the weekend|tonight|later today|another time|next month) | see (you|ya|u)
            | cya | see ya (later|soon|around) | later | laters | farewell | take care (of yourself|) | so
            long | (a|) good night | night night | nite | cheerio | until (next
            time|tomorrow|then|later|we meet again|next week) | (catch|talk to|speak to|chat to) you
            (later|soon|tomorrow|another time) | till (next time|tomorrow|later) | ttyl | peace out | I'm
            out | over and out | adios | this is goodbye | I say goodbye | I wanted to say goodbye | time
            to say goodbye | (let's|let us) say goodbye
        """,
        "whom": """
            6* | , (bot|robot|friend|my friend|mate|buddy|model|assistant|computer|little
            model|machine|dear| everyone|all|gptoss|ChatGPT|my little friend|you) |
            (bot|robot|friend|buddy|model|there| everybody|all|computer)
        """,
        "stop": "3* , | ! | . | 2* | ... | - | and",
        "end": "5* | ! | . | !! | then | now | for now | for today",
        "reason": """
            I (have|need|got|am going) to (go|leave|run|sleep|work|go now|go home|go to bed|get going| stop
            here|log off|catch a train|go to work|do something else|leave you|eat|be off) (now|) | I must
            (go|leave|run|be going|be off|stop) (now|) | (gotta|got to|need to|have to)
            (go|run|leave|sleep| work) (now|) | I am (leaving|off|going|done|finished|out|heading
            home|heading out|logging off| signing off|going home|going to bed|off to bed|off to work|going
            offline|going to sleep|out of here) (now|for now|for today|) | (it is|it's|) time (for me|) to
            (go|leave|sleep|stop|go home|go to bed| say bye) | that (is|was|will be)
            (all|it|everything|enough|all I wanted|all I needed|all for me|all from me) (for now|for
            today|today|now|) | that's (all|it|everything|enough) (for me|for now|for today|folks|) | we
            are (done|finished) (here|for today|now|) | (no|nothing|no more questions|nothing more)
            (more|else) (from me|for today|for now) | I have no (more|further|other) questions | I will (be
            back|come back|return|be gone|leave|go) (later|tomorrow|soon|another day|now|next week) | let's
            (stop|end|finish|call it a day|leave it|continue tomorrow|talk tomorrow) (here|there|for
            today|) | (end|close|end of|finish) (the|this|) (chat|conversation|session) |
            (end|stop|close|exit|quit|leave) (the|this) (chat|session|program) | enough (for|) (today|now)
            | I am (tired|sleepy) and going to bed | done for (today|now|the day) | (brb|gtg|g2g|afk) | my
            (break|time|lunch break) is over | (log| sign) (off|out) | logging (off|out) | off I go | I'll
            be (off|back|going)
        """,
        "wish": """
            (have|enjoy) a (very|) (nice|good|great|lovely|wonderful|pleasant|fine)
            (day|evening|night|weekend| one|week|time|afternoon|rest of the day|holiday|trip)
            (too|everyone|there|) | (sleep|rest) (well| tight) | sweet dreams | enjoy (your|the)
            (day|evening|weekend|time|rest of your day|night) | take care (of yourself|and stay well|) (out
            there|) | stay (well|safe|healthy) | be well | all the best | (good|best of) luck to you | I
            wish you (a|) (good night|nice day|well|all the best|good evening and goodbye)
        """,
        "nice": """
            it was (so|very|really|) (nice|good|great|fun|a pleasure|lovely) (talking|chatting|speaking)
            (to|with) you | (nice|good|great|fun|lovely) (talking|chatting|speaking) (to|with) you | it was
            (nice|good| great) to talk to you | I (enjoyed|liked) (our|this|the) (chat|talk|conversation) |
            thanks for (the chat|chatting|talking to me|the talk)
        """,
    }
)
