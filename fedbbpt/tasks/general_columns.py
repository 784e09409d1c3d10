"""General columns of a readout: texts about everyday subjects, whose scores tell what an input is about.

A readout combines the scores of a task's class texts with those of further texts, which need not be about the task.
Both lists were written once, by thinking of subjects that texts are about and of ways in which one can feel about
them. No data set was looked at, and nothing was chosen by a result, so they favour no task. The words are common
English nouns and adjectives, because those are one token each in most vocabularies.
"""

GENERAL_WORDS: tuple[str, ...] = (
    *("person", "people", "man", "woman", "child", "family", "friend", "group", "name"),
    *("place", "city", "country", "world", "home", "street"),
    *("time", "year", "day", "age", "history", "number", "size", "money", "price"),
    *("thing", "word", "book", "music", "film", "art", "story", "game", "sport"),
    *("food", "animal", "plant", "water", "weather", "color", "body", "health", "disease"),
    *("science", "computer", "machine", "energy", "space", "car", "travel"),
    *("business", "work", "market", "school", "law", "government", "war", "religion"),
    *("question", "reason", "idea", "problem", "way", "use", "event"),
    *("good", "bad", "great", "terrible", "happy", "sad", "funny", "boring", "true", "false"),
)
"""Words for models that score one word after, or in, a template: masked, causal and encoder-decoder models."""

GENERAL_PHRASES: tuple[str, ...] = (
    # People
    *("a person", "a group of people", "family and friends", "children and parents", "a famous man or woman"),
    # Places
    *("a place or a country", "a city or a town", "a building or a house", "the sea, a river or a mountain"),
    # Time and amounts
    *("a date or a year", "a long time ago", "the future", "a number or an amount", "the size of something"),
    # Money and work
    *("money and prices", "business and companies", "the stock market", "a job or a career", "buying and selling"),
    # State and society
    *("politics and government", "laws and courts", "crime and police", "war and the military", "an election"),
    *("religion and belief", "the news of the day"),
    # Science and technology
    *("science and research", "computers and software", "the internet", "machines and engineering", "space and stars"),
    *("energy and fuel", "mathematics"),
    # Body and health
    *("health and medicine", "an illness or an injury", "the human body", "food and drink"),
    # Nature
    *("an animal", "a plant or a tree", "the weather", "the environment"),
    # Culture and leisure
    *("music and songs", "books and writers", "films and television", "art and painting", "sports and games"),
    *("a competition", "travel and holidays", "cars, trains and planes", "clothes and fashion", "a story"),
    # Learning and language
    *("school and education", "history", "the meaning of a word", "the name of something", "a foreign language"),
    # Forms of questions and statements
    *("how something works", "the reason for something", "a request for help", "a complaint", "an opinion", "a fact"),
    # Feelings and judgements
    *("good news", "bad news", "something beautiful", "something boring", "love and happiness", "anger or fear"),
)
"""Phrases for models that compare an input with a text: dual encoders of texts, and of images and texts."""
