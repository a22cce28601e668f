"""Questions in other languages, composed; the model has learned only English.

Slots as in `unlearned`.
"""

from __future__ import annotations

from demo.corpus.askings.grammar import Grammar

abroad = Grammar(
    {
        "start": "<german><end> | <french><end> | <spanish><end> | <italian><end> | <dutch><end>",
        "end": "3* ? | 2* | . | !",
        "german": """
            was (ist|macht|ergibt) {1} (plus|minus|mal|und) {2} | (was|wie viel) ist
            (zwei|drei|vier|fünf|zehn) (plus|minus|mal) (eins|zwei|drei|sechs) | (wie|was) (ist|heißt) die
            Hauptstadt von (Frankreich|Deutschland|Italien|Spanien|Polen|Japan) | (was|wer|wo|wie)
            (ist|bist|sind|war) (das|du|der Hund|die Zeit|das Wetter|mein Name|dein Name|er|ihr)
            (heute|morgen|hier|denn|) | (kannst du|bitte|ich möchte|willst du) (mir helfen|ein Gedicht
            schreiben|bis zehn zählen|einen Witz erzählen|das wiederholen|etwas sagen) | (ich heiße|mein
            Name ist|ich bin) {p} | (guten (Morgen|Abend|Tag)|danke|bitte|tschüss|auf Wiedersehen), (wie
            geht es dir|mein Freund|bis morgen|Computer) | welcher (Tag|Monat) (ist heute|kommt nach
            Montag|kommt vor Mai) | erzähl mir (eine Geschichte|etwas über {c}|einen Witz) | sag (mir|)
            (die Zeit|hallo|etwas)
        """,
        "french": """
            (combien font|que font) {1} (plus|moins|fois) {2} | quelle est la capitale (de la France|de
            l'Italie|de l'Espagne|du Japon|de la Pologne|du Canada) | (qui|où|que|comment|pourquoi)
            (es-tu|est-il|sont-ils|fais-tu|vas-tu|est le chat) | (peux-tu|pouvez-vous|je veux|il faut)
            (m'aider|écrire un poème|compter jusqu'à dix|raconter une blague|répéter cela) | (je
            m'appelle|je suis|mon nom est) {p} | (quel jour|quelle heure|quel temps)
            (sommes-nous|est-il|fait-il) (aujourd'hui|demain|à {c}|) | (bonjour|bonsoir|merci|au revoir),
            (ça va|mon ami|à demain|comment allez-vous) | qu'est-ce que (c'est|tu fais|tu peux faire|{c})
            | raconte-moi (une histoire|une blague)
        """,
        "spanish": """
            (cuánto|cuanto) es {1} (más|mas|menos|por) {2} | (cuál|cual) es la capital de (Francia|
            Alemania|Italia|España|México|Perú) | (quién|quien|dónde|donde|cómo|como|qué|que)
            (eres|estás|estas|haces|es esto|puedes hacer) | (puedes|quiero|necesito|por favor)
            (ayudarme|escribir un poema|contar hasta diez|contar un chiste|repetir esto|una historia) |
            (me llamo|soy|mi nombre es) {p} | (qué|que) (día|dia|hora|tiempo) (es|hace) (hoy|mañana|en
            {c}|) | (hola|buenos días|gracias|adiós), (cómo estás|mi amigo|hasta mañana|qué tal) |
            (háblame|hablame|dime algo) (de {c}|en español|sobre {p})
        """,
        "italian": """
            quanto fa {1} (più|piu|meno|per) {2} | qual è la capitale (della Francia|della
            Germania|dell'Italia|del Giappone) | (chi|dove|come|cosa|perché) (sei|stai|fai|è|puoi fare) |
            (puoi|voglio|per favore) (aiutarmi|scrivere una poesia|contare fino a dieci|raccontare una
            barzelletta|una storia) | (mi chiamo|sono|il mio nome è) {p} | che (giorno|ora|tempo) (è|fa)
            (oggi|domani|a {c}|) | (ciao|buongiorno|grazie|arrivederci), (come stai|amico mio|a domani)
        """,
        "dutch": """
            hoeveel is {1} (plus|min|keer|en) {2} | wat is de hoofdstad van
            (Frankrijk|Duitsland|België|Nederland) | (wie|waar|hoe|wat|waarom) (ben je|is dat|gaat het|doe
            je|kun je) | (kun je|ik wil|alsjeblieft) (mij helpen|een gedicht schrijven|tot tien tellen|een
            grap vertellen) | (ik heet|ik ben|mijn naam is) {p} | (goedemorgen|dank je|tot ziens|dag),
            (mijn vriend|tot morgen|hoe gaat het)
        """,
    }
)
