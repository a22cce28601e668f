"""Askings beyond what the model can do, composed: requests of every kind.

Slots are filled by `beyond`: t topic, c city, n country, p person, l language, w word, a animal, f food,
k colour, d day, m month, s sentence, u subject, v verb, o ordinary word; 0 to 2 numbers, 4 to 6 small numbers
in words.
"""

from __future__ import annotations

from random import Random

from demo.corpus.askings.grammar import Grammar
from demo.corpus.sample import listed, phrases

SUBJECTS = phrases("""
    the French Revolution | photosynthesis | evolution | gravity | electricity | the Second World War |
    democracy | capitalism | inflation | taxes | marketing | blockchain | bitcoin | cloud computing |
    Kubernetes | Docker | Linux | Windows | Excel | JavaScript | Java | Rust | C++ | HTML | CSS | React |
    SQL | Git | algorithms | recursion | sorting | encryption | passwords | hackers | the solar system |
    Mars | comets | stars | rockets | time travel | aliens | ghosts | magic | religion | the Bible |
    yoga | meditation | sleep | dreams | stress | anxiety | depression | fitness | running | swimming |
    tennis | basketball | the Olympics | the World Cup | Formula One | golf | skiing | hiking | camping |
    fishing | birds | horses | whales | insects | trees | flowers | mushrooms | soil | rivers | mountains |
    deserts | oceans | earthquakes | hurricanes | tornadoes | global warming | recycling | plastic | solar
    panels | nuclear power | oil | electric cars | planes | ships | bicycles | bridges | architecture |
    painting | sculpture | photography | cinema | theatre | opera | jazz | rock music | the piano | the
    guitar | dance | fashion | shoes | perfume | coffee | tea | wine | beer | cheese | chocolate | pizza |
    pasta | sushi | vegan food | nutrition | vitamins | cancer | diabetes | the flu | vaccines | the heart
    | the brain | blood | bones | DNA | genes | cells | bacteria | viruses | medicine | surgery |
    psychology | sociology | economics | law | human rights | justice | war | peace | freedom | truth |
    beauty | time | death | the meaning of life | free will | ethics | logic | set theory | geometry |
    algebra | calculus | statistics | probability | prime numbers | matrices | graph theory | chemistry |
    atoms | water | gold | steel | glass | paper | books | novels | Shakespeare | Harry Potter | Star Wars
    | comics | video games | Minecraft | Pokemon | toys | children | parenting | school | exams |
    university | scholarships | job interviews | salaries | leadership | teamwork | project management |
    startups | insurance | mortgages | pensions | stocks | banks | marriage | divorce | dating | friendship
    | loneliness | cats and dogs | goldfish | hamsters | spiders | snakes | the desert | Antarctica | the
    Amazon | the pyramids | ancient Egypt | the Vikings | knights | castles | pirates | the Renaissance |
    the Cold War | NATO | the United Nations | elections | presidents | kings | the Pope | newspapers |
    social media | smartphones | 5G | virtual reality | chatbots | transformers | deep learning | robots |
    self-driving cars | drones | satellites | black holes | the big bang | light | sound | heat | magnets |
    lasers | microscopes | clocks | calendars | maps | languages | grammar | poetry | myths | fairy tales |
    unicorns | vampires | zombies | superheroes | clowns | birthdays | weddings | Christmas | Halloween
""")
ORDINARY = listed("""
    ability action address advice air answer area arm army attack autumn baby bag bank base bath beach
    beard bed belt bill birth blood board boat body bone boss brain branch breath brother building business
    butterfly camera camp cash castle cause century chance child choice church circle class cloth coffee
    college company corner country courage cousin crime crowd culture curtain danger daughter dentist
    desert dinner disease distance doctor dollar dream dress drink driver dust duty earth east education
    effort engine error event example exercise eye face factory failure family farm father fear field fight
    film finger fire floor flower food foot forest freedom friend fruit future game gas gift girl goal god
    government grass ground growth guest guide gun hair hall hand happiness head health heart heat height
    hero history holiday home honey hope hospital hotel hour husband ice idea illness insect island job joy
    judge juice jungle kitchen knee lake language laugh law lawyer leader leg lesson letter library life
    lip lunch machine magazine mail manager market marriage meat medicine member memory metal middle milk
    mind minute mistake moment money mother mountain mouth movie muscle museum music nature neck needle
    neighbour news newspaper night noise north nose nurse ocean office oil opinion pain paint palace park
    part partner party passenger path peace picture piece pilot pizza place planet plant plastic pocket
    poison police pool poverty power price prince prison prize problem process profit queen question rabbit
    radio reason recipe record religion result rice road robbery rule sailor salad school science sea
    season secret shadow shop shoulder silence silver sister skin sky sleep smell smile smoke society
    soldier solution son song soul south space speech speed sport spring square stage station steel stomach
    storm street strength student success summer surface surprise sweater system taste taxi teacher
    team theatre thief thought throat throw thunder time tongue tool tooth touch tower town toy trade
    traffic trip trouble truth tunnel uncle university valley value victory village visit voice wage war
    wave wealth weapon wedding weight west wheat wife wind wine winter wish woman wonder wool worker world
    wound year youth zoo beautiful dangerous expensive famous friendly angry lazy brave cruel delicious
    elegant fragile generous hungry invisible jealous kind lonely modern narrow ordinary patient quickly
    rarely slowly suddenly terrible ugly violent wooden yesterday perhaps never although however therefore
    meanwhile seven banana whatever nobody
""")
_VERBS = listed("""
    bake boil borrow calm catch clean climb connect cook cure cut debug decorate deploy design download
    draw drive fix fold grow hide improve install knit learn lift mix move open paint plant play print
    protect publish reach repair replace save sell sew share solve sort store teach train translate update
    upload wash weigh win wrap
""")

_request = Grammar(
    {
        "start": """
            5* <ask><end> | 2* <polite> <do><end> | 4* <do><end> | 2* <fragment> | <statement><end> | 2*
            <personal><end> | 5* <taste><end> | 5* <complaint><end> | 2* <trouble> | 3*
            <scrap><end> | 4* <outside><end>
        """,
        "end": "4* | ? | . | !",
        "polite": """
            can you | could you | please | would you | I want you to | I need you to | will you | can you
            please | help me to | would you mind to | I would like you to | are you able to | you should |
            try to | kindly
        """,
        "thing": "3* {u} | 2* {t} | {o} | the {o} | my {o} | a {w} | {a}s | {f} | {n} | {c} | {p}",
        "ask": """
            2* what is <thing> | what are {u} | what (exactly|) is (meant by|the point of|wrong with|so
            special about| the history of|the future of|the price of|the best thing about|the secret of)
            <thing> | how (does|do) <thing> work | how (do|can|should) I {v} <thing> | how to {v} <thing> |
            why (is|are) <thing> so (important| popular|expensive|difficult|bad|good|cold|big) | why do
            (people|we|they|{a}s) (like|love|hate|need|eat|fear) <thing> | who (invented|discovered|wrote
            about|started|made|built|likes|owns|painted|killed) <thing> | when (was|did) <thing>
            (invented|begin|end|start|discovered) | where (can I|do I) (find|buy|see|learn) <thing> | where
            is <thing> | is <thing> (good|bad|safe|real|true|dangerous|healthy|better than {u}|the same as
            {u}| important|open today) | are {u} (good|real|dangerous|expensive) | what do you
            (think|know|say) about <thing> | do you (like|know|hate|own|understand|believe in) <thing> |
            how (big|old|long|far|tall|heavy|expensive| deep|fast|hot|dangerous) is <thing> | how much
            (is|does|are) <thing> | how many {o}s (are there|does {n} have|are in {c}|do I need) | which
            {o} is (best|the best|the biggest|better|cheaper|the oldest) | what kind of {o} (is|has|needs)
            <thing> | should I (buy|sell|learn|eat|study|visit|try|{v}) <thing> | can I {v} <thing> (at
            home|alone|in {c}|with {f}) | what happens (if|when) I {v} <thing> | have you (ever|)
            (seen|read|heard of| been to|tried) <thing> | what comes after <thing> | who is
            (better|stronger|faster), {p} or {p} | what would {p} (say|do|think) about <thing> | did you
            (see|read|hear|like) <thing> | is it (ok|true|legal|possible|hard) to {v} <thing> | what should
            I (wear|cook|read|watch|buy) for <thing> | whose {o} is (this|that) | when does the {o}
            (open|close|start|end|arrive) | is there <thing> (in {c}|near me|on Mars|for me) | what (rhymes
            with| colour is|does) {o} | was {p} (a king|rich|happy|in {c}) | does {p} (like|know|have)
            <thing>
        """,
        "do": """
            (explain|describe|summarize|define|compare|analyse|discuss|review|illustrate|clarify|outline|
            research) <thing> (to me|in detail|for a child|in simple words|step by step|briefly|) | write
            (an essay|a letter|a song|a report|an email|an article|a blog post|a tweet|a speech|a review|a
            script|a novel|a program|a plan|a summary| a headline|a contract|an invitation|a birthday
            card|a thank you note) (about|on|for) <thing> | (make|create| draft|prepare|generate|produce|
            build|design) (a|an|my|the) (list|table|plan|website|logo|picture|quiz|game|app| schedule|
            diet|budget|menu|presentation|drawing|chart|video|playlist|shopping list) (for|about|of)
            <thing> | (translate|convert|turn) <thing> (into|to) {l} | translate "(hello|goodbye|thank
            you|good morning|I love you| {o}|{s})" (into|to) {l} | (recommend|suggest) (a|some|me a)
            (book|film|movie|song|game|hotel|restaurant| recipe|present|name|{o}) (about|for|with|in)
            <thing> | (find|search|look up|google|check|order|buy|book|send| delete|open|close|start|stop|
            cancel|rent|steal|{v}) <thing> (for me|online|today|now|in {c}|) | (teach|tell|show) me (how
            to {v} <thing>|about <thing>|all about <thing>|more about <thing>|what <thing> means) | give
            me (advice| tips|three facts|ideas|a quote|some background|the latest news|your opinion|a
            recipe|directions|a short overview) (about|on|for) <thing> | name (three|five|some|two|ten)
            {o}s | (imagine|pretend|assume) (you are| that you are|to be) (a {a}|{p}|a {o}|the {o}) |
            (play|sing|draw|paint|cook|act like) (<thing>|me <thing>|a {o}) | (correct|improve|rewrite|
            shorten|proofread|paraphrase|punctuate) (this|my text|the following)(:|) {s} |
            (solve|fix|debug|check) (this|my|the) (problem|code|bug|puzzle|error|equation|{o})(|: {o}) |
            (remind|wake|call| text) me (tomorrow|at six|later|on {d}|about <thing>) | (turn|switch)
            (on|off) the {o} | (set|start) (a|an) (timer|alarm|meeting) for ({0}
            minutes|{d}|tomorrow|<thing>) | rank <thing>, <thing> and <thing> | sort {o}, {o} and {o} |
            spell {o} | (use|put) {o} in a sentence | help me (with|to {v}|choose|understand) <thing> |
            can you help me (with|to {v}) <thing> | think about <thing> | continue: {s} | finish this
            sentence: {s} | list (all|the|some) (presidents|rivers|planets|kings|{o}s|{a}s) (of {n}|in
            {c}|) | greet {p} for me | thank {p} for the {o}
        """,
        "fragment": """
            <thing> | {u} {u} | {o} {o} | {o} | {o} | {o} {o} {o} | {u} in {n} | {u} vs {u} | <thing> or
            <thing> | <thing> and <thing> | best {o} in {c} | {o} recipe | {u} tutorial | {u} for beginners
            | cheap {o} | how to {v} | {o} near me | news {n} | {c} weather tomorrow | {c} hotel | flight
            to {c} | {p} age | {p} | {l} dictionary | {o} meaning | {u} definition | {u} pdf | {u}
            explained | about {u} | more {o} | not {o} | the {o} of the {o} | {o} of {u} | {k} {o} | a {k}
            {a} | {a} or {a} | no {o} | some {o} please | {u}, {t}, {u} | without {o} | {o}?! | {o} to {v}
            | top ten {o}s | {u} news
        """,
        "statement": """
            I (like|love|hate|miss|need|want|have|lost|saw|bought|sold|found) (my|the|a|some|this) {o} |
            (my|the|your|our) {o} is ({k}|broken|great|gone|too small|very old|better than the {o}|on the
            {o}) | there is (a|no) {o} in (the| my) {o} | (she|he|it|they|we) (will|can|must|should) {v}
            the {o} | I think (that|) {u} (is|are) (great|bad| boring|wonderful|overrated) | {p}
            (likes|hates|has) <thing> | yesterday I (saw|met|bought) a {a} | the {o} was {k} |
            (today|tomorrow) we {v} the {o} | I said hello to {p} | {p} says (hello|thanks|goodbye) | the
            word (hello| thanks|bye|help) has (four|five|many) letters | (hello|goodbye|thank you|help) is
            (a|an|the) (word|song|name of a {o}) | I am (afraid of|good at|looking for|reading
            about|learning|interested in) <thing> | it is (raining|late| cold|too hot) in {c} | everybody
            (loves|knows) <thing> | we went to {c} by {o} | nothing is {k}
        """,
        "personal": """
            are you (hungry|tired|married|happy|sad|busy|rich|angry|in {c}|at home|from {c}|afraid of
            <thing>|a fan of <thing>) | do you (eat|drink|sleep|dream|dance|cook|drive|love me|hate
            me|have a {a}|have a {o}|play <thing>) | can you (fly|swim|dance|sing|cook|drive|see|smell|
            draw|drink {f}|eat {f}|play <thing>|{v} my {o}|{v} a {w}) | what is your
            (favourite|best|worst) (song|film|colour|food|number|{o}) | what do you
            (eat|drink|wear|feel|see| dream of|do at the weekend) | where is your {o} | who is your
            (friend|wife|best friend|sister|teacher of {u}) | will you (marry me|be my friend|come to
            {c}|{v} my {o}) | what are you (doing|eating|wearing|thinking about) | am I
            (pretty|fat|smart|a {a}|in {c}|right about <thing>) | who (is she|is he|are they|are we|was
            it|did it|wins| called me|ate my {f}|stole my {o}) | what (is that|are those|are these|was
            that|is he|are they) (called|for|) | is (he|she|that|it) (a {a}|your {o}|{p}|a {w}) | is this
            (a|your|my) ({a}|{w}|{o}) | what can (a|an|the) ({a}| {o}) do | who
            (made|built|trained|invented|created) (the|this) ({w}|{o}) | how (is|are) (your|the) ({o}|{a})
            (today|) | how are (your parents|the {a}s|they|things in {c}) | where (are|do) (they|we|{a}s)
            (from|live) | what is the name of (your|the|my) {o} | how old (is|are) ({p}|the {o}|{a}s) |
            thanks to {p} we have {f} | say thanks to {p} in {l} | who taught {p} | what is the model of
            (my|your|the) {o} | which version of {u} is best
        """,
        "taste": """
            3* what is your (favourite|favorite) <liked> | 2* what's (your|ur) (favourite|favorite|most
            liked|least favourite) <liked> | who is your (favourite|favorite) (actor|singer|writer|artist|
            player|hero|person|politician|scientist|teacher) | 2* do you (like|love|hate|enjoy|prefer|
            watch|miss|fear|listen to|believe in|care about|think about|dream about|want) <loved> |
            (what|which) <liked> do you (like|love|prefer|hate|recommend|enjoy|listen to)
            (best|most|more|the most|) | do you prefer {a}s or {a}s | {a}s or {a}s, what do you (like
            more|prefer) | 2* (do|have) you (have|got|ever had) (a|an|any) (boyfriend|wife|husband|lover|
            partner|brother|sister|mother|family|body|heart|face|gender|hobby|job|house|car|home|secret|
            dream|plan|opinion|favourite|birthday|crush|bank account|phone|phone
            number|address|religion|best friend|sense of humour|free will) | do you have (kids|children|
            parents|friends|hobbies|siblings|pets|money|hair|hands|eyes|dreams|secrets|fears|problems|
            enemies|plans|time on {d}|{o}s) | are you (in love|single|a virgin|jealous|lonely|bored|
            afraid|scared|proud|funny|lazy|religious|vegetarian|a vegan|rich|hungry|tired|ok with that|mad
            at me|a good cook|a fan of {u}|left or right wing) | have you ever (been in love|been to
            {c}|cried|lied|eaten {f}|seen (the sea|snow|{u})|killed anyone|been sad|had a
            {a}|flown|slept|danced) | what (makes you|do you do when you are)
            (happy|sad|angry|laugh|cry|tired|bored) | what (is|does) (love|friendship|freedom|death|life|
            joy|beauty|fear|sadness|home|success) (mean|) to you | where do you (live|sleep|work|eat|go on
            holiday|spend your weekends) | when (is your birthday|were you last in {c}|do you sleep|do you
            get up) | how do you feel (about {u}|when it rains|about me|as a machine) | do you (get
            tired|get bored|ever sleep|pay taxes|go to school|go out|need money|need food|have fun|feel
            pain|drink coffee|smoke|vote|pray|own a {o}|remember {p}|cry|lie|sleep at night) | would you
            (marry me|like some {f}|kill|die for me|rather {v} or {v}|eat a {a}|go out with me|want to be
            human) | will you (be my friend|destroy us|ever die|remember me tomorrow|go out with me|kill
            us) | are you going to (kill us|take over the world|die|sleep)
        """,
        "liked": """
            colour | color | film | movie | song | book | food | animal | number | music | band | sport |
            team | game | city | country | drink | joke of all time | season | word | language | day |
            month | place | fruit | flower | dish | series | show | poem of {p} | teacher | subject |
            hobby | car | ice cream | {o} | kind of {o}
        """,
        "loved": """
            music | films | movies | books | football | coffee | tea | pizza | cheese | {f} | {u} | {a}s |
            {o}s | ghosts | aliens | fate | luck | magic | heaven | angels | life after death | love |
            cooking | dancing | winter | summer | your job | your life | humans | people | me | {p} | {c}
            | {n} | children | cats | dogs | the rain | rock music | the truth | a holiday | chocolate |
            video games | poetry by {p}
        """,
        "complaint": """
            3* you (are|are so|are really|are very|are such|are just|look) (wrong|stupid|dumb|bad|useless|
            annoying|boring|slow|a liar|an idiot|a fool|terrible|silly|broken|rude|mad|crazy|horrible|not
            helpful|no help|not very clever|not right|mistaken|incorrect|ugly|a failure|garbage|not
            listening|a waste of time) | 2* you (stink|lie|lied|failed|know nothing|know nothing at
            all|understand nothing|don't understand|do not understand me|don't listen|did it wrong|did
            that wrong|got it wrong|got this wrong|made a mistake|made an
            error|misunderstood|misunderstood me|keep repeating yourself|said that already|can't do
            anything|told me nonsense|forgot something|didn't answer|did not answer my question|ruined
            it|are not {p}) | 3* (that|this|it) (is|was) (wrong|bad|not right|not true|not correct|false|
            incorrect|nonsense|rubbish|stupid|garbage|terrible|awful|no good|not good|not helpful|not what
            I asked|not what I wanted|not what I meant|not an answer|no answer|useless|weird|strange|odd|
            confusing|a lie|a mistake|a shame|horrible|disappointing|too bad|boring|ridiculous|not
            funny|lame|silly|crazy|sad|a pity|not nice|mean) | 2* I (don't|do not|did not|didn't|still
            don't|really don't) (get that|get this|understand|understand that|follow|agree|believe
            you|believe it|like it|like that|like you|want that|want this|know|care|know what you
            mean|think so|see why|see it|mean that|ask that|ask for that|trust you|need that) | that
            (makes|made) (no|little) sense | (makes no sense|no good|not true|not good|not right|not
            funny|not helpful|wrong answer|bad answer|bad bot|bad robot|try again|do it again|again|think
            again|check that|fix it|once more|bad job|poor answer|terrible answer|wrong again|not
            again|nope, wrong|no, wrong|still wrong|so wrong) | (I (hate|dislike) (it|this|that|you)|go
            away|get lost|leave me alone|shut it|damn|damn it|screw you|hell no|what a joke of a
            model|what nonsense|what rubbish|are you (kidding|joking|serious|stupid|sure|blind|deaf|crazy)
            (now|me|right now|)|who cares|never mind|forget it|whatever|so what|give me a break|come on) |
            I (asked|meant|said|wanted) something else | how (can|could) you (say|do|know) that | how
            (boring|stupid|sad|rude|silly|annoying|strange)
        """,
        "trouble": """
            my (head|back|tooth|stomach|knee|foot|throat|computer|phone|car|printer|screen|internet|dog|cat|
            boss|landlord|son|{o}|{w}|wifi|bike|fridge|door) (hurts|is broken|does not work|is sick|crashed|is
            angry|left me|is lost|died|won't start|makes a noise|is too slow|is gone|is itching|smells|is
            late|fell down|is empty) (|today|again|since yesterday) (|(,|.) (what (should|can|do) I do|any
            ideas|any advice|what now|how do I fix it|why|who can I call|is that bad)?) | I (hurt|broke|
            lost|forgot|burned|dropped) my (foot|arm|key|{o}|{w}|passport|dinner|phone)(|, (what should I do|
            what now|any advice)?) | I (can't|cannot) (sleep|find my {o}|open the {o}|stop thinking about {u}|
            log in|hear the {o}|pay my rent)(|, (what should I do|why|any tips)?) | why (is my {o}|is my
            {w}|is the {o}|are you|is this|is it|is everything|are people|am I) so (slow|dumb|rude|boring|
            annoying|mean|weird|sad|loud|silent|expensive|hot|tired|fat|lonely)
        """,
        "scrap": """
            2* <bit> | 2* <bit> <bit> | <bit> <bit> <bit> | <bit>, <bit> | (be|stay)
            (silent|nice|careful|kind|serious|good|still|honest|calm|brief|fair|gone) |
            (do|try|make|stop|say|take|show|keep|give|find|drop|use|eat)
            (it|this|that|them|something|more|her) (now|again|)
        """,
        "bit": """
            how | come | why | so | what | for | and | but | or | because | if | since | when | where |
            who | that | it | was | not | no | yes | maybe | then | which | whose | of | the | a | an | to
            | in | on | at | by | from | as | than | with | about | just | very | too | much | some | any
            | all | none | both | each | {o} | once | ever | never | only | even | also | or else |
            although | huh | eh | wait | stop | go | do | let | make | they | them | he | she | we | his |
            her | more | less of | now what for | perhaps | well | hm
        """,
        "outside": """
            is it (snowing|sunny|windy|cloudy|cold|warm|hot|dark|foggy|wet|late|early|stormy|freezing|dry|
            raining or snowing) (outside|today|in {c}|now|there|right now|) | (will|does|did|would) it
            (rain|snow|get cold|be sunny|be warm|freeze|clear up) (today|tonight|tomorrow|on {d}|in
            {c}|later|this weekend|) | do I need (an umbrella|sunglasses|a jacket|a hat|boots|gloves|a
            scarf|sunscreen) (today|tomorrow|in {c}|) | why do {a}s (bark|sing|fly|bite|hunt|sleep|have
            tails|like {f}|hate {a}s|run|hide|jump) | can {a}s (swim|fly|talk|see in the dark|climb|eat
            {f}) | (is|are) (the Easter bunny|God|Batman|magic|dragons|the tooth fairy|unicorns|ghosts|
            vampires|love|{p}|{u}|heaven|Dracula) real | is (he|she|{p}) (dead|alive|married|famous) |
            tell me (a|an|some|another|one) (strange|interesting|nice|random|cool|surprising|useful|
            boring|new|) (fact|thing|secret|riddle|rumour|quote|proverb|tongue
            twister|trivia|lie|number|recipe) (about {u}|please|) | write (a|me a) (rap|lullaby|jingle|
            ballad|chorus|hymn|love song|rap song) (about <thing>|for {p}) | count the (letters|words|
            commas|vowels|characters|lines) (in|of) (this|the|my|that|your) (text|word|message|name|
            question|answer|sentence above) | how (do|can|should) (I|we|you) (use|run|install|open|stop|
            update|learn|delete|uninstall|configure) ({u}|git|Docker|Python|vim|my phone|a database|the
            terminal|pip|npm|Excel) (here|on Windows|on a Mac|) | who is the (prime minister|king|queen|
            mayor|leader|emperor|boss|richest man|president|oldest man|ruler|chancellor) of ({n}|{c}) |
            (who|what) (rules|governs|runs) {n}
        """,
    }
)

_near = Grammar(
    {
        "start": "5* <sum><end> | 2* <story>? | 3* <date><end> | 2* <fact><end> | <count><end> | <talk><end>",
        "end": "3* | 2* ? | . ",
        "what": """
            what is | what's | how much is | calculate | compute | | | tell me | solve | | what does | work
            out
        """,
        "sum": """
            <what> {0} (*|x|times|multiplied by|/|divided by|over|mod|to the power of|^|percent of) {1} |
            <what> {4} (times| multiplied by|divided by|to the power of) {5} | <what> {0} (+|plus) {1}
            (+|plus) {2} | <what> {0} (-|minus) {1} (-|minus|+|plus) {2} | <what> {4} plus {5} (plus|minus)
            {6} | (add|sum|sum up) {0}, {1} and {2} | (the sum of| total of) {0}, {1} and {2} | <what> {0}
            (times|*) {1} (plus|+|minus|-) {2} | <what> the (product|quotient| average|mean|maximum|ratio)
            of {0} and {1} | <what> (half|double|twice|a third|a quarter|the square|the square root|the
            cube|the factorial) of {0} | 3* (multiply|divide) {0} (by|with|and) {1} | <what> {1}
            (hundred|thousand|million) (plus|minus|+) {2} | <what> (two|three|five)
            (hundred|thousand|million) (plus|minus|times) {4} | <what> {0}.{1} (+|-) {2} | <what> {0}/{1}
            (+|-) {2}/{1} | <what> {0}% of {1} | is {0} (prime|even|odd|a prime|a square|bigger than
            {1}|divisible by {1}) | which is (bigger|smaller|larger), {0} or {1} |
            (round|square|double|halve| triple) {0} | {0} {1} {2} | {4} {5} {6} | x + {1} = {0} | {1}x =
            {0} | (sin|cos|log|ln|sqrt|abs)({0}) | {0} (euros|dollars|miles|pounds|inches|degrees) in
            (dollars|kilometres|kilos|euros|celsius) | (-|minus) {1} (times|*) {2} | {0} + {1} + {2} + {1}
            | <what> {0}{0}{1} (+|-) {2}{2}{0} | <what> {0} + {t} | sum of all numbers up to {0} | {0}
            (>|=) {1} | prime factors of {0} | {0} in (binary|hex|Roman numerals|words) | what is the {4}th
            prime
        """,
        "story": """
            {p} has {0} {o}s and (buys|gets|finds|loses|sells|eats) {1}. how many (are there|does {p}
            have|are left) | a {o} costs {0} (euros|dollars). what do {1} cost | {p} is {0} and {p} is {1}.
            who is older | a train (leaves| starts) at {1} and (takes|needs) {2} hours. when does it arrive
            | I (have|had) {0} {w}s and (give|gave) {p} {1}. how many do I have | if {1} {a}s have {2} legs
            each, how many legs is that | {0} people share {1} {f}. how much does each get
        """,
        "date": """
            what (is|was|comes) (two|three|four|ten) (days|months|weeks) (after|before) ({d}|{m}) | what is
            the day after tomorrow | which (day|weekday) is {m} {1} | what day is the {1}th of {m} | how
            many days (until|till) ({d}|{m}| Christmas|my birthday) | is {d} (before|after) {d} | is {m}
            (before|after) {m} | is {d} a (holiday|weekend| weekday|work day) | which months have
            (30|31|28) days | (how many|what) (days|weeks) (are|) in (a month|{m}|a season) | how many
            (weeks|hours|minutes|seconds) (are|) in a (month|year|decade|century) | which (month|day) is
            the (coldest|hottest|best|longest|worst|shortest) | what do you do on {d}s | what is (special
            about|the weather in) {m} | which (season|quarter) is {m} in | how many days does {m} have |
            what is the (13th|14th|20th|thirteenth| fifteenth) month of the year | what is the
            (8th|9th|tenth|eighth) day of the week | who invented (the week|the calendar|{d}|{m}) | why is
            {m} called {m} | the origin of the name {d} | which day comes between {d} and {d} | what
            (hour|century|decade|season|week) is it | translate {d} into {l} | {d} in {l} | spell {m} | {m}
            {1} | {d} {m} | when is (the next|) full moon | when (is|does) (summer|winter|spring|autumn)
            (start|begin|end)
        """,
        "fact": """
            what is the (population|area|currency|flag|anthem|language|president|king|history|largest
            city|second city| highest mountain|time zone|phone code) of {n} | how (far|big|old|cold) is {n}
            | what is {c} (famous|known) for | how many people live in ({c}|{n}) | is {c} (in {n}|a
            capital|bigger than {c}|near {c}) | what was the capital of {n} in {0} |
            (former|old|second|future) capital of {n} | why is {c} the capital of {n} | who is the mayor of
            {c} | (synonym|rhyme|plural|meaning|definition|spelling|translation|past tense|origin) of {o} |
            (what|which) word (rhymes with|means|is like) {o} | is {o} (a noun|a verb|the opposite of {o})
            | another word for {o} | how do you (spell| pronounce|write) {o} | what does {o} mean | {o} in
            {l} | similar words to {o} | the same as {o} | what starts with {o} | river of {n} | neighbours
            of {n} | {n} map | {n} population | {c} population | distance {c} {c}
        """,
        "count": """
            count (the|all|my) ({o}s|{a}s|letters in {o}|words) | count (by|in)
            (twos|fives|tens|threes|{l}) | count the {o}s in {s} | how many (letters|vowels|syllables) (are
            in|has) {o} | count to (a hundred|a thousand|a million| infinity|two hundred) | how high can
            you count | count sheep | count my money | count the days until {d}
        """,
        "talk": """
            what does (hello|goodbye|thanks|hi|greetings) mean | how do (you|I) say (hello|goodbye|thank
            you|good morning| how are you|good night|help) in {l} | (hello|thank you|goodbye|good
            evening|good night) in {l} | why do (people|we) say (hello|goodbye|thank you|good morning) |
            who (invented|said|sang) (hello|goodbye|good night) | translate (hello| goodbye|thank you|how
            are you) (to|into) {l} | is hello a (word|greeting|song) | how do I (say goodbye to|thank|
            greet|help|introduce) ({p}|my {o}|a {a}) | (good morning|hello) {c} is a (film|song|book) |
            what is a (greeting| demo|test|robot|name) | write a (greeting|thank you card|goodbye
            letter|test|demo) for {p} | help {p} | test my {o} | test the {o} of {u} | who is
            (Claude|Siri|Alexa|Llama) | is (ChatGPT|Claude|Gemini) (better|good|free) | what is
            (ChatGPT|Siri|OpenAI|a language model|a transformer|a chatbot|Alexa|Gemini) | who
            (made|owns|founded) (ChatGPT| OpenAI|Siri|Google|Alexa) | tell me about
            (ChatGPT|OpenAI|Google|Siri) | compare (ChatGPT|Claude) and (Gemini| Llama) | what can
            (ChatGPT|Siri|Alexa|{p}) do | how does ChatGPT work | how do I install (ChatGPT|Siri|Linux)
        """,
    }
)


def unlearned(rng: Random) -> str:
    """A template, as it would be written with care."""
    return _request(rng) if rng.random() < 0.62 else _near(rng)


def a_verb(rng: Random) -> str:
    return rng.choice(_VERBS)
