"""What is typed that asks for nothing: code, other languages, nonsense.

Slots as in `unlearned`.
"""

from __future__ import annotations

from random import Random

from demo.corpus import words
from demo.corpus.sample import listed, phrases

_CODE = phrases("""
    print({w}) | print("{s}") | def {w}({o}): | def {o}(x): return x * {1} | import {w} | from {w} import
    {o} | for {w} in range({0}): | while True: pass | if {w} == {0}: print({o}) | class {o}: pass | return
    {w} + {0} | {w} = {0} | {w} = [{0}, {1}, {2}] | let {w} = {0}; | const {w} = "{o}"; | var {w} = null; |
    function {w}() | console.log({0}) | int main() | #include <stdio.h> | public static void main | SELECT
    {w} FROM {o} | select * from {w} where {o} = {0} | DROP TABLE {o}; | git commit -m "{s}" | git push
    origin {w} | git status | docker run {w} | docker ps | ls -la | cd /home/{w} | rm -rf {w} | sudo apt
    install {w} | pip install {w} | npm install {o} | curl {w}.com | ssh {w}@{o} | cat {w}.txt | ping
    {w}.com | <html> | <div class="{w}"> | <b>{o}</b> | {w}.{o}() | {w}->{o} | {w}[{0}] | try: {w}() |
    lambda x: x + {1} | TypeError: {w} is not a function | segmentation fault | Error: {o} not found | 404
    not found | NullPointerException | exit code {0} | make: *** {w} | /etc/{w} | C:/{w}/{o} | {w}.py |
    {w}.json | 0x{0}f | x = {0}; y = {1} | assert {w} | printf("{w}"); | echo $HOME | chmod +x {w}.sh | {w}
    && {o} | i++ | a = b + {0} | fn main() | use std::{w}; | @{w} | #{o} | $ {w} | > {w} | // {s} | /* {o}
    */ | {w}: {o} | - {o} | * {w} | ## {o} | [{w}] | ({o}) | "{o}" | '{w}' | {w}_{o} | {w}-{o} | {w}/{o} |
    {w}={0}&{o}={1} | {0}px | {0}:{1} | {0}-{1}-{2}-{0} | v{0}.{1}.{2} | {0}.{1}.{2}.{1}
""")
_FOREIGN_WORDS = [
    listed(line)
    for line in phrases("""
    ich du der die das und ist nicht ein eine wo wie was warum Haus Hund Katze Wetter heute morgen bitte
    kann mir erklären schreibe Brot Wasser schön groß kaufen möchte über nach für helfen Stadt Schule
    Geschichte Buch | je tu le la les et est pas un une où comment pourquoi maison chien chat temps demain
    veux peux moi expliquer écris pain eau beau grand acheter avec pour dans ville école histoire livre
    aide combien quoi | yo tú el la los y es no un una dónde cómo por qué casa perro gato tiempo mañana
    quiero puedes explicar escribe pan agua hermoso grande comprar con para ciudad escuela historia libro
    ayuda cuánto dime | io tu il la gli e è non un una dove come perché casa cane gatto tempo domani voglio
    puoi spiegare scrivi pane acqua bello grande comprare con per città scuola storia libro aiuto quanto
    dimmi | ik jij de het en is niet een waar hoe waarom huis hond kat weer morgen wil kun uitleggen
    schrijf brood water mooi groot kopen met voor stad school verhaal boek hulp hoeveel vertel | eu você o
    a os e é não um uma onde como por que casa cachorro gato tempo amanhã quero pode explicar escreva pão
    água bonito grande comprar com para cidade escola história livro ajuda quanto | ja ty i jest nie gdzie
    jak dlaczego dom pies kot pogoda jutro chcę możesz napisz chleb woda piękny duży kupić z dla miasto
    szkoła historia książka pomoc ile powiedz | jag du och är inte en ett var hur varför hus hund katt
    väder imorgon vill kan förklara skriv bröd vatten vacker stor köpa med för stad skola historia bok
    hjälp berätta | ben sen ve bir nerede nasıl neden ev köpek kedi hava yarın istiyorum açıkla yaz ekmek
    su güzel büyük satın ile için şehir okul hikaye kitap yardım kaç söyle | я ты и это не где как почему
    дом собака кошка погода завтра хочу можешь напиши хлеб вода красивый большой купить с для город школа
    история книга помощь сколько скажи | mera tum aur hai nahi kahan kaise kyon ghar kutta billi mausam kal
    chahiye likho roti pani sundar bada shahar kitab madad kitna batao | watashi anata wa desu doko naze ie
    inu neko tenki ashita kudasai kaite pan mizu kirei ookii
    machi gakkou hon | 我 你 是 不 在 哪里 怎么 为什么 房子 狗 猫
    天气 明天 请 写 面包 水 漂亮 大 城市 学校 书 多少 | أنا أنت هو ليس أين كيف
    لماذا بيت كلب قطة الطقس غدا أريد اكتب خبز ماء
    جميل كبير مدينة مدرسة كتاب كم
""")
]
"""A row for each language: words that are put together without grammar."""
_KEYS = [
    "qwertyuiop",
    "asdfghjkl;",
    "zxcvbnm,.",
    "lkjhgfdsa",
    "1234567890",
    "!@#$%^&*()",
    "abcdefg",
    "poiuytrewq",
]
_BITS = listed("""
    bla blah foo bar baz hm uh um er meh pff tss ha haha hehe hihi lala nana zzz grr brr ugh oops hmm mhm
    nah nope yep yup yeah aha oh ah huh eh idk tbh lmao rofl xd omg wtf asap fyi imo nvm smh
""")
_EMOJI = "😀😂😍😭😡🐶🐱🍕🍎⚽🚗🏠🌞🌧🎉🔥💀❤👍🤖🦄"


def oddity(rng: Random) -> str:
    """Code, another language, nonsense: text that is typed as it stands."""
    roll = rng.random()
    if roll < 0.34:
        return rng.choice(_CODE)
    if roll < 0.66:
        row = rng.choice(_FOREIGN_WORDS)
        text = " ".join(rng.choice(row) for _ in range(rng.choice([2, 3, 3, 4, 5, 6])))
        text = text.lower() if rng.random() < 0.4 else text[0].upper() + text[1:]
        return text + rng.choice(["", "?", ".", "!", "?"])
    return _nonsense(rng)


def _nonsense(rng: Random) -> str:
    roll = rng.random()
    if roll < 0.25:
        row = rng.choice(_KEYS)
        start = rng.randrange(len(row) - 1)
        return row[start : start + rng.randint(2, 8)] * rng.choice([1, 1, 2])
    if roll < 0.4:
        return " ".join(rng.choice(_BITS) for _ in range(rng.choice([1, 1, 2, 3])))
    if roll < 0.5:
        return "".join(rng.choice(_EMOJI) for _ in range(rng.randint(1, 4)))
    if roll < 0.62:
        if rng.random() < 0.4:
            return rng.choice("?!.,-*") * rng.randint(1, 8)
        return "".join(rng.choice("?!.,;:-_/#*+=()[]%&~^$@") for _ in range(rng.randint(1, 5)))
    if roll < 0.7:
        return rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") * rng.choice(
            [1, 1, 2, 3, 6]
        )
    if roll < 0.8:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(rng.randint(5, 14)))
    return " ".join(words.invented(rng) for _ in range(rng.randint(1, 5))) + rng.choice(
        ["", "", "?", "!", "."]
    )
